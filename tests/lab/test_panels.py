"""The pictures: what they draw is what was recorded, in the shape that bqplot takes without growing or flickering."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import bqplot as bq
import numpy as np
import pytest
import torch

from lab.panels import (
    AccuracyPanel,
    AlignmentPanel,
    AsymmetryPanel,
    CorrelationPanel,
    EffectiveRankPanel,
    LossPanel,
    PlanePanel,
    PredictorPanel,
    make_panels,
)
from lab.panels.base import round_up
from lab.view import EARLIER, ViewReader, earlier_numbers
from ssl_lab import RunConfig, RunStore, preset, theory
from ssl_lab.predictor import directcopy
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import Metrics


def some_spectrum(scale: float, d: int = 4) -> Spectrum:
    s = scale * 0.1 ** np.arange(d, dtype=float)
    return Spectrum(
        f_eigenvalues=s, wp_eigenvalues=np.sqrt(s / s[0]), alignment=np.linspace(1, 0.25, d),
        wp_diagonal=np.sqrt(s / s[0]), asymmetry=0.25 * scale, effective_rank=1.0 + scale,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with RunStore.create("run", preset("directpred"), tmp_path) as made:
        yield made


def fill(store: RunStore, steps: int = 40) -> None:
    store.add_metrics(Metrics(i, i / 11, -1 - i / 100, 0.0) for i in range(1, steps + 1))
    for i in range(1, steps + 1):
        store.add_spectrum(i, i / 11, some_spectrum(i / 10))
    store.add_evaluation(steps, "knn", 0.93)
    store.set_status(step=steps, epoch=steps / 11)


def test_earlier_moments_stay_where_they_are() -> None:
    assert earlier_numbers(1) == []
    assert earlier_numbers(5) == [1, 2, 3, 4]
    for newest in range(1, 500):
        numbers = earlier_numbers(newest)
        assert len(numbers) <= EARLIER
        assert all(number < newest for number in numbers)
        assert newest < 8 or len(numbers) >= EARLIER // 2
    # From one moment to the next the curves are kept, or every second one of them.
    for newest in range(8, 400):
        before, now = earlier_numbers(newest), earlier_numbers(newest + 1)
        assert set(before) <= set(now) or now == before[1::2] or set(now[:-1]) <= set(before)


def test_panels_of_an_empty_run_show_nothing_and_have_data(store: RunStore) -> None:
    view = ViewReader(store).read()
    for panel in make_panels():
        panel.update(view)
        for mark in panel.figure.marks:
            assert np.size(mark.x) > 0
        panel.close()
    assert view.words == "Getting ready."


def test_curves_by_index(store: RunStore) -> None:
    fill(store)
    view = ViewReader(store).read()
    newest = view.newest
    assert newest is not None
    assert newest.step == 40
    for panel, expected in (
        (CorrelationPanel(), newest.spectrum.f_eigenvalues),
        (PredictorPanel(), newest.spectrum.wp_eigenvalues),
        (AlignmentPanel(), newest.spectrum.alignment),
    ):
        panel.update(view)
        lines = panel.lines
        assert lines.visible
        assert lines.y.shape == (EARLIER + 1, 4)
        assert lines.y.dtype == np.float32
        assert lines.x.tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(lines.y[-1], expected, rtol=1e-6)
        # Older curves below, fainter and fainter.
        np.testing.assert_allclose(lines.y[-2], panel.values(view.earlier[-1].spectrum), rtol=1e-6)
        assert lines.opacities == sorted(lines.opacities)
        low, high = panel.y.min, panel.y.max
        assert low <= lines.y.min()
        assert lines.y.max() <= high * (1 + 1e-6)
        panel.close()


def plane_of(config: RunConfig, tmp_path: Path, spectrum: Spectrum | None = None, **knobs: Any) -> PlanePanel:
    """The plane of a run of one spectrum, whose knobs are turned so at its start."""
    with RunStore.create("plane", config, tmp_path) as made:
        made.add_spectrum(1, 0.1, spectrum or some_spectrum(2.0))
        made.set_status(step=1, knobs=config.knobs.changed(knobs))
        panel = PlanePanel()
        panel.update(ViewReader(made).read())
    return panel


def places(mark: bq.Scatter) -> list[tuple[float, float]]:
    """Where a mark's points are; none while it is hidden."""
    return list(zip(mark.x.tolist(), mark.y.tolist(), strict=True)) if mark.visible else []


def test_gain_by_direction(store: RunStore) -> None:
    fill(store)
    panel = PlanePanel()
    panel.update(ViewReader(store).read())
    np.testing.assert_allclose(panel.points.x, [1, 0.1, 0.01, 0.001], rtol=1e-5)
    np.testing.assert_allclose(panel.points.y, np.sqrt([1, 0.1, 0.01, 0.001]), rtol=1e-5)
    # The rule of the running mode: DirectPred's eps is .1.
    np.testing.assert_allclose(panel.rule.y, (np.sqrt(panel.rule.x) + 0.1) / 1.1, rtol=1e-5)
    assert not panel.stable.visible
    assert not panel.unstable.visible
    assert not panel.edge.visible
    assert "√(s / s₁) + ε" in panel.note.value
    panel.close()


@pytest.mark.parametrize("norm", ["fro", "spectral", "none"])
def test_directcopy_has_a_curve_of_its_own(norm: str, tmp_path: Path) -> None:
    """What is drawn is what the engine sets: points made by its rule lie on the line."""
    s = np.array([2.0, 0.7, 0.3, 0.01])
    wp = np.diag(directcopy(torch.diag(torch.tensor(s)), 0.3, norm).numpy())
    made = Spectrum(
        f_eigenvalues=s, wp_eigenvalues=wp, alignment=np.ones(4), wp_diagonal=wp, asymmetry=0.0, effective_rank=2.0
    )
    panel = plane_of(preset("directcopy"), tmp_path, made, norm=norm)
    expected = np.interp(panel.points.x, panel.rule.x, panel.rule.y)
    np.testing.assert_allclose(panel.points.y, expected, rtol=1e-5)
    panel.close()


def test_a_trained_predictor_has_the_theory_beside_it(tmp_path: Path) -> None:
    """In units of s+ and p+, with both predictor rates: the parabola, p- and the edge of the basin."""
    panel = plane_of(preset("byol-one-layer"), tmp_path, weight_decay=0.05, lr_predictor=0.06)
    found = theory.fixed_points(eta=0.05, sigma2=0.3, tau=1.0)
    assert found.p_plus == pytest.approx(0.715474, rel=1e-5)
    np.testing.assert_allclose(panel.rule.x, panel.rule.y**2, rtol=1e-5)
    share = found.p_minus / found.p_plus
    np.testing.assert_allclose(places(panel.stable), [(0, 0), (1, 1)], rtol=1e-6)
    np.testing.assert_allclose(places(panel.unstable), [(share**2, share)], rtol=1e-6)
    # Beyond, where any gain above 0 is learned, no edge is drawn.
    assert panel.edge.y.min() >= 0
    # The edge goes through p-, and its points are the theory's.
    s_plus = theory.parabola(found.p_plus, 2.0)
    s = np.array([0.0005, 0.001, 0.003])
    edge = theory.basin_edge(s, eta=0.05, sigma2=0.3, alpha_p=2.0, tau=1.0)
    assert (edge > 0).all()
    drawn = np.interp(s / s_plus, panel.edge.x, panel.edge.y)
    np.testing.assert_allclose(drawn, edge / found.p_plus, atol=0.01)
    assert np.interp(share**2, panel.edge.x, panel.edge.y) == pytest.approx(share, abs=0.01)
    for words in ("η = weight decay 0.05", "αp = 2", "σ² = 0.3", "τ = 1", "read it as a tendency"):
        assert words in panel.note.value
    panel.close()


def test_a_page_loads_no_integrator_for_an_edge_that_cannot_be_seen(tmp_path: Path) -> None:
    code = """
import sys
from lab.panels.plane import rule_of
from ssl_lab.config import preset
from ssl_lab.mapping import theory_of
import numpy as np
config = preset("byol")
rule = rule_of(theory_of(config, config.knobs), config.knobs, np.ones(4), absolute=False)
assert rule.edge is None and len(rule.unstable) == 1
assert not [name for name in sys.modules if name.split(".")[0] in ("scipy", "torch")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_the_theory_has_no_curve_for(tmp_path: Path) -> None:
    (collapse, none, frozen, optimal) = (tmp_path / name for name in ("collapse", "none", "frozen", "optimal"))
    # Beyond the critical decay, .192 at sigma2 = .3, only collapse is left.
    panel = plane_of(preset("byol"), collapse, weight_decay=0.2)
    assert places(panel.stable) == [(0, 0)]
    assert not panel.unstable.visible
    assert not panel.edge.visible
    assert "every mode collapses" in panel.note.value
    panel = plane_of(preset("byol"), tmp_path / "still", weight_decay=0.0)
    assert places(panel.stable) == [(1, 1)]
    assert places(panel.unstable) == [(0, 0)]
    panel = plane_of(preset("no-predictor"), none)
    assert set(panel.rule.y.tolist()) == {1.0}
    # A cosine's largest direction stands at 1 however small it becomes: only of the theory's own model is 0 a place.
    assert not panel.stable.visible
    assert "theorem 2" in panel.note.value
    panel = plane_of(preset("linear", dataset="gaussian"), tmp_path / "identity", predictor="none")
    assert places(panel.stable) == [(0, 1)]
    panel = plane_of(preset("byol"), tmp_path / "through", stop_gradient=False)
    assert not panel.rule.visible
    assert not panel.stable.visible
    assert "theorem 2" in panel.note.value
    panel = plane_of(preset("linear", dataset="gaussian"), tmp_path / "both", stop_gradient=False)
    assert places(panel.stable) == [(0, 0)]
    # Without augmentation and decay nothing pulls.
    panel = plane_of(preset("no-predictor"), tmp_path / "pulled", augmentation=0.0, weight_decay=0.0)
    assert "theorem 2" not in panel.note.value
    panel = plane_of(preset("byol"), frozen, lr_predictor=0.0)
    assert not panel.rule.visible
    assert not panel.stable.visible
    panel = plane_of(preset("optimal"), optimal)
    assert set(panel.rule.y.tolist()) == {1.0}
    assert "least squares" in panel.note.value


def test_the_linear_run_is_drawn_as_it_is(tmp_path: Path) -> None:
    config = preset("linear", dataset="gaussian")
    found = theory.fixed_points(eta=config.knobs.weight_decay, sigma2=0.3, tau=1.0)
    s = theory.parabola(np.array([0.7, 0.4, 0.1]))
    made = Spectrum(
        f_eigenvalues=1.3 * s, wp_eigenvalues=np.sqrt(s), alignment=np.ones(3), wp_diagonal=np.sqrt(s), asymmetry=0.0,
        effective_rank=2.0,
    )  # fmt: skip
    panel = plane_of(config, tmp_path, made)
    np.testing.assert_allclose(panel.points.x, s, rtol=1e-5)
    np.testing.assert_allclose(panel.points.y, [0.7, 0.4, 0.1], rtol=1e-5)
    np.testing.assert_allclose(places(panel.stable)[1], (found.p_plus**2, found.p_plus), rtol=1e-5)
    np.testing.assert_allclose(places(panel.unstable)[0], (found.p_minus**2, found.p_minus), rtol=1e-5)
    assert panel.x.max > found.p_plus**2
    assert panel.y.max > found.p_plus
    assert "exact but for the length of a step" in panel.note.value
    assert panel.axis_x.label == "s, eigenvalue of F over 1 + σ²"
    panel.close()


@pytest.mark.parametrize(
    ("kind", "last"),
    [(EffectiveRankPanel, 5.0), (AsymmetryPanel, 1.0), (LossPanel, -1.4), (AccuracyPanel, 93.0)],
)
def test_curves_over_steps(kind, last, store: RunStore) -> None:  # type: ignore[no-untyped-def]
    fill(store)
    panel = kind()
    panel.update(ViewReader(store).read())
    assert panel.line.visible
    assert panel.line.x[-1] == 40
    assert panel.line.y[-1] == pytest.approx(last, rel=1e-6)
    assert panel.x.max == 100
    assert panel.y.min <= panel.line.y.min()
    assert panel.line.y.max() <= panel.y.max
    assert not panel.marks.visible
    panel.close()


def test_a_distance_is_drawn_from_0_on_and_a_cosine_again_from_minus_2(store: RunStore, tmp_path: Path) -> None:
    fill(store)
    panel = LossPanel()
    with RunStore.create("linear", preset("linear"), tmp_path) as other:
        other.add_metrics(Metrics(i, i / 16, 0.3 + i / 100, 0.0) for i in range(1, 41))
        other.set_status(step=40, epoch=2.5)
        panel.update(ViewReader(other).read())
        assert (panel.y.min, panel.y.max) == (0.0, 0.75)
        assert "½" in panel.note.value
        accuracy = AccuracyPanel()
        accuracy.update(ViewReader(other).read())
        assert "no classes" in accuracy.note.value
    panel.update(ViewReader(store).read())
    assert (panel.y.min, panel.y.max) == (-2.05, -1.0)
    assert "−2" in panel.note.value
    accuracy.update(ViewReader(store).read())
    assert "nearest" in accuracy.note.value
    for each in (panel, accuracy):
        each.close()


def test_a_turned_knob_is_marked(store: RunStore) -> None:
    fill(store)
    reader, panel = ViewReader(store), LossPanel()
    store.add_event(12, {"ema": 0.9}, {"ema": 0.5}, "page")
    panel.update(reader.read())
    assert panel.marks.visible
    assert panel.marks.x.tolist() == [[12, 12], [12, 12]]
    assert panel.numbers.text.tolist() == ["1"]
    store.add_event(30, {"ema": 0.5}, {"ema": 0.1}, "page")
    panel.update(reader.read())
    assert panel.marks.x.tolist() == [[12, 12], [30, 30]]
    assert panel.marks.y.tolist() == [[0, 1], [0, 1]]
    panel.close()


def test_a_range_does_not_jump_at_every_tick() -> None:
    assert [round_up(v) for v in (0.0, 0.9, 1.0, 1.1, 1.6, 2.5, 80, 650)] == [1, 1, 1, 1.5, 2, 3, 100, 750]
