"""The bench in process: a trainer in a thread, and a run in a real engine process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import Bench
from ssl_lab import RunStore, Trainer, preset
from ssl_lab.desk import EngineDesk
from ssl_lab.loop import drive
from ssl_lab.store import open_run
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
    wait_for(lambda: "predictor directpred → none" in bench.event_list.value)
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
