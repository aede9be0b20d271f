"""Section ``overhead``: what a directly set predictor costs over a trained one, and what the record costs.

Both are told by ratios of blocks that stand side by side. On a CPU the run is the embedded default (digits, the small
encoder, batch 128), on a GPU a ResNet-18 at batch 128.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.images import random_cifar
from benchmarks.long_run import DIM, STEPS, long_run
from benchmarks.paired import interleaved, ratios
from benchmarks.peak import WORDS
from benchmarks.plan import METHODS, Plan
from benchmarks.stepping import bare_seconds, recorded_block, recorder
from benchmarks.table import Entry, Row
from ssl_lab.config import RunConfig, preset
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import Metrics, RunStore
from ssl_lab.trainer import Trainer

LINEAR = "linear predictor"
SHORT = 1_000
FLUSHED = 10
"""Steps in one write: the loop writes ten times a second, and the default makes about a hundred steps in that time."""


def measure(plan: Plan) -> Iterator[Entry]:
    """Direct modes over a linear predictor, recorded over bare, and a write into a short and a long run."""
    config, data, where = _setting(plan)
    yield from _direct(plan, config, data, where)
    yield from _record(plan, config("DirectPred"), data, where)
    yield from _length(plan)


def _setting(plan: Plan) -> tuple[Callable[[str], RunConfig], Dataset, str]:
    if plan.cuda or plan.tiny:
        data = random_cifar(plan.images, plan.pick(gpu=10_000, cpu=64, quick=64, tiny=16))
        where = f"{plan.network}, batch {plan.batch}, {WORDS[plan.usual]}"
        return partial(plan.resnet, batch=plan.batch, precision=plan.usual), data, where

    def small(method: str) -> RunConfig:
        return preset(METHODS[method], device=str(plan.device))

    return small, load_dataset(small(LINEAR)), "digits, batch 128"


def _direct(plan: Plan, config: Callable[[str], RunConfig], data: Dataset, where: str) -> Iterator[Entry]:
    steps, rounds = plan.pick(gpu=16, cpu=24, quick=16, tiny=1), plan.pick(gpu=30, cpu=40, quick=8, tiny=2)
    trainers = {name: Trainer(config(name), data) for name in ("DirectPred", "DirectCopy", LINEAR)}
    for trainer in trainers.values():
        bare_seconds(trainer, plan.pick(gpu=40, cpu=20, quick=10, tiny=1))
    found = interleaved({name: partial(bare_seconds, trainer, steps) for name, trainer in trainers.items()}, rounds)
    for name, seconds in found.items():
        yield Row(f"a step with {name}, {where}", "ms", [1000 * s / steps for s in seconds], [f"blocks of {steps}"])
    for name in ("DirectPred", "DirectCopy"):
        besides = [f"side by side, blocks of {steps} steps"]
        yield Row(f"{name} over {LINEAR}, {where}", "times", ratios(found[name], found[LINEAR]), besides)


def _record(plan: Plan, config: RunConfig, data: Dataset, where: str) -> Iterator[Entry]:
    rounds = plan.pick(gpu=6, cpu=10, quick=2, tiny=2)
    alone, recorded = Trainer(config, data), Trainer(config, data)
    with recorder(recorded) as recording:
        recording.seconds(plan.pick(gpu=40, cpu=20, quick=10, tiny=1))
        bare_seconds(alone, plan.pick(gpu=40, cpu=20, quick=10, tiny=1))
        steps = recorded_block(plan, bare_seconds(alone, 5) / 5)
        found = interleaved(
            {"recorded": partial(recording.seconds, steps), "alone": partial(bare_seconds, alone, steps)}, rounds
        )
    besides = [f"side by side, blocks of {steps} steps, nobody watches"]
    yield Row(f"recorded over alone, {where}", "times", ratios(found["recorded"], found["alone"]), besides)


def _length(plan: Plan) -> Iterator[Entry]:
    """What a write costs at the end of a short run and of a long one."""
    last = 20_000 if plan.tiny else STEPS // 10 if plan.quick else STEPS
    rounds = plan.pick(gpu=300, cpu=300, quick=100, tiny=3)
    with tempfile.TemporaryDirectory() as name:
        long_run(Path(name), last, last // 100)
        with RunStore.open(Path(name) / "long") as long, long.fork("short", SHORT) as short:
            writers = {SHORT: _Writer(short), last: _Writer(long)}
            metrics = interleaved({f"{step}": writer.metrics for step, writer in writers.items()}, rounds)
            drawn = interleaved({f"{step}": writer.spectrum for step, writer in writers.items()}, rounds)
    for what, found in (("metrics of a step", metrics), (f"a spectrum of {DIM}", drawn)):
        for step in writers:
            besides = [f"{FLUSHED} in a write"] if found is metrics else []
            yield Row(f"recording {what} at step {step:,}", "µs", found[str(step)], besides)
        ratio = ratios(found[str(last)], found[str(SHORT)])
        mean = statistics.fmean(found[str(last)]) / statistics.fmean(found[str(SHORT)])
        besides = [f"side by side; ratio of the means {mean:.2f}"]
        yield Row(f"recording {what}: step {last:,} over step {SHORT:,}", "times", ratio, besides)


class _Writer:
    """Goes on writing into a run as its loop does."""

    def __init__(self, store: RunStore) -> None:
        self.store, self.step = store, store.last_step()
        falling = np.exp(-np.arange(DIM) / 10.0)
        self.picture = Spectrum(
            f_eigenvalues=falling, wp_eigenvalues=np.sqrt(falling), alignment=1 - falling / 2,
            wp_diagonal=np.sqrt(falling), asymmetry=0.1, effective_rank=10.0,
        )  # fmt: skip

    def metrics(self) -> float:
        """Microseconds a step of one write of metrics and of where the run stands."""
        steps = range(self.step + 1, self.step + FLUSHED + 1)
        rows = [Metrics(step, step / 390, -1.5, 0.0) for step in steps]
        begun = time.perf_counter()
        self.store.add_metrics(rows)
        self.store.set_status(step=steps[-1], epoch=steps[-1] / 390)
        self.step = steps[-1]
        return (time.perf_counter() - begun) / FLUSHED * 1e6

    def spectrum(self) -> float:
        """Microseconds of one write of a spectrum."""
        self.step += 1
        self.store.add_metrics([Metrics(self.step, self.step / 390, -1.5, 0.0)])
        begun = time.perf_counter()
        self.store.add_spectrum(self.step, self.step / 390, self.picture)
        return (time.perf_counter() - begun) * 1e6
