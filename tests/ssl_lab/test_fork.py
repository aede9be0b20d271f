"""A fork goes on as its parent did, to the bit, from any moment; and the parent is not touched."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lab import RunStore, Trainer, keep, presets
from ssl_lab.errors import RunExistsError, SSLLabError
from ssl_lab.loop import Pace, drive, resume
from ssl_lab.replay import replay
from ssl_lab.store import open_run

Make = Callable[..., Trainer]


def record(trainer: Trainer, folder: Path, until: int, turns: dict[int, dict[str, Any]], **pace: Any) -> RunStore:
    """A run with knobs turned while it is driven."""
    store = RunStore.create("parent", trainer.config, folder)

    def turn(step: Any) -> None:
        if step.step in turns:
            store.send("set", turns[step.step])

    drive(trainer, store, owner="train", until=until, on_record=turn, pace=Pace(**pace))
    return store


def go_on(make: Make, store: RunStore, until: int) -> Trainer:
    """The run woken, as the engine does it, and driven to a step."""
    trainer = make(store.config().preset, spectrum_every=20)
    drive(trainer, store, owner="engine", until=until, events_seen=resume(trainer, store))
    return trainer


def same_record(a: RunStore, b: RunStore, upto: int) -> None:
    assert a.losses()[:upto].tolist() == b.losses()[:upto].tolist()
    others = {r.step: r.spectrum for r in b.spectra()}
    compared = 0
    for found in a.spectra():
        if found.step <= upto and found.step in others:
            compared += 1
            for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal"):
                assert np.array_equal(getattr(found.spectrum, name), getattr(others[found.step], name))
    assert compared >= upto // 20


@pytest.mark.parametrize("name", presets())
def test_a_fork_of_every_preset_stays_equal(name: str, make_trainer: Make, tmp_path: Path) -> None:
    """At a random step, for 100 steps, after a knob was turned; from a checkpoint and through the record."""
    chance = random.Random(name)
    step = chance.randint(30, 60)
    turned = chance.randint(5, 25)
    trainer = make_trainer(name, spectrum_every=20)
    # Checkpoints at an event and at the end only: the fork must find its way from the event's.
    with record(trainer, tmp_path, step + 100, {turned: {"lr": 0.05, "augmentation": 0.7}}) as parent:
        assert [event.step for event in parent.events()] == [turned]
        before = parent.path.read_bytes()
        with parent.fork("child", step) as child:
            assert child.parent is not None
            assert (child.parent.name, child.parent.step, child.last_step()) == ("parent", step, step)
            assert [c.step for c in keep.kept(child.folder)] == [turned]
            twin = go_on(make_trainer, child, step + 100)
            same_record(parent, child, step + 100)
        assert parent.path.read_bytes() == before
        mine, theirs = trainer.state_dict()["tensors"], twin.state_dict()["tensors"]
        assert all(mine[key].equal(theirs[key]) for key in mine)


def test_a_knob_turned_in_a_fork_is_all_that_differs(make_trainer: Make, tmp_path: Path) -> None:
    with (
        record(make_trainer(spectrum_every=20), tmp_path, 60, {20: {"ema": 0.9}}) as parent,
        parent.fork("child", 40) as child,
    ):
        child.send("set", {"predictor": "none"})
        go_on(make_trainer, child, 60)
        assert child.losses()[:40].tolist() == parent.losses()[:40].tolist()
        assert child.losses()[41] != parent.losses()[41]
        assert [(e.number, e.step) for e in child.events()] == [(1, 20), (2, 40)]
        assert child.altered_event() is None
        # The whole of it can be done again from nothing.
        assert replay(child).equal
        # A fork of a fork, in the part that it has from its parent's parent.
        with child.fork("grandchild", 30) as grandchild:
            go_on(make_trainer, grandchild, 60)
            assert grandchild.losses().tolist() == parent.losses().tolist()


def test_undo_goes_back_to_just_before_an_event(make_trainer: Make, tmp_path: Path) -> None:
    """Two events at one step: each can be undone, with or without the one before it."""
    trainer = make_trainer()
    with RunStore.create("parent", trainer.config, tmp_path) as store:
        drive(trainer, store, owner="train", until=10)
        store.send("set", {"ema": 0.5})
        store.send("set", {"predictor": "linear"})
        again = make_trainer()
        drive(again, store, owner="train", until=20, events_seen=resume(again, store))
        assert [(e.number, e.step) for e in store.events()] == [(1, 10), (2, 10)]
        for seen, changes in ((0, {}), (1, {"ema": 0.5}), (2, {"ema": 0.5, "predictor": "linear"})):
            with store.fork(f"before-{seen + 1}", 10, events=seen) as child:
                assert child.status().knobs == trainer.config.knobs.changed(changes)
                assert child.last_step() == 10
                go_on(make_trainer, child, 20)
                twin = make_trainer()
                expected = [twin.step().loss for _ in range(10)]
                twin.set(**changes)
                assert child.losses().tolist() == expected + [twin.step().loss for _ in range(10)]
                assert len(child.events()) == seen
        # Nothing of the parent is lost.
        assert len(store.events()) == 2
        assert store.last_step() == 20


def test_a_fork_gets_all_checkpoints_of_its_past(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To undo an early event in a fork is no longer a way than to undo it in the parent."""
    turns = {8: {"ema": 0.9}, 16: {"ema": 0.8}, 24: {"ema": 0.7}}
    with record(make_trainer(), tmp_path, 30, turns) as parent:
        with parent.fork("child", 20) as child:
            found = keep.kept(child.folder)
            assert [(c.step, c.events) for c in found] == [(8, 0), (16, 1)]
            # Files are never written twice: these take no room on the disk.
            assert all(c.path.stat().st_nlink == 2 for c in found)
            with child.fork("grandchild", 8, events=0) as grandchild:
                assert [c.step for c in keep.kept(grandchild.folder)] == [8]
        # Between disks nothing can be linked: the nearest is copied, and it alone.
        monkeypatch.setattr(os, "link", _within_one_disk(os.link))
        with parent.fork("far", 20) as far:
            (only,) = keep.kept(far.folder)
            assert (only.step, only.path.stat().st_nlink) == (16, 1)
            go_on(make_trainer, far, 24)
            assert far.losses().tolist() == parent.losses()[:24].tolist()


def _within_one_disk(link: Callable[..., None]) -> Callable[..., None]:
    """The folder of each run is a disk."""

    def only(source: Path, target: Path) -> None:
        if Path(source).parents[1].name == "parent":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, target)

    return only


def test_forks_that_cannot_be(make_trainer: Make, tmp_path: Path) -> None:
    with record(make_trainer(), tmp_path, 12, {5: {"ema": 0.5}}) as parent:
        for step, events, words in (
            (13, None, "no step 13"),
            (-1, None, "no step -1"),
            (8, 0, "not seen 0"),
            (4, 1, "seen 1"),
        ):
            with pytest.raises(SSLLabError, match=words):
                parent.fork("child", step, events=events)
        assert not (tmp_path / "child").exists()
        parent.fork("child", 0).close()
        with pytest.raises(RunExistsError):
            parent.fork("child", 3)


def test_a_run_that_began_from_a_stepped_trainer_is_forked_from_its_first_checkpoint(
    make_trainer: Make, tmp_path: Path
) -> None:
    trainer = make_trainer()
    for _ in range(7):
        trainer.step()
    with record(trainer, tmp_path, 30, {}, checkpoint=0.0, checkpoint_share=1e9, disk=1) as parent:
        # However little room there is, the only way into the record stays, and the newest.
        assert [c.step for c in keep.kept(parent.folder)] == [7, 30]
        with parent.fork("child", 15) as child:
            go_on(make_trainer, child, 30)
            assert child.losses().tolist() == parent.losses().tolist()
        keep.kept(parent.folder)[0].path.unlink()
        with pytest.raises(SSLLabError, match="stepped before"):
            parent.fork("other", 15)


def test_a_fork_of_a_long_run_is_drawn_like_its_parent(tmp_path: Path, make_trainer: Make) -> None:
    from ssl_lab.store import Metrics

    losses = np.random.default_rng(0).normal(size=9000)
    with RunStore.create("parent", make_trainer().config, tmp_path) as parent:
        parent.add_metrics(Metrics(i + 1, 0.0, float(x), 0.0) for i, x in enumerate(losses))
        for step in (1, 1023, 4096, 6001):
            with parent.fork(f"at-{step}", step) as child:
                for points in (50, 400):
                    for mine, theirs in zip(
                        child.curve("loss", points=points), parent.curve("loss", step, points), strict=True
                    ):
                        assert mine.tolist() == theirs.tolist()
                assert child.last_step() == step


def test_which_checkpoints_go() -> None:
    def some(*steps: int) -> list[keep.Kept]:
        return [keep.Kept(step, 0, Path(str(step)), 10) for step in steps]

    assert keep.surplus(some(1, 2, 3), (), 30) == []
    # The newest, the pinned one and those at events stay longest.
    gone = keep.surplus(some(5, 10, 20, 30, 40), (10,), 30, pinned=5)
    assert [c.step for c in gone] == [20, 30]
    assert [c.step for c in keep.surplus(some(5, 10), (5, 10), 1)] == [5]
    # As the run grows they lie further and further apart, and none of the ages is forgotten.
    kept: list[keep.Kept] = []
    for step in range(10, 20_001, 10):
        kept = sorted({*kept, *some(step)})
        dropped = keep.surplus(kept, (), 10**9)
        kept = [c for c in kept if c not in dropped]
    steps = [c.step for c in kept]
    assert len(steps) <= keep.AT_A_CADENCE + 1
    gaps = np.diff(steps)
    assert gaps[-5:].mean() < gaps[:5].mean()
    assert gaps.max() < 20_000 / 12


def test_a_fork_needs_the_parent_no_more(make_trainer: Make, tmp_path: Path) -> None:
    import shutil

    with record(make_trainer(), tmp_path, 30, {10: {"ema": 0.9}}) as parent:
        losses = parent.losses().tolist()
        parent.fork("child", 20).close()
    shutil.rmtree(tmp_path / "parent")
    with open_run("child", tmp_path) as child:
        go_on(make_trainer, child, 30)
        assert child.losses().tolist() == losses
