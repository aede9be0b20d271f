"""``drive(trainer, store)``: the one loop.

It runs in the foreground of ``ssl-lab train``, in a thread of a notebook's kernel and in the engine process,
and is the same in all: take commands at a step boundary, log each as a numbered event before it takes effect,
step, and write what was seen at a cadence in time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch

from ssl_lab import checkpoint, keep, memory, stage
from ssl_lab.atomic import CANNOT_WRITE, Reserve, cannot_write
from ssl_lab.diagnostics import Diagnostician
from ssl_lab.errors import KnobError, NonFiniteLossError, SSLLabError, WriteError
from ssl_lab.evaluation import knn_accuracy
from ssl_lab.pacer import Turns
from ssl_lab.ranks import DriftError, LostRankError
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import Command, Event, Metrics, RunState, RunStore
from ssl_lab.trainer import ARITHMETIC, StepRecord, Trainer
from ssl_lab.transfer import Transfer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the loop does what is not stepping; none of it changes a number of the run."""

    flush: float = 0.1
    """Seconds between writes of the metrics."""
    live_spectrum: float = 0.2
    """Seconds between spectra while somebody watches."""
    watched: float = 15.0
    """Seconds for which a look of a page counts as watching."""
    idle_poll: float = 0.02
    """Seconds between looks for a command while the run stands."""
    checkpoint: float = 20.0
    """Least seconds between checkpoints, besides those at knob events."""
    checkpoint_share: float = 0.02
    """Most of the time that checkpoints at a cadence may take."""
    disk: int = field(default_factory=keep.disk_limit)
    """Bytes that the run's checkpoints may take; the newest is kept in any case."""
    knn_pause: float = 0.7
    """Least seconds between kNN evaluations."""
    knn_share: float = 0.03
    """Most of the time that kNN evaluations may take."""
    pause_unwatched: float | None = None
    """Seconds without a page after which a run pauses; None to go on alone."""
    sleep_unwatched: float | None = None
    """Seconds of standing without a page after which the run is saved and let go; None for never."""
    try_again: float = 1.0
    """Seconds between tries to write a record that cannot be written."""


def foreground() -> Pace:
    """For a command line or a notebook."""
    return Pace()


def hosted() -> Pace:
    """For an engine process: pages fork runs at any moment, and leave them alone."""
    return Pace(checkpoint=5.0, pause_unwatched=20.0, sleep_unwatched=600.0)


FAMILY_FLUSH, FAMILY_SPECTRUM = 0.25, 0.5
"""Least seconds between writes of a family's member, and between its spectra: five runs are not looked at as closely as
one."""


def in_family(members: int) -> Pace:
    """For one of so many runs that an engine steps side by side: together they look at themselves as often as one."""
    alone = hosted()
    return replace(
        alone,
        flush=max(alone.flush, FAMILY_FLUSH),
        live_spectrum=max(alone.live_spectrum, FAMILY_SPECTRUM),
        checkpoint_share=alone.checkpoint_share / members,
        knn_pause=alone.knn_pause * members,
        knn_share=alone.knn_share / members,
    )


def drive(
    trainer: Trainer,
    store: RunStore,
    *,
    owner: str,
    until: int | None = None,
    running: bool = True,
    stay: bool = False,
    events_seen: int = 0,
    stop: threading.Event | None = None,
    pace: Pace | None = None,
    on_record: Callable[[StepRecord], None] | None = None,
    turns: Turns | None = None,
) -> RunState:
    """Steps ``trainer`` and writes ``store`` until told to stop; gives the state the run was left in.

    Args:
        owner: who drives: ``train``, ``engine`` or ``notebook``.
        until: number of steps after which the run is done; None goes on until told.
        running: step at once; else wait for a ``run`` or ``step`` command.
        stay: on failure or at the end, stand and wait for commands instead of returning or raising.
        events_seen: recorded knob events that the trainer's state holds already, from :func:`resume`; the others
            are gone through again, each at its step.
        stop: set it to have the run saved and let go at the next step boundary.
        pace: cadences; default :func:`foreground`.
        on_record: called after each step, such as by a progress bar.
        turns: of a run that steps side by side with others of its family.

    Raises:
        SSLLabError: another process drives the run, or (unless ``stay``) the run failed.
    """
    if not trainer.driver.acquire(blocking=False):
        raise SSLLabError(
            "This trainer is being stepped by another run already. Close that bench, or make another trainer."
        )
    try:
        store.claim(owner)
    except BaseException:
        trainer.driver.release()
        raise
    attendant: stage.Attendant | None = None
    loop: _Loop | None = None
    try:
        # Where others may look at runs: whoever drives one shows it while that is wanted.
        attendant = stage.attend(store)
        loop = _Loop(
            trainer, store, until, running, stay, events_seen, stop or threading.Event(), pace or foreground(),
            on_record, turns,
        )  # fmt: skip
        return loop.run()
    finally:
        if turns is not None:
            turns.leave()
        # Whatever fails while leaving, the run must not stay claimed by a process that no longer drives it.
        try:
            if loop is not None:
                loop.leave()
        finally:
            if loop is not None:
                loop.diagnostics.close()
                loop.reserve.give_back()
            trainer.driver.release()
            try:
                store.release()
            except CANNOT_WRITE as error:
                # The lock is given back in any case, and that is what counts.
                log.error("%s", cannot_write(store.folder, error))
            if attendant is not None:
                attendant.close()
            memory.give_back()


RESERVE = 256 * 1024
"""Bytes that a run keeps back on the disk for its last words."""

T = TypeVar("T")


class _Loop:
    """The state of one call of :func:`drive`."""

    def __init__(
        self,
        trainer: Trainer,
        store: RunStore,
        until: int | None,
        running: bool,
        stay: bool,
        events_seen: int,
        stop: threading.Event,
        pace: Pace,
        on_record: Callable[[StepRecord], None] | None,
        turns: Turns | None,
    ) -> None:
        self.trainer, self.store, self.until, self.stay, self.stop = trainer, store, until, stay, stop
        self.leaving = False
        """Set by a ``sleep`` command: this run goes, others that share ``stop`` stay."""
        self.pace, self.on_record, self.turns = pace, on_record, turns
        self.state: RunState = "running" if running else "paused"
        self.message = ""
        self.budget: int | None = None
        """Steps left of a ``step`` command; None when running freely."""
        self.speed: float | None = None
        self.records: list[StepRecord] = []
        """Steps done whose losses are still to be fetched."""
        self.fetched: deque[tuple[list[StepRecord], Transfer]] = deque()
        """Steps done whose losses are on their way from the device."""
        self.diagnostics = Diagnostician()
        self.spectra: deque[tuple[int, float, Spectrum]] = deque()
        """Spectra that are made and not written yet."""
        self.reserve = Reserve(store.folder / "reserve", RESERVE)
        self.unsound = False
        """Whether the trainer is not where the record says: a step broke off, or went on after a loss that is none."""
        self.failure: tuple[str, Exception] | None = None
        """Why the run is to stand as failed, until it does."""
        self.unsaved = ""
        """Why there is no checkpoint of late; empty if there is one."""
        self.vanished = False
        """Whether the run's file is gone: there is nothing left to write to."""
        self.beyond: tuple[RunState, str] = self.state, self.message
        """What comes after what is recorded has been gone through again."""
        now = time.monotonic()
        self.flushed = self.saved = self.looked = self.spectrum_time = self.meter_time = self.boundary = now
        self.stood_since = now
        self.viewer = 0.0
        """When a page last looked, by its clock."""
        self.viewer_seen = now
        """When that was seen to change, by one that does not jump."""
        self.watched = False
        self.meter_step = trainer.step_count
        self.rate = 0.0
        self.spectrum_step = -1
        self.knn_due = 0.0
        self.knn_step = -1
        self.event_count = events_seen
        events = store.events()
        self.recorded: list[Event] = events[events_seen:]
        """Events of the record that lie ahead: a run that was cut goes through them again."""
        self.event_steps = {event.step for event in events}
        self.save_pause = pace.checkpoint
        self.schedule: list[Turn] = _schedule(store)
        """Turns that were planned from the start and lie ahead."""
        self.knobs = store.knobs_after(events_seen)
        """The knobs as the record has them; the trainer's own differ if somebody turned them before."""
        if self.knobs == trainer.knobs:
            self.knobs = trainer.knobs
        self.turned_step = max((event.step for event in events[:events_seen]), default=-1)
        """The step after which knobs were turned last: what the trainer is there is not that step's any more."""

    # ------------------------------------------------------------ the loop

    def run(self) -> RunState:
        """Until the run is left."""
        try:
            self._surely(self._begin)
            while True:
                left = self._surely(self._round)
                if left is not None:
                    return left
        except (LostRankError, DriftError) as error:
            # Wherever it was met: what the trainer holds now is nothing to go on from, and no turn of anybody's.
            self.unsound, self.state, self.message = True, "failed", str(error)
            raise

    def _begin(self) -> None:
        self.reserve.take()
        self.store.set_status(speed=None)
        self.store.note_fingerprint(self.trainer.step_count, fingerprint(self.trainer))
        self._refresh_viewer()
        keep.sweep(self.store.folder)
        if self.trainer.step_count > self.store.last_step():
            # What came before is not on record, so that only a checkpoint leads back here.
            self._save()
        self._catch_up()
        # What lies behind is done, and as many of those planned for this very step as are on record.
        here = self.trainer.step_count
        schedule = _schedule(self.store)[int(self.store.meta(PLANNED_DONE) or 0) :]
        self.schedule = [turn for turn in schedule if turn[0] >= here]
        if self._at_end() and self.state == "paused":
            self.state = "done"
        self._snapshot()

    def _round(self) -> RunState | None:
        """Commands, one step if the run is running, and what is to be written; the state if the run is left."""
        if self.failure is not None:
            self._fail(*self.failure)
        if self.budget == 0:
            self._stand("paused", "")
            self.budget = None
        self._take_commands()
        if self._ending():
            return self._left()
        if self.state == "running":
            # Before the end is looked for: a turn that is planned for the last step is on record too.
            self._follow_schedule()
        if self.state == "running" and self._at_end():
            self._stand("done", "")
            self._evaluate(force=True)
            if not self.stay:
                return self.state
        if self.state == "running":
            self._step()
        else:
            self._stand_aside()
            if self._unwatched(self.pace.sleep_unwatched):
                return self._left()
            time.sleep(self.pace.idle_poll)
        self._housekeeping()
        return None

    def _surely(self, do: Callable[[], T]) -> T:
        """``do()``; again and again while the record cannot be written."""
        while True:
            try:
                return do()
            except CANNOT_WRITE as error:
                self._hold(error)

    def _hold(self, error: Exception) -> None:
        """Has the run stand, with all that is not written kept, until the record can be written again.

        Raises:
            WriteError: the run is to be left, or its file is gone.
        """
        self._stand_aside()
        words = cannot_write(self.store.folder, error)
        log.error("The run %s stands: %s", self.store.path, words)
        # The last words need some room.
        self.reserve.give_back()
        message = f"{words} The run stands until then, and goes on by itself; nothing is lost."
        said = float("-inf")
        while True:
            if self.store.vanished():
                self.vanished = True
                raise WriteError(f"The run {self.store.name!r} is gone: somebody removed {self.store.path}.")
            if self._ending():
                raise words from None
            with suppress(*CANNOT_WRITE):
                # Not too often: while the disk is full each of them takes a little of what is left.
                if time.monotonic() - said >= HOLD_BEAT:
                    self.store.set_status(state="paused", message=message, steps_per_second=0.0)
                    said = time.monotonic()
            self.stop.wait(self.pace.try_again)
            try:
                self.reserve.take()
                self._flush()
                self._write_spectra()
                self._write_status()
            except CANNOT_WRITE:
                self.reserve.give_back()
                continue
            log.info("The run %s can be written again", self.store.path)
            # What was being answered is answered now.
            self.store.look_again()
            self.boundary = time.monotonic()
            return

    def leave(self) -> None:
        """Leaves the file whole: what was measured, where the run stands, and a checkpoint."""
        if self.vanished:
            return
        with self.trainer.lock:
            self._log_foreign_turn()
        self._flush()
        self._record_spectrum()
        self._record_made(all_of_them=True)
        self._save()
        self.state = self._left()
        self._write_status()
        if self.trainer.step_count < (last := self.store.last_step()):
            # Left on the way back to the end of the record: the run is as long as that says.
            metrics = self.store.metrics()
            self.store.set_status(step=last, epoch=metrics.epoch if metrics else 0.0)

    def _ending(self) -> bool:
        return self.stop.is_set() or self.leaving

    def _left(self) -> RunState:
        """The state in which a run is left: one that failed or is done stays so."""
        if self.state in ("failed", "done"):
            return self.state
        return "done" if self._at_end() else "asleep"

    def _at_end(self) -> bool:
        return self.until is not None and self.trainer.step_count >= self.until

    def _catch_up(self) -> None:
        """Brings a run that was cut back to the end of its record, so that what comes next is added to it."""
        goal = self.store.last_step()
        while True:
            while self.recorded and self.recorded[0].step <= self.trainer.step_count:
                event = self.recorded.pop(0)
                self.knobs = self.trainer.set(**event.changes)
                self.event_count, self.turned_step = event.number, event.step
            if self.trainer.step_count >= goal or self._ending() or self.state == "failed":
                break
            if self.state != "loading":
                self.beyond = self.state, self.message
                self.state = "loading"
            self.message = f"Going again through what is recorded, to step {goal:,}."
            self._step()
            self._housekeeping()
        if self.state == "loading":
            self.state, self.message = self.beyond

    def _step(self) -> None:
        # What is on record is gone through again as fast as it goes.
        if self.speed is not None and self.state == "running":
            self.boundary = max(self.boundary + 1.0 / self.speed, time.monotonic() - 1.0 / self.speed)
            while (wait := self.boundary - time.monotonic()) > 0:
                # Short naps, so that a pause or a knob is not kept waiting at one step per second.
                time.sleep(min(wait, self.pace.idle_poll))
                if self.store.changed_elsewhere():
                    self._take_commands(known_change=True)
                if self.state != "running" or self._ending():
                    return
                self._housekeeping()
        if self.turns is None or self.state != "running":
            self._step_now()
            return
        if not self._wait_for_turn(self.turns):
            return
        try:
            self._step_now()
        finally:
            self.turns.give(self.trainer.step_count)

    def _wait_for_turn(self, turns: Turns) -> bool:
        """Until the run's family has it step; False if it is not to step any more."""
        begun = time.monotonic()
        while not turns.take(self.trainer.step_count, TURN_POLL, inf if self.speed is None else self.speed):
            if self.store.changed_elsewhere():
                self._take_commands(known_change=True)
            if self.state != "running" or self._ending():
                return False
            if time.monotonic() - begun > LONG_WAIT:
                self.message = WAITS
            self._housekeeping()
        if self.message == WAITS:
            self.message = ""
        return True

    def _stand_aside(self) -> None:
        """The others of the family need not wait for a run that stands."""
        if self.turns is not None:
            self.turns.leave()

    def _step_now(self) -> None:
        # One grip, so that no notebook turns a knob between the look and the step.
        with self.trainer.lock:
            self._log_foreign_turn()
            try:
                record = self.trainer.step()
            except NonFiniteLossError as error:
                # The weights are as before, and not all else: a network's running statistics have seen the batch.
                self.unsound = True
                self._fail(str(error), error)
                return
            except Exception as error:
                self._break_off(error)
                return
        self.records.append(record)
        if self.on_record is not None:
            self.on_record(record)
        if self.budget is not None:
            self.budget -= 1
        every = self.trainer.config.spectrum_every or self.trainer.steps_per_epoch
        if record.step % every == 0:
            self._record_spectrum()

    def _break_off(self, error: Exception) -> None:
        """The step ended in the middle: what it had changed by then is known to nobody."""
        self.unsound = True
        if isinstance(error, LostRankError | DriftError):
            self._fail(str(error), error)
            return
        log.error("The run %s failed", self.store.path, exc_info=True)
        where = self.store.last_step() + len(self.records)
        if is_out_of_memory(error):
            memory.give_back()
            device = self.trainer.device
            if device.type == "cuda":
                torch.cuda.empty_cache()
            self._fail(
                f"There was not enough memory {'on the GPU' if device.type == 'cuda' else 'on this machine'} for step "
                f"{self.trainer.step_count + 1:,}. Close other runs or programs and press Run: it goes on from step "
                f"{where:,}. Or begin a run with a smaller batch or network.",
                error,
            )
            return
        last = traceback.extract_tb(error.__traceback__)[-1]
        self._fail(
            f"The step failed: {type(error).__name__}: {error} (in {last.name}, line {last.lineno} of "
            f"{last.filename.rsplit('/', 1)[-1]}). Run tries again, from step {where:,}.",
            error,
        )

    def _mend(self) -> None:
        """Brings a trainer that is not where the record says back there, by a checkpoint and through the record."""
        self.records.clear()
        self.fetched.clear()
        self.spectra.clear()
        self.diagnostics.drop()
        trainer, store = self.trainer, self.store
        with trainer.lock:
            seen = _newest(trainer, store)
            if seen is None:
                trainer.load_state_dict(Trainer(trainer.config, trainer.dataset).state_dict())
            self.event_count = seen or 0
            self.knobs = trainer.knobs
        events = store.events()
        self.recorded = events[self.event_count :]
        self.turned_step = max((event.step for event in events[: self.event_count]), default=-1)
        self.spectrum_step = -1
        self.unsound, self.failure = False, None
        self.state, self.message = "paused", ""
        self._catch_up()

    def _housekeeping(self) -> None:
        now = time.monotonic()
        # On a clock of its own in standing runs: nothing changes there but the heartbeat.
        if now - self.looked >= 1.0:
            self.looked = now
            if self.store.vanished():
                raise FileNotFoundError(f"{self.store.path} is gone")
        if now - self.flushed >= (self.pace.flush if self.state == "running" else 1.0):
            self._refresh_viewer()
            self._flush(wait=False)
            self._write_status()
        if self.diagnostics.busy:
            self._record_made()
        if self.state == "running" and self._watched() and now - self.spectrum_time >= self.pace.live_spectrum:
            self._record_spectrum()
        if self.state == "running" and self.trainer.step_count > 0 and now >= self.knn_due:
            self._evaluate()
        if now - self.saved >= self.save_pause and self.state == "running":
            self._save()
        if self.state == "running" and self._unwatched(self.pace.pause_unwatched):
            self._stand("paused", "Paused, because no page was looking. Run goes on from here.")

    def _stand(self, state: RunState, message: str) -> None:
        # First what was measured: a loss that is not finite outdoes a pause, and what else went wrong after it.
        before = self.state
        self._flush()
        if self.state == "failed" and (state != "failed" or before != "failed"):
            return
        self.state, self.message, self.rate = state, message, 0.0
        self.stood_since = time.monotonic()
        self._snapshot()

    def _fail(self, message: str, error: Exception) -> None:
        # Remembered first: if it cannot be written now, the run must not step on when it can.
        self.failure, self.budget = (message, error), None
        self._stand("failed", message)
        self.failure = None
        if not self.stay:
            raise error if isinstance(error, SSLLabError) else SSLLabError(message) from error

    # ------------------------------------------------------------ commands

    def _take_commands(self, known_change: bool = False) -> None:
        if not known_change and not self.store.changed_elsewhere():
            return
        for command in self.store.waiting():
            try:
                self._obey(command)
            except (NonFiniteLossError, LostRankError, DriftError, *CANNOT_WRITE):
                raise
            except KnobError as error:
                self.store.answer(command, self.trainer.step_count, refused=str(error))
            except Exception as error:
                log.error("A command to the run %s failed", self.store.path, exc_info=True)
                self.store.answer(command, self.trainer.step_count, refused=f"{type(error).__name__}: {error}")

    def _obey(self, command: Command) -> None:
        payload, trainer = command.payload, self.trainer
        if self.unsound and command.kind in ("set", "run", "step"):
            self._mend()
            if self.state == "failed":
                raise KnobError(f"The run cannot be brought back to the end of its record. {self.message}")
        if command.kind == "set":
            self._turn(command)
            return
        if command.kind == "run":
            if self._at_end():
                raise KnobError("The run is done. Start a new one to go on.")
            self.budget = None
            self._go()
        elif command.kind == "step":
            count = payload.get("steps", 1)
            if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1_000_000:
                raise KnobError(f"The number of steps cannot be {count!r}: it takes a whole number from 1 to 1000000.")
            self.budget = count
            self._go()
        elif command.kind == "pause":
            if self.state == "running":
                self.budget = None
                self._stand("paused", "")
        elif command.kind == "speed":
            speed = payload.get("steps_per_second")
            if speed is not None and (not isinstance(speed, int | float) or not 0 < speed <= 1e6):
                raise KnobError(f"The speed cannot be {speed!r}: it takes a number of steps per second, or nothing.")
            self.speed = speed
            self.boundary = time.monotonic()
            self.store.set_status(speed=speed)
        elif command.kind == "save":
            self._save()
        elif command.kind == "sleep":
            self.leaving = True
        else:
            raise KnobError(f"There is no command {command.kind!r}.")
        self.store.answer(command, trainer.step_count)

    def _go(self) -> None:
        self.state, self.message = "running", ""
        self.viewer_seen = time.monotonic()
        self.meter_time, self.meter_step = time.monotonic(), self.trainer.step_count
        self.boundary = time.monotonic()
        self._write_status()

    def _turn(self, command: Command) -> None:
        """Turns knobs as a person asked."""
        with self.trainer.lock:
            self._log_foreign_turn()
            if self._at_end():
                raise KnobError("The run is done: a knob turned now would change nothing. Start a new run.")
            self._apply(command.payload, command.origin, command)

    def _follow_schedule(self) -> None:
        """Turns the knobs that were planned for this step."""
        while self.schedule and self.schedule[0][0] <= self.trainer.step_count:
            step, changes = self.schedule[0]
            try:
                with self.trainer.lock:
                    self._log_foreign_turn()
                    self._apply(changes, SCRIPT)
            except KnobError as error:
                self._fail(f"The turn planned for step {step:,} cannot be made. {error}", error)
                return
            # Not before it is on record.
            self.schedule.pop(0)

    def _apply(self, wanted: Mapping[str, Any], origin: str, command: Command | None = None) -> None:
        """Turns knobs: checked first, then logged, then done, and the command answered."""
        trainer, store = self.trainer, self.store
        now = trainer.knobs
        changes = now.difference(now.changed(wanted))
        if not changes:
            with store.transaction():
                self._answered(origin, command)
            return
        # The picture just before the rule changes belongs to the old rule, and so does the way back to this moment.
        self._flush()
        self._record_spectrum()
        if trainer.step_count not in self.event_steps:
            self._save()
            self.event_steps.add(trainer.step_count)
        before = {name: getattr(now, name) for name in changes}
        with store.transaction(durable=True):
            number = store.add_event(trainer.step_count, before, changes, origin)
            store.set_status(knobs=now.changed(changes))
            self._answered(origin, command)
        # Only what is on record takes effect.
        self.event_count, self.knobs = number, trainer.set(**changes)
        self.turned_step = trainer.step_count

    def _answered(self, origin: str, command: Command | None) -> None:
        if command is not None:
            self.store.answer(command, self.trainer.step_count)
        elif origin == SCRIPT:
            self.store.set_meta(PLANNED_DONE, int(self.store.meta(PLANNED_DONE) or 0) + 1)

    def _log_foreign_turn(self) -> None:
        """A notebook called ``trainer.set`` while the loop runs: the record must have it all the same."""
        if self.unsound or self.trainer.knobs is self.knobs:
            # Of a trainer that is not where the record says, nobody's turn is at the step that it counts.
            return
        changes = self.knobs.difference(self.trainer.knobs)
        if changes:
            # An event must not lie beyond the last recorded step, or a run that is cut here would not meet it again.
            self._flush()
            before = {name: getattr(self.knobs, name) for name in changes}
            self.event_count = self.store.add_event(self.trainer.step_count, before, changes, "notebook")
            self.event_steps.add(self.trainer.step_count)
            self.turned_step = self.trainer.step_count
        self.knobs = self.trainer.knobs

    # ------------------------------------------------------------ writing

    def _refresh_viewer(self) -> None:
        """Looks whether a page has looked: a new time is a new look, whatever the clocks say."""
        viewer = self.store.status().viewer
        if viewer != self.viewer:
            first, self.viewer = self.viewer == 0.0, viewer
            # Of the one look that was there before, its own time is all there is to go by.
            if not first or abs(time.time() - viewer) < self.pace.watched:
                self.viewer_seen, self.watched = time.monotonic(), True

    def _watched(self) -> bool:
        return self.watched and time.monotonic() - self.viewer_seen < self.pace.watched

    def _unwatched(self, seconds: float | None) -> bool:
        if seconds is None:
            return False
        now = time.monotonic()
        return now - self.viewer_seen > seconds and now - self.stood_since > seconds

    def _snapshot(self) -> None:
        self._flush()
        self._record_spectrum()
        self._record_made(all_of_them=True)
        self._write_status()

    def _flush(self, *, wait: bool = True) -> None:
        """Writes the losses of the steps done; without ``wait`` those that have not left a GPU yet come next time."""
        now = time.monotonic()
        self.flushed = now
        if self.records:
            records, self.records = self.records, []
            self.fetched.append((records, Transfer([torch.stack([record.losses for record in records])])))
        while self.fetched and (wait or self.fetched[0][1].arrived()):
            records, transfer = self.fetched[0]
            bad = self._write_losses(records, transfer.result()[0].tolist())
            self.fetched.popleft()
            if bad is not None and self.state != "failed":
                self._fail_late(bad)
        if self.state == "running" and now - self.meter_time >= 1.0:
            self.rate = (self.trainer.step_count - self.meter_step) / (now - self.meter_time)
            self.meter_time, self.meter_step = now, self.trainer.step_count

    def _write_losses(self, records: list[StepRecord], losses: list[list[float]]) -> Metrics | None:
        """Writes those that are finite; gives the first that is not."""
        rows = [Metrics(r.step, r.epoch, loss, penalty) for r, (loss, penalty) in zip(records, losses, strict=True)]
        bad = next((i for i, row in enumerate(rows) if not (isfinite(row.loss) and isfinite(row.penalty))), None)
        # What comes after a loss that is none is made by weights that are none.
        self.store.add_metrics(rows if bad is None else rows[:bad])
        return None if bad is None else rows[bad]

    def _fail_late(self, bad: Metrics) -> None:
        self.unsound = True
        self.records.clear()
        self.fetched.clear()
        error = NonFiniteLossError(
            f"The loss became {bad.loss} at step {bad.step}, and the weights with it. A learning rate that is too "
            "high is the usual reason: start again with a lower one."
        )
        self._fail(str(error), error)

    def _write_status(self) -> None:
        news: dict[str, Any] = {"step": self.trainer.step_count, "epoch": self.trainer.epoch}
        if not self.recorded:
            # While the record is gone through again, the rules stay those at its end.
            news["knobs"] = self.store.knobs_after(len(self.store.events())) if self.unsound else self.trainer.knobs
        self.store.set_status(
            state=self.state,
            message=self.message,
            steps_per_second=self.rate if self.state == "running" else 0.0,
            **news,
        )

    def _record_spectrum(self) -> None:
        self.spectrum_time = time.monotonic()
        # One grip: a notebook that turns the mode meanwhile would have Wp of the new rule stand at a step of the old.
        with self.trainer.lock:
            self._record_spectrum_now()

    def _record_spectrum_now(self) -> None:
        step = self.trainer.step_count
        known = step in (0, self.spectrum_step, self.turned_step)
        if known or self.trainer.knobs is not self.knobs or self.unsound:
            return
        self.spectrum_step = step
        self.diagnostics.take(step, self.trainer.epoch, self.trainer.matrices())
        self._record_made()

    def _record_made(self, *, all_of_them: bool = False) -> None:
        for step, epoch, found in self.diagnostics.made(all_of_them=all_of_them):
            if not isinstance(found, ValueError):
                self.spectra.append((step, epoch, found))
                continue
            log.warning("No spectrum at step %d: %s", step, found)
            if self.state != "failed":
                divergence = NonFiniteLossError(f"There is no spectrum at step {step}: {found}")
                self._fail(str(divergence), divergence)
        self._write_spectra()

    def _write_spectra(self) -> None:
        while self.spectra:
            self.store.add_spectrum(*self.spectra[0])
            self.spectra.popleft()

    def _evaluate(self, force: bool = False) -> None:
        """kNN on a part of the images, at a cadence that keeps it a small share of the time."""
        if not self.trainer.dataset.info.labelled or (self.trainer.step_count == self.knn_step and not force):
            return
        begun = time.monotonic()
        self.knn_step = self.trainer.step_count
        try:
            accuracy = quick_knn(self.trainer)
        except Exception as error:
            # A look at the run must not end it; what there is not enough memory for now there may be later.
            log.warning("No kNN accuracy of %s at step %d", self.store.path, self.knn_step, exc_info=True)
            self.message = f"The kNN accuracy could not be measured: {type(error).__name__}: {error}"
            self.knn_due = time.monotonic() + KNN_REST
            return
        self.store.add_evaluation(self.trainer.step_count, "knn", accuracy)
        cost = time.monotonic() - begun
        self.knn_due = time.monotonic() + max(self.pace.knn_pause, cost / self.pace.knn_share)

    def _save(self) -> None:
        """Writes a checkpoint, if there is a sound state to go on from; a full disk is said and not died of."""
        begun = time.monotonic()
        folder = self.store.folder
        with self.trainer.lock:
            # The record first: a checkpoint ahead of it would leave a hole for ever, and one that holds a notebook's
            # turn must count it.
            self._log_foreign_turn()
            self._flush()
            seen = self.event_count
            path = keep.kept_path(folder, self.trainer.step_count, seen)
            state = None if path.is_file() else self.trainer.state_dict()
        sound = state is not None and self.state != "failed"
        if state is not None and sound and all(bool(t.isfinite().all()) for t in state["tensors"].values()):
            try:
                checkpoint.save_state(path, state, seen)
            except SSLLabError as error:
                log.warning("%s", error)
                self.message = self.unsaved = str(error)
            else:
                if self.message == self.unsaved:
                    self.message = ""
            self._thin(folder)
        self.saved = time.monotonic()
        self.save_pause = max(self.pace.checkpoint, (self.saved - begun) / self.pace.checkpoint_share)

    def _thin(self, folder: Path) -> None:
        first = self.store.first_step()
        # Without the steps before, only the checkpoint that the record begins with leads into it.
        pinned = first - 1 if first > 1 else None
        for checkpoint_file in keep.surplus(keep.kept(folder), self.event_steps, self.pace.disk, pinned):
            checkpoint_file.path.unlink(missing_ok=True)


TURN_POLL = 0.05
"""Seconds between looks for a command while a run waits for its turn."""

LONG_WAIT = 5.0
"""Seconds after which a run that waits says so."""

WAITS = "Waits for the other members of its family, which have not come so far."

HOLD_BEAT = 10.0
"""Seconds between words of a run that cannot write."""

KNN_REST = 30.0
"""Seconds after a kNN evaluation that failed."""

SCRIPT = "script"
"""Origin of an event that was planned from the start."""

PLANNED_DONE = "planned_done"
"""Where a run's file keeps how many of its planned turns were made."""

Turn = tuple[int, Mapping[str, Any]]


def _schedule(store: RunStore) -> list[Turn]:
    return [(int(step), dict(changes)) for step, changes in store.meta(SCHEDULE) or []]


def plan(store: RunStore, turns: Sequence[Turn]) -> None:
    """Plans knob turns ``(steps done, changes)`` of a new run, in the order of steps; whoever drives it makes them.

    Raises:
        KnobError: a knob that there is not, or a value that it cannot take.
    """
    knobs = store.config().knobs
    for step, changes in turns:
        if step < 0:
            raise KnobError(f"A turn cannot be planned for step {step}: the first step of a run is 0.")
        knobs = knobs.changed(changes)
    store.set_meta(SCHEDULE, schedule_entry(turns))


SCHEDULE = "schedule"
"""Where a run's file keeps its planned turns."""


def schedule_entry(turns: Sequence[Turn]) -> list[list[Any]]:
    """Checked turns as a run's file keeps them."""
    return [[step, dict(changes)] for step, changes in sorted(turns, key=lambda turn: turn[0])]


KNN_IMAGES = (1_500, 500)
"""Most training and test images that the live kNN looks at: enough for a curve, and quick on two cores."""


def quick_knn(trainer: Trainer, k: int = 20) -> float:
    """kNN accuracy in [0, 1] on the first images of the sets (an even share of each class); changes nothing."""
    data = trainer.dataset
    parts = []
    for split, most in ((data.labelled, KNN_IMAGES[0]), (data.test, KNN_IMAGES[1])):
        stride = max(1, len(split.labels) // most)
        parts.append(
            (trainer.features(split.images[::stride][:most]), split.labels[::stride][:most].to(trainer.device))
        )
    (bank, bank_labels), (queries, query_labels) = parts
    return knn_accuracy(bank, bank_labels, queries, query_labels, k=k, num_classes=len(data.classes))


def resume(trainer: Trainer, store: RunStore) -> int:
    """Brings a fresh trainer to the run's last checkpoint; without one it stays at step 0.

    Gives the number of knob events that the state has seen, for :func:`drive`.
    """
    return _newest(trainer, store) or 0


def _newest(trainer: Trainer, store: RunStore) -> int | None:
    """Loads the newest sound checkpoint that the record reaches; gives the events it has seen, None without one."""
    last, first = store.last_step(), store.first_step()
    for kept in reversed(keep.kept(store.folder)):
        if kept.step > last and first:
            # The machine died with the last moments of the record: the way there begins earlier.
            continue
        try:
            state, seen = checkpoint.load_state(kept.path)
            trainer.load_state_dict(state)
        except (LostRankError, DriftError):
            # No fault of the checkpoint: the ranks are not all there, and no other one leads anywhere.
            raise
        except SSLLabError as error:
            # An earlier one leads there too, only slower.
            log.warning("%s The run goes on from an earlier state, through its record.", error)
            continue
        return seen
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, on the host or on a GPU."""
    # torch has no class of its own for the host's.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def fingerprint(trainer: Trainer) -> dict[str, Any]:
    """What a number of the run may depend on besides its config: versions, device, threads."""
    import platform

    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    blas = [info for info in threadpool_info() if info["user_api"] == "blas" and "numpy" in info["filepath"]]
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": str(trainer.device),
        "device_name": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "",
        "machine": platform.machine(),
        "threads": trainer.threads,
        "precision": str(trainer.precision).removeprefix("torch."),
        "arithmetic": ARITHMETIC,
        "capability": torch.backends.cpu.get_cpu_capability(),
        # The last digits of a spectrum are those of numpy's decomposition, whose kernels go by the processor.
        "blas": " ".join(sorted(f"{info['internal_api']} {info.get('architecture', '')}" for info in blas)),
    }
    if trainer.ranks is not None:
        # Sums over ranks have another order than sums of one process.
        found |= {"ranks": trainer.ranks.world, "backend": trainer.ranks.backend}
    return dict(json.loads(json.dumps(found)))
