"""One run stepped by several processes: rank 0 leads, with the record and all that people see; the others follow.

Before each thing that the leading trainer does (a step, a turn of knobs, a state taken over, the end) it tells the
others, who wait for that word and do the same. So a knob lands at the same step on all ranks, whoever turned it, and
:func:`ssl_lab.loop.drive` knows nothing of ranks.

torchrun starts the processes, ends them if one of them dies, and starts them again if it may; ``ssl-lab train
--gpus N`` is the same in one command (:func:`launch`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch

from ssl_lab import __version__
from ssl_lab.config import RunConfig, make_config
from ssl_lab.cores import usable_cores
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.errors import ConfigError, NonFiniteLossError, SSLLabError
from ssl_lab.ranks import DriftError, LostRankError, Ranks, is_of_a_collective, lost
from ssl_lab.store import RunStore
from ssl_lab.trainer import ARITHMETIC, StepRecord, Trainer

BEGIN, STEP, SET, LOAD, END = range(1, 6)
"""What rank 0 tells the others."""

PATIENCE = 15.0
"""Seconds that a step may go on after this process was asked to stop: what it waits for may never come."""
NO_WORD = 3.0
"""Seconds that a following rank that was asked to stop, as all others were, goes on to wait for a word of rank 0."""

SHUTDOWN = 25
"""Seconds that :func:`launch` gives the ranks to save and end before it kills them."""

INTERRUPTED = 130
"""Exit status of what was asked to stop, as a shell expects it."""

JOB = "job"
"""Where a run's file keeps which start of torchrun made it: only that one goes on with it without being told."""
VERDICT = "SSL_LAB_VERDICT"
"""The file that rank 0 leaves its exit status in for :func:`launch`, so that what was refused is not tried again."""

T = TypeVar("T", bound=Trainer)


class Leader(Trainer):
    """Rank 0's trainer: tells the others what it does before it does it."""

    ranks: Ranks
    since: float | None = None
    """When the step or exchange that is under way began; None between them."""

    def step(self) -> StepRecord:
        with self.lock, self._exchange():
            self.ranks.tell(STEP)
            return super().step()

    def set(self, **changes: Any) -> Any:
        with self.lock, self._exchange():
            # Refused before anything is told.
            self.ranks.tell(SET, self.knobs.changed(changes).model_dump())
            return super().set(**changes)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self.lock, self._exchange():
            super().load_state_dict(state)
            self.ranks.tell(LOAD, self.counters())
            self.follow_state()

    def _exchange(self) -> _Exchange:
        return _Exchange(self)


class _Exchange:
    """While a trainer needs the others: since when, and in words if one of them is gone."""

    def __init__(self, trainer: Leader) -> None:
        self._trainer = trainer

    def __enter__(self) -> None:
        self._trainer.since = time.monotonic()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._trainer.since = None
        if error is not None and not isinstance(error, SSLLabError) and is_of_a_collective(error):
            raise lost(self._trainer.ranks, error) from error


def follow(trainer: Trainer) -> None:
    """Does what rank 0 does, until it says that this is the end.

    Raises:
        LostRankError: another rank is gone.
    """
    ranks = trainer.ranks
    assert ranks is not None
    while True:
        what, payload = ranks.hear()
        if what == END:
            return
        try:
            if what == STEP:
                trainer.step()
            elif what == SET:
                trainer.set(**payload)
            elif what == LOAD:
                trainer.follow_state(payload)
        except NonFiniteLossError:
            # All ranks see the same loss and F. What is next is rank 0's to say.
            continue
        except RuntimeError as error:
            if isinstance(error, SSLLabError) or not is_of_a_collective(error):
                raise
            raise lost(ranks, error) from error


def build(kind: type[T], ranks: Ranks, config: RunConfig, dataset: Dataset | None = None) -> T:
    """This rank's trainer, in the same state as all others'. A collective.

    Raises:
        ConfigError: some rank cannot have one, or runs another version or on other images; on all ranks alike.
    """
    ranks.settle(config.device)
    error = ""
    # The first of a machine fetches and unpacks what the others then find.
    for first in (True, False):
        if (ranks.local_rank == 0) == first and dataset is None:
            try:
                dataset = load_dataset(config)
            except SSLLabError as why:
                error = str(why)
        ranks.agree(error)
    assert dataset is not None
    trainer: T | None = None
    try:
        trainer = kind(config, dataset, ranks)
    except SSLLabError as why:
        error = str(why)
    images = dataset.train.images
    ranks.agree(
        error,
        about=f"ssl-lab {__version__}, torch {torch.__version__}, arithmetic {ARITHMETIC}, and {len(images):,} "
        f"training images with the digest {int(images.sum(dtype=torch.int64)):x}",
    )
    assert trainer is not None
    trainer.join_ranks()
    return trainer


class Job:
    """What the command line of rank 0 needs of the ranks.

    Args:
        ranks: None for a single process that torchrun started.
    """

    def __init__(self, ranks: Ranks | None) -> None:
        self._ranks = ranks
        self._trainer: Trainer | None = None
        self._ended = False

    def trainer(self, config: RunConfig) -> Trainer:
        """The trainer of a run, whose others on the other ranks do as it does."""
        if self._ranks is None:
            self._trainer = Trainer(config)
        else:
            self._ranks.tell(BEGIN, json.loads(config.model_dump_json()))
            self._trainer = build(Leader, self._ranks, config)
        return self._trainer

    def describe(self) -> str:
        """In words, who shares the work."""
        if self._ranks is None:
            return ""
        return f", shared by {self._ranks.world} ranks ({self._ranks.backend})"

    def goes_on_with(self, store: RunStore) -> bool:
        """Whether this start of the ranks is one more of those that made the run, after a rank died."""
        return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and store.meta(JOB) == _job()

    def sign(self, store: RunStore) -> None:
        """Leaves word in a run's file that this start of the ranks makes it."""
        store.set_meta(JOB, _job())

    def attentive(self) -> Attentive:
        """Takes signals while the run is trained."""
        return Attentive(self._is_stuck)

    def _is_stuck(self, asked: float) -> bool:
        since = self._trainer.since if isinstance(self._trainer, Leader) else None
        stuck = since is not None and time.monotonic() - max(since, asked) > PATIENCE
        if stuck:
            print(
                "ssl-lab: The step under way waits for a rank that does not answer. What is on record is safe: "
                "--resume goes on from the last checkpoint.", file=sys.stderr, flush=True,
            )  # fmt: skip
        return stuck

    def end(self) -> None:
        """Lets the other ranks go."""
        if self._ended or self._ranks is None:
            return
        self._ended = True
        with suppress(LostRankError):
            self._ranks.tell(END)


def _job() -> str:
    """Tells one start of torchrun from another; the same in all its restarts."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if name == "none":
        # Several machines without a name for the job: the agent is what stays.
        name = f"{socket.gethostname()} {os.getppid()}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


class Attentive:
    """``with Attentive(...) as stop:`` signals to end set ``stop`` and nothing else, however often they come.

    They are heard by a thread, as the main one may stand in a collective that never ends; as is that whoever started
    this process is gone.

    Args:
        stuck: whether there is nothing more to wait for, since it was asked to end; the process then ends at once.
    """

    def __init__(self, stuck: Callable[[float], bool]) -> None:
        self._stuck = stuck
        self._stop, self._over = threading.Event(), threading.Event()
        self._before: dict[int, Any] = {}
        self._parent = os.getppid()

    def __enter__(self) -> threading.Event:
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self._near.settimeout(0.5)
        if threading.current_thread() is threading.main_thread():
            self._wakeup = signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
            for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _nothing)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self._stop

    def _listen(self) -> None:
        asked: float | None = None
        while not self._over.is_set():
            heard = os.getppid() != self._parent
            with suppress(TimeoutError):
                heard |= bool({*self._near.recv(64)} & {*self._before})
            if heard and asked is None:
                asked = time.monotonic()
                self._stop.set()
            if asked is not None and self._stuck(asked):
                # The main thread may stand in a call that never returns.
                os._exit(1)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
        self._thread.join()
        self._near.close()
        self._far.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The thread of :class:`Attentive` has it already."""


def as_rank(work: Callable[[Job], int]) -> int:
    """``work`` on rank 0, with the others following; gives the exit status of this process.

    Raises:
        SSLLabError: on rank 0, what ``work`` raised.
    """
    if int(os.environ["WORLD_SIZE"]) == 1:
        return _with_verdict(lambda: work(Job(None)))
    ranks = Ranks()
    try:
        if ranks.rank == 0:
            return _with_verdict(lambda: _led(work, Job(ranks)))
        with Attentive(lambda asked: _is_left(ranks, asked)):
            return _followed(ranks)
    finally:
        ranks.close()


def _is_left(ranks: Ranks, asked: float) -> bool:
    """Whether nothing comes any more for a following rank that was asked to stop at ``asked``."""
    now, since = time.monotonic(), ranks.waits_since
    return now - asked > PATIENCE if since is None else now - max(asked, since) > NO_WORD


def _led(work: Callable[[Job], int], job: Job) -> int:
    try:
        return work(job)
    finally:
        job.end()


def _followed(ranks: Ranks) -> int:
    try:
        what, payload = ranks.hear()
        if what != BEGIN:
            return 0
        follow(build(Trainer, ranks, make_config(**payload)))
    except LostRankError as error:
        if ranks.is_told(END):
            # Rank 0 has ended the run for a reason of its own, and says it: no rank was lost on the way.
            return 0
        # Rank 0 says it, unless it is the one that is gone.
        if ranks.rank == 1 and "rank 0 of" in str(error):
            print(f"ssl-lab: {error}", file=sys.stderr, flush=True)
        return 1
    except (ConfigError, DriftError):
        # All ranks have come to the same, and rank 0 says it.
        return 2
    return 0


def _with_verdict(work: Callable[[], int]) -> int:
    """``work()``; under :func:`launch` its status is left in a file, and only a lost rank is a failure to mend."""
    file = os.environ.get(VERDICT)
    if file is None:
        return work()
    # Of the start before, if there was one.
    Path(file).unlink(missing_ok=True)
    try:
        status = work()
    except (LostRankError, DriftError):
        raise
    except SSLLabError as error:
        print(f"ssl-lab: {error}", file=sys.stderr, flush=True)
        status = 2
    Path(file).write_text(str(status))
    return 0


def launch(words: Sequence[str], *, name: str, ranks: int, restarts: int, device: str | None) -> int:
    """``ssl-lab`` with ``words`` as ``ranks`` processes on this machine, by torchrun's own launcher; the exit status.

    Args:
        words: the command line of each.
        name: of the run, for what is said.
        ranks: their number.
        restarts: how often all are started again after one of them died.
        device: auto, cpu or cuda; None where the ranks themselves find out.

    Raises:
        ConfigError: there are not as many GPUs here.
        LostRankError: a rank died, and none is started again.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device not in (None, "cpu") and there < ranks:
        gpus = f"{there} GPU{'s' * (there != 1)}"
        raise ConfigError(
            f"--gpus {ranks} needs as many GPUs, and this machine has {gpus}. Take fewer, or have {ranks} processes "
            f"share its cores: --gpus {ranks} --device cpu."
        )
    # What it would say of a rank that died is said below, in words.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Each has its share of the cores, which torchrun would make one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // ranks)))
    flags = ["--standalone", "--local-addr=127.0.0.1", f"--shutdown-timeout={SHUTDOWN}"]
    flags += [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", "-m", "ssl_lab"]
    options = get_args_parser().parse_args([*flags, *words])
    with tempfile.TemporaryDirectory() as folder:
        verdict = Path(folder) / "verdict"
        os.environ[VERDICT] = str(verdict)
        try:
            run(options)  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            if verdict.is_file() and (status := int(verdict.read_text())) != INTERRUPTED:
                # Rank 0 has come to its end and said it; how the others went after that is no news. It is where rank 0
                # was only asked to stop, as all are when one of them dies.
                return status
            rank, failure = error.get_first_failure()
            how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
            raise LostRankError(
                f"The run {name!r} stopped, because rank {rank} of {ranks} (process {failure.pid}) {how}. Nothing that "
                f"is on record is lost. Go on with: ssl-lab train --name {name} --resume --gpus {ranks}"
            ) from None
        except SignalException:
            # The ranks have had time to save, and said how to go on.
            return INTERRUPTED
        finally:
            os.environ.pop(VERDICT, None)
        return int(verdict.read_text()) if verdict.is_file() else 1
