"""The one loop: commands at step boundaries, events before they take effect, cuts that lose nothing."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lab import RunStore, Trainer, checkpoint, keep
from ssl_lab.errors import KnobError, NonFiniteLossError, SSLLabError
from ssl_lab.loop import Pace, drive, plan, resume
from ssl_lab.ranks import DriftError, LostRankError
from ssl_lab.replay import replay
from ssl_lab.store import Command, open_run
from tests.ssl_lab.conftest import small_config

Make = Callable[..., Trainer]


def newest(folder: Path) -> keep.Kept:
    """The latest checkpoint of the run ``run``."""
    return keep.kept(folder / "run")[-1]


class Driven:
    """A run driven in a thread, and what a page would do to it."""

    def __init__(self, trainer: Trainer, folder: Path, name: str = "run", **options: Any) -> None:
        self.trainer, self.stop, self.error = trainer, threading.Event(), None
        RunStore.create(name, trainer.config, folder).close()
        self.page = open_run(name, folder)
        self.thread = threading.Thread(
            target=self._run, args=(folder, name, {"running": False, "stay": True} | options)
        )
        self.thread.start()

    def _run(self, folder: Path, name: str, options: dict[str, Any]) -> None:
        with open_run(name, folder) as store:
            try:
                drive(self.trainer, store, owner="notebook", stop=self.stop, **options)
            except SSLLabError as error:
                self.error = error

    def ask(self, kind: Any, payload: dict[str, Any] | None = None) -> Command:
        number = self.page.send(kind, payload)
        return wait_for(lambda: (c := self.page.command(number)).state != "waiting" and c)

    def steps(self, count: int) -> None:
        goal = self.page.status().step + count
        self.ask("step", {"steps": count})
        wait_for(lambda: self.page.status().state != "running" and self.page.status().step == goal)

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()
        self.page.close()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not come to pass")


def test_a_foreground_run_is_recorded_whole(make_trainer: Make, tmp_path: Path) -> None:
    trainer, twin = make_trainer(), make_trainer()
    seen = []
    with RunStore.create("run", trainer.config, tmp_path) as store:
        assert drive(trainer, store, owner="train", until=100, on_record=lambda r: seen.append(r.step)) == "done"
        assert seen == list(range(1, 101))
        assert store.losses().tolist() == [twin.step().loss for _ in range(100)]
        status = store.status()
        assert (status.state, status.step, status.pid) == ("done", 100, None)
        assert status.epoch == pytest.approx(100 / 44)
        # At the end of each epoch, and at the end.
        assert [r.step for r in store.spectra()] == [44, 88, 100]
        ours, theirs = store.spectra()[-1].spectrum, twin.spectrum()
        np.testing.assert_allclose(ours.f_eigenvalues, theirs.f_eigenvalues, rtol=1e-6, atol=1e-6)
        assert ours.effective_rank == theirs.effective_rank
        knn = store.newest_evaluation("knn")
        assert knn is not None
        assert knn[0] == 100
        assert 0.3 < knn[1] <= 1.0


def test_watching_changes_no_number(make_trainer: Make, tmp_path: Path) -> None:
    often = Pace(flush=0.0, live_spectrum=0.0, watched=1e9, knn_pause=0.0, knn_share=1.0, checkpoint=0.0)
    losses = []
    for name, pace in (("plain", Pace()), ("watched", often)):
        with RunStore.create(name, small_config(), tmp_path) as store:
            store.touch_viewer()
            drive(make_trainer(), store, owner="train", until=60, pace=pace)
            losses.append(store.losses())
            spectra = len(store.spectra())
    assert spectra == 60
    assert np.array_equal(losses[0], losses[1])


def test_transport(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        wait_for(lambda: run.page.status().state == "paused")
        assert run.page.status().step == 0
        run.steps(1)
        run.steps(10)
        assert run.page.last_step() == 11
        run.ask("run")
        wait_for(lambda: run.page.status().step > 30)
        run.ask("pause")
        stood = wait_for(lambda: run.page.status().state == "paused" and run.page.status().step)
        assert run.page.last_step() == stood
        assert "whole number" in run.ask("step", {"steps": 0}).answer
        assert "'nonsense'" in run.ask("nonsense").answer
        assert "steps per second" in run.ask("speed", {"steps_per_second": -1}).answer
        run.steps(2)
        assert run.page.last_step() == stood + 2


def test_speed_is_held_and_a_pause_does_not_wait_for_it(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.ask("speed", {"steps_per_second": 0.01})
        assert run.page.status().speed == 0.01
        run.ask("run")
        run.ask("pause")  # would take 100 s if the wait were not cut short
        wait_for(lambda: run.page.status().state == "paused")
        assert run.page.status().step <= 1
        run.ask("speed", {"steps_per_second": None})
        run.steps(5)


def test_a_turned_knob_is_an_event_and_takes_effect_at_the_next_step(make_trainer: Make, tmp_path: Path) -> None:
    twin = make_trainer()
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(5)
        assert run.ask("set", {"predictor": "none", "ema": 0.5}).state == "done"
        assert run.page.status().knobs.predictor == "none"
        (event,) = run.page.events()
        assert (event.number, event.step, event.origin) == (1, 5, "page")
        assert event.changes == {"predictor": "none", "ema": 0.5}
        assert event.before == {"predictor": "directpred", "ema": 0.996}
        run.steps(5)
        # The same value again is no event.
        assert run.ask("set", {"ema": 0.5}).state == "done"
        assert len(run.page.events()) == 1
        losses = run.page.losses().tolist()
    expected = [twin.step().loss for _ in range(5)]
    twin.set(predictor="none", ema=0.5)
    assert losses == expected + [twin.step().loss for _ in range(5)]


def test_a_refused_knob_changes_nothing_and_says_why(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(2)
        before = run.page.status().knobs
        refused = run.ask("set", {"lr": 0.5, "ema": 2})
        assert refused.state == "refused"
        assert "'ema'" in refused.answer
        assert run.page.status().knobs == before
        assert run.page.events() == []
        run.steps(1)


def test_a_knob_turned_in_the_notebook_is_on_record(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    with Driven(trainer, tmp_path) as run:
        run.steps(3)
        trainer.set(ema=0.25)
        run.steps(1)
        (event,) = run.page.events()
        assert (event.step, event.changes, event.origin) == (3, {"ema": 0.25}, "notebook")


def test_a_run_that_was_stopped_goes_on_bit_equal(make_trainer: Make, tmp_path: Path) -> None:
    twin = make_trainer()
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(20)
        run.ask("set", {"predictor": "mlp"})
        run.steps(10)
    with open_run("run", tmp_path) as store:
        assert store.status().state == "asleep"
        again = make_trainer()
        seen = resume(again, store)
        assert (seen, again.step_count, again.knobs.predictor) == (1, 30, "mlp")
        drive(again, store, owner="train", until=50, events_seen=seen)
        losses = store.losses().tolist()
    expected = [twin.step().loss for _ in range(20)]
    twin.set(predictor="mlp")
    assert losses == expected + [twin.step().loss for _ in range(30)]


def test_a_run_that_was_killed_goes_through_its_events_again(make_trainer: Make, tmp_path: Path) -> None:
    """As after kill -9: the record is ahead of the checkpoint, or there is none."""
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(10)
        run.ask("set", {"predictor": "none"})
        run.steps(10)
        run.ask("set", {"predictor": "linear", "ema": 0.9})
        run.steps(10)
        losses = run.page.losses().tolist()
    shutil.rmtree(tmp_path / "run" / keep.FOLDER)
    with open_run("run", tmp_path) as store:
        waiting = store.send("set", {"lr": 0.01})  # left by a page while nobody drove
        again = make_trainer()
        assert resume(again, store) == 0
        drive(again, store, owner="train", until=40, events_seen=0)
        assert store.losses().tolist()[:30] == losses
        assert [event.step for event in store.events()][:2] == [10, 20]
        assert len(store.events()) == 3
        assert store.command(waiting).state == "done"
        assert again.knobs.lr == 0.01


def test_a_loss_that_is_not_finite_stops_the_run_with_a_word(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer("byol")
    with Driven(trainer, tmp_path) as run:
        run.steps(3)
        with torch.no_grad():
            trainer.online.projector[-1].weight.fill_(float("nan"))
        run.ask("run")
        status = wait_for(lambda: (s := run.page.status()).state == "failed" and s)
        assert "nan" in status.message
        assert "step 4" in status.message
        assert status.step == 3
        assert run.page.last_step() == 3
        assert run.thread.is_alive()
    broken = make_trainer("byol")
    with torch.no_grad():
        broken.online.projector[-1].weight.fill_(float("nan"))
    with RunStore.create("foreground", broken.config, tmp_path) as store:
        with pytest.raises(NonFiniteLossError):
            drive(broken, store, owner="train", until=10)
        assert store.status().state == "failed"
        assert store.status().pid is None


def test_two_cannot_drive_one_run(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(1)
        with pytest.raises(SSLLabError, match="already being driven"):
            drive(make_trainer(), run.page, owner="train", until=5)
        run.steps(1)


def test_a_run_that_nobody_watches_pauses_and_sleeps(make_trainer: Make, tmp_path: Path) -> None:
    pace = Pace(pause_unwatched=0.2, sleep_unwatched=0.2, flush=0.01)
    with Driven(make_trainer(), tmp_path, pace=pace) as run:
        run.ask("run")
        wait_for(lambda: not run.thread.is_alive())
        status = run.page.status()
        assert (status.state, status.pid) == ("asleep", None)
        assert status.step > 0
        assert newest(tmp_path).step == status.step


def test_the_end_is_the_end(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path, until=5) as run:
        run.ask("run")
        wait_for(lambda: run.page.status().state == "done")
        assert "done" in run.ask("run").answer
        assert "done" in run.ask("set", {"ema": 0.5}).answer
        assert run.page.last_step() == 5
    with open_run("run", tmp_path) as store:
        assert store.status().state == "done"
        # Hosted again, it is still done.
        again, stop = make_trainer(), threading.Event()
        stop.set()
        drive(
            again, store, owner="engine", until=5, running=False, stay=True, events_seen=resume(again, store), stop=stop
        )
        assert store.status().state == "done"


def test_a_trainer_is_stepped_by_one_loop_only(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    with Driven(trainer, tmp_path) as run:
        run.steps(1)
        with (
            RunStore.create("other", trainer.config, tmp_path) as other,
            pytest.raises(SSLLabError, match="another run already"),
        ):
            drive(trainer, other, owner="train", until=5)
        run.steps(1)
    # Let go of, it can be driven again.
    with RunStore.create("third", trainer.config, tmp_path) as third:
        assert drive(trainer, third, owner="train", until=4) == "done"


def test_knobs_turned_in_the_notebook_while_it_runs_are_all_on_record(make_trainer: Make, tmp_path: Path) -> None:
    """Turned at any moment, from another thread, between commands of a page: the record leads to the same numbers."""
    trainer = make_trainer()
    with Driven(trainer, tmp_path) as run:
        run.ask("run")
        for i in range(12):
            trainer.set(predictor=("mlp", "linear", "directpred", "none")[i % 4])
            run.ask("set", {"ema": 0.5 + 0.01 * i})
        trainer.set(rho=0.7)
        run.ask("pause")
        wait_for(lambda: run.page.status().state == "paused")
        run.steps(3)
        events, losses = run.page.events(), run.page.losses().tolist()
    assert trainer.knobs.rho == 0.7
    twin = make_trainer()
    again = []
    for step in range(len(losses)):
        for event in events:
            if event.step == step:
                twin.set(**event.changes)
        again.append(twin.step().loss)
    assert again == losses
    assert twin.knobs == trainer.knobs


def test_a_full_disk_does_not_lock_the_run(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_lab import checkpoint

    def full(*_: object) -> None:
        raise SSLLabError("no space left")

    with RunStore.create("run", small_config(), tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_state", full)
            assert drive(make_trainer(), store, owner="train", until=5) == "done"
            assert store.status().message == "no space left"
        assert store.last_step() == 5
        with monkeypatch.context() as patch:
            patch.setattr(store, "add_metrics", full)
            with pytest.raises(SSLLabError, match="no space"):
                drive(make_trainer(), store, owner="train", until=9)
        assert not store.driven()
        assert drive(make_trainer(), store, owner="train", until=9) == "done"


class Diverging(Trainer):
    """As on a GPU, where a loss is read only when it is written down."""

    bad_step = 4

    def step(self) -> Any:
        record = super().step()
        if record.step < self.bad_step:
            return record
        return type(record)(record.step, record.epoch, torch.full((2,), float("nan")))


def test_a_loss_that_is_read_late_is_not_lost(digits: Any, tmp_path: Path) -> None:
    with Driven(Diverging(small_config(), digits), tmp_path) as run:
        run.ask("step", {"steps": 4})  # the last step of the budget
        status = wait_for(lambda: (s := run.page.status()).state == "failed" and s)
        assert "step 4" in status.message
        assert run.page.last_step() == 3
    with RunStore.create("foreground", small_config(), tmp_path) as store:
        with pytest.raises(NonFiniteLossError):
            drive(Diverging(small_config(), digits), store, owner="train", until=4)
        assert store.status().state == "failed"


def test_a_run_that_failed_keeps_its_state_and_its_last_good_checkpoint(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer("byol")
    with Driven(trainer, tmp_path) as run:
        run.steps(3)
    before = [(kept.step, kept.path.read_bytes()) for kept in keep.kept(tmp_path / "run")]
    assert before[-1][0] == 3
    again = make_trainer("byol")
    with open_run("run", tmp_path) as store:
        seen = resume(again, store)
        with torch.no_grad():
            again.online.projector[-1].weight.fill_(float("nan"))
        with pytest.raises(NonFiniteLossError):
            drive(again, store, owner="train", until=9, events_seen=seen)
        assert store.status().state == "failed"
        assert [(kept.step, kept.path.read_bytes()) for kept in keep.kept(tmp_path / "run")] == before
        # A state that is not finite is not saved either, whatever the run is called.
        stop = threading.Event()
        stop.set()
        drive(again, store, owner="train", events_seen=seen, stop=stop)
        assert [(kept.step, kept.path.read_bytes()) for kept in keep.kept(tmp_path / "run")] == before


def test_sleep_sends_one_run_to_sleep(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(1)
        run.ask("sleep")
        wait_for(lambda: not run.thread.is_alive())
        assert run.page.status().state == "asleep"
        assert not run.stop.is_set()


def test_a_checkpoint_is_never_ahead_of_the_record(make_trainer: Make, tmp_path: Path) -> None:
    from ssl_lab import checkpoint

    ahead = []

    def look(record: Any) -> None:
        for kept in keep.kept(tmp_path / "run"):
            inside = checkpoint.load_state(kept.path)[0]["counters"]["step"]
            assert inside == kept.step
            ahead.append(inside > store.last_step())

    with RunStore.create("run", small_config(), tmp_path) as store:
        pace = Pace(flush=1e9, checkpoint=0.0)
        drive(make_trainer(), store, owner="train", until=12, pace=pace, on_record=look)
    assert len(ahead) >= 10
    assert not any(ahead)


def test_a_broken_checkpoint_costs_time_only(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.steps(6)
        losses = run.page.losses().tolist()
        run.ask("save")
        run.steps(2)
        losses = run.page.losses().tolist()
    earlier, latest = keep.kept(tmp_path / "run")
    assert (earlier.step, latest.step) == (6, 8)
    latest.path.write_bytes(latest.path.read_bytes()[:1000])
    with open_run("run", tmp_path) as store:
        again = make_trainer()
        assert resume(again, store) == 0
        assert again.step_count == 6
        earlier.path.unlink()
        again = make_trainer()
        assert resume(again, store) == 0
        assert again.step_count == 0
        drive(again, store, owner="train", until=10)
        assert store.losses().tolist()[:8] == losses


def test_checkpoints_are_kept_at_events_and_thinned(make_trainer: Make, tmp_path: Path) -> None:
    """One before each event; of the others what the disk limit leaves; the newest always."""
    sizes: list[int] = []

    def turn(record: Any) -> None:
        if record.step in (10, 20):
            store.send("set", {"ema": record.step / 100})
        sizes.append(sum(kept.bytes for kept in keep.kept(store.folder)))

    one = _state_size(make_trainer(), tmp_path)
    limit = 5 * one
    with RunStore.create("run", small_config(), tmp_path) as store:
        pace = Pace(checkpoint=0.0, checkpoint_share=1e9, disk=limit)
        drive(make_trainer(), store, owner="train", until=40, pace=pace, on_record=turn)
        kept = keep.kept(store.folder)
        assert [event.step for event in store.events()] == [10, 20]
    assert max(sizes) <= limit
    assert (kept[-1].step, kept[-1].events) == (40, 2)
    # The state just before an event has not seen it.
    assert {(10, 0), (20, 1)} <= {(c.step, c.events) for c in kept}
    assert len(kept) == 5


def _state_size(trainer: Trainer, folder: Path) -> int:
    from ssl_lab import checkpoint

    path = folder / "one" / "x.safetensors"
    checkpoint.save_state(path, trainer.state_dict(), 0)
    return path.stat().st_size + 100


def test_planned_turns_are_made_and_survive_a_cut(make_trainer: Make, tmp_path: Path) -> None:
    turns = [(4, {"ema": 0.9}), (4, {"predictor": "mlp"}), (8, {"lr": 0.1}), (30, {"eps": 0.5})]
    twin = make_trainer()
    expected = []
    for step in range(12):
        for when, changes in turns:
            if when == step:
                twin.set(**changes)
        expected.append(twin.step().loss)
    with RunStore.create("run", small_config(), tmp_path) as store:
        plan(store, turns)
        drive(make_trainer(), store, owner="train", until=8)
        again = make_trainer()
        drive(again, store, owner="train", until=12, events_seen=resume(again, store))
        assert store.losses().tolist() == expected
        assert [(event.step, event.changes, event.origin) for event in store.events()] == [
            (step, changes, "script") for step, changes in turns[:3]
        ]
        with pytest.raises(KnobError, match="no knob"):
            plan(store, [(3, {"speed": 1})])
        with pytest.raises(KnobError, match="step -1"):
            plan(store, [(-1, {"ema": 0.5})])


def test_a_command_by_the_same_store_is_taken(make_trainer: Make, tmp_path: Path) -> None:
    with RunStore.create("run", small_config(), tmp_path) as store:
        sent: list[int] = []

        def send(record: Any) -> None:
            if record.step == 3:
                sent.append(store.send("set", {"ema": 0.5}))

        drive(make_trainer(), store, owner="train", until=8, on_record=send)
        assert store.command(sent[0]).state == "done"
        assert [event.step for event in store.events()] == [3]


def test_a_speed_does_not_outlive_its_loop(make_trainer: Make, tmp_path: Path) -> None:
    with Driven(make_trainer(), tmp_path) as run:
        run.ask("speed", {"steps_per_second": 3.0})
    with open_run("run", tmp_path) as store:
        drive(make_trainer(), store, owner="train", until=3)
        assert store.status().speed is None


def test_an_f_that_is_not_finite_fails_the_run(make_trainer: Make, tmp_path: Path) -> None:
    """As on a GPU, where a step does not look: the next spectrum does."""
    trainer = make_trainer("byol")
    with Driven(trainer, tmp_path) as run:
        run.steps(3)
        trainer._check_finite = lambda *_: None  # type: ignore[method-assign]
        with torch.no_grad():
            trainer.online.projector[-1].weight.mul_(1e22)
        run.ask("step", {"steps": 5})
        status = wait_for(lambda: (s := run.page.status()).state == "failed" and s)
        assert "not finite" in status.message


def test_a_checkpoint_counts_the_turn_of_a_notebook_that_it_holds(make_trainer: Make, tmp_path: Path) -> None:
    """A fork from it must not have a rule that its record knows nothing of."""
    trainer = make_trainer()
    with Driven(trainer, tmp_path) as driven:
        driven.steps(6)
        trainer.set(ema=0.5)
        driven.ask("save")
        store = driven.page
        (saved,) = (c for c in keep.kept(store.folder) if c.step == 6 and c.events == 1)
        state, seen = checkpoint.load_state(saved.path)
        assert (state["counters"]["knobs"]["ema"], seen) == (0.5, 1)
        assert [(e.step, e.changes) for e in store.events()] == [(6, {"ema": 0.5})]
        for other in keep.kept(store.folder):
            knobs = checkpoint.load_state(other.path)[0]["counters"]["knobs"]
            assert knobs["ema"] == (0.5 if other.events else 0.996)


def test_planned_turns_at_the_step_of_a_cut_are_made_once(make_trainer: Make, tmp_path: Path) -> None:
    """Also one that changes only a part of what it says: it is counted, not looked for."""
    turns = [(5, {"ema": 0.996, "lr": 0.1}), (5, {"lr": 0.2})]
    trainer = make_trainer()
    with RunStore.create("run", trainer.config, tmp_path) as store:
        plan(store, turns)
        drive(trainer, store, owner="train", until=5)
        again = make_trainer()
        drive(again, store, owner="train", until=9, events_seen=resume(again, store))
        assert [(e.step, e.changes) for e in store.events()] == [(5, {"lr": 0.1}), (5, {"lr": 0.2})]
        assert again.knobs.lr == 0.2


def test_a_checkpoint_ahead_of_the_record_is_passed_over(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    with RunStore.create("run", trainer.config, tmp_path) as store:
        store.send("set", {"ema": 0.5})
        drive(trainer, store, owner="train", until=4)
        losses = store.losses().tolist()
        ahead = make_trainer()
        drive(ahead, store, owner="train", until=8, events_seen=resume(ahead, store))
        whole = store.losses().tolist()
        # The machine lost power: the last moments of the record are gone, the checkpoint is not.
        with store.transaction() as db:
            db.execute("DELETE FROM metrics WHERE step > 4")
        assert keep.kept(store.folder)[-1].step == 8
        again = make_trainer()
        drive(again, store, owner="train", until=8, events_seen=resume(again, store))
        assert store.losses().tolist() == whole
        assert whole[:4] == losses


def test_a_knob_turned_before_the_loop_begins_is_on_record(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    store = RunStore.create("a", trainer.config, tmp_path)
    trainer.set(ema=0.5)
    drive(trainer, store, owner="notebook", until=3)
    assert [(e.number, e.step, e.changes, e.origin) for e in store.events()] == [(1, 0, {"ema": 0.5}, "notebook")]
    assert store.status().knobs == trainer.knobs
    twin = make_trainer()
    twin.set(ema=0.5)
    assert store.losses().tolist() == [twin.step().loss for _ in range(3)]
    store.close()


def test_a_spectrum_is_of_the_rule_that_made_its_step(make_trainer: Make, tmp_path: Path) -> None:
    """A notebook turns the mode after a step that has no spectrum yet: there is none, also not when it is woken."""
    trainer, stop = make_trainer(), threading.Event()
    store = RunStore.create("a", trainer.config, tmp_path)

    def turn(_record: Any) -> None:
        trainer.set(predictor="none")
        stop.set()

    drive(trainer, store, owner="notebook", stop=stop, on_record=turn)
    assert [(e.step, e.changes) for e in store.events()] == [(1, {"predictor": "none"})]
    woken = make_trainer()
    drive(woken, store, owner="notebook", until=4, events_seen=resume(woken, store))
    assert [record.step for record in store.spectra()] == [4]
    found = replay(store)
    assert found.equal, found.describe()
    store.close()


def test_left_on_the_way_back_the_run_is_as_long_as_its_record_and_by_its_last_rules(
    make_trainer: Make, tmp_path: Path
) -> None:
    """A run that was cut is gone through again; whoever stops it there finds what was recorded and no earlier rules."""
    trainer = make_trainer()
    with RunStore.create("run", trainer.config, tmp_path) as store:
        drive(trainer, store, owner="train", until=12)
        store.send("set", {"predictor": "none"})
        drive(trainer, store, owner="train", until=30)
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        stop = threading.Event()
        again = make_trainer()
        drive(
            again, store, owner="train", until=40, stop=stop,
            on_record=lambda record: stop.set() if record.step == 5 else None,
        )  # fmt: skip
        assert again.step_count < 12
        status = store.status()
        assert (status.step, status.knobs.predictor, status.state) == (30, "none", "asleep")
        assert status.epoch == pytest.approx(store.metrics().epoch)  # type: ignore[union-attr]
        drive(again := make_trainer(), store, owner="train", until=40, events_seen=resume(again, store))
        assert replay(store).equal


def test_a_run_that_is_held_at_a_speed_is_mended_as_fast_as_it_goes(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    real, broken = trainer.step, threading.Event()

    def step() -> Any:
        if trainer.step_count == 12 and not broken.is_set():
            broken.set()
            raise RuntimeError("once")
        return real()

    trainer.step = step  # type: ignore[method-assign]
    with Driven(trainer, tmp_path, pace=Pace(knn_pause=1e9)) as run:
        run.steps(11)
        run.ask("speed", {"steps_per_second": 3.0})
        run.ask("run")
        wait_for(lambda: run.page.status().state == "failed")
        assert "once" in run.page.status().message
        assert run.ask("set", {"ema": 0.5}).state == "done"
        assert run.page.events()[0].step == 12
        run.ask("speed", {"steps_per_second": None})
        run.steps(5)
    with open_run("run", tmp_path) as store:
        assert replay(store).equal


def test_the_first_step_that_went_wrong_is_named_whatever_was_noticed_first(make_trainer: Make, tmp_path: Path) -> None:
    """On a GPU losses come in later than a spectrum may: what is said is the loss, which was there before."""
    trainer = make_trainer("byol", spectrum_every=1)
    trainer._exact = False
    real = trainer.step

    def step() -> Any:
        record = real()
        if record.step == 10:
            with torch.no_grad():
                for weights in trainer.online.parameters():
                    weights.fill_(float("nan"))
        return record

    trainer.step = step  # type: ignore[method-assign]
    with Driven(trainer, tmp_path, pace=Pace(knn_pause=1e9, flush=60.0)) as run:
        run.ask("run")
        wait_for(lambda: run.page.status().state == "failed")
        assert "The loss became nan at step 11" in run.page.status().message
        assert run.page.last_step() == 10


@pytest.mark.parametrize("kind", [LostRankError, DriftError])
def test_a_rank_lost_on_the_way_back_leaves_the_record_as_it_is(
    kind: type[SSLLabError], make_trainer: Make, tmp_path: Path
) -> None:
    """Wherever it shows: while a checkpoint is taken over, at a turn that is made again, at one that is made now."""

    def loses(*_: Any, **__: Any) -> Any:
        raise kind("A rank is gone.")

    with RunStore.create("run", small_config(), tmp_path) as store:
        plan(store, [(5, {"ema": 0.5}), (12, {"lr": 0.01})])
        drive(make_trainer(), store, owner="train", until=20)
        for late in keep.kept(store.folder)[2:]:
            late.path.unlink()

        def record() -> Any:
            events = [(e.number, e.step, e.changes, e.origin) for e in store.events()]
            return events, store.losses().tolist(), [c.path.name for c in keep.kept(store.folder)]

        before = record()
        assert len(before[0]) == len(before[2]) == 2

        trainer = make_trainer()
        take_over = trainer.load_state_dict

        def takes_over(state: Any) -> None:
            take_over(state)
            loses()

        trainer.load_state_dict = takes_over  # type: ignore[method-assign]
        with pytest.raises(kind):
            resume(trainer, store)

        # The checkpoint at step 12 does not know of the turn there yet.
        trainer = make_trainer()
        seen = resume(trainer, store)
        assert (trainer.step_count, seen) == (12, 1)
        trainer.set = loses  # type: ignore[method-assign]
        with pytest.raises(kind):
            drive(trainer, store, owner="train", until=30, events_seen=seen)
        assert record() == before
        status = store.status()
        assert (status.state, status.step, status.message, status.knobs.lr) == ("failed", 20, "A rank is gone.", 0.01)
        assert not store.driven()

        # On record and answered is what took no effect before the rank was lost: the next start has it take effect.
        trainer = make_trainer()
        seen = resume(trainer, store)
        number = 0

        def turn(made: Any) -> None:
            nonlocal number
            if made.step == 25:
                number = store.send("set", {"ema": 0.75})
                trainer.set = loses  # type: ignore[method-assign]

        with pytest.raises(kind):
            drive(trainer, store, owner="train", until=30, events_seen=seen, on_record=turn)
        assert store.command(number).state == "done"
        assert [(e.step, e.changes, e.origin) for e in store.events()[2:]] == [(25, {"ema": 0.75}, "page")]
        assert (store.status().state, store.status().knobs.ema) == ("failed", 0.75)
        trainer = make_trainer()
        assert drive(trainer, store, owner="train", until=30, events_seen=resume(trainer, store)) == "done"
        assert len(store.events()) == 3
        assert trainer.knobs == store.status().knobs
        assert replay(store).equal


def test_what_fails_before_the_first_round_leaves_run_and_trainer_free(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()

    def breaks(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    with RunStore.create("run", trainer.config, tmp_path) as store:
        for where in ("ssl_lab.stage.attend", "ssl_lab.loop.Diagnostician"):
            with monkeypatch.context() as patch:
                patch.setattr(where, breaks)
                with pytest.raises(RuntimeError, match="new thread"):
                    drive(trainer, store, owner="train", until=3)
            assert not store.driven()
        assert drive(trainer, store, owner="train", until=3) == "done"
