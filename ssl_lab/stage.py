"""The stage: a folder in which somebody's run is shown live to others, who read and never write.

Whoever drives a run that is on stage puts whole copies of its file there, and the checkpoints that forks begin from.
Those who follow need no more than the right to read the folder: no lock, no database that is shared, no way to the run
itself. No torch.

    STAGE/stage.json              what is on stage, and how it stands
    STAGE/NAME/run.sqlite         the run as it was a moment ago, replaced as a whole
    STAGE/NAME/checkpoints/...    some of its checkpoints
    RESULTS/.on-stage.json        in the owner's own folder: what they want to be shown
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from ssl_lab import keep
from ssl_lab.atomic import CANNOT_WRITE, cannot_write, write_whole
from ssl_lab.errors import SSLLabError
from ssl_lab.foreign import Finite, ShortWords, Step, from_json, understood
from ssl_lab.seat import Seat
from ssl_lab.store import FILE_NAME, STAGED, RunStore, check_name

log = logging.getLogger(__name__)

WHERE = "SSL_LAB_STAGE"
"""Environment variable: the stage's folder. Without it there is no stage."""

PROGRAM = "stage.json"
WISH = ".on-stage.json"
LOCK = ".stage.lock"
"""No run is called so: names begin with a letter or digit."""

CADENCE = 1.0
"""Least seconds between two copies."""

READ_RATE = 1_000_000
"""Bytes a second that whoever follows has to read: a larger file is copied less often."""

SHARE = 0.05
"""Most of a core that copies may take."""

BEAT = 5.0
"""Seconds between signs of a run that does not change."""

QUIET = 15.0
"""Seconds beyond what is due after which a run on stage counts as left alone."""

ALONE = 2 * 3600.0
"""Seconds for which a run goes on because it is shown, while no page of its owner looks: longer than a lesson."""

LENT = 64_000_000
"""Bytes that the checkpoints on stage may take; the newest is there in any case."""

LEND = 5.0
"""Least seconds between looks for new checkpoints."""

LOOK = 0.2
"""Seconds between looks at what is wanted."""


@dataclass(frozen=True)
class OnStage:
    """What is on stage."""

    run: ShortWords
    """The run's name; its folder on the stage has the same."""
    id: ShortWords
    """Tells runs of one name apart."""
    token: ShortWords
    """New each time that something is put on stage."""
    step: Step
    """Steps done by the copy that lies there."""
    state: ShortWords
    """The run's state in it."""
    time: Finite
    """When this was written, seconds since the epoch by the owner's clock."""
    period: Annotated[Finite, Field(ge=0, le=1e6)]
    """Seconds until the next copy, or the next sign, is due."""

    @property
    def moves(self) -> bool:
        """Whether it is a run that goes on, by its last word."""
        return self.state in ("running", "loading", "queued")


@dataclass(frozen=True)
class Wish:
    """What the owner of a folder of runs wants to be shown, and where."""

    run: ShortWords
    id: ShortWords
    """Tells runs of one name apart: a name that was let go of may be another run's next."""
    token: ShortWords
    stage: ShortWords
    since: Finite


_PROGRAM: TypeAdapter[OnStage | None] = TypeAdapter(OnStage | None)
_WISH: TypeAdapter[Wish] = TypeAdapter(Wish)
_Key = tuple[Any, ...]


def stage_dir() -> Path | None:
    """The stage's folder, as ``SSL_LAB_STAGE`` says; None if there is no stage."""
    said = os.environ.get(WHERE)
    return Path(said).expanduser().absolute() if said else None


def run_on_stage(folder: Path, name: str) -> Path:
    """The file of a run on stage."""
    return folder / check_name(name) / FILE_NAME


# ------------------------------------------------------------ for those who look


def on_stage(folder: Path) -> OnStage | None:
    """What is on stage; None if nothing is.

    Raises:
        SSLLabError: what stands there is not what this version writes.
    """
    path = folder / PROGRAM
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    with understood(path, "program"):
        program = _PROGRAM.validate_python(from_json(text, 10_000))
        if program is not None:
            check_name(program.run)
        return program


class Audience:
    """Looks at a stage again and again, and at how long nothing has come from there.

    Args:
        folder: the stage's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[OnStage, float] | None = None
        """The last word, and when it came by a clock that does not jump."""

    def look(self) -> OnStage | None:
        """What is on stage now; of a broken program, the last that could be read."""
        try:
            program = on_stage(self.folder)
        except SSLLabError:
            log.debug("The stage's program cannot be read", exc_info=True)
            return self._seen[0] if self._seen else None
        if program is None:
            self._seen = None
        elif self._seen is None or self._seen[0] != program:
            # Of the first word, its own time is all there is to go by; later ones are heard when they come.
            age = max(0.0, time.time() - program.time) if self._seen is None else 0.0
            self._seen = program, time.monotonic() - age
        return program

    def open(self, program: OnStage) -> RunStore:
        """The run that is on stage, to be looked at; it follows by :meth:`RunStore.refresh`.

        Raises:
            SSLLabError: it is not there, or cannot be read.
        """
        return RunStore.open(run_on_stage(self.folder, program.run), apart=True)

    @property
    def left_alone(self) -> float:
        """Seconds for which nothing has come of a run that moves, if they are too many; else 0."""
        if self._seen is None or not self._seen[0].moves:
            return 0.0
        silent = time.monotonic() - self._seen[1]
        return silent if silent > 3 * self._seen[0].period + QUIET else 0.0


# ------------------------------------------------------------ for the owner


def wish(results: Path) -> Wish | None:
    """What the owner of this folder of runs wants to be shown."""
    path = results / WISH
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    with understood(path, "wish"):
        return _WISH.validate_python(from_json(text, 10_000))


def show(store: RunStore, folder: Path) -> None:
    """Puts a run on stage, in place of what is there; from now on whoever drives it shows how it goes.

    Raises:
        SSLLabError: the stage cannot be written, or lies where runs are.
    """
    results = store.folder.parent
    _check_apart(results, folder)
    with _alone(results, folder):
        wanted = Wish(
            run=store.name, id=str(store.meta("id")), token=uuid.uuid4().hex, stage=str(folder), since=time.time()
        )
        before = _program(folder)
        # Wished for first: what is on stage without a wish, nobody could take down again.
        with _wished(results / WISH, wanted):
            _put(store, folder, wanted)
        if before is not None and before.run != wanted.run:
            _clear(folder, before.run)


def withdraw(results: Path, folder: Path) -> None:
    """Takes what this folder's owner has put on stage down again. Who follows keeps the last copy they have read.

    Raises:
        SSLLabError: the stage cannot be written.
    """
    with _alone(results, folder):
        wanted, program = wish(results), _program(folder)
        if wanted is not None and program is not None and program.token == wanted.token:
            write_whole(folder / PROGRAM, [b"null"])
            _clear(folder, program.run)
        (results / WISH).unlink(missing_ok=True)


def forget(results: Path, run: str, identity: str) -> None:
    """Takes a run that was deleted down again, if it is what this folder's owner shows.

    Args:
        results: the folder that it lay in.
        run: its name.
        identity: its ``meta["id"]``.

    Raises:
        SSLLabError: the stage cannot be written.
    """
    wanted = None
    with contextlib.suppress(SSLLabError):
        wanted = wish(results)
    if wanted is not None and (wanted.run, wanted.id) == (run, identity):
        withdraw(results, Path(wanted.stage))


@contextlib.contextmanager
def _alone(results: Path, folder: Path) -> Iterator[None]:
    """One at a time of those who write to the stage: out of this folder of runs, and out of another one as far as the
    system lets two owners have a lock in common."""
    own, common = Seat(results / f"{WISH}.lock"), Seat(folder / LOCK)
    deadline = time.monotonic() + 30.0
    try:
        _take(own, deadline)
        # Another user's lock cannot be had: then whoever writes last has the stage.
        with contextlib.suppress(OSError):
            _take(common, deadline)
        yield
    finally:
        common.leave()
        own.leave()


def _take(seat: Seat, deadline: float) -> None:
    while not seat.take():
        if time.monotonic() > deadline:
            raise SSLLabError("The stage is being written since half a minute. Try again in a moment.")


@contextlib.contextmanager
def _wished(path: Path, wanted: Wish) -> Iterator[None]:
    """The wish is written; if what follows fails, what was wished before stands again."""
    earlier = path.read_bytes() if path.is_file() else None
    write_whole(path, [json.dumps(asdict(wanted)).encode()])
    try:
        yield
    except BaseException:
        with contextlib.suppress(*CANNOT_WRITE):
            if earlier is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, [earlier])
        raise


def _check_apart(results: Path, folder: Path) -> None:
    """Sees to it that what is put on a stage, and taken down, can be none of the owner's own files.

    Raises:
        SSLLabError: the stage's folder is the results folder, lies in it or around it.
    """
    runs, there = results.resolve(), folder.resolve()
    if runs == there or runs in there.parents or there in runs.parents:
        raise SSLLabError(
            f"The stage {folder} cannot be the folder of the runs ({results}), lie in it or hold it: showing a run "
            f"would write over runs. Set {WHERE} to a folder of its own."
        )


def _is_copy(place: Path) -> bool:
    """Whether the run's file in a folder is a copy for others, and so one that may go; also if there is none."""
    if not (place / FILE_NAME).exists():
        return True
    try:
        with RunStore.open(place / FILE_NAME, apart=True) as there:
            return bool(there.meta(STAGED))
    except SSLLabError:
        # Half a copy, after the power went. A run that somebody works with has more than that one file.
        return not any((place / f"{FILE_NAME}{end}").exists() for end in ("-wal", "-shm", "-journal"))


def _program(folder: Path) -> OnStage | None:
    with contextlib.suppress(SSLLabError):
        return on_stage(folder)
    return None


def _prepare(place: Path, store: RunStore) -> None:
    """A folder for the run; what another run of that name has left there goes.

    Raises:
        SSLLabError: there is a run which was not put on stage.
    """
    if not _is_copy(place):
        raise SSLLabError(
            f"{place} holds a run that was not put on stage, and is left as it is. Set {WHERE} to a folder of its own."
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
        # What somebody who was killed while writing has left.
        keep.sweep(place)
        for half in place.glob(f".{FILE_NAME}.*"):
            half.unlink(missing_ok=True)
        if (place / FILE_NAME).exists():
            try:
                with RunStore.open(place / FILE_NAME, apart=True) as old:
                    same = old.meta("id") == store.meta("id")
            except SSLLabError:
                same = False
            if not same:
                shutil.rmtree(place / keep.FOLDER, ignore_errors=True)
    except OSError as error:
        raise cannot_write(place, error) from None


def _clear(folder: Path, run: str) -> None:
    with contextlib.suppress(SSLLabError):
        place = run_on_stage(folder, run).parent
        if not place.is_dir() or place.is_symlink() or not _is_copy(place):
            return
        # What is put there, and nothing else; the run's file last, which says that it is a copy.
        shutil.rmtree(place / keep.FOLDER, ignore_errors=True)
        with contextlib.suppress(OSError):
            for half in place.glob(f".{FILE_NAME}.*"):
                half.unlink(missing_ok=True)
            (place / FILE_NAME).unlink(missing_ok=True)
            place.rmdir()


def _put(store: RunStore, folder: Path, wanted: Wish) -> float:
    """One copy of the run as it is now, and word of it; gives the seconds until the next one is due."""
    begun, worked = time.monotonic(), time.thread_time()
    place, before = run_on_stage(folder, wanted.run), _program(folder)
    if before is None or (before.token, before.id) != (wanted.token, wanted.id):
        _prepare(place.parent, store)
    with tempfile.TemporaryDirectory(prefix="ssl-lab-stage-") as private:
        copy = Path(private) / FILE_NAME
        # SQLite works here, where nobody else is; to the stage, which may lie behind a network, go plain bytes.
        store.snapshot_to(copy)
        size = copy.stat().st_size
        now = _program(folder)
        if now is not None and now.token not in (wanted.token, before.token if before is not None else ""):
            # While it was copied somebody else has taken the stage, who does not know of our lock.
            return CADENCE
        with copy.open("rb") as file:
            write_whole(place, iter(lambda: file.read(1 << 20), b""), durable=False)
        with RunStore.open(copy, readonly=True) as copied:
            status = copied.status()
    took = max((time.thread_time() - worked) / SHARE, 2 * (time.monotonic() - begun))
    period = max(CADENCE, size / READ_RATE, took)
    _announce(folder, store, wanted, step=status.step, state=status.state, period=period)
    return period


def _announce(folder: Path, store: RunStore, wanted: Wish, *, step: int, state: str, period: float) -> None:
    program = OnStage(
        run=wanted.run, id=str(store.meta("id")), token=wanted.token, step=step, state=state, time=time.time(),
        period=round(period, 3),
    )  # fmt: skip
    write_whole(folder / PROGRAM, [json.dumps(asdict(program)).encode()], durable=False)


# ------------------------------------------------------------ for whoever drives


class Attendant:
    """Shows a run, while it is wanted on stage, from a thread of whoever drives it.

    Args:
        store: the run; the thread reads it through a connection of its own.
        folder: the stage's folder.

    Raises:
        SSLLabError: the stage lies where runs are.
    """

    def __init__(self, store: RunStore, folder: Path) -> None:
        _check_apart(store.folder.parent, folder)
        self._path, self._folder = store.path, folder
        self._results, self._name, self._id = store.folder.parent, store.folder.name, str(store.meta("id"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._attend, name=f"stage-{self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends, with a last copy of the run as it was left."""
        self._stop.set()
        self._thread.join(timeout=60.0)

    def _attend(self) -> None:
        try:
            with RunStore.open(self._path) as store:
                self._show(store)
        except Exception:
            # Whatever becomes of the stage, the run goes on.
            log.exception("The run %s cannot be shown", self._path)

    def _show(self, store: RunStore) -> None:
        shown: _Key | None = None
        stamp: object = None
        wanted: Wish | None = None
        due = lent_due = sign_due = touch_due = float("-inf")
        period = CADENCE
        while True:
            last = self._stop.wait(LOOK)
            now = time.monotonic()
            try:
                if (there := _stamp(self._results / WISH)) != stamp:
                    stamp, wanted, shown = there, self._mine(), None
                if wanted is not None:
                    if now >= touch_due and not last and time.time() - wanted.since < ALONE:
                        touch_due = now + 2.0
                        # Whom it is shown to cannot say that they look.
                        store.touch_viewer()
                    if last or now >= due:
                        key = _key(store)
                        if key != shown:
                            with self._still(wanted) as still:
                                if still:
                                    period = _put(store, self._folder, wanted)
                            shown, sign_due = key, now + BEAT
                            due = time.monotonic() + period
                        elif now >= sign_due:
                            with self._still(wanted) as still:
                                if still:
                                    status = store.status()
                                    _announce(
                                        self._folder, store, wanted, step=status.step, state=status.state,
                                        period=max(period, BEAT),
                                    )  # fmt: skip
                            sign_due = now + BEAT
                    if last or now >= lent_due:
                        with self._still(wanted) as still:
                            if still:
                                lend(store.folder, self._folder / self._name, {e.step for e in store.events()})
                        lent_due = time.monotonic() + max(LEND, (time.monotonic() - now) / SHARE)
            except (SSLLabError, *CANNOT_WRITE, sqlite3.Error) as error:
                log.warning("The run %s cannot be shown: %s", self._path, error)
                due = lent_due = sign_due = now + BEAT
            if last:
                return

    def _mine(self) -> Wish | None:
        wanted = wish(self._results)
        if wanted is None or (wanted.run, wanted.id) != (self._name, self._id):
            return None
        return wanted if Path(wanted.stage) == self._folder else None

    @contextlib.contextmanager
    def _still(self, wanted: Wish) -> Iterator[bool]:
        """Whether it is still what is wanted, and nobody else has taken the stage; nothing changes meanwhile."""
        with _alone(self._results, self._folder):
            program = _program(self._folder)
            yield wish(self._results) == wanted and program is not None and program.token == wanted.token


def attend(store: RunStore) -> Attendant | None:
    """Someone who shows the run while it is wanted on stage; None where there is no stage."""
    folder = stage_dir()
    try:
        return Attendant(store, folder) if folder is not None else None
    except SSLLabError as error:
        # Whatever becomes of the stage, the run goes on.
        log.warning("The run %s cannot be shown: %s", store.path, error)
        return None


def _key(store: RunStore) -> _Key:
    """Changes when there is something new to be seen, which a sign of life is not."""
    status = asdict(store.status())
    spectrum, knn = store.newest_spectrum(), store.newest_evaluation("knn")
    seen = {name: value for name, value in status.items() if name not in ("heartbeat", "viewer", "host", "pid")}
    return repr(seen), store.last_step(), spectrum.number if spectrum else 0, knn


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def lend(folder: Path, place: Path, event_steps: set[int], limit: int = LENT) -> None:
    """Has the checkpoints on stage be those of the run's folder that forks need most, within a number of bytes.

    They are copied: what lies on the stage is nobody's way to the run itself.

    Raises:
        WriteError: they cannot be written there.
    """
    own = keep.kept(folder)
    gone = {c.path for c in keep.surplus(own, event_steps, limit)}
    wanted = {c.path.name: c for c in own if c.path not in gone}
    there: Mapping[str, keep.Kept] = {c.path.name: c for c in keep.kept(place)}
    # The newest first: that is where most forks begin.
    for name, checkpoint in sorted(wanted.items(), reverse=True):
        if name in there and there[name].bytes == checkpoint.bytes:
            continue
        target = keep.kept_path(place, checkpoint.step, checkpoint.events)
        with contextlib.suppress(FileNotFoundError), checkpoint.path.open("rb") as file:
            # Opened: thinned out meanwhile, it is still read to its end.
            write_whole(target, iter(lambda: file.read(1 << 20), b""), durable=False)
    for name, checkpoint in there.items():
        if name not in wanted:
            checkpoint.path.unlink(missing_ok=True)
