"""Section ``step``: images a second of a ResNet-18 by method, batch size and precision, alone and recorded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.flops import step_flop
from benchmarks.images import random_cifar
from benchmarks.paired import interleaved, ratios
from benchmarks.peak import WORDS, kind_of, peak_now
from benchmarks.plan import IMAGES, METHODS, Plan
from benchmarks.stepping import bare_seconds, recorded_block, recorder
from benchmarks.table import Entry, Missing, Row
from ssl_lab.datasets import Dataset
from ssl_lab.trainer import Trainer

RECORDED = ("BYOL", "DirectPred")
"""Methods that are measured with the record too: one whose predictor is trained and one whose is set; the latter at one
batch size."""
LOOK = 10.0
"""Seconds after which a first look on a CPU begins no further method: a busy machine takes ten times as long."""
EPOCHS = 101
"""Epochs of the papers' runs on CIFAR-10."""


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of every method, the precisions that there are, and what the papers' length would take at that speed."""
    data = random_cifar(plan.images, plan.pick(gpu=10_000, cpu=64, quick=64, tiny=16))
    begun = time.monotonic()
    for precision in plan.precisions():
        for batch in plan.batches:
            for method in METHODS:
                if plan.quick and not plan.cuda and time.monotonic() - begun > LOOK:
                    yield Missing(f"{method}, {WORDS[precision]}", f"a first look ends {LOOK:.0f} s after it began")
                    continue
                # bf16 on a CPU is measured for one method: it is no setting that a person would take there.
                if plan.cuda or plan.tiny or precision == "float32" or method == "BYOL":
                    yield from _rows(plan, data, method, batch, precision)
    if not (plan.cuda or plan.tiny):
        yield Missing("with the record", "a ResNet's first look at the nearest neighbours takes a CPU many steps")


def _rows(plan: Plan, data: Dataset, method: str, batch: int, precision: str) -> Iterator[Entry]:
    config = plan.resnet(method, batch, precision)
    flop = step_flop(config)
    where = f"{plan.network}, batch {batch}, {WORDS[precision]}"
    blocks = plan.pick(gpu=5, cpu=5, quick=2, tiny=2)
    # As many images in a block whatever the batch, and no half of a block of views, which are made ahead.
    steps = plan.pick(gpu=24 * plan.batch // batch, cpu=1, quick=1, tiny=2)
    trainer = Trainer(config, data)
    # Enough for cuDNN's choice of algorithms and for whatever a trainer prepares in its first steps.
    bare_seconds(trainer, plan.pick(gpu=32, cpu=1, quick=1, tiny=1))
    # The peak beside every block, for the same reason as everywhere: what drifts drifts under both.
    found = interleaved(
        {"rate": lambda: batch * steps / bare_seconds(trainer, steps), "peak": lambda: peak_now(plan, precision)},
        blocks,
    )
    rates = found["rate"]
    share = 100 * flop * statistics.median(ratios(rates, found["peak"]))
    besides = [f"{flop / 1e9:.2f} GFLOP an image", f"{share:.1f} % of the {WORDS[kind_of(plan, precision)]} peak"]
    yield Row(f"{method}, {where}", "images/s", rates, besides)
    if (plan.cuda or plan.tiny) and (method == "BYOL" or (method in RECORDED and batch == plan.batch)):
        steps = recorded_block(plan, batch / statistics.median(rates))
        with recorder(trainer) as recording:
            recorded = [batch * steps / recording.seconds(steps) for _ in range(min(blocks, 3))]
        besides = [f"blocks of {steps} steps: metrics, spectra, kNN and checkpoints as they fall due"]
        yield Row(f"{method} with the record, {where}", "images/s", recorded, besides)
        rates = recorded
    if method == "BYOL" and batch == plan.batch:
        minutes = [EPOCHS * (IMAGES // batch) * batch / rate / 60 for rate in rates]
        besides = [f"derived from the row above, not run: {EPOCHS} epochs of {IMAGES:,} images at that speed"]
        yield Row(f"{EPOCHS} epochs of {method}, {where}", "min", minutes, besides)
