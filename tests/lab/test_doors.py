"""What a page may set of a bench's widgets, tried as a page does it: by messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bqplot as bq
import ipywidgets as w
import pytest

from lab import Bench
from lab.controls import guarded
from lab.doors import close_doors, doors, parts
from lab.files import MOST_IN, MOST_OFFERED, Files
from lab.house import House
from lab.panels import LossPanel
from ssl_lab import Knobs, Trainer
from ssl_lab.config import knob_range
from tests.lab.class_room import say, tell
from tests.lab.conftest import wait_for
from tests.lab.test_bench import ready, state
from tests.ssl_lab.conftest import small_config

NAN, INF = float("nan"), float("inf")
HOSTILE: list[Any] = [
    None, True, -1, 10**30, -(10**400), NAN, INF, -INF, 1e308, "", "x" * 10**6, "IPY_MODEL_1", [], [1, 2],
    ["x"] * 10**5, {}, {"run": 3}, {"a": {"b": {}}}, [[[]]], "../../etc", "\ud800",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(Trainer(small_config()), results=tmp_path_factory.mktemp("doors"))
    ready(bench)
    wait_for(lambda: "data-step='0'" in bench.headline.value)
    yield bench
    bench.close()


def usable(bench: Bench) -> None:
    """The publisher lives, and a press of Step is a step."""
    assert bench.publisher._thread.is_alive()
    tell(bench.browser, visible=True, alive=1)
    tell(bench.timeline, step=-1)
    wait_for(lambda: bench._actions.empty() and state(bench).state in ("paused", "failed"))
    before = state(bench).step
    say(bench.transport.step, {"event": "click"})
    wait_for(lambda: state(bench).step == before + 1 or state(bench).state == "failed")
    if state(bench).state == "failed":
        # Rates that are allowed, and too high.
        assert "the step was not applied" in state(bench).message
        name = bench._key
        say(bench.new, {"event": "click"})
        wait_for(lambda: bench._key != name and state(bench).state == "paused")
    wait_for(lambda: f"data-step='{state(bench).step}'" in bench.headline.value)
    for name in Knobs.model_fields:
        value, span = getattr(state(bench).knobs, name), knob_range(name)
        assert span is None or span[0] <= value <= span[1]


def test_all_but_a_few_traits_are_python_s(bench: Bench) -> None:
    found = list(parts(bench.widget))
    assert len(found) > 150
    assert bench.browser in found
    kinds = {type(widget) for widget in found if doors(widget)}
    assert {kind.__name__ for kind in kinds} == {
        "Browser", "Timeline", "Shelf", "Dropdown", "Checkbox", "BoundedIntText", "BoundedFloatText", "FloatSlider",
        "FloatLogSlider",
    }  # fmt: skip
    for widget in found:
        for name in widget.keys:
            if name in doors(widget) or name.startswith(("_model", "_view")):
                continue
            before = getattr(widget, name)
            tell(widget, **{name: 7})
            assert getattr(widget, name) is before, (widget, name)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_hostile_values_change_nothing_for_the_worse(value: Any, bench: Bench) -> None:
    for widget in parts(bench.widget):
        for name in doors(widget):
            if name not in ("visible", "key"):
                tell(widget, **{name: value})
    usable(bench)


def test_a_page_s_limits_are_its_own(bench: Bench) -> None:
    slider, log = bench.knobs.controls["augmentation"].control, bench.knobs.controls["lr"].control
    before = [(slider.min, slider.max), (log.min, log.max, log.base)]
    tell(slider, min=NAN, max=1e9, value=77.0, disabled=False)
    tell(log, base=0.0, min=-INF, max=300)
    tell(bench.preset, _options_labels=["a"] * 5, index=10**6)
    assert [(slider.min, slider.max), (log.min, log.max, log.base)] == before
    assert slider.value <= slider.max
    usable(bench)


MESSAGES: list[Any] = [
    *HOSTILE, {"open": None}, {"open": "x" * 10**6}, {"delete": ["a"]}, {"do": "fork", "step": "1"},
    {"do": "fork", "step": 1e9}, {"do": "fork", "step": True}, {"do": "undo", "event": 10**30}, {"ping": NAN},
    {"key": {}}, {"key": "delete"}, {"event": []},
]  # fmt: skip


@pytest.mark.parametrize("content", MESSAGES, ids=lambda value: repr(value)[:30])
def test_hostile_messages_change_nothing(content: Any, bench: Bench) -> None:
    store = bench.store
    for widget in (bench.browser, bench.timeline, bench.shelf, bench.files, bench.new, bench.transport.run):
        say(widget, content)
    usable(bench)
    assert bench.store is store


def test_a_ping_is_answered_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(bench.browser, "send", sent.append)
    say(bench.browser, {"ping": 3})
    assert sent == [{"pong": 3}]


def test_what_is_asked_for_is_bounded(bench: Bench) -> None:
    import threading

    busy, free = threading.Event(), threading.Event()
    bench._do(lambda: (busy.set(), free.wait(30))[0])
    assert busy.wait(30)
    for _ in range(2000):
        say(bench.shelf, {"open": "no-such-run"})
    assert bench._actions.qsize() <= 200
    assert "passed over" in bench._complaint
    free.set()
    usable(bench)


def test_a_control_that_stands_alone_keeps_its_value() -> None:
    slider = w.FloatSlider(value=0.5, min=0, max=1)
    close_doors([slider])
    for value in (NAN, "0.7", True, None, [0.7]):
        tell(slider, value=value)
        assert slider.value == 0.5
    tell(slider, value=0.75, max=5)
    assert (slider.value, slider.max) == (0.75, 1)
    slider.close()


# ---------------------------------------------------------------- files


def test_behind_closed_doors_a_control_is_still_guarded() -> None:
    slider = w.FloatSlider(value=0.2, max=1.0)
    lock = guarded(slider)
    close_doors([slider])
    seen: list[tuple[float, bool]] = []

    def free() -> bool:
        """Whether another thread could write the control now."""
        with ThreadPoolExecutor(1) as other:
            return other.submit(lock.acquire, False).result()

    slider.observe(lambda change: seen.append((change["new"], free())), names="value")
    slider.set_state({"value": 0.5, "max": 9.0})
    assert seen == [(0.5, False)]
    assert slider.max == 1.0
    assert free()


def test_the_bound_on_a_file_is_python_s(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(limit=1000)
    close_doors([files])
    said: list[Any] = []
    monkeypatch.setattr(files, "send", lambda content, **_: said.append(content))
    assert files.most_bytes == 1000
    tell(files, most_bytes=10**12)
    files.most_bytes = 10**12
    say(files, {"drop": 1, "name": "a", "size": 1001})
    files.pump()
    assert said[-1]["refused"] == 1
    files.close()


def test_what_lies_here_of_a_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(limit=1000)
    files.dropped = lambda path, name: None
    said: list[Any] = []
    monkeypatch.setattr(files, "send", lambda content, **_: said.append(content))

    def drop(number: int, size: int) -> bool:
        say(files, {"drop": number, "name": "a", "size": size})
        say(files, {"drop": number, "at": 0}, [b"x" * size])
        files.pump()
        return "refused" not in said[-1]

    assert drop(1, 600)
    assert not drop(2, 600)
    assert all(drop(number, 1) for number in range(3, MOST_IN + 2))
    assert not drop(99, 1)
    files.close()


def test_downloads_are_written_one_after_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offered: list[str] = []
    monkeypatch.setattr(bench.files, "offer", lambda name, *_: offered.append(name))
    bench.export._writing.acquire()
    bench._complaint = ""
    for _ in range(5):
        say(bench.export.download, {"event": "click"})
    wait_for(lambda: "still being written" in bench._complaint)
    bench.export._writing.release()
    monkeypatch.setattr(bench.files, "room_to_offer", lambda: False)
    say(bench.export.download, {"event": "click"})
    wait_for(lambda: "wait to be saved" in bench._complaint)
    assert offered == []
    path = tmp_path / "file"
    path.touch()
    files = Files()
    for place in range(MOST_OFFERED):
        assert files.room_to_offer(), place
        files.offer("a", "text/plain", path, remove=False)
    assert not files.room_to_offer()
    files.close()


# ---------------------------------------------------------------- a seat


def test_who_has_no_seat_makes_no_run(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    from ssl_lab.desk import EngineDesk

    desk = EngineDesk(tmp_path)
    assert desk.enter("somebody", 1)
    bench = open_bench(house=House(served=True, max_visitors=1))
    say(bench.new, {"event": "click"})
    tell(bench.browser, query={}, alive=1)
    wait_for(lambda: "The house is full" in bench.banner.value)
    say(bench.new, {"event": "click"})
    say(bench.shelf, {"open": "recording: collapse-and-return"})
    wait_for(lambda: bench._actions.empty())
    bench._tick(False)
    assert bench.store is None
    assert not list(tmp_path.glob("*/run.sqlite"))
    desk.close()


def test_what_comes_onto_a_picture_later_is_closed_too() -> None:
    panel = LossPanel()
    mark = bq.Label(x=[0], y=[0], text=["0"], scales={"x": panel.x, "y": panel.y}, visible=False)
    panel.add_mark(mark)
    tell(mark, visible=True, text=["<b>"])
    assert not mark.visible
    assert list(mark.text) == ["0"]
    panel.close()
