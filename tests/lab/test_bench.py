"""The bench in process: a trainer in a thread, and a run in a real engine process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import Bench
from ssl_lab import RunStore, Trainer, preset
from ssl_lab.desk import EngineDesk
from ssl_lab.errors import SSLLabError
from ssl_lab.loop import drive
from ssl_lab.store import open_run
from tests.lab.class_room import make_run, trace
from tests.lab.conftest import end_engine, wait_for
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]


def state(bench: Bench) -> Any:
    assert bench.store is not None
    return bench.store.status()


def ready(bench: Bench) -> None:
    wait_for(lambda: bench.store is not None and state(bench).state in ("paused", "running"))


def test_importing_the_bench_does_not_import_torch() -> None:
    code = "import sys; from lab import Bench; assert 'torch' not in sys.modules; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trainer_in_a_thread(open_bench: Open) -> None:
    trainer, twin = Trainer(small_config()), Trainer(small_config())
    bench = open_bench(trainer)
    ready(bench)
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10 and state(bench).state == "paused")
    bench.knobs.controls["predictor"].control.value = "none"
    bench.knobs.controls["ema"].control.value = 0.5
    wait_for(lambda: len(bench.store.events()) == 2)  # type: ignore[union-attr]
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 20 and state(bench).state == "paused")
    assert trainer.step_count == 20
    assert bench.store is not None
    expected = [twin.step().loss for _ in range(10)]
    twin.set(predictor="none", ema=0.5)
    expected += [twin.step().loss for _ in range(10)]
    assert bench.store.losses().tolist() == expected
    # The page: events in words, the engine's values, the number of steps, a marker in each picture over time.
    wait_for(lambda: [row["number"] for row in bench.timeline.events] == [2, 1])
    assert bench.timeline.events[1] == {"number": 1, "step": 10, "text": "predictor directpred → none"}
    wait_for(lambda: bench.timeline.last == 20 and bench.timeline.checkpoints[:1] == [10])
    wait_for(lambda: "data-step='20'" in bench.headline.value)
    assert bench.banner.value == ""
    wait_for(lambda: "data-value='0.5'" in bench.knobs.controls["ema"].engine.value)
    marked = [panel.marks for panel in bench.panels if hasattr(panel, "marks")]
    assert len(marked) == 4
    wait_for(lambda: all(mark.visible and mark.x[-1].tolist() == [10, 10] for mark in marked))
    newest = bench.store.newest_spectrum()
    assert newest is not None
    wait_for(lambda: np.allclose(bench.panels[0].lines.y[-1], newest.spectrum.f_eigenvalues, rtol=1e-5))
    assert "No effect now" in bench.knobs.controls["lr_predictor"].help.value


def test_a_cell_that_is_run_again_takes_the_trainer_over(open_bench: Open) -> None:
    trainer, twin = Trainer(small_config()), Trainer(small_config())
    first = open_bench(trainer)
    ready(first)
    first.transport.run.click()
    wait_for(lambda: trainer.step_count > 5)
    second = open_bench(trainer)
    ready(second)
    done = trainer.step_count
    second.transport.step10.click()
    wait_for(lambda: state(second).step == done + 10 and state(second).state == "paused")
    assert second.store is not None
    expected = [twin.step().loss for _ in range(done + 10)]
    assert second.store.losses().tolist() == expected[done:]
    # A new run ends the thread of the one before it.
    second.new.click()
    wait_for(lambda: second.store.name == "directpred-3" and state(second).state == "paused")  # type: ignore[union-attr]
    assert trainer.driver.acquire(timeout=10)
    trainer.driver.release()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, open_bench: Open) -> None:
    bench = open_bench()
    (tmp_path / "directpred-1").write_text("a file where the run's folder should be")
    bench._actions.put(lambda: bench._attach(RunStore.create("directpred-1", preset("byol"), tmp_path)))
    wait_for(lambda: "role='alert'" in bench.banner.value and "directpred-1" in bench.banner.value)


def test_what_the_engine_refuses_is_on_the_page(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench.knobs._send("set", {"lr": -3.0})
    wait_for(lambda: "&#x27;lr&#x27; cannot be -3.0" in bench.banner.value)
    assert "role='alert'" in bench.banner.value
    assert state(bench).knobs.lr == 0.03


def test_a_knob_that_the_engine_refuses_goes_back(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    control = bench.knobs.controls["augmentation"].control
    control.max = 99.0  # the browser's word only
    control.value = 50.0
    wait_for(lambda: "augmentation" in bench.banner.value)
    wait_for(lambda: control.value == 1.0)


def test_new_runs_and_reset(open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10)
    first = bench.store.name  # type: ignore[union-attr]
    bench.reset.click()
    wait_for(lambda: bench.store.name != first and state(bench).state == "paused")  # type: ignore[union-attr]
    assert state(bench).step == 0
    wait_for(lambda: "data-step='0'" in bench.headline.value)
    with open_run(first, tmp_path) as old:
        assert old.last_step() == 10
    bench.preset.value = "byol"
    bench.new.click()
    wait_for(lambda: bench.store.name == "byol-1" and state(bench).state == "paused")  # type: ignore[union-attr]
    wait_for(lambda: bench.knobs.controls["predictor"].control.value == "mlp")
    assert bench.browser.run == "byol-1"
    # A preset that is about a data set comes with it.
    assert bench.dataset.value == "digits"
    bench.preset.value = "linear"
    bench.new.click()
    wait_for(lambda: bench.store.name == "linear-1" and state(bench).state == "paused")  # type: ignore[union-attr]
    wait_for(lambda: bench.dataset.value == "gaussian")


def test_missing_data_is_said_on_the_page(open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "pictures"
    (broken / "train").mkdir(parents=True)
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench._actions.put(lambda: bench._begin(preset("byol", dataset=str(broken))))
    wait_for(lambda: bench.store.name == "byol-1" and state(bench).state == "failed")  # type: ignore[union-attr]
    wait_for(lambda: "role='alert'" in bench.banner.value and "pictures" in bench.banner.value)


def test_the_keyboard(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench._on_key(bench.browser, {"key": "step"}, [])
    wait_for(lambda: state(bench).step == 1 and state(bench).state == "paused")
    bench._on_key(bench.browser, {"key": "run_pause"}, [])
    wait_for(lambda: state(bench).step > 5)
    bench._on_key(bench.browser, {"key": "run_pause"}, [])
    wait_for(lambda: state(bench).state == "paused")


def test_nothing_is_written_to_a_hidden_page(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    wait_for(lambda: "data-step='0'" in bench.headline.value)
    bench.browser.visible = False
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10)
    assert "data-step='0'" in bench.headline.value
    bench.browser.visible = True
    wait_for(lambda: "data-step='10'" in bench.headline.value)


def test_a_run_in_the_engine_process(open_bench: Open, tmp_path: Path) -> None:
    """The whole way of a page under Voila: engine start, steps, knobs, reload, a killed engine, a full house."""
    bench = open_bench()
    bench.browser.query = {}  # the page is there
    ready(bench)
    assert bench.store is not None
    name = bench.store.name
    assert bench.browser.run == name == "directpred-1"
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10 and state(bench).state == "paused")
    bench.knobs.controls["ema"].control.value = 0.9
    wait_for(lambda: state(bench).knobs.ema == 0.9)
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 20 and state(bench).state == "paused")
    losses = bench.store.losses().tolist()
    twin = Trainer(preset("directpred", device="cpu"))
    expected = [twin.step().loss for _ in range(10)]
    twin.set(ema=0.9)
    assert losses == expected + [twin.step().loss for _ in range(10)]

    # A reload: another kernel, the same run.
    again = open_bench()
    again.browser.query = {"run": name}
    wait_for(lambda: again.store is not None and "data-step='20'" in again.headline.value)
    assert again.knobs.controls["ema"].control.value == 0.9
    wrong = open_bench()
    wrong.browser.query = {"run": "no-such-run", "preset": "byol"}
    wait_for(lambda: "no-such-run" in wrong.banner.value)
    wait_for(lambda: wrong.store is not None and wrong.store.name == "byol-1")

    # The engine dies without a word: the page says so, and starts another one, which loses nothing.
    end_engine(tmp_path, signal.SIGKILL)
    wait_for(lambda: "has not answered" in again.banner.value and again.restart.layout.display is None)
    again.restart.click()
    wait_for(lambda: "has not answered" not in again.banner.value)
    wait_for(lambda: state(again).state == "paused" and state(again).pid is not None)
    again.transport.step10.click()
    wait_for(lambda: state(again).step == 30 and state(again).state == "paused")
    assert again.store is not None
    assert again.store.losses().tolist()[:20] == losses
    assert again.store.losses().tolist()[20:] == [twin.step().loss for _ in range(10)]


def test_a_full_house_says_so(open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LAB_MAX_VISITORS", "1")
    desk = EngineDesk(tmp_path)
    assert desk.enter("somebody", 1)
    assert not desk.enter("another", 1)
    bench = open_bench()
    bench.browser.query = {}
    wait_for(lambda: "The house is full: 1 pages" in bench.banner.value)
    assert bench.store is None
    desk.leave("somebody")
    wait_for(lambda: bench.store is not None)
    desk.close()


def test_a_finished_run_is_looked_at_and_left_as_it_is(open_bench: Open, tmp_path: Path) -> None:
    trainer = Trainer(small_config(epochs=1))
    with RunStore.create("first", trainer.config, tmp_path) as store:
        drive(trainer, store, owner="train", until=trainer.steps_per_epoch)
    with open_run("first", tmp_path) as store:
        before = store.status()
    bench = open_bench(run="first")
    bench.browser.query = {}
    wait_for(lambda: "data-step='44'" in bench.headline.value and "ssl-done" in bench.headline.value)
    assert bench.transport.run.disabled
    bench.knobs.controls["ema"].control.value = 0.5
    wait_for(lambda: "This run is done" in bench.banner.value)
    assert not (tmp_path / "engine.log").exists()
    with open_run("first", tmp_path) as store:
        after = store.status()
    assert (after.state, after.step, after.knobs, after.heartbeat) == ("done", 44, before.knobs, before.heartbeat)


def test_an_engine_that_a_page_started_ends_when_it_is_idle(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssl_lab.engine", "--results", str(tmp_path), "--idle-end", "0.2"]
    subprocess.run(command, check=True, timeout=120)
    desk = EngineDesk(tmp_path)
    assert desk.status().pid is None
    desk.close()


def test_only_one_engine_serves_a_folder(tmp_path: Path) -> None:
    first, second = EngineDesk(tmp_path), EngineDesk(tmp_path)
    assert first.take_seat()
    assert not second.take_seat()
    first.leave_seat()
    assert second.take_seat()
    second.leave_seat()
    first.ask("a")
    first.ask("b")
    assert second.take_requests() == ["a", "b"]
    assert second.take_requests() == []
    first.close()
    second.close()


def row(bench: Bench, name: str) -> dict[str, Any]:
    return wait_for(lambda: next((row for row in bench.shelf.runs if row["name"] == name), None))


def run_to(bench: Bench, step: int) -> None:
    while state(bench).step < step:
        before = state(bench).step
        button = bench.transport.step10 if step - before >= 10 else bench.transport.step
        button.click()
        wait_for(lambda before=before: state(bench).step > before and state(bench).state == "paused")


def test_scrub_fork_undo_compare(open_bench: Open, tmp_path: Path) -> None:
    """The whole of it in a kernel: look back, fork there, turn a knob, see both, undo."""
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    run_to(bench, 30)
    bench.knobs.controls["ema"].control.value = 0.5
    wait_for(lambda: len(bench.store.events()) == 1)  # type: ignore[union-attr]
    run_to(bench, 50)
    wait_for(lambda: "data-step='50'" in bench.headline.value)

    bench.timeline.step = 20
    wait_for(lambda: "data-step='20'" in bench.headline.value and "of 50" in bench.headline.value)
    wait_for(lambda: bench.browser.step == 20)
    assert bench.panels[6].line.x[-1] == 20
    assert bench.panels[6].later.x[-1] == 50
    wait_for(lambda: "You look at step 20" in bench.banner.value)
    # The run itself has not moved, and what is turned now is turned there.
    assert state(bench).step == 50
    bench.timeline.step = 999
    wait_for(lambda: bench.timeline.step == 50)
    bench.timeline.step = -1
    wait_for(lambda: bench.browser.step is None and " of 50" not in bench.headline.value)

    bench._on_timeline(bench.timeline, {"do": "fork", "step": 40}, [])
    wait_for(lambda: bench.store.name == "directpred-fork-1" or bench.store.name == "directpred-1-fork-1")  # type: ignore[union-attr]
    fork = bench.store
    assert fork is not None
    name = fork.name
    wait_for(lambda: state(bench).state == "paused" and state(bench).step == 40)
    assert list(bench.shelf.ticked) == ["directpred-1"]
    assert (row(bench, name)["depth"], row(bench, name)["origin"]) == (1, "from directpred-1 at step 40")
    assert row(bench, name)["shown"]
    assert bench.browser.run == name
    assert bench.browser.compare == "directpred-1"
    wait_for(lambda: "against directpred-1: the same to the last bit" in bench.legend.value)
    bench.knobs.controls["predictor"].control.value = "none"
    wait_for(lambda: len(fork.events()) == 2)
    run_to(bench, 50)
    wait_for(lambda: "At step 50 against directpred-1" in bench.legend.value and "instead of" in bench.legend.value)
    twin = Trainer(small_config())
    expected = [twin.step().loss for _ in range(30)]
    twin.set(ema=0.5)
    expected += [twin.step().loss for _ in range(10)]
    twin.set(predictor="none")
    assert fork.losses().tolist() == expected + [twin.step().loss for _ in range(10)]
    assert all(len(panel.others) == 1 and panel.others[0].visible for panel in bench.panels)

    # Undo: just before the first event, and the fork is not touched.
    bench._on_timeline(bench.timeline, {"do": "undo", "event": 1}, [])
    wait_for(lambda: bench.store.name == "directpred-1-fork-2" and state(bench).state == "paused")  # type: ignore[union-attr]
    assert (state(bench).step, state(bench).knobs.ema) == (30, 0.996)
    assert bench.store.events() == []  # type: ignore[union-attr]
    assert list(bench.shelf.ticked) == [name, "directpred-1"]
    with open_run(name, tmp_path) as kept:
        assert len(kept.events()) == 2
        assert kept.last_step() == 50
    # Back to the first run by the shelf: the colours change places, and it can be steered again.
    bench._on_shelf(bench.shelf, {"open": "directpred-1"}, [])
    wait_for(lambda: bench.store.name == "directpred-1" and state(bench).state == "paused")  # type: ignore[union-attr]
    assert list(bench.shelf.ticked) == [name, "directpred-1-fork-2"]
    run_to(bench, 60)
    bench.shelf.ticked = []
    wait_for(lambda: bench.legend.value == "" and not bench.panels[0].others[0].visible)
    for garbage in (None, 3, {"do": "undo", "event": "x"}, {"do": "undo", "event": 77}, {"do": "jump"}):
        bench._on_timeline(bench.timeline, garbage, [])
    wait_for(lambda: "no knob event 77" in bench.banner.value)


def test_a_recording_is_looked_at_and_forked(open_bench: Open, tmp_path: Path) -> None:
    from ssl_lab.export import write

    config = small_config(device="cpu")
    trainer = Trainer(config)
    with RunStore.create("first", config, tmp_path) as store:
        drive(trainer, store, owner="train", until=30)
        write(store, "sqlite", tmp_path / "lesson.sqlite")
    results = tmp_path / "own"
    code = (
        "import sys, time; from lab import Bench\n"
        f"bench = Bench.open({str(tmp_path / 'lesson.sqlite')!r}, results={str(results)!r})\n"
        "end = time.time() + 60\n"
        "while \"data-step='30'\" not in bench.headline.value and time.time() < end: time.sleep(0.02)\n"
        "assert \"data-step='30'\" in bench.headline.value, bench.banner.value\n"
        "assert bench.transport.run.disabled and bench.knobs.controls['ema'].control.disabled\n"
        "bench.close(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    # Looking makes nothing.
    assert not results.exists()

    bench = open_bench(Trainer(small_config()))
    ready(bench)
    own = bench.store.name  # type: ignore[union-attr]
    bench.files.dropped(tmp_path / "lesson.sqlite", "lesson.sqlite")
    wait_for(lambda: "file: lesson.sqlite" in bench.headline.value)
    wait_for(lambda: "This is a recording" in bench.banner.value and bench.transport.run.disabled)
    assert row(bench, "file: lesson.sqlite")["origin"] == "recording"
    bench.knobs.controls["ema"].control.value = 0.5
    wait_for(lambda: "role='alert' class='ssl-error'>This is a recording" in bench.banner.value)
    bench.timeline.step = 10
    wait_for(lambda: "data-step='10'" in bench.headline.value)
    bench._on_timeline(bench.timeline, {"do": "fork", "step": 10}, [])
    wait_for(lambda: bench.store.name == "first-fork-1" and state(bench).state == "paused")  # type: ignore[union-attr]
    run_to(bench, 30)
    with RunStore.open(tmp_path / "lesson.sqlite", readonly=True) as lesson:
        assert bench.store.losses().tolist() == lesson.losses().tolist()  # type: ignore[union-attr]
    # What is no run is refused, and what is shown stays.
    (tmp_path / "junk.sqlite").write_bytes(b"no database" * 1000)
    bench.files.dropped(tmp_path / "junk.sqlite", "junk.sqlite")
    wait_for(lambda: "not a run&#x27;s file" in bench.banner.value)
    assert bench.store.name == "first-fork-1"  # type: ignore[union-attr]
    bench._on_shelf(bench.shelf, {"open": own}, [])
    wait_for(lambda: bench.store.name == own)  # type: ignore[union-attr]
    assert not bench.transport.run.disabled or state(bench).state != "paused"


def test_a_trial_of_a_sweep_is_looked_at_and_compared_and_steered_by_nobody(open_bench: Open, tmp_path: Path) -> None:
    for name in ("ema-0.5-seed0", "ema-0.9-seed0"):
        make_run(tmp_path / "box", name)
    bench = open_bench()
    keys = [f"trial: box/{name}" for name in ("ema-0.5-seed0", "ema-0.9-seed0")]
    bench.browser.query = {"run": keys[0], "step": "6", "compare": keys[1]}
    wait_for(lambda: "data-step='6'" in bench.headline.value and keys[1] in bench.legend.value)
    wait_for(lambda: "This is a trial of a sweep" in bench.banner.value and bench.transport.run.disabled)
    assert (bench.browser.run, bench.browser.compare) == (keys[0], keys[1])
    wait_for(lambda: row(bench, keys[0])["origin"] == row(bench, keys[1])["origin"] == "sweep")
    store = bench.store
    assert store is not None
    bench.turn(ema=0.1)
    bench.run()
    wait_for(lambda: "role='alert' class='ssl-error'>This is a trial" in bench.banner.value)
    assert (store.status().state, trace(store)[:2]) == ("paused", [[], []])
    bench._on_timeline(bench.timeline, {"do": "fork", "step": 6}, [])
    wait_for(lambda: bench.store is not None and bench.store.name == "ema-0.5-seed0-fork-1")
    assert (tmp_path / "ema-0.5-seed0-fork-1" / "run.sqlite").is_file()
    named = open_bench(run=keys[1])
    named.start()
    wait_for(lambda: named.browser.run == keys[1])
    # An address leads to trials of the folder, and nowhere else.
    for wrong in ("trial: box/none", "trial: box", "trial: ../box/ema-0.5-seed0", "trial: box/../box/ema-0.5-seed0"):
        with pytest.raises(SSLLabError):
            bench.catalogue.open(wrong)


def test_links(open_bench: Open, tmp_path: Path) -> None:
    config = small_config(epochs=1, spectrum_every=5)
    for name in ("first", "second"):
        with RunStore.create(name, config, tmp_path) as store:
            drive(Trainer(config), store, owner="train", until=44)
    bench = open_bench(run="first")
    bench.browser.query = {"run": "first", "step": "20", "compare": "second,first"}
    wait_for(lambda: "data-step='20'" in bench.headline.value)
    wait_for(lambda: "against second: the same to the last bit" in bench.legend.value)
    wrong = open_bench(run="first")
    wrong.browser.query = {"run": "first", "step": "4000", "compare": "third"}
    wait_for(lambda: "no step &#x27;4000&#x27;" in wrong.banner.value and "data-step='44'" in wrong.headline.value)
    only = open_bench()
    only.browser.query = {"run": "first", "watch": ""}
    wait_for(lambda: "This page only watches" in only.banner.value and only.transport.run.disabled)


def test_a_run_of_another_machine_is_looked_at(open_bench: Open, tmp_path: Path) -> None:
    import time

    config = small_config()
    with RunStore.create("first", config, tmp_path) as store:
        drive(Trainer(config), store, owner="train", until=12)
        store.set_status(state="running", host="gpu-box", pid=1, owner="train", heartbeat=time.time())
        before = store.status()
        bench = open_bench(run="first")
        bench.browser.query = {}
        wait_for(lambda: "trained on gpu-box" in bench.banner.value and bench.transport.pause.disabled)
        bench._send("set", {"ema": 0.5})
        wait_for(lambda: "role='alert' class='ssl-error'>This run is trained on gpu-box" in bench.banner.value)
        assert store.waiting() == []
        assert store.status() == before
    assert not (tmp_path / "engine.log").exists()


def test_downloads(open_bench: Open) -> None:
    """The file that the page is offered is the run's, and is gone from this machine once it has been fetched."""
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    run_to(bench, 12)
    offered: list[tuple[str, str, bytes]] = []
    bench.files.offer = lambda name, mime, path: offered.append((name, mime, path.read_bytes()))  # type: ignore[method-assign]
    for place, kind in enumerate(("script", "csv", "sqlite"), start=1):
        bench.export.form.value = kind
        bench.export.download.click()
        wait_for(lambda place=place: len(offered) == place)
    (script, csv, sqlite) = offered
    assert script[0] == "directpred-1.py"
    assert b"def run" in script[2]
    assert csv[:2] == ("directpred-1.csv", "text/csv")
    assert csv[2].count(b"\n") == 13
    assert sqlite[2].startswith(b"SQLite format 3")
    sent: list[Any] = []
    bench.panels[2].figure.send = sent.append
    bench.export.picture.value = "Alignment"
    bench.export.svg.click()
    bench.export.png.click()
    wait_for(
        lambda: (
            [message["filename"] for message in sent] == ["directpred-1-alignment.svg", "directpred-1-alignment.png"]
        )
    )


def test_a_new_run_beside_one_that_was_opened_is_of_its_own_config(open_bench: Open, tmp_path: Path) -> None:
    """The notebook's trainer serves the run that the bench begins with, and never one of another config."""
    first = open_bench(Trainer(small_config()))
    ready(first)
    first.close()
    trainer = Trainer(small_config())
    trainer.step()
    bench = open_bench(trainer, run="directpred-1")
    ready(bench)
    bench.reset.click()
    wait_for(lambda: bench.store.name == "directpred-2" and state(bench).state == "paused")  # type: ignore[union-attr]
    assert state(bench).step == 0
    bench.preset.value = "byol"
    bench.new.click()
    wait_for(lambda: bench.store.name == "byol-1" and state(bench).state == "paused")  # type: ignore[union-attr]
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10 and state(bench).state == "paused")
    assert bench.store is not None
    twin = Trainer(preset("byol", device="cpu"))
    assert bench.store.losses().tolist() == [twin.step().loss for _ in range(10)]


def test_a_key_in_haste_is_for_the_run_that_was_asked_for(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench.transport.run.click()
    wait_for(lambda: state(bench).state == "running")
    # The publisher is busy, so that both wait: a new run, and the space bar, which is to run it.
    busy, free = threading.Event(), threading.Event()

    def be_busy() -> None:
        busy.set()
        free.wait(10.0)

    bench._do(be_busy)
    assert busy.wait(10.0)
    bench.new.click()
    bench._on_key(bench.browser, {"key": "run_pause"}, [])
    free.set()
    wait_for(lambda: bench.store.name == "directpred-2" and state(bench).state == "running")  # type: ignore[union-attr]
