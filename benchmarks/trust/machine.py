"""A state machine over the real widgets: whatever is done in whatever order, nothing is lost and nothing is silent."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.person import Diverged, Person, knob_names
from benchmarks.trust.witness import Witness
from ssl_lab import Trainer
from ssl_lab.config import PRESETS
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.loop import _Loop
from ssl_lab.replay import replay
from ssl_lab.store import RunStore, list_runs, open_run
from tests.ssl_lab.conftest import small_config

RUNS, ACTIONS = 300, 50
USED_AT_LEAST = 20
"""Times that each control is used in the whole; in part of it as many fewer."""

BATCH = 10
"""Runs from one seed: hypothesis makes most of the further ones from those before, so that they are much the same."""

REPLAYED = 5
"""Of so many sessions one is replayed."""

REPLAYED_STEPS = 500
"""Longest run that is replayed."""

LINKS: Sequence[dict[str, str]] = (
    {},
    {"run": "{}"},
    {"run": "{}", "step": "0", "compare": "{},directpred-1"},
    {"run": "{}", "watch": "1"},
    {"run": "{}", "step": "99999999999"},
    {"run": "no-such-run"},
    {"run": "../../etc/passwd"},
    {"preset": "byol", "seed": "7", "knobs": "ema=0.9,predictor=none"},
    {"preset": "nothing", "seed": "-1"},
    {"knobs": "lr=-3"},
)

CONTROLS = (
    *(f"knob {name}" for name in knob_names()),
    *(f"button {name}" for name in ("run", "pause", "step", "step10", "new", "reset", "restart")),
    "speed", "key run_pause", "key step", "timeline drag", "timeline live", "timeline fork", "timeline undo",
    "shelf tick", "shelf open", "preset", "data set",
    *(f"export {kind}" for kind in ("script", "command", "csv", "parquet", "npz", "sqlite", "png", "svg")),
    "drop", "link", "close and open", "cell again", "trainer.set",
)  # fmt: skip
"""All that a person can do."""


@dataclass
class _Session:
    """What all runs of the machine share, and what they came to."""

    data: Dataset
    witness: Witness
    diverged: Diverged
    used: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    stops: int = 0
    events: int = 0
    replayed: int = 0
    begun: int = 0
    first: bool = False
    """Whether the first run that fails is enough: what comes after it does nothing."""


SHARES = st.one_of(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from((0.0, 1.0)))
PLACES = st.sampled_from(range(60))
WAITS = st.sampled_from((True, True, False))


class BenchMachine(RuleBasedStateMachine):
    """One run: a bench, and whatever a person does. A run that has failed takes no further actions."""

    session: ClassVar[_Session]

    def __init__(self) -> None:
        super().__init__()
        self.person: Person | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="ssl-lab-machine-")

    @initialize(preset=st.sampled_from(sorted(PRESETS)), epochs=st.sampled_from((None, None, None, 1)))
    def begin(self, preset: str, epochs: int | None) -> None:
        session = self.session
        if session.first and session.verdict.failures:
            return
        session.begun += 1
        # Whatever the run before left behind is not this one's.
        session.witness.take()
        session.diverged.steps.clear()
        try:
            trainer = Trainer(small_config(preset, epochs=epochs, seed=session.begun), session.data)
            self.person = Person(Path(self._folder.name), trainer, session.used, session.witness, session.diverged)
            self.person.settle()
        except Exception as error:
            self._fail(error)

    def _do(self, action: Callable[[Person], object], settle: bool = True) -> None:
        if self.person is None:
            return
        try:
            action(self.person)
            if settle:
                self.person.settle()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        done = self.person.done if self.person else []
        self.session.verdict.failures.append(
            f"run {self.session.begun}: {type(error).__name__}: {error} (after {len(done)} actions, the last of them "
            f"{' > '.join(done[-8:])})"
        )
        person, self.person = self.person, None
        if person is not None:
            person.abandon()

    @rule(name=st.sampled_from(knob_names()), share=SHARES, wait=WAITS)
    def turn(self, name: str, share: float, wait: bool) -> None:
        self._do(lambda person: person.turn(name, share), wait)

    @rule(name=st.sampled_from(knob_names()), share=SHARES, wait=WAITS)
    def turn_too(self, name: str, share: float, wait: bool) -> None:
        self._do(lambda person: person.turn(name, share), wait)

    @rule(names=st.lists(st.tuples(st.sampled_from(knob_names()), SHARES), min_size=2, max_size=6))
    def turn_many(self, names: list[tuple[str, float]]) -> None:
        def action(person: Person) -> None:
            for name, share in names:
                person.turn(name, share)

        self._do(action)

    @rule(button=st.sampled_from(("run", "pause", "step", "step10")), wait=WAITS)
    def press(self, button: str, wait: bool) -> None:
        self._do(lambda person: person.press(button), wait)

    @rule(button=st.sampled_from(("run", "step10")), wait=WAITS)
    def go(self, button: str, wait: bool) -> None:
        self._do(lambda person: person.press(button), wait)

    @rule(way=st.sampled_from(("", "reset", "fork", "knob")))
    def overflow(self, way: str) -> None:
        def action(person: Person) -> None:
            person.dive()
            if way:
                person.surface(way)

        self._do(action)

    @rule(place=PLACES, wait=WAITS)
    def speed(self, place: int, wait: bool) -> None:
        self._do(lambda person: person.speed(place), wait)

    @rule(key=st.sampled_from(("run_pause", "step")), wait=WAITS)
    def key(self, key: str, wait: bool) -> None:
        self._do(lambda person: person.key(key), wait)

    @rule(shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4), wait=WAITS)
    def drag(self, shares: list[float], wait: bool) -> None:
        self._do(lambda person: person.drag(shares), wait)

    @rule(wait=WAITS)
    def live(self, wait: bool) -> None:
        self._do(lambda person: person.live(), wait)

    @rule(place=PLACES, what=st.sampled_from(("fork", "undo")))
    def grow(self, place: int, what: str) -> None:
        self._do(lambda person: person.fork() if what == "fork" else person.undo(place))

    @rule(place=PLACES, wait=WAITS)
    def tick(self, place: int, wait: bool) -> None:
        self._do(lambda person: person.tick(place), wait)

    @rule(place=PLACES)
    def open(self, place: int) -> None:
        self._do(lambda person: person.open(place))

    @rule(what=st.sampled_from(("new", "reset")), wait=WAITS)
    def afresh(self, what: str, wait: bool) -> None:
        self._do(lambda person: person.new(wait=wait) if what == "new" else person.reset(wait=wait), wait)

    @rule(what=st.sampled_from(("preset", "data set", "restart")), place=PLACES, wait=WAITS)
    def choose(self, what: str, place: int, wait: bool) -> None:
        def action(person: Person) -> None:
            if what == "restart":
                person.restart()
            else:
                (person.choose_preset if what == "preset" else person.choose_dataset)(place)

        self._do(action, wait)

    @rule(place=PLACES)
    def export(self, place: int) -> None:
        self._do(lambda person: person.export(place))

    @rule(place=PLACES, kind=st.sampled_from(("png", "svg")), wait=WAITS)
    def picture(self, place: int, kind: str, wait: bool) -> None:
        self._do(lambda person: person.picture(place, kind), wait)

    @rule(what=st.sampled_from(("link", "link", "reopen", "again", "drop")), place=PLACES)
    def come_and_go(self, what: str, place: int) -> None:
        def action(person: Person) -> None:
            if what == "link":
                person.link(LINKS[place % len(LINKS)])
            else:
                getattr(person, what)()

        self._do(action)

    @rule(name=st.sampled_from(knob_names()), share=SHARES)
    def notebook(self, name: str, share: float) -> None:
        self._do(lambda person: person.notebook(name, share))

    def teardown(self) -> None:
        session, folder = self.session, Path(self._folder.name)
        person = self.person
        session.verdict.tried = session.begun
        if person is not None:
            try:
                person.close()
                session.stops += person.stops
                self._replay(folder)
            except Exception as error:
                self._fail(error)
        self._folder.cleanup()

    def _replay(self, folder: Path) -> None:
        for run in list_runs(folder):
            with open_run(run.name, folder, readonly=True) as store:
                self.session.events += len(store.events())
                if self.session.begun % REPLAYED or not 0 < store.last_step() <= REPLAYED_STEPS:
                    continue
                if store.first_step() != 1:
                    continue
                found = replay(store)
                self.session.replayed += 1
                if not found.equal:
                    raise AssertionError(f"{run.name}: {found.describe()}")


def machine(count: int, actions: int, planted: Sequence[AbstractContextManager[Any]] = ()) -> _Session:
    """So many runs of so many actions; with faults planted, until one run has shown them."""
    with ExitStack() as stack:
        witness, diverged = stack.enter_context(Witness()), stack.enter_context(Diverged())
        session = _Session(load_dataset(small_config()), witness, diverged, first=bool(planted))
        for fault in planted:
            stack.enter_context(fault)
        for batch in range(-(-count // BATCH)):
            kind = type("Machine", (BenchMachine,), {"session": session})
            run_state_machine_as_test(
                seed(batch)(kind),
                settings=settings(
                    max_examples=min(BATCH, count - batch * BATCH), stateful_step_count=actions, deadline=None,
                    database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
                ),
            )  # fmt: skip
    return session


def run(count: int, _folder: Path) -> Verdict:
    """The machine on so many runs; a short look is of shorter ones."""
    actions = ACTIONS if count >= RUNS // 3 else ACTIONS // 2
    session = machine(count, actions)
    verdict, least = session.verdict, min(CONTROLS, key=lambda control: session.used[control])
    if unknown := set(session.used) - set(CONTROLS):
        verdict.failures.append(f"controls that are not on the list: {sorted(unknown)}")
    if session.used[least] < USED_AT_LEAST * count * actions // (RUNS * ACTIONS):
        verdict.failures.append(f"{least} was used {session.used[least]} times only")
    verdict.notes += [
        f"{sum(session.used.values()):,} actions by {len(CONTROLS)} controls, least {least} ({session.used[least]})",
        f"{session.events:,} events, {session.stops} losses not finite, {session.replayed} runs replayed bit-equal",
    ]
    return verdict


# ------------------------------------------------------------ planted faults

_add_event = RunStore.add_event


def _dropping() -> Callable[..., int]:
    """Every seventh event is not written."""
    calls = itertools.count(1)

    def add(store: RunStore, step: int, before: Any, changes: Any, origin: str) -> int:
        dropped = next(calls) % 7 == 0
        return len(store.events()) + 1 if dropped else _add_event(store, step, before, changes, origin)

    return add


def _doubles(store: RunStore, step: int, before: Any, changes: Any, origin: str) -> int:
    _add_event(store, step, before, changes, origin)
    return _add_event(store, step, before, changes, origin)


def _swallows(loop: _Loop, _message: str, _error: Exception) -> None:
    loop._stand("paused", "")


FAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a store that drops every seventh event": lambda: mock.patch.object(RunStore, "add_event", _dropping()),
    "a store that writes them twice": lambda: mock.patch.object(RunStore, "add_event", _doubles),
    "a loop that swallows a loss that is not finite": lambda: mock.patch.object(_Loop, "_fail", _swallows),
}


def fault(_folder: Path) -> Verdict:
    """Each of the faults, until a run has shown it; no failure at all if one went unseen."""
    verdict = Verdict()
    unseen = []
    for words, plant in FAULTS.items():
        # Losses that are not finite are rare: one in a hundred actions.
        session = machine(*((12, ACTIONS) if "finite" in words else (6, ACTIONS // 2)), [plant()])
        verdict.tried += session.verdict.tried
        verdict.failures += [f"{words}: {line}" for line in session.verdict.failures]
        if not session.verdict.failures:
            unseen.append(words)
    return Verdict(verdict.tried, [], [f"unseen: {', '.join(unseen)}"]) if unseen else verdict


CASES = (
    Case(
        name="machine", what="a state machine over the real widgets: no crash, no lost or doubled event, every loss "
        "that is not finite a named stop",
        whole=RUNS, quick=6, run=run, fault=fault, fault_words=", ".join(FAULTS),
    ),
)  # fmt: skip
