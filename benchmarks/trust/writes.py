"""Every write of a save and of a record made to fail: what was there before or all of the new is there afterwards."""

from __future__ import annotations

import contextlib
import errno
import itertools
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.trust.case import Case, Verdict
from ssl_lab import atomic, checkpoint
from ssl_lab import store as stores
from ssl_lab.config import RunConfig
from ssl_lab.errors import RunMissingError, SSLLabError, WriteError
from ssl_lab.store import Metrics, RunStore, open_run

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)

OLD, NEW = ({"w": torch.full((50, 40), value)} for value in (1.0, 2.0))

Save = Callable[[Path, dict[str, torch.Tensor], dict[str, Any]], None]


class Trap:
    """``os`` for the writer of whole files: its call number ``at`` does what ``act`` says."""

    def __init__(self, at: int, act: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
        self.calls: list[str] = []
        self._at, self._act = at, act

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "write", "fsync", "close", "replace"):
            return real

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self._at:
                return self._act(name, real, arguments)
            return real(*arguments)

        return call


@contextlib.contextmanager
def trapped(trap: Trap) -> Iterator[Trap]:
    """The writer of whole files on that ``os``."""
    setattr(atomic, "os", trap)  # noqa: B010
    try:
        yield trap
    finally:
        setattr(atomic, "os", os)  # noqa: B010


def failing(number: int) -> Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]:
    """A call that fails with this error; one that closes a file does close it, as the system does."""

    def act(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    return act


def short(part: int, then: int | None) -> Callable[[Trap], None]:
    """Has a trap take a part of what is to be written, and the next write fail, if ``then`` is an error."""

    def set_up(trap: Trap) -> None:
        def fail_next(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            handle, piece = arguments
            done = real(handle, piece[: max(1, len(piece) // part - 1)])
            if then is not None:
                trap._at, trap._act = len(trap.calls), failing(then)
            return done

        trap._act = fail_next

    return set_up


def points() -> list[str]:
    """The calls of a save, in order."""
    with trapped(Trap(-1, failing(0))) as trap, _scratch() as folder:
        checkpoint.save(folder / "x.safetensors", NEW, {})
    return trap.calls


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def saves(_count: int, folder: Path, save: Save = checkpoint.save) -> Verdict:
    """Every call of a save, failing in every way, over a file that is there and where there is none."""
    verdict = Verdict()
    calls = points()
    ways: list[tuple[str, int, Callable[[Trap], None]]] = []
    for at, name in enumerate(calls):
        for number in ERRORS:
            ways.append((f"{errno.errorcode[number]} in call {at} ({name})", at, _always(failing(number))))
        if name == "write":
            for part, then in itertools.product((1, 2, 8), (None, *ERRORS)):
                end = "" if then is None else f", then {errno.errorcode[then]}"
                ways.append((f"1/{part} of write {at}{end}", at, short(part, then)))
    for number, ((words, at, set_up), there) in enumerate(itertools.product(ways, (True, False))):
        place = folder / str(number)
        place.mkdir()
        path = place / "state.safetensors"
        if there:
            save(path, OLD, {"which": "old"})
        trap = Trap(at, failing(0))
        set_up(trap)
        said = ""
        with trapped(trap):
            try:
                save(path, NEW, {"which": "new"})
            except WriteError as error:
                said = str(error)
        verdict.tried += 1
        problem = _after(path, place, there, said)
        if problem:
            verdict.failures.append(f"{words}, {'over a file' if there else 'the first'}: {problem}")
    verdict.notes += [f"{len(calls)} calls a save: {', '.join(calls)}", "each failing in 4 ways, writes also short"]
    return verdict


def _always(act: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> Callable[[Trap], None]:
    def set_up(trap: Trap) -> None:
        trap._act = act

    return set_up


def _after(path: Path, place: Path, there: bool, said: str) -> str:
    """What is wrong after a save that said this; empty if nothing is."""
    others = [p.name for p in place.iterdir() if p != path]
    if others:
        return f"{others} was left behind"
    try:
        tensors, about = checkpoint.load(path)
    except RunMissingError:
        return "" if not there and said else "the file is gone"
    except SSLLabError as error:
        return f"it cannot be loaded: {error}"
    old, new = torch.equal(tensors["w"], OLD["w"]), torch.equal(tensors["w"], NEW["w"])
    if (old, new) not in ((True, False), (False, True)) or about["which"] != ("old" if old else "new"):
        return "it is a mixture"
    if old and not said:
        return "the old one is there and nobody said so"
    return "" if not said or str(path) in said else f"where it is was not said: {said}"


def naive(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """A writer that writes over what is there: the planted fault."""
    from safetensors.torch import save as serialised

    try:
        handle = atomic.os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # type: ignore[attr-defined]
        try:
            atomic._write_all(handle, memoryview(serialised(tensors, metadata=about)))
            atomic.os.fsync(handle)  # type: ignore[attr-defined]
        finally:
            atomic.os.close(handle)  # type: ignore[attr-defined]
    except OSError as error:
        raise atomic.cannot_write(path, error) from None


def _die(path: str, at: int, writer: str) -> None:
    def act(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name == "write":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    save: Save = naive if writer == "naive" else checkpoint.save
    with trapped(Trap(at, act)):
        save(Path(path), NEW, {"which": "new"})


def kills(_count: int, folder: Path, writer: str = "") -> Verdict:
    """A process killed in every call of a save, half of the bytes written."""
    context = _processes()
    verdict = Verdict()
    for at, name in enumerate(points()):
        path = folder / f"{at}.safetensors"
        checkpoint.save(path, OLD, {"which": "old"})
        process = context.Process(target=_die, args=(str(path), at, writer))
        process.start()
        process.join()
        if process.exitcode != -signal.SIGKILL and not writer:
            verdict.failures.append(f"call {at} ({name}) was not come by")
        verdict.tried += 1
        try:
            tensors, about = checkpoint.load(path)
            if not torch.equal(tensors["w"], (OLD if about["which"] == "old" else NEW)["w"]):
                verdict.failures.append(f"killed in call {at} ({name}): a mixture")
        except SSLLabError as error:
            verdict.failures.append(f"killed in call {at} ({name}): {error}")
    return verdict


def _processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.trust.writes"])
    return context


# ---------------------------------------------------------------- the record


def _deed(store: RunStore, number: int) -> None:
    """One thing that the loop writes in one piece: steps, a turn and its answer."""
    with store.transaction():
        store.add_metrics(Metrics(10 * number + i + 1, 0.0, -1.0, 0.0) for i in range(10))
        store.send("set", {"ema": number / 100})
        store.add_event(10 * number + 10, {"ema": 0.5}, {"ema": number / 100}, "page")
        store.answer(store.waiting()[0], 10 * number + 10)


DEEDS = 12


def _write_record(folder: str, limit: int, said: Any, fault: str) -> None:
    import resource

    if fault:

        @contextlib.contextmanager
        def loose(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
            yield connection

        setattr(stores, "transaction", loose)  # noqa: B010
        RunStore.transaction = _loose_transaction  # type: ignore[method-assign]
    with open_run("run", folder) as store:
        # From here on a file cannot grow beyond the limit: the system writes a part and then refuses.
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        done = 0
        try:
            for number in range(DEEDS):
                _deed(store, number)
                done += 1
                said[0] = done
        except atomic.CANNOT_WRITE:
            said[1] = 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        if fault:
            return
        # There is room again: what was refused is done, and the rest.
        for number in range(done, DEEDS):
            _deed(store, number)
        said[2] = 1


@contextlib.contextmanager
def _loose_transaction(self: RunStore, **_: Any) -> Iterator[sqlite3.Connection]:
    yield self._connection


def records(count: int, folder: Path, fault: str = "") -> Verdict:
    """A record whose files cannot grow beyond a limit, for limits from the first byte to the last."""
    context = _processes()
    verdict = Verdict()
    hit = 0
    for number in range(count):
        place = folder / str(number)
        RunStore.create("run", RunConfig(), place).close()
        limit = 1_000 + number * 100_000 // count + number % 7
        said = context.Array("i", 3)
        # Looked at while it is refused, by a copy: afterwards it is whole again.
        process = context.Process(target=_write_record, args=(str(place), limit, said, fault))
        process.start()
        process.join()
        hit += said[1]
        verdict.tried += 1
        if process.exitcode != 0:
            verdict.failures.append(f"limit {limit}: the process ended with {process.exitcode}")
            continue
        with open_run("run", place) as store:
            found = _whole_deeds(store)
            done = said[0] if fault else DEEDS
            if found is None or found not in (done, done + bool(fault)):
                verdict.failures.append(f"limit {limit}: {done} things were done and {found} are there in one piece")
            elif store.altered_event() is not None:
                verdict.failures.append(f"limit {limit}: an event is missing or altered")
    verdict.notes.append(f"{hit} of the limits were met")
    if hit < count // 2:
        verdict.failures.append(f"only {hit} of {count} limits were met")
    return verdict


def _whole_deeds(store: RunStore) -> int | None:
    """How many were done, if each was done whole; else None."""
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            return None
        commands = db.execute("SELECT state FROM commands").fetchall()
    steps, events = store.last_step(), store.events()
    count = len(events)
    whole = (
        steps == 10 * count
        and commands == [("done",)] * count
        and [e.number for e in events] == list(range(1, count + 1))
        and len(store.losses()) == steps
    )
    return count if whole else None


CASES = (
    Case(
        name="saves",
        what="every call of a save failing (ENOSPC, EIO, EROFS, EDQUOT, short): old or new loads",
        whole=1, quick=1, run=saves,
        fault=lambda folder: saves(1, folder, naive), fault_words="a writer that writes over the old",
    ),
    Case(
        name="kills",
        what="killed in every call of a save: old or new loads",
        whole=1, quick=1, run=kills,
        fault=lambda folder: kills(1, folder, "naive"), fault_words="a writer that writes over the old",
    ),
    Case(
        name="records",
        what="a record whose files may grow no more, at any byte: whole, and gone on with",
        whole=400, quick=40, run=records,
        fault=lambda folder: records(40, folder, "loose"), fault_words="a store without transactions",
    ),
)  # fmt: skip
