"""Two gloo ranks: as one process with the same global batch, knobs on the same step, and ranks that die.

The ranks are real processes. Most of what is asked of them is asked at once, see ``ranks_at_work.py``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import distributed as dist

from ssl_lab import Trainer, cli, distributed
from ssl_lab.config import CIFAR10, GAUSSIAN, STL10, Recipe
from ssl_lab.errors import ConfigError
from ssl_lab.ranks import LostRankError, Ranks, share
from ssl_lab.replay import replay
from ssl_lab.store import open_run
from ssl_lab.views import ViewStream
from tests.ssl_lab.conftest import small_config
from tests.ssl_lab.ranks_at_work import CASES, TURNS, WHOLE

ROOT = Path(__file__).resolve().parents[2]
SAME = 1e-5
"""Of a loss, relative: what two ranks may differ by from one process in float64."""


def clean(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SSL_LAB", "TORCHELASTIC"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def unignored() -> None:
    """A shell that starts the tests in the background may have Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ssl_lab.ranks_at_work", str(folder)], cwd=ROOT, text=True,
            env=clean(**where, RANK=str(rank), LOCAL_RANK=str(rank)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process_with_the_same_batch(name: str, found: list[dict[str, Any]]) -> None:
    here = found[0][name]
    print(f"{name}: losses differ by up to {here['loss']:.1e} of them, weights and all else by {here['state']:.1e}")
    assert here["kinds"] == ["torch.float64"]
    assert here["loss"] < SAME
    assert here["state"] < SAME
    assert here["moved"] > 1e-3, "it is about nothing if nothing was learnt"
    for rank in found:
        assert rank[name]["alike"], "Wp is the same on all ranks, to the bit"
        assert rank[name]["differed"], "it is about nothing if the ranks had the same gradients"


def test_a_knob_turned_from_the_page_lands_on_the_same_step_everywhere(found: list[dict[str, Any]]) -> None:
    first, second = (rank["steered"] for rank in found)
    assert first["events"] == [[step, changes] for step, changes in TURNS.items()]
    assert first["log"] == second["log"], "every step with the same knobs"
    knobs = dict(map(tuple, first["log"][:40]))
    for step, changes in TURNS.items():
        assert all(knobs[step][name] == value for name, value in changes.items())
        assert any(knobs[step - 1][name] != value for name, value in changes.items())
    assert first["again"], "a state that is taken over is on all ranks"
    assert (first["fingerprint"]["ranks"], first["fingerprint"]["backend"]) == (2, "gloo")


def test_what_ranks_refuse_is_said_on_all_of_them(found: list[dict[str, Any]]) -> None:
    first, second = (rank["refusals"] for rank in found)
    assert first == second
    assert "A batch of 33 images cannot be shared evenly by 2 ranks" in first["uneven"]
    assert "Take 32 or 34" in first["uneven"]
    assert "each rank having its own, and not 'cuda:1'" in first["device"]
    if not torch.cuda.is_available():
        assert "2 ranks need as many GPUs on a machine, and here are 0" in first["too many"]
    assert first["one of them"] == f"Rank 1 on {socket.gethostname()}: There is no such folder."
    assert "rank 1 on" in first["unlike"]
    assert "The weights of rank 1 on" in first["drift"]


def test_a_replay_by_one_process_is_close_and_says_why(found: list[dict[str, Any]], folder: Path) -> None:
    with open_run("steered", folder, readonly=True) as store:
        report = replay(store)
    assert report.excused
    assert report.largest_loss_difference < 1e-2
    if not report.equal:
        assert "ranks was 2 and is 1" in report.describe()


@pytest.mark.parametrize("recipe", [CIFAR10.recipe, STL10.recipe, GAUSSIAN.recipe])
@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_share_what_one_process_sees(recipe: Recipe, world: int) -> None:
    """None twice, none left out, each as it would have been."""
    channels = 1 if recipe is GAUSSIAN.recipe else 3
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, channels, 16, 16), dtype=torch.uint8, generator=generator)
    ranks: list[Any] = [SimpleNamespace(rank=rank, world=world) for rank in range(world)]

    def stream(own: slice | None) -> ViewStream:
        return ViewStream(images, recipe, torch.Tensor.contiguous, 3, 8, own)

    whole, parts = stream(None), [stream(share(rank, 8)) for rank in ranks]
    for step, strength in ((0, 1.0), (1, 1.0), (6, 0.5), (7, 0.0), (40, 2.0)):
        views = whole.at(step, strength)
        shared = torch.cat([torch.stack(part.at(step, strength).chunk(2)) for part in parts], 1).flatten(0, 1)
        # A blur is a product, whose last digit goes by the size of the batch.
        torch.testing.assert_close(shared, views, rtol=0, atol=1e-5 if recipe.blur_taps else 0)


def test_a_batch_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="Take 8, or fewer ranks"):
        share(SimpleNamespace(rank=0, world=4), 4)  # type: ignore[arg-type]


def test_ranks_do_not_take_what_an_earlier_start_left_for_their_own() -> None:
    """torchrun's store outlives them: three ranks that were started again once waited for addresses of the dead."""
    store = dist.HashStore()

    def start() -> list[str]:
        def meet(rank: int) -> str:
            ranks = Ranks.__new__(Ranks)
            ranks.rank, ranks.world = rank, 3
            return ranks._met(store)

        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(meet, 0)
            # Rank 0 has seen the words of the start before by the time that the others come.
            time.sleep(0.1)
            others = [threads.submit(meet, rank) for rank in (1, 2)]
            return [found.result(timeout=60) for found in (first, *others)]

    tokens = [start() for _ in range(3)]
    assert all(len(set(found)) == 1 for found in tokens), "one word for all ranks of a start"
    assert len({found[0] for found in tokens}) == 3, "another one for each start"


def test_float64_is_for_all_numbers_and_close_to_float32(make_trainer: Callable[..., Trainer]) -> None:
    wide, usual = make_trainer("directpred", precision="float64"), make_trainer("directpred")
    for _ in range(20):
        assert wide.step().loss == pytest.approx(usual.step().loss, rel=1e-3)
    assert {t.dtype for t in wide.state_dict()["tensors"].values() if t.is_floating_point()} == {torch.float64}
    twin = wide.fork()
    assert twin.step().loss == wide.step().loss
    assert wide.features(wide.dataset.test.images[:4]).dtype == torch.float32
    for mode in ("none", "mlp", "optimal", "linear"):
        wide.set(predictor=mode, symmetry="penalty")
        wide.step()
        wide.spectrum()


# ---------------------------------------------------------------- the command line


class Job:
    """``ssl-lab train`` in processes of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.out = folder / f"job-{time.monotonic_ns()}.log"
        self.file = self.out.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssl_lab", "train", *words, "--epochs-finetuning", "0"], cwd=folder,
            env=clean(SSL_LAB_RESULTS=str(folder), PYTHONUNBUFFERED="1"), stdout=self.file, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=unignored,
        )  # fmt: skip

    def wait_for(self, name: str, step: int) -> None:
        """Until the run is recorded up to a step."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            if (self.folder / name / "run.sqlite").is_file():
                with open_run(name, self.folder, readonly=True) as store:
                    if store.last_step() >= step:
                        return
            time.sleep(0.05)
        raise AssertionError(f"{name} did not come to step {step}: {self.said()}")

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.environ().get("RANK") == str(number):
                return child
        raise AssertionError(f"there is no rank {number}: {self.said()}")

    def said(self) -> str:
        return self.out.read_text()

    def end(self, timeout: float) -> int:
        self.process.wait(timeout=timeout)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()
        self.file.close()


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:
        job.close()


def ends_with_its_ranks(job: Job, ranks: list[psutil.Process], timeout: float) -> int:
    status = job.end(timeout)
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert not alive, "none is left behind"
    return status


def test_ranks_that_die(found: list[dict[str, Any]], folder: Path, jobs: list[Job]) -> None:
    """One is killed: the job ends and says which. All are started again: the numbers are those of a run that was not
    cut. Ctrl-C: saved. And one process goes on with it."""
    steps, (at, turn) = WHOLE["steps"], WHOLE["turn"]
    planned = f"{at}:" + ",".join(f"{name}={value}" for name, value in turn.items())
    two = ["--gpus", "2", "--device", "cpu"]
    begin = ["--name", "cut", "--preset", "directpred", "--width", "4", "--steps", str(steps), "--at", planned]

    jobs.append(job := Job(folder, *begin, *two))
    job.wait_for("cut", at + 5)
    ranks = [job.rank(0), job.rank(1)]
    ranks[1].kill()
    assert ends_with_its_ranks(job, ranks, 30) == 2, job.said()
    assert "rank 1 of 2" in job.said()
    assert "SIGKILL" in job.said()
    assert "ssl-lab train --name cut --resume --gpus 2" in job.said()
    assert "Traceback" not in job.said()
    with open_run("cut", folder) as store:
        assert not store.driven()
        cut = store.last_step()
        assert at + 5 <= cut < steps

    # A start that goes on, in which rank 0 dies.
    jobs.append(job := Job(folder, "--name", "cut", "--resume", *two, "--max-restarts", "1"))
    job.wait_for("cut", cut + 20)
    job.rank(0).kill()
    assert job.end(240) == 0, job.said()
    assert job.said().count("Going on with cut") == 2, job.said()
    with open_run("cut", folder) as cut_run, open_run("whole", folder) as whole:
        assert cut_run.status().state == "done"
        assert len(whole.losses()) == steps
        assert np.array_equal(cut_run.losses(), whole.losses())
        assert [event.step for event in cut_run.events()] == [at]

    jobs.append(job := Job(folder, "--name", "cut", "--resume", *two, "--steps", "100000"))
    job.wait_for("cut", steps + 5)
    ranks = [job.rank(0), job.rank(1)]
    job.process.send_signal(signal.SIGINT)
    assert ends_with_its_ranks(job, ranks, 60) == cli.INTERRUPTED, job.said()
    assert "nothing is lost" in job.said()
    with open_run("cut", folder) as store:
        assert store.status().state == "asleep"
        done = store.last_step()
        assert store.status().step == done
    goes_on_alone("cut", folder, done)


def goes_on_alone(name: str, folder: Path, done: int) -> None:
    """A run that ranks made is opened, gone on with and forked by one process."""
    assert cli.main([
        "train", "--name", name, "--resume", "--steps", str(done + 5), "--epochs-finetuning", "0", "--results",
        str(folder),
    ]) == 0  # fmt: skip
    with open_run(name, folder) as store:
        made = store.fingerprints()
        assert [one.get("ranks", 1) for one in made] == [2, 1]
        assert len(store.losses()) == done + 5
        with store.fork("alone", done, results=folder) as child:
            assert child.last_step() == done


def test_what_cannot_be_asked_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--name", "x", "--model", "byol", "--results", str(tmp_path)]
    for more, said in (
        (["--gpus", "0"], "--gpus takes a whole number from 1 on, and not 0"),
        (["--gpus", "2", "--max-restarts", "-1"], "--max-restarts takes a whole number from 0 on"),
        (["--max-restarts", "1", "--device", "cpu"], "--max-restarts goes with --gpus"),
    ):
        assert cli.main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    if torch.cuda.device_count() < 64:
        assert cli.main([*words, "--gpus", "64"]) == 2
        assert "--gpus 64 --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_only_what_this_start_of_the_ranks_made_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of this name that was there before is refused at the first start, and no less when that is tried again.

    torchrun's variables of one process, which is no rank among others.
    """
    words = ["train", "--model", "byol", "--steps", "3", "--width", "4", "--device", "cpu", "--epochs-finetuning", "0"]
    words += ["--results", str(tmp_path), "--name"]
    assert cli.main([*words, "old"]) == 0
    for name, value in {
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "job",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert cli.main([*words, "new"]) == 0
    assert cli.main([*words, "new"]) == 2, "the first start of a job, once more"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli.main([*words, "old"]) == 2
    assert cli.main([*words, "new", "--at", "2:ema=0.5"]) == 0
    assert "Going on with new" in capsys.readouterr().out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another job")
    assert cli.main([*words, "new"]) == 2
    with open_run("new", tmp_path) as store:
        assert "ranks" not in store.fingerprints()[0]


def test_what_is_not_whole_when_its_ranks_die_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rank that dies while a run is begun: else the next start would train without its end and its turns."""
    words = ["train", "--model", "byol", "--steps", "3", "--width", "4", "--device", "cpu", "--epochs-finetuning", "0"]
    words += ["--results", str(tmp_path), "--name", "x", "--at", "2:ema=0.5"]
    for name, value in {
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "job",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssl_lab.loop.plan", dies)
        assert cli.main(words) == cli.INTERRUPTED
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli.main(words) == 2
    assert "Going on with x" not in capsys.readouterr().out
    assert cli.main([*words, "--overwrite"]) == 0
    # Nor is a run that somebody else drives signed.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another job")
    with open_run("x", tmp_path) as store:
        signed = store.meta(distributed.JOB)
        assert signed
        store.claim("train")
        assert cli.main(["train", "--name", "x", "--resume", "--results", str(tmp_path)]) == 2
        assert store.meta(distributed.JOB) == signed
        store.release()


# ---------------------------------------------------------------- the reason that counts


def test_a_failure_of_rank_0_alone_is_no_lost_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in its step, it says itself before it leaves: the others have nothing to mend."""
    store = dist.HashStore()
    leads, follows = Ranks.__new__(Ranks), Ranks.__new__(Ranks)
    for rank, ranks in enumerate((leads, follows)):
        ranks.rank, ranks.world, ranks._told, ranks._store, ranks._words = rank, 2, 0, store, store

    def gone(*_: Any) -> None:
        raise LostRankError("The run cannot go on without all its ranks: rank 0 of 2 is gone.")

    monkeypatch.setattr(distributed, "build", lambda *_: None)
    monkeypatch.setattr(distributed, "follow", gone)
    config = json.loads(small_config().model_dump_json())
    leads.tell(distributed.BEGIN, config)
    assert distributed._followed(follows) == 1
    leads.tell(distributed.BEGIN, config)
    leads.tell(distributed.END)
    assert distributed._followed(follows) == 0
    assert not follows.is_told(distributed.STEP)
    leads.tell(distributed.STEP)
    assert not follows.is_told(distributed.STEP), "END is next, and stays it"


@pytest.mark.parametrize(("said", "status"), [("2", 2), ("0", 0), ("130", None), (None, None)])
def test_what_rank_0_says_comes_before_how_the_others_ended(
    said: str | None, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def run(_options: Any) -> None:
        file = Path(os.environ[distributed.VERDICT])
        file.write_text("2")
        if said is None:
            with pytest.raises(LostRankError):
                distributed._with_verdict(lambda: (_ for _ in ()).throw(LostRankError("gone")))
        else:
            assert distributed._with_verdict(lambda: int(said)) == 0
        raise ChildFailedError("ssl_lab", {1: ProcessFailure(local_rank=1, pid=12, exitcode=-9, error_file="none")})

    monkeypatch.setattr("torch.distributed.run.run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    go = partial(distributed.launch, ["train"], name="x", ranks=2, restarts=0, device="cpu")
    if status is None:
        with pytest.raises(LostRankError, match=r"rank 1 of 2 \(process 12\) was ended by SIGKILL"):
            go()
    else:
        assert go() == status
    assert distributed.VERDICT not in os.environ
