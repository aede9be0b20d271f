"""Where the trainers of a family meet: each is stepped by its own loop, in its own thread, and they make steps as one.

A loop calls ``trainer.step()`` as always. The trainer's :class:`Company` has it wait until the others that are running
are there too; one of the threads then makes the step for all (:mod:`ssl_lab.batched`), and each goes on with its own
record. Nobody waits for one that has paused, ended, failed or has something else to do: after ``patience`` the others
go without it, and it takes part again when it comes back. One that comes back a few steps behind is waited for while
it catches up, so that a family stays together and can share its views; one far behind, or slow by command, is not.

All that the members do to one another happens while each of them waits here, with its lock held by its own thread.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ssl_lab.batched import Batch, NotMadeError, Verdict, shape_of, worth_it
from ssl_lab.errors import SSLLabError
from ssl_lab.pacer import CATCH_UP
from ssl_lab.trainer import StepRecord, Trainer

log = logging.getLogger(__name__)

PATIENCE = 0.02
"""Seconds for which those that are there wait for one that was with them a step ago; also the longest that one may be
away between two steps and count as being with them."""
SETTLED = 1.0
"""Seconds for which nobody has come or gone before it is measured whether steps as one are worth it; one that has made
no step for as long stands."""


@dataclass(eq=False)
class _Ticket:
    """A trainer that waits for its step."""

    trainer: Trainer
    outcome: StepRecord | Exception | None = None
    """What came of it; a ``NotMadeError`` says that it has to be made alone."""


@dataclass
class _Member:
    expected: bool = False
    """Whether the others wait for it."""
    released: float | None = None
    """When its last step was over; None before the first."""


class Company:
    """Trainers of one shape that may be stepped as one.

    Args:
        measure: says whether it is worth it for some trainers that stand still.
        patience: see ``PATIENCE``.
        settled: see ``SETTLED``.
    """

    def __init__(
        self,
        measure: Callable[[Sequence[Trainer]], Verdict] = worth_it,
        *,
        patience: float = PATIENCE,
        settled: float = SETTLED,
    ) -> None:
        self.verdicts: dict[int, Verdict] = {}
        """What was measured, by the number of trainers."""
        self.shared = 0
        """Steps that were made as one; one for each batch, not for each trainer."""
        self._measure, self._patience, self._settled = measure, patience, settled
        self._members: dict[Trainer, _Member] = {}
        self._waiting: list[_Ticket] = []
        self._going: list[_Ticket] = []
        """Those whose step is being made; empty if none is."""
        self._change = threading.Condition()
        self._batch: Batch | None = None
        self._moved = self._news = time.monotonic()
        """When somebody arrived or a step was made, and when somebody came or went."""

    @property
    def members(self) -> tuple[Trainer, ...]:
        """Those that have joined and not left."""
        return tuple(self._members)

    def join(self, trainer: Trainer) -> None:
        """Has ``trainer`` make its steps here from now on."""
        with self._change:
            self._members[trainer] = _Member()
            self._news = time.monotonic()
        trainer.company = self

    def leave(self, trainer: Trainer) -> None:
        """Lets ``trainer`` go on alone; for its own thread, or while it stands."""
        trainer.company = None
        with self._change:
            self._members.pop(trainer, None)
            self._news = time.monotonic()
            self._change.notify_all()

    # ----------------------------------------------------------------- step

    def step(self, trainer: Trainer) -> StepRecord:
        """One step of ``trainer``, whose lock the calling thread holds; with others if that is worth it.

        Raises:
            Exception: as :meth:`Trainer.step`.
        """
        ticket = _Ticket(trainer)
        try:
            if self._arrive(ticket):
                try:
                    if self._leads(ticket):
                        self._lead()
                finally:
                    self._withdraw(ticket)
            if isinstance(ticket.outcome, StepRecord):
                return ticket.outcome
            if ticket.outcome is not None and not isinstance(ticket.outcome, NotMadeError):
                raise ticket.outcome
            # In its own thread, so that what goes wrong with one goes wrong with that one.
            return trainer.step_alone()
        finally:
            with self._change:
                if trainer in self._members:
                    self._members[trainer].released = time.monotonic()

    def _arrive(self, ticket: _Ticket) -> bool:
        """Notes that a trainer is here; whether it is to wait for others."""
        with self._change:
            member, now = self._members.get(ticket.trainer), time.monotonic()
            if member is None:
                return False
            # One that was away for long is not waited for until it has come back at once.
            member.expected = member.released is None or now - member.released <= self._patience
            if not self._wanted(now):
                return False
            self._waiting.append(ticket)
            self._moved = now
            self._change.notify_all()
            return True

    def _wanted(self, now: float) -> bool:
        if self._batch is not None:
            return True
        count = len(self._lively(now))
        verdict = self.verdicts.get(count)
        return count > 1 and now - self._news >= self._settled and (verdict is None or verdict.worth_it)

    def _lively(self, now: float) -> set[Trainer]:
        """Those that do not stand."""
        here = {ticket.trainer for ticket in self._waiting}
        return here | {
            trainer
            for trainer, member in self._members.items()
            if member.released is not None and now - member.released < max(self._settled, self._patience)
        }

    def _leads(self, ticket: _Ticket) -> bool:
        """Waits until the ticket has its outcome, or until this thread is to see to the steps of ``_going`` (True)."""
        with self._change:
            while ticket.outcome is None:
                if not self._going and self._all_here():
                    going = self._next()
                    if ticket in going:
                        self._going = going
                        return True
                    self._change.notify_all()
                self._change.wait(self._patience)
        return False

    def _all_here(self) -> bool:
        """Whether nobody is waited for any more."""
        here = {ticket.trainer for ticket in self._waiting}
        absent = [member for trainer, member in self._members.items() if member.expected and trainer not in here]
        if absent and time.monotonic() - self._moved < self._patience:
            return False
        for member in absent:
            member.expected = False
        return True

    def _next(self) -> list[_Ticket]:
        """Those whose step comes next: those that are behind, as long as the others can wait for them."""
        first = min(ticket.trainer.step_count for ticket in self._waiting)
        behind = [ticket for ticket in self._waiting if ticket.trainer.step_count == first]
        if not any(ticket.trainer in self._members and self._members[ticket.trainer].expected for ticket in behind):
            return list(self._waiting)
        return [ticket for ticket in self._waiting if not 0 < ticket.trainer.step_count - first <= CATCH_UP]

    def _withdraw(self, ticket: _Ticket) -> None:
        """Takes back a ticket whose thread was broken off; not while somebody else is making its step."""
        with self._change:
            while ticket in self._going:
                self._change.wait()
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._change.notify_all()

    # --------------------------------------------------------------- as one

    def _lead(self) -> None:
        tickets = self._going
        outcomes: Mapping[Trainer, StepRecord | Exception] = {}
        try:
            outcomes = self._outcomes([ticket.trainer for ticket in tickets])
        finally:
            with self._change:
                for ticket in tickets:
                    # Without one it was broken off from outside (Ctrl-C): nobody knows how far it came.
                    ticket.outcome = outcomes.get(ticket.trainer) or SSLLabError("The step was broken off.")
                    self._waiting.remove(ticket)
                self._going, self._moved = [], time.monotonic()
                self._change.notify_all()

    def _outcomes(self, trainers: list[Trainer]) -> dict[Trainer, StepRecord | Exception]:
        outcomes: dict[Trainer, StepRecord | Exception] = dict.fromkeys(trainers, NotMadeError("alone"))
        self._gather(trainers)
        batch = self._batch
        known = [] if batch is None else [trainer for trainer in trainers if trainer in batch.trainers]
        if batch is None or len(known) < 2:
            return outcomes
        outcomes |= batch.step(known)
        self.shared += any(isinstance(outcome, StepRecord) for outcome in outcomes.values())
        for outcome in outcomes.values():
            if isinstance(outcome, NotMadeError) and outcome.__cause__ is not None:
                log.error("A batch of %d runs is given up: %s", len(known), outcome, exc_info=outcome.__cause__)
                self._give_up(len(batch.trainers), str(outcome))
                break
        return outcomes

    def _give_up(self, count: int, why: str) -> None:
        self._batch = None
        self.verdicts[count] = Verdict(alone=[], together=[], apart=float("inf"), captured=False, failure=why)

    def _gather(self, trainers: list[Trainer]) -> None:
        """Has those that are here lie in one batch, if they do not, are all that are running, and it is worth it."""
        now = time.monotonic()
        with self._change:
            lively = self._lively(now)
        if len(trainers) < 2 or set(trainers) != lively or now - self._news < self._settled:
            return
        if self._batch is not None and lively <= set(self._batch.trainers):
            return
        count = len(trainers)
        try:
            if count not in self.verdicts:
                self.verdicts[count] = self._measure(trainers)
                log.info("A family of %d runs: %s", count, self.verdicts[count])
            self._batch = None
            if self.verdicts[count].worth_it:
                # Those of one group are neighbours. One that stands keeps the rows that it had.
                ordered = sorted(trainers, key=lambda trainer: repr(trainer.path()))
                self._batch = Batch(ordered, captured=self.verdicts[count].captured)
        except Exception as error:
            log.exception("%d runs cannot be stepped as one", count)
            self._give_up(count, f"{type(error).__name__}: {error}")
        # No further try before it has settled again.
        self._news = time.monotonic()


class Families:
    """An engine's companies: one for each family of runs and each shape of network in it.

    Args:
        everywhere: also on a CPU, where a run would no longer be replayed bit by bit; for tests.
        measure: see :class:`Company`, as the others.
    """

    def __init__(
        self,
        *,
        everywhere: bool = False,
        measure: Callable[[Sequence[Trainer]], Verdict] = worth_it,
        patience: float = PATIENCE,
        settled: float = SETTLED,
    ) -> None:
        self._everywhere = everywhere
        self._company = partial(Company, measure, patience=patience, settled=settled)
        self._lock = threading.Lock()
        # A company lives as long as its trainers.
        self._companies: weakref.WeakValueDictionary[Hashable, Company] = weakref.WeakValueDictionary()

    def admit(self, trainer: Trainer, family: Hashable) -> Company | None:
        """Has ``trainer`` make its steps with those of its family; gives its company, None if it goes alone.

        Whoever had it admitted has it leave: ``trainer.company.leave(trainer)``.
        """
        if trainer.device.type != "cuda" and not self._everywhere:
            return None
        if trainer.dtype != torch.float32:
            # A batch is of float32: some of what it makes would be of fewer digits than the run asks for.
            return None
        key = (family, shape_of(trainer))
        with self._lock:
            company = self._companies.get(key)
            if company is None:
                company = self._companies[key] = self._company()
            company.join(trainer)
        return company

    def companies(self) -> list[Company]:
        """Those that there are."""
        with self._lock:
            return list(self._companies.values())
