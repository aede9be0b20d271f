"""One engine and many runs: fair turns, and no failure of one that reaches another."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.moments import small, until
from ssl_lab.desk import EngineDesk
from ssl_lab.replay import replay
from ssl_lab.store import RunStore, open_run

SECONDS = 15.0
"""For which turns are counted, when all runs are awake."""


def load(count: int, folder: Path, held: bool = False) -> Verdict:
    """``count`` runs that are well and four that are not, in one engine.

    Args:
        held: hold one of the well ones at a step a second: the planted fault.
    """
    verdict = Verdict()
    desk = EngineDesk(folder)
    names = [f"well-{i}" for i in range(count)]
    absent = folder.parent / "no-such-images"
    for number, name in enumerate(names):
        RunStore.create(name, small(seed=number), folder).close()
    wild = {"predictor": "mlp", "lr": 100.0, "lr_predictor": 100.0, "weight_decay": 1.0, "weight_decay_predictor": 1.0}
    RunStore.create("diverges", small(seed=90, knobs=wild), folder).close()
    RunStore.create("absent", small().model_copy(update={"dataset": str(absent)}), folder).close()
    RunStore.create("removed", small(seed=91), folder).close()
    RunStore.create("broken", small(seed=92), folder).close()
    with open_run("broken", folder) as store:
        store.set_meta("config", {**store.meta("config"), "batch_size": -1})
    stores = {name: open_run(name, folder) for name in [*names, "diverges", "absent", "broken"]}
    removed = open_run("removed", folder)
    with desk.engine_beside():
        for name, store in (*stores.items(), ("removed", removed)):
            desk.ask(name)
            store.send("run")
        until(lambda: removed.last_step() > 5, "the run that is to be removed")
        shutil.rmtree(removed.folder)
        for name in names:
            until(lambda name=name: stores[name].last_step() > 5, f"{name} to step")  # type: ignore[misc]
        for name in ("absent", "broken", "diverges"):
            until(lambda name=name: stores[name].status().state == "failed", f"{name} to fail")  # type: ignore[misc]
        if held:
            stores[names[0]].send("speed", {"steps_per_second": 1.0})
            until(lambda: not stores[names[0]].waiting(), "the speed")
        before, begun = {name: stores[name].status().step for name in names}, time.monotonic()
        while time.monotonic() - begun < SECONDS:
            for name in names:
                stores[name].touch_viewer()
            time.sleep(1.0)
        done = {name: stores[name].status().step - before[name] for name in names}
        mean = sum(done.values()) / count
        for name in names:
            verdict.tried += 1
            status = stores[name].status()
            if status.state != "running":
                verdict.failures.append(f"{name} is {status.state}: {status.message}")
            elif done[name] < mean / 2:
                verdict.failures.append(f"{name} made {done[name]} steps where the mean is {mean:.0f}")
        for name, words in (("diverges", "step"), ("absent", str(absent)), ("broken", "batch_size")):
            verdict.tried += 1
            status = stores[name].status()
            if status.state != "failed" or words not in status.message:
                verdict.failures.append(f"{name} is {status.state} and says {status.message!r}")
        verdict.tried += 1
        if (folder / "removed").exists() or not desk.status().alive:
            verdict.failures.append("a folder that was removed came back, or took the engine along")
        for name in names:
            stores[name].send("pause")
            until(lambda name=name: stores[name].status().state == "paused", f"{name} to pause")  # type: ignore[misc]
    for name in names[:3]:
        report = replay(stores[name])
        if not report.equal:
            verdict.failures.append(f"{name}: {report.describe()}")
    for store in (*stores.values(), removed):
        store.close()
    desk.close()
    verdict.notes.append(
        f"{count} runs, {min(done.values())} to {max(done.values())} steps each in {SECONDS:.0f} s, mean {mean:.0f}"
    )
    return verdict


CASES = (
    Case(
        name="load",
        what="many runs in one engine, some of which fail: the slowest makes half the mean, no failure reaches another",
        whole=30, quick=5, run=load,
        fault=lambda folder: load(4, folder, held=True),
        fault_words="a run that is held at a step a second",
    ),
)  # fmt: skip
