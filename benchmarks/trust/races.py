"""Many hands on one run: what a step reads is one version, events are numbered once each, one process drives."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.pages import PAIRS, claim, log, pair, processes, steer, torn
from benchmarks.trust.person import update
from benchmarks.trust.whole import faults, turned
from benchmarks.trust.witness import Witness
from lab import Bench
from ssl_lab import Trainer
from ssl_lab.config import Knobs, RunConfig
from ssl_lab.desk import EngineDesk
from ssl_lab.loop import drive
from ssl_lab.replay import replay
from ssl_lab.store import RunStore, open_run
from tests.ssl_lab.conftest import small_config

PAGES, THREADS = 4, 2
"""Processes and threads of the notebook that turn knobs of one run."""

LOGGERS = 4
"""Processes that log events in one file."""

BENCHES = 8
"""Pages on one run of one engine."""

PATIENCE = 120.0
"""Seconds for anything to come to pass."""


class NotedTrainer(Trainer):
    """Notes the rules that each step was made by, as it finds them before and after."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.made_by: dict[int, Knobs] = {}
        self.torn: list[str] = []

    def _learn(self, views: Tensor, path: Any) -> None:
        knobs, rates = self._knobs, self._rates.all.clone()
        super()._learn(views, path)
        self.made_by[self._step + 1] = knobs
        step = self._step + 1
        self.torn += [f"step {step} was made by {words}" for words in (*torn(knobs), *torn(_Read(rates)))]
        if self._knobs is not knobs or not bool((self._rates.all == rates).all()):
            self.torn.append(f"the rules of step {step} changed while it was made")


class _Read:
    """The rates of a step by the names of their knobs."""

    def __init__(self, rates: Tensor) -> None:
        values = rates.tolist()
        self.lr, self.lr_predictor, self.rho, self.eps = values[0], values[2], values[5], values[7]


class UnlockedTrainer(NotedTrainer):
    """Planted: knobs are turned one by one, and nobody waits for the end of a step."""

    def set(self, **changes: Any) -> Knobs:
        for name, value in changes.items():
            self._turn(self._knobs.changed({name: value}))
            time.sleep(0.001)
        return self._knobs


def versions(count: int, folder: Path, kind: type[NotedTrainer] = NotedTrainer) -> Verdict:
    """``count`` turns of pairs, by processes and by threads of the notebook, while the loop steps."""
    verdict = Verdict(tried=count)
    config = small_config("directpred", knobs={**dict.fromkeys(PAIRS[0], 0.05), **dict.fromkeys(PAIRS[1], 0.5)})
    trainer, stop = kind(config), threading.Event()
    share = max(1, count // (PAGES + THREADS))

    def turn(first: int) -> None:
        for number in range(first, first + share):
            trainer.set(**pair(number))
            time.sleep(0.002)

    with Witness() as witness:
        store = RunStore.create("run", config, folder)
        with processes(PAGES, steer, lambda n: ((store.path, n * share, share), ())) as wait:
            loop = threading.Thread(
                target=drive, args=(trainer, store), kwargs={"owner": "notebook", "stop": stop, "stay": True}
            )
            loop.start()
            hands = [threading.Thread(target=turn, args=((PAGES + n) * share,)) for n in range(THREADS)]
            for hand in hands:
                hand.start()
            verdict.failures += [line for report in wait() for line in report]
            for hand in hands:
                hand.join()
            _until(lambda: not store.waiting() or not loop.is_alive())
            stop.set()
            loop.join()
        verdict.failures += [*trainer.torn, *witness.take(), *faults(store), *_unknown_versions(trainer, store)]
        sent = [dict(command.payload) for command in turned(store)]
        missing = [pair(n) for n in range(PAGES * share) if pair(n) not in sent]
        verdict.failures += [f"{payload} was sent and is not there" for payload in missing]
        found = replay(store)
        if not found.equal:
            verdict.failures.append(found.describe())
        verdict.notes.append(
            f"{found.steps:,} steps, {len(store.events()):,} events, replayed bit-equal: {found.equal}"
        )
        store.close()
    return verdict


def _unknown_versions(trainer: NotedTrainer, store: RunStore) -> list[str]:
    """Steps that were made by rules that the record does not say."""
    knobs, events, unknown = store.config().knobs, store.events(), []
    for step, used in sorted(trainer.made_by.items()):
        while events and events[0].step < step:
            knobs = knobs.changed(events.pop(0).changes)
        if used != knobs:
            unknown.append(f"step {step} was made by {knobs.difference(used)}, which no event says")
    return unknown


def _until(condition: Any, seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


# ------------------------------------------------------------ numbers of events


def numbers(count: int, folder: Path, *, naive: bool = False) -> Verdict:
    """``count`` events that several processes log at once."""
    share = max(1, count // LOGGERS)
    with RunStore.create("run", small_config(), folder) as store:
        with processes(LOGGERS, log, lambda n: ((store.path, n * share, share), (naive,))) as wait:
            verdict = Verdict(share * LOGGERS, [line for report in wait() for line in report])
        logged = [event.number for event in store.events()]
        if logged != list(range(1, share * LOGGERS + 1)):
            verdict.failures.append(f"{share * LOGGERS} events were logged and are numbered {logged[-5:]} at the end")
        if (altered := store.altered_event()) is not None:
            verdict.failures.append(f"event {altered} does not follow the one before it")
    return verdict


# ------------------------------------------------------------ two who want to drive


def claims(count: int, folder: Path, *, naive: bool = False) -> Verdict:
    """Two processes want to drive one run at the same moment, ``count`` times."""
    with RunStore.create("run", small_config(), folder) as store:
        path = store.path
    with processes(2, claim, lambda _: ((path, count), (naive,))) as wait:
        one, other = wait()
    verdict = Verdict(tried=count)
    for number, drivers in enumerate(zip(one, other, strict=True)):
        if sum(drivers) != 1:
            verdict.failures.append(f"try {number}: {sum(drivers)} processes drive")
    verdict.notes.append(f"the first was quicker {sum(one)} times")
    return verdict


# ------------------------------------------------------------ many pages


def pages(count: int, folder: Path, *, hasty: bool = False) -> Verdict:
    """``count`` turns at the controls of many pages that show one run of one engine process."""
    verdict = Verdict(tried=count)
    benches = BENCHES if count >= 10 * BENCHES else 3
    each = max(1, count // benches)
    with Witness() as witness:
        # Another process's engine steps it, as under Voila.
        RunStore.create("run", small_config(), folder).close()
        opened = [Bench(run="run", results=folder) for _ in range(benches)]
        try:
            for bench in opened:
                update(bench.browser, query={"run": "run"})
            store = _shown(opened)
            opened[0].transport.run.click()
            _until(lambda: store.status().step > 5)
            if hasty:
                for bench in opened:
                    _make_hasty(bench)
            turns: list[list[dict[str, float]]] = [[] for _ in opened]
            hands = [
                threading.Thread(target=_turn_controls, args=(bench, number, each, turns[number]))
                for number, bench in enumerate(opened)
            ]
            for hand in hands:
                hand.start()
            for hand in hands:
                hand.join()
            if not _until(lambda: not store.waiting()):
                verdict.failures.append(f"{len(store.waiting())} commands wait for ever")
            opened[0].transport.pause.click()
            _until(lambda: store.status().state == "paused" and not store.waiting())
            verdict.failures += faults(store)
            sent = [dict(command.payload) for command in turned(store)]
            for made in turns:
                left = iter(sent)
                verdict.failures += [f"{t} was turned and not sent, or too late" for t in made if t not in left]
            if len(sent) != sum(map(len, turns)):
                verdict.failures.append(f"{sum(map(len, turns))} turns and {len(sent)} commands")
            for number, bench in enumerate(opened):
                if not _until(lambda bench=bench: _shows(bench, store)):
                    verdict.failures.append(f"page {number} does not show the engine's knobs")
            verdict.notes.append(f"{benches} pages, {len(store.events()):,} events, {store.last_step():,} steps")
        finally:
            for bench in opened:
                bench.close()
            _end_engine(folder)
        verdict.failures += witness.take()
    with open_run("run", folder, readonly=True) as store:
        verdict.failures += faults(store)
    return verdict


def _shown(benches: list[Bench]) -> RunStore:
    def there(bench: Bench) -> bool:
        return bench.store is not None and bench.store.status().state in ("paused", "running")

    if not all(_until(lambda bench=bench: there(bench)) for bench in benches):
        raise TimeoutError(f"a page does not come up: {[bench.banner.value for bench in benches]}")
    store = benches[0].store
    assert store is not None
    return store


def _turn_controls(bench: Bench, number: int, count: int, made: list[dict[str, float]]) -> None:
    here = threading.get_ident()
    for turn in range(count):
        name = ("ema", "eps", "rho", "augmentation")[turn % 4]
        control = bench.knobs.controls[name].control
        # No two turns of all pages to one value: each changes something.
        value = round(0.3 + 0.01 * number + 0.0001 * turn, 6)
        heard: list[float] = []

        def hear(change: Any, heard: list[float] = heard) -> None:
            if threading.get_ident() == here:
                heard.append(change["new"])

        control.observe(hear, names="value")
        update(control, value=value)
        control.unobserve(hear, names="value")
        made += [{name: value}] if heard else []
        time.sleep(0.02)


def _shows(bench: Bench, store: RunStore) -> bool:
    knobs = store.status().knobs
    return all(control._shows(getattr(knobs, name)) for name, control in bench.knobs.controls.items())


def _make_hasty(bench: Bench) -> None:
    """Planted: a page that thinks one waiting command is enough."""
    send = bench.knobs._send

    def hasty(kind: str, payload: dict[str, Any]) -> None:
        if bench.store is not None and not bench.store.waiting():
            send(kind, payload)

    bench.knobs._send = hasty


def _end_engine(folder: Path) -> None:
    import os
    import signal

    desk = EngineDesk(folder)
    pid = desk.status().pid
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

        def gone() -> bool:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            return desk.status().pid is None

        _until(gone)
    desk.close()


CASES = (
    Case(
        name="versions", what="each step is made by one version of the knobs, however many turn pairs of them; events "
        "without gaps; replayed bit-equal",
        whole=3000, quick=120, run=versions,
        fault=lambda folder: versions(120, folder, UnlockedTrainer),
        fault_words="a trainer that is set field by field without its lock",
    ),
    Case(
        name="numbers", what="events that several processes log at once are numbered without gaps or doubles",
        whole=2000, quick=100, run=numbers, fault=lambda folder: numbers(200, folder, naive=True),
        fault_words="a store that counts outside of the transaction",
    ),
    Case(
        name="claims", what="of two processes that want to drive one run exactly one does",
        whole=200, quick=30, run=claims, fault=lambda folder: claims(100, folder, naive=True),
        fault_words="a claim that looks first and takes afterwards",
    ),
    Case(
        name="pages", what="turns at the controls of many pages on one run: each is one command and one event, and "
        "all pages show the same in the end",
        whole=8 * 50, quick=30, run=pages, fault=lambda folder: pages(30, folder, hasty=True),
        fault_words="a page that sends nothing while a command waits",
    ),
)  # fmt: skip
