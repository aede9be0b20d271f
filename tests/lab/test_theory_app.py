"""The flow of the theory's page against the theory and against the loss itself; its lesson; the page's widgets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lab import Theory
from lab.publisher import UNSEEN
from lab.theory import flow as flow_module
from lab.theory.board import SPEEDS
from lab.theory.flow import (
    EVERY,
    MODES,
    MOST_STEPS,
    RANGES,
    SPAN,
    Flow,
    Settings,
    begin,
    edge,
    edge_of_start,
    follow,
    hessian,
    learned,
    rates,
    settled,
    target,
)
from lab.theory.lesson import QUESTIONS, Lesson
from lab.theory.pictures import gapped
from lab.theory.words import going_on, reasons
from ssl_lab import theory
from tests.lab.conftest import wait_for

Array = NDArray[np.float64]

WORLDS = [
    {},
    {"eta": 0.0},
    {"eta": 0.3},
    {"ema": True},
    {"ema": True, "beta": 0.01, "tau": 0.3},
    {"alpha_p": 10.0, "offset": 0.4, "gain": 1.1, "sigma2": 1.5},
    {"alpha_p": 0.1, "offset": 0.4, "gain": 1.1},
    {"eta": 0.01, "sigma2": 0.0},
]

# ---------------------------------------------------------------- the flow against the theory


@pytest.mark.parametrize("world", WORLDS)
def test_rates_are_those_of_the_theory(world: dict[str, Any]) -> None:
    at = Settings().turned(world)
    y = settled(np.abs(np.random.default_rng(0).normal(0.5, 0.3, (3, 9))) + 0.01, at)
    p, w, a = y
    dp, dw, da = rates(y, at)
    dp_there, ds_there, dtau_there = theory.mode_flow(
        p, w**2, a / w, sigma2=at.sigma2, eta=at.eta, alpha_p=at.alpha_p, beta=at.beta if at.ema else None
    )
    np.testing.assert_allclose(dp, dp_there, atol=1e-13)
    np.testing.assert_allclose(2 * w * dw, ds_there, atol=1e-13)
    np.testing.assert_allclose((da - a / w * dw) / w, dtau_there, atol=1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_a_path_is_that_of_the_theory(world: dict[str, Any]) -> None:
    at = Settings().turned(world)
    p, w, a = begin(at)
    times = np.linspace(0.0, SPAN, 400)
    there = theory.integrate_modes(
        p, w**2, a / w, times=times, sigma2=at.sigma2, eta=at.eta, alpha_p=at.alpha_p, beta=at.beta if at.ema else None
    )
    way = follow(begin(at), at)
    assert len(way.times) <= MOST_STEPS
    assert way.times[-1] == pytest.approx(SPAN)
    here = way.at(times)
    scale = max(1.0, float(there.s.max()))
    np.testing.assert_allclose(here[:, 0], there.p, atol=3e-5)
    np.testing.assert_allclose(here[:, 1] ** 2, there.s, atol=3e-5 * scale)
    alive = there.s > 1e-6
    np.testing.assert_allclose(target(here, 1e9)[alive], there.tau[alive] if at.ema else 1.0, rtol=1e-4)


def test_the_flow_keeps_theorem_1() -> None:
    at = Settings()
    way = follow(begin(at), at)
    c = theory.mode_invariant(way.states[:, 0], way.states[:, 1] ** 2, way.times[:, None], eta=at.eta)
    # exp(2 eta t) magnifies what the steps lose: compared where it has not yet.
    early = way.times < 30
    assert np.abs(c[early] - c[0]).max() < 1e-4


def loss(wp: Array, w: Array, wa: Array, x: Array, x_aug: Array) -> float:
    """1/2 E |Wp W x1 - Wa x2|^2 from the covariance of the two views, and nothing else."""
    views = np.block([[x + x_aug, x], [x, x + x_aug]])
    both = np.hstack([wp @ w, -wa])
    return float(np.trace(both @ views @ both.T)) / 2


def gradient(of: Callable[[Array], float], at: Array) -> Array:
    out = np.zeros_like(at)
    for i in np.ndindex(*at.shape):
        off = np.zeros_like(at)
        off[i] = 1e-5
        out[i] = (of(at + off) - of(at - off)) / 2e-5
    return out


@pytest.mark.parametrize(("stop_gradient", "predictor"), list(itertools.product((True, False), repeat=2)))
def test_rates_are_the_gradient_of_the_whole_loss(stop_gradient: bool, predictor: bool) -> None:
    at = Settings().turned({"stop_gradient": stop_gradient, "predictor": predictor, "alpha_p": 1.7, "sigma2": 0.4})
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    y = settled(rng.uniform(0.2, 1.2, (3, 4)), at)
    wp, w = (basis @ np.diag(part) @ basis.T for part in y[:2])
    x, x_aug = np.eye(4), at.sigma2 * np.eye(4)

    def of_w(there: Array) -> float:
        return loss(wp, there, w if stop_gradient else there, x, x_aug)

    dwp = -at.alpha_p * gradient(lambda there: loss(there, w, w, x, x_aug), wp) - at.eta * wp
    dw = -gradient(of_w, w) - at.eta * w
    dp_there, dw_there = (np.diag(basis.T @ part @ basis) for part in (dwp, dw))
    dp, dw_here, _ = rates(y, at)
    np.testing.assert_allclose(dw_here, dw_there, atol=1e-8)
    np.testing.assert_allclose(dp, dp_there if predictor else 0.0, atol=1e-8)
    # In the common basis nothing leaves it: the modes stay modes.
    assert np.abs(basis.T @ dw @ basis - np.diag(dw_there)).max() < 1e-8


def test_hessian_is_that_of_theorem_2() -> None:
    at = Settings().turned({"sigma2": 0.4})
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    p = np.array([0.1, 0.6, 1.1])
    wp, one = basis @ np.diag(p) @ basis.T, np.eye(3)
    h = np.kron(at.sigma2 * one, wp.T @ wp + one) + np.kron(one, (wp - one).T @ (wp - one)) + at.eta * np.eye(9)
    np.testing.assert_allclose(np.linalg.eigvalsh(h), np.sort(np.repeat(hessian(p, at), 3)), atol=1e-12)


@pytest.mark.parametrize("taken", [{"predictor": False}, {"stop_gradient": False}, {"predictor": False, "ema": True}])
def test_without_predictor_or_stop_gradient_everything_dies(taken: dict[str, Any]) -> None:
    flow = Flow()
    for _ in range(12):
        flow.advance(5.0)
    assert flow.learns.any()
    assert flow.turn(taken)
    assert not flow.learns.any()
    assert going_on(flow).startswith("Without ")
    s = flow.s.copy()
    for _ in range(100):
        flow.advance(5.0)
        if not flow.settings.follows:
            assert (flow.s <= s).all()
        s = flow.s.copy()
    assert flow.s.max() < 1e-4


def test_where_no_force_is_left_nothing_is_said_to_die() -> None:
    flow = Flow(Settings(eta=0.0, sigma2=0.0, predictor=False))
    assert flow.learns.all()
    assert "nothing pulls" in going_on(flow)
    assert flow.resting


def test_fates_are_those_of_long_paths() -> None:
    rng = np.random.default_rng(3)
    for _ in range(25):
        world = {name: float(rng.uniform(span.low, span.high)) for name, span in RANGES.items()}
        at = Settings().turned({**world, "eta": rng.uniform(0, 0.2), "ema": bool(rng.integers(2)), "beta": 0.2})
        p, w, a = begin(at)
        end = theory.integrate_modes(
            p, w**2, a / w, times=[0.0, 3000.0], sigma2=at.sigma2, eta=at.eta, alpha_p=at.alpha_p,
            beta=at.beta if at.ema else None,
        )  # fmt: skip
        rest = at.rest()
        lives = np.zeros(MODES, bool) if rest is None else np.abs(end.p[-1] - rest[1]) < 0.05
        assert (Flow(at).learns == lives).all(), at


@pytest.mark.parametrize(
    ("world", "dead"),
    [
        ({}, 0),
        ({"gain": 1.1, "offset": 0.4, "alpha_p": 10.0}, 1),
        ({"gain": 1.1, "offset": 0.4, "alpha_p": 10.0, "ema": True}, 1),
        ({"gain": 0.7, "offset": 0.4, "alpha_p": 10.0}, 0),
    ],
)
def test_without_decay_a_gain_far_above_the_learned_one_kills_slowly(world: dict[str, Any], dead: int) -> None:
    at = Settings().turned({**world, "eta": 0.0})
    flow = Flow(at)
    p, w, _ = begin(at)
    assert (~flow.learns).sum() == dead
    # What is kept along the way says it too: s at rest would be below 0.
    high = 1 / (1 + at.sigma2)
    assert (flow.learns == (w**2 + (high**2 - p**2) / at.alpha_p > 0)).all()
    found = theory.phase_map(p, w**2, sigma2=at.sigma2, eta=0.0, alpha_p=at.alpha_p, beta=_beta(at))
    assert (flow.learns == found.learned).all()


def _beta(at: Settings) -> float | None:
    return at.beta if at.ema else None


@pytest.mark.parametrize("world", [{}, {"eta": 0.12}, {"alpha_p": 4.0}, {"sigma2": 1.0, "eta": 0.02}])
def test_the_edge_parts_those_that_live_from_those_that_die(world: dict[str, Any]) -> None:
    at = Settings().turned(world)
    line = edge(at, 1.0, 1.2)
    assert line is not None
    rest = at.rest()
    assert rest is not None
    # It goes through the saddle.
    assert np.abs(line - [rest[0] ** 2 / at.alpha_p, rest[0]]).sum(axis=1).min() < 1e-2
    s, p = line[(line[:, 0] > 1e-5) & (line[:, 1] > 1e-3)].T
    w = np.sqrt(s)
    for share, lives in ((1.03, True), (0.97, False)):
        y = np.stack([p, w * share, w * share])
        assert (learned(follow(y, at).end, at) == lives).all()


@pytest.mark.parametrize("world", [{}, {"beta": 0.01}, {"tau": 0.4, "alpha_p": 3.0}])
def test_the_edge_with_an_ema_parts_them_too(world: dict[str, Any]) -> None:
    at = Settings().turned({**world, "ema": True})
    line = edge_of_start(at, 0.6 / at.alpha_p, 1.0)
    assert line is not None
    assert len(line) > 10
    w = np.sqrt(line[:, 0])
    for share, lives in ((1.1, True), (0.9, False)):
        y = np.stack([line[:, 1], share * w, share * w * at.tau])
        assert (learned(follow(y, at).end, at) == lives).all()
    assert edge_of_start(at.turned({"eta": 0.3}), 1.0, 1.2) is None


def test_with_an_ema_as_quick_as_can_be_the_edge_is_nearly_that_without() -> None:
    at = Settings(eta=0.1)
    plain, quick = edge(at, 0.1, 0.3), edge_of_start(at.turned({"ema": True, "beta": 1.0}), 0.1, 0.3)
    assert plain is not None
    assert quick is not None
    order = np.argsort(plain[:, 1])
    there = np.interp(quick[:, 1], plain[order, 1], plain[order, 0])
    np.testing.assert_allclose(quick[:, 0], there, rtol=0.25, atol=5e-4)


def test_no_edge_where_there_is_no_saddle() -> None:
    for world in ({"eta": 0.0}, {"eta": 0.3}, {"predictor": False}, {"stop_gradient": False}):
        assert edge(Settings().turned(world), 1.0, 1.2) is None


# ---------------------------------------------------------------- the flow under way


def test_time_goes_by_alike_in_small_and_large_steps() -> None:
    small, large = Flow(Settings(ema=True)), Flow(Settings(ema=True))
    for _ in range(1200):
        small.advance(0.2)
    for _ in range(4):
        large.advance(60.0)
    assert small.time == pytest.approx(large.time) == pytest.approx(240.0)
    np.testing.assert_allclose(small.now, large.now, atol=1e-4)
    p, w, a = begin(small.settings)
    there = theory.integrate_modes(p, w**2, a / w, times=[0.0, 240.0], sigma2=0.3, eta=0.05, beta=0.1)
    np.testing.assert_allclose(small.p, there.p[-1], atol=1e-4)


def test_what_was_stays_when_something_is_turned() -> None:
    flow = Flow()
    flow.advance(10.0)
    before = flow.states(np.linspace(0.0, 10.0, 21))
    flow.turn({"eta": 0.15})
    flow.advance(1.0)
    np.testing.assert_allclose(flow.states(np.linspace(0.0, 10.0, 21)), before, atol=1e-6)
    times, states = flow.way()
    assert times[0] == 0
    assert times[-1] == flow.time == 11.0
    assert (np.diff(times) <= EVERY + 1e-9).all()
    np.testing.assert_array_equal(states[-1], flow.now)


def test_turning_the_start_starts_again_and_turning_nothing_does_nothing() -> None:
    flow = Flow()
    flow.advance(10.0)
    assert not flow.turn({"eta": flow.settings.eta})
    assert flow.turn({"gain": 0.9})
    assert flow.time == 0
    assert flow.p.max() > 0.7


def test_taking_away_holds_p_and_a() -> None:
    flow = Flow(Settings(ema=True))
    flow.advance(10.0)
    assert np.abs(flow.tau - 1).max() > 0.01
    flow.turn({"ema": False})
    np.testing.assert_array_equal(flow.tau, 1.0)
    flow.turn({"predictor": False})
    np.testing.assert_array_equal(flow.p, 1.0)


def test_values_are_clamped_and_nothing_becomes_nan() -> None:
    at = Settings().turned({"eta": 1e9, "sigma2": -5.0, "beta": float("nan"), "unknown": 3, "ema": 1})
    assert (at.eta, at.sigma2, at.beta, at.ema) == (RANGES["eta"].high, 0.0, RANGES["beta"].low, True)
    ends = [(span.low, span.high) for span in RANGES.values()]
    for corner in itertools.product(*ends):
        for switches in itertools.product((True, False), repeat=3):
            world = dict(zip(RANGES, corner, strict=True))
            world |= dict(zip(("stop_gradient", "predictor", "ema"), switches, strict=True))
            at = Settings().turned(world)
            way = follow(begin(at), at, 20.0)
            assert np.isfinite(way.states).all(), world
            assert len(way.times) <= MOST_STEPS + 1
            line = edge(at, 1.0, 1.2)
            assert line is None or np.isfinite(line).all()
            assert all(len(pair) == 2 for pair in reasons(at).values())


# ---------------------------------------------------------------- the lesson


def verdict(number: int, choice: int, flow: Flow) -> dict[str, Any]:
    """Bets, has it shown, and lets time go by until the lesson says what came."""
    lesson = Lesson()
    lesson.bet(number, choice)
    lesson.look(flow)
    assert lesson.show(number, flow)
    for _ in range(2_000):
        flow.advance(0.5)
        lesson.look(flow)
        if lesson.state()[number]["verdict"]:
            return lesson.state()[number]
    raise AssertionError(lesson.state()[number])


@pytest.mark.parametrize(("number", "right"), [(0, 0), (1, 2), (2, 1), (3, 2)])
def test_verdicts_come_from_the_flow(number: int, right: int) -> None:
    assert verdict(number, right, Flow())["won"] is True
    wrong = verdict(number, (right + 1) % 3, Flow())
    assert wrong["won"] is False
    assert QUESTIONS[number].choices[right].lower() in wrong["verdict"]
    assert wrong["why"]
    assert wrong["equation"]
    json.dumps(wrong)


def test_of_modes_that_were_dead_already_nothing_is_said() -> None:
    flow, lesson = Flow(Settings(eta=0.5)), Lesson()
    for _ in range(100):
        flow.advance(1.0)
    assert flow.s.max() < 1e-6
    lesson.bet(0, 0)
    flow.turn({"eta": 0.0})
    for _ in range(200):
        flow.advance(0.5)
        lesson.look(flow)
    said = lesson.state()[0]
    assert not said["verdict"]
    assert "dead already" in json.dumps(said)


def test_a_flow_that_does_otherwise_gets_the_other_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: without a predictor w stands still, and with weight decay 0 what is small is pulled down.
    true_rates = rates

    def other(y: Array, at: Settings) -> Array:
        out = true_rates(y, at)
        if not at.predictor:
            return np.zeros_like(out)
        if at.eta == 0:
            out[:, y[0] < 0.1] = -0.2 * y[:, y[0] < 0.1]
        return out

    monkeypatch.setattr(flow_module, "rates", other)
    assert verdict(2, 0, Flow())["won"] is True
    monkeypatch.setattr("lab.theory.flow.learned", lambda y, at: y[1] > 1e-2)
    assert verdict(0, 1, Flow())["won"] is True


def test_the_lesson_waits_until_it_was_turned() -> None:
    lesson, flow = Lesson(), Flow()
    assert not lesson.show(2, flow)
    lesson.bet(9, 0)
    lesson.bet(2, 7)
    lesson.look(flow)
    assert not lesson.bets
    lesson.bet(1, 2)
    flow.turn({"eta": 0.25})
    lesson.look(flow)
    assert "No mode had learned" in lesson.state()[1]["says"]
    assert not lesson.state()[1]["verdict"]
    flow.turn({"eta": 0.05, "stop_gradient": False})
    lesson.look(flow)
    assert lesson.state()[1]["says"] == "Put predictor and stop-gradient back first."


def test_a_mode_that_was_learned_is_known_however_slowly_the_slider_is_dragged() -> None:
    lesson, flow = Lesson(), Flow()
    lesson.bet(1, 2)
    for _ in range(12):
        flow.advance(5.0)
    for eta in np.arange(0.06, 0.26, 0.005):
        flow.turn({"eta": eta})
        flow.advance(0.1)
        lesson.look(flow)
    for _ in range(400):
        flow.advance(0.5)
        lesson.look(flow)
    assert lesson.state()[1]["won"] is True


# ---------------------------------------------------------------- the page


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def page() -> Iterator[Theory]:
    """A page whose publisher is stopped: the test ticks."""
    clock = Clock()
    made = Theory(clock=clock)
    made.publisher.stop()
    made.browser.query = {}
    yield made
    made.close()


def tick(page: Theory, seconds: float = 0.1) -> bool:
    page._clock.now += seconds  # type: ignore[attr-defined]
    return page._tick(True)


def test_the_flow_waits_for_its_page() -> None:
    page = Theory()
    try:
        assert page.flow.time == 0
        assert not page._tick(True)
        page.browser.query = {}
        wait_for(lambda: page.flow.time > 0.5, 20)
    finally:
        page.close()


def test_time_goes_by_at_the_chosen_speed_until_paused(page: Theory) -> None:
    tick(page)
    before = page.flow.time
    assert tick(page, 0.1)
    assert page.flow.time - before == pytest.approx(0.1 * SPEEDS[1][1])
    page._do("toggle")
    tick(page)
    assert not page.board.playing
    stood = page.flow.time
    assert not tick(page)
    assert page.flow.time == stood
    page._do("step")
    assert tick(page)
    assert page.flow.time == stood + 5
    page._do("restart")
    tick(page, 0.0)
    assert page.flow.time == 0
    assert page.board.playing


def test_a_slider_moves_words_and_pictures(page: Theory) -> None:
    tick(page)
    curve, arrows = page.gains.curves[True].y.copy(), page.plane.field.x.copy()
    assert "p₊ = 0.715; below p₋ = 0.054" in page.words.value
    assert "Critical weight decay: 0.192" in page.words.value
    page.board.set_state({"values": {**page.board.values, "eta": 0.1}})
    assert tick(page, 0.0)
    assert "p₊ = 0.651; below p₋ = 0.118" in page.words.value
    assert not np.array_equal(page.gains.curves[True].y, curve, equal_nan=True)
    assert not np.array_equal(page.plane.field.x, arrows, equal_nan=True)
    page.board.set_state({"values": {**page.board.values, "eta": 0.25}})
    tick(page, 0.0)
    assert "All 12 modes die" in page.words.value
    assert not page.plane.edge.visible
    assert not page.plane.modes[True].visible
    assert len(page.plane.modes[True].x) > 0


def test_switches_say_why(page: Theory) -> None:
    page.board.set_state({"switches": {"stop_gradient": True, "predictor": False, "ema": False}})
    tick(page)
    assert "theorem 2" in page.board.why["predictor"][0]
    assert page.board.idle["alpha_p"]
    assert not page.plane.parabola.visible
    page.board.set_state({"switches": {"stop_gradient": True, "predictor": True, "ema": False}})
    tick(page)
    assert page.plane.parabola.visible


def test_a_bet_is_judged_on_the_page(page: Theory) -> None:
    page._on_bets(None, {"do": "bet", "question": 2, "choice": 1}, [])
    page._on_bets(None, {"do": "bet", "question": "x", "choice": 1}, [])
    page._on_bets(None, {"do": "bet", "question": 2, "choice": True}, [])
    page._on_bets(None, ["no"], [])
    tick(page)
    assert page.bets.questions[2]["bet"] == 1
    page._on_bets(None, {"do": "show", "question": 2}, [])
    for _ in range(600):
        tick(page, 0.2)
    assert page.board.switches["predictor"] is False
    assert page.bets.questions[2]["won"] is True


def test_a_page_sets_what_it_may_and_nothing_else(page: Theory) -> None:
    board = page.board
    before = board.get_state()
    for sent in (
        {"values": {"eta": "much"}}, {"values": {"eta": float("inf")}}, {"values": {"other": 1.0}}, {"values": [1]},
        {"switches": {"ema": 1}}, {"speed": 1e9}, {"speed": True}, {"groups": []}, {"why": {}}, {"playing": False},
        {"zoom": "yes"}, ["values"],
    ):  # fmt: skip
        board.set_state(sent)
        assert board.get_state() == before, sent
    page.bets.set_state({"questions": []})
    assert len(page.bets.questions) == len(QUESTIONS)
    board.set_state({"values": {"eta": 99.0}})
    tick(page)
    assert page.flow.settings.eta == RANGES["eta"].high


def test_the_page_is_told_that_the_kernel_lives(page: Theory, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(page.browser, "send", sent.append)
    page._on_key(None, {"ping": 4}, [])
    assert sent == [{"pong": 4}]
    page._on_key(None, {"key": "run_pause"}, [])
    tick(page)
    assert not page.playing


def test_a_screen_reader_gets_a_line_at_a_time(page: Theory) -> None:
    tick(page)
    first = page.browser.announce
    assert "modes learn" in first
    page.board.set_state({"values": {**page.board.values, "eta": 0.25}})
    tick(page)
    assert page.browser.announce == first
    tick(page, 10.0)
    assert "All 12 modes die" in page.browser.announce


def test_with_an_ema_the_edge_is_drawn_once_nothing_is_turned(page: Theory) -> None:
    tick(page)
    assert page.plane.edge.visible
    page.board.set_state({"switches": {"stop_gradient": True, "predictor": True, "ema": True}})
    tick(page)
    assert not page.plane.edge.visible
    tick(page, 0.1)
    assert not page.plane.edge.visible
    tick(page, 1.0)
    assert page.plane.edge.visible


def test_the_close_up_shows_the_saddle(page: Theory) -> None:
    tick(page)
    wide = page.plane.p_most
    page.board.set_state({"zoom": True})
    tick(page)
    rest = page.flow.settings.rest()
    assert rest is not None
    assert rest[0] < page.plane.p_most < wide / 3
    for mark in page.plane.modes.values():
        assert (np.asarray(mark.y) <= page.plane.p_most + 1e-6).all()


def test_a_line_with_gaps_ends_in_a_place() -> None:
    line = gapped(np.ones((3, 4)), np.array([True, False, True]))
    assert line.dtype == np.float32
    assert len(line) == 3 * 5 + 1
    assert np.isfinite(line[-1])
    assert np.isnan(line[5:10]).all()
    assert np.isnan(line[4])


def test_nobody_looks_and_the_kernel_rests(page: Theory) -> None:
    assert page.moving
    page.browser.visible = True
    page.publisher.round()
    assert page.publisher.round() < 0.5
    page.browser.visible = False
    page.publisher.round()
    time, drawn = page.flow.time, page.plane.widget
    # A tab that is hidden, or gone: else its kernel would never be idle, and never be culled.
    assert page.publisher.round() == UNSEEN
    assert (page.flow.time, page.plane.widget) == (time, drawn)
