"""The publisher's thread, without the thread: a page and a clock that are turned by hand."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import comm
import pytest

from lab import Bench
from lab.browser import Browser
from lab.pace import AHEAD, ASK_AGAIN, FRUGAL_TICK, SLOWEST, TICK, Pace, tick_here
from lab.publisher import GONE, SILENT, UNSEEN, Publisher
from ssl_lab import Trainer
from tests.lab.conftest import wait_for
from tests.ssl_lab.conftest import small_config


class Rig:
    """A publisher whose time passes only where a test says so, and a browser that paints in ``paints`` seconds."""

    def __init__(self, *, served: bool = False) -> None:
        self.now = 1000.0
        self.browser = Browser()
        self.paints: float | None = 0.04
        """None: it says nothing."""
        self.cost = 0.01
        self.news = True
        self.drawn: list[float] = []
        self.rounds = 0
        self.piled = 0
        self.most_piled = 0
        self.looks: list[float] = []
        self.publisher = Publisher(
            self.browser, self.tick, lambda: self.looks.append(self.now), clock=lambda: self.now, served=served
        )
        self._busy_until = 0.0
        self._waiting: list[tuple[float, int | None]] = []
        self._number = 0

    def tick(self, draw: bool) -> bool:
        self.rounds += 1
        if not draw:
            return False
        self.now += self.cost
        if self.news:
            self.drawn.append(self.now)
        return self.news

    def page_opens(self) -> None:
        self.browser.alive += 1
        self.browser.painted = self.browser.picture

    def _page_takes(self) -> None:
        """The page works off what it was sent, one picture after the other."""
        while self._waiting and self._waiting[0][0] <= self.now:
            _, number = self._waiting.pop(0)
            if number is not None:
                self.browser.painted = number

    def go(self, seconds: float, poke_every: float | None = None) -> list[float]:
        """Lets time pass as the thread does; gives when pictures were drawn."""
        begin, poke = self.now, self.now
        seen = len(self.drawn)
        until = begin + seconds
        while self.now < until:
            if poke_every is not None and self.now >= poke:
                self.publisher.poke()
                poke += poke_every
            before = len(self.drawn)
            rest = self.publisher.round()
            if len(self.drawn) > before and self.paints is not None:
                self._busy_until = max(self._busy_until, self.now) + self.paints
                number = self.browser.picture if self.browser.picture != self._number else None
                self._number = self.browser.picture
                self._waiting.append((self._busy_until, number))
                self.most_piled = max(self.most_piled, len(self._waiting))
            # The thread sleeps until the next round, a poke or an answer.
            wakes = [self.now + max(rest, 1e-4)]
            wakes += [poke] if poke_every is not None else []
            wakes += [when for when, number in self._waiting if number is not None]
            self.now = max(min(wakes), self.now + 1e-4)
            self._page_takes()
        return [when - begin for when in self.drawn[seen:]]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.browser.close()


def test_a_quick_browser_gets_a_picture_a_tick_and_is_asked_now_and_then(rig: Rig) -> None:
    rig.page_opens()
    drawn = rig.go(10.0)
    assert len(drawn) == pytest.approx(10.0 / TICK, abs=2)
    assert rig.most_piled == 1
    assert rig.browser.picture == pytest.approx(10.0 / ASK_AGAIN, rel=0.2)
    assert rig.browser.painted in (rig.browser.picture, rig.browser.picture - 1)


def test_a_bench_without_a_page_draws(rig: Rig) -> None:
    rig.paints = None
    assert len(rig.go(5.0)) == pytest.approx(5.0 / TICK, abs=2)


def test_a_slow_browser_gets_what_it_can_paint_and_half_of_its_time_is_its_own(rig: Rig) -> None:
    rig.page_opens()
    rig.paints = 0.6
    rig.go(5.0)
    rig.most_piled = 0
    drawn = rig.go(12.0)
    assert rig.most_piled == 1
    assert len(drawn) == pytest.approx(12.0 / 1.2, abs=2)
    # Quick again, it has its pictures back within seconds.
    rig.paints = 0.02
    rig.go(4.0)
    assert len(rig.go(2.0)) == pytest.approx(2.0 / TICK, abs=2)


def test_a_browser_that_becomes_slow_at_once_piles_up_a_handful(rig: Rig) -> None:
    rig.page_opens()
    rig.go(2.0)
    rig.paints = 5.0
    rig.go(2.0)
    assert rig.most_piled <= ASK_AGAIN / TICK + 2


def test_never_slower_than_the_bound(rig: Rig) -> None:
    rig.page_opens()
    rig.paints = 1.9
    rig.go(20.0)
    drawn = rig.go(20.0)
    assert max(b - a for a, b in itertools.pairwise(drawn)) <= SLOWEST + 0.1


def test_an_answer_that_is_lost_or_a_page_that_falls_silent_stops_nothing(rig: Rig) -> None:
    rig.page_opens()
    rig.go(1.0)
    rig.paints = None
    rig.go(2 * SLOWEST)
    drawn = rig.go(10 * SLOWEST)
    assert len(drawn) == pytest.approx(10, abs=1)
    rig.paints = 0.04
    rig.go(3 * SLOWEST)
    assert len(rig.go(2.0)) == pytest.approx(2.0 / TICK, abs=2)


def test_a_hand_on_a_knob_is_answered_at_once(rig: Rig) -> None:
    rig.page_opens()
    rig.paints = 0.8
    rig.go(6.0)
    # Just after a picture, while it is still on its way.
    while not rig.go(0.05):
        pass
    rig.publisher.poke()
    drawn = rig.go(0.05)
    assert len(drawn) == 1
    assert drawn[0] <= 2 * rig.cost + 1e-3


def test_a_poke_during_a_picture_is_not_lost(rig: Rig) -> None:
    rig.page_opens()
    rig.go(1.0)

    def poke_once(draw: bool) -> bool:
        if draw:
            rig.publisher.poke()
            rig.publisher._tick = rig.tick
        return rig.tick(draw)

    rig.publisher._tick = poke_once
    drawn = rig.go(TICK + 0.1)
    assert drawn[1] - drawn[0] == pytest.approx(2 * rig.cost, abs=0.01)


def test_dragging_on_a_slow_browser_piles_up_no_more_than_two(rig: Rig) -> None:
    rig.page_opens()
    rig.paints = 0.5
    rig.go(5.0)
    rig.most_piled = 0
    drawn = rig.go(6.0, poke_every=0.06)
    assert rig.most_piled <= AHEAD
    # As many as it can paint.
    assert len(drawn) >= 0.9 * 6.0 / 0.5


def test_dragging_on_a_quick_browser_leaves_half_of_the_time(rig: Rig) -> None:
    rig.page_opens()
    rig.paints, rig.cost = 0.01, 0.05
    drawn = rig.go(3.0, poke_every=0.02)
    assert len(drawn) == pytest.approx(3.0 / 0.1, rel=0.15)


def test_a_slow_kernel_draws_for_a_quarter_of_its_time(rig: Rig) -> None:
    rig.page_opens()
    rig.cost = 0.2
    assert len(rig.go(8.0)) == pytest.approx(10, abs=1)


def test_a_hidden_tab_gets_nothing_and_one_that_is_back_gets_a_picture_at_once(rig: Rig) -> None:
    rig.page_opens()
    rig.paints = 0.8
    rig.go(5.0)
    rig.browser.visible = False
    # A hidden tab paints nothing, so that its last answer does not come.
    rig._waiting.clear()
    rounds = rig.rounds
    assert rig.go(30.0) == []
    assert rig.rounds - rounds <= 30.0 / UNSEEN + 2
    # What is asked for in between is owed, and done without a picture.
    rig.publisher.poke()
    assert rig.go(2.0) == []
    rig.paints = 0.04
    rig.browser.visible = True
    drawn = rig.go(3.0)
    assert drawn[0] <= 2 * rig.cost
    assert len(drawn) == pytest.approx(3.0 / TICK, abs=2)


def test_a_page_that_is_gone_gets_nothing_until_it_is_heard_of(rig: Rig) -> None:
    rig.page_opens()
    rig.go(GONE + SLOWEST)
    assert rig.go(10.0) == []
    rig.browser.alive += 1
    assert rig.go(0.1)


@pytest.fixture
def served() -> Iterator[Rig]:
    rig = Rig(served=True)
    yield rig
    rig.browser.close()


def test_a_page_in_front_that_falls_silent_is_gone_in_seconds(served: Rig) -> None:
    served.page_opens()
    assert served.go(SILENT - 1.0)
    served.go(2.0)
    published, looked = served.go(60.0), [when for when in served.looks if when > 1000.0 + SILENT + 1.0]
    assert published == []
    assert looked == []
    # It is back, say from a laptop's sleep.
    served.browser.alive += 1
    assert served.go(0.1)


def test_a_hidden_page_that_beats_once_a_minute_is_here_and_gets_nothing(served: Rig) -> None:
    served.page_opens()
    served.go(1.0)
    served.browser.visible = False
    served.go(1.0)
    for _ in range(5):
        assert served.go(60.0) == []
        assert served.now - served.looks[-1] < 5.0
        served.browser.alive += 1
    assert served.go(GONE + 5.0) == []
    seen = len(served.looks)
    served.go(60.0)
    assert len(served.looks) == seen


def test_a_page_that_was_never_heard_of_is_not_there_where_pages_are_served(served: Rig) -> None:
    served.go(SILENT + 1.0)
    seen = len(served.looks)
    assert served.go(60.0) == []
    assert len(served.looks) == seen
    served.browser.query = {}
    assert served.go(1.0)


def test_without_news_there_is_no_picture_to_answer(rig: Rig) -> None:
    rig.page_opens()
    rig.go(1.0)
    number = rig.browser.picture
    rig.news = False
    rig.go(5.0)
    assert rig.browser.picture == number


def test_a_tick_that_fails_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    twice = threading.Event()

    def tick(_draw: bool) -> bool:
        if "could not be drawn" in caplog.text:
            twice.set()
            return False
        raise RuntimeError("no picture")

    browser = Browser()
    publisher = Publisher(browser, tick)
    publisher.start()
    publisher.poke()
    assert twice.wait(30.0)
    publisher.stop()
    browser.close()


def test_answers_to_what_nobody_sent_do_no_harm() -> None:
    pace = Pace(lambda: 5.0)
    for number in (99, -5, 0):
        pace.answered(number)
        assert pace.wait(False) == 0.0
    assert pace.sent() == 1


# ---------------------------------------------------------------- what a bench sends


class Wire:
    """Counts the messages to the page, and their bytes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    def publish(self, msg_type: str, data: Any = None, buffers: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg":
            size = len(str(data)) + sum(memoryview(buffer).nbytes for buffer in buffers or ())
            self.sent.append((",".join(sorted(data.get("state", data))), size))

    def during(self, act: Callable[[], Any]) -> list[tuple[str, int]]:
        """What is sent meanwhile."""
        self.sent.clear()
        act()
        return list(self.sent)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(comm.DummyComm, "publish_msg", lambda _comm, *words, **more: wire.publish(*words, **more))
    return wire


def test_only_what_changed_is_sent(open_bench: Callable[..., Bench], wire: Wire) -> None:
    bench = open_bench(Trainer(small_config()))
    wait_for(lambda: bench.store is not None and bench.store.status().state == "paused")
    bench.publisher.stop()
    store = bench.store
    assert store is not None
    tick = bench._tick
    bench.transport.run.click()
    wait_for(lambda: store.last_step() > 1500)
    tick(True)
    running = []
    for _ in range(12):
        step = store.last_step()
        wait_for(lambda step=step: store.last_step() > step)
        running.append(wire.during(lambda: tick(True)))
    # Where an axis moves, as it often does in a short run, there are more; most of the time there are about ten.
    counts = sorted(len(sent) for sent in running)
    assert counts[len(counts) // 2] <= 15, [[n for n, _ in s] for s in running]
    assert counts[-1] <= 40, running
    assert all(sum(size for _, size in sent) < 40_000 for sent in running)

    step = store.last_step()
    wait_for(lambda: store.last_step() > step + 10)
    assert [wire.during(lambda: tick(False)) for _ in range(5)] == [[]] * 5

    bench.transport.pause.click()
    wait_for(lambda: store.status().state == "paused" and not store.waiting())
    bench._shelf_due = 0.0
    assert wire.during(lambda: tick(True))
    bench._shelf_due = bench.said._read_time = 0.0
    tick(True)
    for _ in range(5):
        bench._shelf_due = 0.0
        assert wire.during(lambda: tick(True)) == []
    # A run that stands: a knob is turned, and what is sent is the knob, not the pictures' curves anew.
    bench._send("set", {"ema": 0.5})
    wait_for(lambda: len(store.events()) == 1 and not store.waiting())
    sent = wire.during(lambda: [tick(True), tick(True)])
    assert 0 < len(sent) <= 15
    bench._shelf_due = 0.0
    assert wire.during(lambda: tick(True)) == []


def test_what_the_page_says_of_itself_is_not_sent_back(wire: Wire) -> None:
    browser = Browser()
    said = {"alive": 3, "visible": False, "query": {"run": "a"}, "key": "secret", "painted": 2}
    data = {"method": "update", "state": said}
    assert wire.during(lambda: browser._handle_msg({"content": {"data": data}, "buffers": []})) == []
    assert (browser.alive, browser.query, browser.key) == (3, {"run": "a"}, None)
    browser.close()


def test_a_picture_waits_a_moment_for_the_answer_to_a_command(open_bench: Callable[..., Bench]) -> None:
    bench = open_bench(Trainer(small_config()))
    wait_for(lambda: bench.store is not None and bench.store.status().state == "paused")
    bench.publisher.stop()
    store = bench.store
    assert store is not None
    bench._host.close()
    number = store.send("set", {"ema": 0.5})
    bench._await(store, number)
    bench.publisher._asked = False
    assert bench._tick(True) is False
    assert bench.publisher.soon is not None
    assert not bench.publisher._asked
    store.answer(store.command(number), 0)
    bench._tick(False)
    assert bench.publisher._asked
    assert bench.publisher.soon is None
    # One that nobody takes keeps no picture waiting.
    bench.publisher._asked = False
    bench._awaited = (store, store.send("set", {"ema": 0.6}), 0.0)
    bench._tick(False)
    assert bench.publisher._asked
    # Nor one of a run that is not on the page any more.
    bench._awaited = (None, 12345, float("inf"))  # type: ignore[assignment]
    bench._tick(True)
    assert bench._awaited is None


def test_few_cores_are_shared_with_fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, tick in ((1, FRUGAL_TICK), (2, FRUGAL_TICK), (4, TICK)):
        monkeypatch.setattr("lab.pace.usable_cores", lambda cores=cores: cores)
        assert tick_here() == tick
    now = [0.0]
    pace = Pace(lambda: now[0], FRUGAL_TICK)
    pace.took(0.0)
    assert pace.wait(False) == pytest.approx(FRUGAL_TICK)
    assert pace.wait(True) == 0, "what is asked for comes at once"
