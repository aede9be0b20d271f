"""Bad moments: each ends in a state with a name, in the file that the page draws from, and the run can be gone on with.

At the end of each the run is held against a replay from its record: the same to the last bit, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.trust.case import Case, Verdict
from ssl_lab import loop, preset
from ssl_lab.config import RunConfig
from ssl_lab.desk import EngineDesk
from ssl_lab.errors import DataError, SSLLabError, WriteError
from ssl_lab.loop import Pace, drive, resume
from ssl_lab.replay import replay
from ssl_lab.store import RunState, RunStore, list_runs, open_run
from ssl_lab.trainer import Trainer

PATIENCE = 90.0
"""Seconds for which something is waited for; it comes within a few, but on a machine that does much else."""

SIZES: dict[str, Any] = {"width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16}

PACE = Pace(checkpoint=0.1, checkpoint_share=1.0, knn_pause=0.5, try_again=0.05)


class NotHere(Exception):
    """This moment cannot be made on this machine; the reason is said."""


def small(**fields: Any) -> RunConfig:
    """A run whose step takes a millisecond."""
    return preset("directpred", **{**SIZES, "batch_size": 32, "device": "cpu", "spectrum_every": 20, **fields})


def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits; an AssertionError says for what in vain."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {what}")


def refusal(begin: Callable[[], object], kind: type[SSLLabError]) -> str:
    """What is said when this is begun."""
    try:
        begin()
    except kind as error:
        return str(error)
    raise AssertionError("it was not refused")


class Driven:
    """A run that a thread drives as the engine does, and a second connection to its file as a page has it."""

    def __init__(self, folder: Path, trainer: Trainer | None = None, pace: Pace = PACE, name: str = "run") -> None:
        self.trainer = Trainer(small()) if trainer is None else trainer
        if not (folder / name).exists():
            RunStore.create(name, self.trainer.config, folder).close()
        self.page = open_run(name, folder)
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._folder, self._name, self._pace = folder, name, pace
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()
        until(lambda: self.page.status().state in ("paused", "failed") or self.error, "the run to be there")

    def _drive(self) -> None:
        with open_run(self._name, self._folder) as store:
            try:
                seen = resume(self.trainer, store)
                drive(
                    self.trainer, store, owner="engine", running=False, stay=True, events_seen=seen, stop=self.stop,
                    pace=self._pace,
                )  # fmt: skip
            except Exception as error:
                self.error = error

    def say(self, kind: Any, payload: Mapping[str, Any] | None = None) -> None:
        """A command, and that it was done."""
        number = self.page.send(kind, payload)
        until(lambda: self.page.command(number).state != "waiting", f"{kind} to be answered")
        command = self.page.command(number)
        assert command.state == "done", command.answer

    def reach(self, step: int) -> None:
        """Waits for a step on record."""
        until(lambda: self.page.last_step() >= step or self.error, f"step {step}")
        assert self.error is None, self.error

    def state(self, wanted: RunState, *words: str) -> None:
        """Waits for a state, and looks for words in what is said of it."""
        until(lambda: self.page.status().state == wanted, f"the state {wanted} ({self.page.status()})")
        message = self.page.status().message
        assert all(word in message for word in words), f"{words} are not in {message!r}"

    def go_on(self, steps: int = 20) -> None:
        """The run can be gone on with."""
        before = self.page.last_step()
        self.say("run")
        self.reach(before + steps)

    def close(self) -> None:
        """Ends the run, and has it compared with a replay."""
        self.stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the run did not end"
        assert self.error is None, f"it ended in {self.error!r}"
        assert self.page.status().state == "asleep"
        report = replay(self.page)
        assert report.equal, report.describe()
        self.page.close()


# ---------------------------------------------------------------- words to stop


def _training(folder: Path, steps: int = 4000, *more: str) -> subprocess.Popen[bytes]:
    words = [
        "train", "--name", "run", "--model", "directpred", "--steps", str(steps), "--epochs-finetuning", "0", "--width",
        "4", "--batch-size", "32", "--results", str(folder), *more,
        "--config", "projector_dim=8", "projector_hidden=16", "predictor_hidden=16",
    ]  # fmt: skip
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ssl_lab.cli", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


def _step(folder: Path) -> int:
    if not (folder / "run" / "run.sqlite").is_file():
        return 0
    with contextlib.suppress(SSLLabError), open_run("run", folder, readonly=True) as store:
        return store.last_step()
    return 0


def _stopped(number: int) -> Callable[[Path], None]:
    def moment(folder: Path) -> None:
        process = _training(folder)
        until(lambda: _step(folder) > 50 or process.poll() is not None, "the first steps")
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130, (folder / "log").read_text()
        with open_run("run", folder) as store:
            at = store.last_step()
            assert store.status().state == "asleep"
            assert not store.driven()
            assert at < 4000
        assert _training(folder, at + 60, "--resume").wait(PATIENCE) == 0, (folder / "log").read_text()
        with open_run("run", folder) as store:
            assert (store.last_step(), store.status().state) == (at + 60, "done")
            assert (report := replay(store)).equal, report.describe()

    return moment


def killed_trainer(folder: Path) -> None:
    """SIGKILL: the list of runs says that it sleeps, and it is gone on with."""
    process = _training(folder)
    until(lambda: _step(folder) > 50 or process.poll() is not None, "the first steps")
    process.kill()
    process.wait()
    (found,) = list_runs(folder)
    assert found.status.state == "asleep"
    at = found.status.step
    assert _training(folder, at + 300, "--resume").wait(PATIENCE) == 0, (folder / "log").read_text()
    with open_run("run", folder) as store:
        assert (report := replay(store)).equal, report.describe()


def killed_engine(folder: Path) -> None:
    """The engine is killed: it is known at once, the next one goes on; one that is asked to stop saves."""
    desk = EngineDesk(folder)
    try:
        RunStore.create("run", small(), folder).close()
        for number in (signal.SIGKILL, signal.SIGTERM):
            desk.ensure_engine()
            desk.ask("run")
            with open_run("run", folder) as page:
                _steps_of_an_engine(page)
                engine = desk._child
                assert engine is not None
                engine.send_signal(number)
                engine.wait(PATIENCE)
                assert not desk.status().alive
                assert not page.driven()
                assert list_runs(folder)[0].status.state == "asleep"
        with open_run("run", folder) as page:
            assert (report := replay(page)).equal, report.describe()
    finally:
        desk.close()


def _steps_of_an_engine(page: RunStore) -> None:
    until(lambda: page.driven() and page.status().state == "paused", "the run to be awake")
    before = page.last_step()
    page.send("run")
    until(lambda: page.last_step() > before + 40, "steps")


# ---------------------------------------------------------------- disks


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int, *options: str) -> Iterator[Path]:
    """A disk of its own, in memory.

    Raises:
        NotHere: this process may not mount one.
    """
    folder.mkdir()
    what = ",".join([f"size={megabytes}m", *options])
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", what, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"no disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes up all that is left of a disk."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return path


def _stands_on_a_full(disk: Path) -> tuple[Driven, Path]:
    """A run whose disk has filled up under it, and what fills it."""
    run = Driven(disk)
    run.say("run")
    run.reach(40)
    filler = fill(disk)
    # As a page turns a knob meanwhile: refused or kept, and never half done.
    with contextlib.suppress(Exception):
        run.page.send("set", {"ema": 0.9})
    run.state("paused", "disk is full", "goes on by itself")
    return run, filler


def full_disk(folder: Path) -> None:
    """The disk fills up under a run: it stands and says so, goes on when there is room, and misses nothing."""
    with small_disk(folder / "disk", 6) as disk:
        run, filler = _stands_on_a_full(disk)
        # It stands, and lives.
        step = run.trainer.step_count
        time.sleep(0.3)
        assert run.trainer.step_count == step
        assert run.page.driven()
        filler.unlink()
        run.reach(step + 60)
        assert run.page.status().message == ""
        run.close()


def full_disk_left(folder: Path) -> None:
    """A run is left while the disk is full: what could not be written is done again."""
    with small_disk(folder / "disk", 6) as disk:
        run, filler = _stands_on_a_full(disk)
        run.stop.set()
        run._thread.join(PATIENCE)
        assert isinstance(run.error, WriteError), run.error
        run.page.close()
        filler.unlink()
        again = Driven(disk)
        again.go_on()
        again.close()


def read_only(folder: Path) -> None:
    """A folder where nothing can be written: said before anything is begun; a run in it can be looked at."""
    with small_disk(folder / "disk", 6) as disk:
        with RunStore.create("old", small(), disk) as store:
            drive(Trainer(small()), store, owner="train", until=10)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = _refused(disk)
        assert all(word in done for word in ("cannot be written", "Read-only", "--results")), done
        for begin in (lambda: EngineDesk(disk), lambda: RunStore.create("new", small(), disk)):
            assert "Make it writable" in refusal(begin, WriteError)
        with open_run("old", disk, readonly=True) as store:
            assert store.last_step() == 10


def _refused(folder: Path) -> str:
    words = ["train", "--name", "run", "--model", "byol", "--steps", "5", "--results", str(folder)]
    done = subprocess.run([sys.executable, "-m", "ssl_lab.cli", *words], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def refusing_disk(folder: Path) -> None:
    """A disk that takes no more bytes of a file, whatever it says: the run stands and goes on."""
    run = Driven(folder)
    run.say("run")
    run.reach(40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        until(lambda: run.page.status().state == "paused" or _stands(run), "the run to stand")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run.reach(run.trainer.step_count + 40)
    run.close()


def _stands(run: Driven) -> bool:
    step = run.trainer.step_count
    time.sleep(0.3)
    return run.trainer.step_count == step


def removed_folder(folder: Path) -> None:
    """Somebody removes a run's folder while it steps: the loop ends in words, nothing comes back, others go on."""
    other, run = Driven(folder, name="other"), Driven(folder)
    run.say("run")
    run.reach(20)
    shutil.rmtree(folder / "run")
    until(lambda: run.error is not None, "the loop to notice")
    assert isinstance(run.error, WriteError), run.error
    assert "is gone" in str(run.error)
    assert not (folder / "run").exists()
    other.go_on()
    other.close()


# ---------------------------------------------------------------- memory and numbers


class Breaking(Trainer):
    """A trainer whose step breaks off in its middle, once: weights are new, the target and F are not."""

    breaks_at = 50

    def __init__(self, breaking: Callable[[], object], config: RunConfig | None = None) -> None:
        super().__init__(config or small())
        self._breaking = breaking

    def _update_target(self, path: Any) -> None:
        if self._step == self.breaks_at and self._breaking is not None:
            breaking, self._breaking = self._breaking, None  # type: ignore[assignment]
            breaking()
        super()._update_target(path)


def _out_of_memory_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _breaks(breaking: Callable[[], object], *words: str) -> Callable[[Path], None]:
    def moment(folder: Path) -> None:
        run = Driven(folder, Breaking(breaking))
        run.say("run")
        run.state("failed", *words)
        assert run.page.last_step() == 50
        run.say("set", {"ema": 0.9})
        assert run.page.events()[0].step == 50
        run.go_on()
        run.close()

    return moment


def not_finite(folder: Path) -> None:
    """A rate far too high: the loss is no number, which is said; with the rate turned back the run goes on."""
    run = Driven(folder, Trainer(preset("byol", **{**SIZES, "batch_size": 32, "device": "cpu"})))
    run.go_on()
    run.say("set", {"lr": 100.0, "lr_predictor": 100.0, "weight_decay": 1.0})
    run.say("set", {"weight_decay_predictor": 1.0})
    run.say("run")
    run.state("failed", "step")
    assert any(word in run.page.status().message for word in ("learning rate", "finite", "infinite"))
    run.stop.set()
    run._thread.join(PATIENCE)
    assert run.page.status().state == "failed"
    losses = run.page.losses()
    assert all(abs(losses) < float("inf"))
    run.page.close()


def not_finite_late(folder: Path) -> None:
    """A loss that is none is found when it has left the GPU, steps later: those are forgotten, and the run goes on."""
    trainer = Trainer(preset("byol", **{**SIZES, "batch_size": 32, "device": "cpu"}))
    trainer._exact = False
    real, poison = trainer.step, [True]

    def step() -> Any:
        record = real()
        if record.step == 60 and poison:
            poison.clear()
            with torch.no_grad():
                for weights in trainer.online.parameters():
                    weights.fill_(float("nan"))
        return record

    trainer.step = step  # type: ignore[method-assign]
    run = Driven(folder, trainer, Pace(checkpoint=0.05, checkpoint_share=1.0, knn_pause=1e9, flush=0.2))
    run.say("run")
    run.state("failed", "The loss became nan at step 61")
    assert run.page.last_step() == 60
    run.go_on()
    run.stop.set()
    run._thread.join(PATIENCE)
    with open_run("run", folder) as store:
        assert (report := replay(store)).equal, report.describe()
    run.page.close()


# ---------------------------------------------------------------- data


def _images(folder: Path) -> Path:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count // 2):
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(
                    folder / split / label / f"{i}.png"
                )
    return folder


def _spoiled(spoil: Callable[[Path], object], *words: str) -> Callable[[Path], None]:
    def moment(folder: Path) -> None:
        data, whole = _images(folder / "images"), folder / "whole"
        shutil.copytree(data, whole)
        config = preset("byol", dataset=str(data), image_size=16, encoder="small", batch_size=16, device="cpu")
        RunStore.create("run", config, folder / "results").close()
        spoil(data)
        said = refusal(lambda: Trainer(config), DataError)
        assert all(word in said for word in (*words, str(data))), said
        # The engine's run says the same, and wakes when the data is well again.
        desk = EngineDesk(folder / "results")
        try:
            with desk.engine_beside(), open_run("run", folder / "results") as page:
                desk.ask("run")
                until(lambda: page.status().state == "failed", "the run to fail")
                assert words[0] in page.status().message
                shutil.rmtree(data, ignore_errors=True)
                shutil.copytree(whole, data)
                desk.ask("run")
                until(lambda: page.status().state == "paused", f"the run to wake ({page.status()})")
                page.send("step", {"steps": 3})
                until(lambda: page.last_step() == 3, "three steps")
        finally:
            desk.close()

    return moment


def _cut(data: Path) -> None:
    path = data / "train" / "a" / "3.png"
    path.write_bytes(path.read_bytes()[:200])


# ---------------------------------------------------------------- two at once, and clocks


def two_drivers(folder: Path) -> None:
    """A second process on a run is told who drives it, and may watch."""
    run = Driven(folder)
    run.say("run")
    run.reach(10)
    code = (
        "import sys; from ssl_lab.store import open_run\n"
        "with open_run('run', sys.argv[1]) as s:\n"
        "    print(s.last_step() > 0, flush=True)\n"
        "    s.claim('train')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "True\n"
    assert f"already being driven by process {os.getpid()}" in done.stderr
    assert "ssl-lab watch run" in done.stderr
    run.close()


def _shifted(clock: Callable[[], float], jump: float) -> float:
    return clock() + jump


def jumping_clock(folder: Path) -> None:
    """Clocks that jump a day on and back: a watched run goes on, and nobody else takes it."""
    real = time.time
    run = Driven(folder, pace=Pace(checkpoint=0.1, pause_unwatched=2.0, sleep_unwatched=2.0, flush=0.02))
    # Few steps: at the end they are all made again, to compare.
    run.say("speed", {"steps_per_second": 30.0})
    run.say("run")
    try:
        for jump in (86_400.0, -86_400.0, 0.0):
            time.time = partial(_shifted, real, jump)
            end = time.monotonic() + 3.0
            while time.monotonic() < end:
                run.page.touch_viewer()
                time.sleep(0.1)
                status = run.page.status()
                assert status.state == "running", f"after a jump of {jump:.0f} s: {status.state}, {status.message}"
                assert run.page.driven(), f"after a jump of {jump:.0f} s nobody drives it"
    finally:
        time.time = real
    # Without a page it pauses all the same.
    run.state("paused", "no page was looking")
    run._thread.join(PATIENCE)
    run.close()


MOMENTS: Mapping[str, Callable[[Path], None]] = {
    "SIGTERM": _stopped(signal.SIGTERM),
    "Ctrl-C": _stopped(signal.SIGINT),
    "terminal closed": _stopped(signal.SIGHUP),
    "trainer killed": killed_trainer,
    "engine killed and stopped": killed_engine,
    "disk full": full_disk,
    "left while the disk is full": full_disk_left,
    "read-only folder": read_only,
    "disk refuses": refusing_disk,
    "folder removed": removed_folder,
    "out of memory on the host": _breaks(lambda: torch.empty(1 << 50), "not enough memory on this machine", "step 50"),
    "out of memory on a GPU (simulated)": _breaks(_out_of_memory_on_a_gpu, "not enough memory", "step 50"),
    "a step that fails": _breaks(lambda: int("x"), "The step failed: ValueError", "step 50"),
    "loss not finite": not_finite,
    "loss not finite, found late": not_finite_late,
    "data absent": _spoiled(shutil.rmtree, "There is no folder"),
    "data corrupt": _spoiled(lambda data: (data / "train/a/3.png").write_bytes(b"no image"), "cannot be read", "3.png"),
    "data cut off": _spoiled(_cut, "cannot be read", "3.png"),
    "two processes on one run": two_drivers,
    "clock jumps": jumping_clock,
}
"""All of them, by what happens."""


def moments(count: int, folder: Path, names: list[str] | None = None) -> Verdict:
    """The first ``count`` moments, or those of these names."""
    verdict = Verdict()
    for number, name in enumerate(names or list(MOMENTS)[:count]):
        place = folder / str(number)
        place.mkdir()
        try:
            MOMENTS[name](place)
        except NotHere as error:
            verdict.notes.append(f"{name}: not tried, {error}")
            continue
        except Exception as error:
            verdict.failures.append(f"{name}: {type(error).__name__}: {error}")
        verdict.tried += 1
    return verdict


def _dies_of_a_full_disk(folder: Path) -> Verdict:
    real = loop._Loop._hold

    def hold(self: Any, error: Exception) -> None:
        raise error

    loop._Loop._hold = hold  # type: ignore[method-assign]
    try:
        return moments(1, folder, ["disk refuses"])
    finally:
        loop._Loop._hold = real  # type: ignore[method-assign]


CASES = (
    Case(
        name="moments",
        what="bad moments: each ends in a named state, and the run is gone on with to the same bits",
        whole=len(MOMENTS), quick=len(MOMENTS), run=moments,
        fault=_dies_of_a_full_disk, fault_words="a loop that ends when its record cannot be written",
    ),
)  # fmt: skip
