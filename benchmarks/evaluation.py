"""Section ``evaluation``: the linear probe and kNN on features as many and as wide as CIFAR-10's from a ResNet-18."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.machine import wait_for
from benchmarks.plan import IMAGES, Plan
from benchmarks.table import Entry, Row
from ssl_lab.evaluation import SEED_PROBE, knn_accuracy, linear_probe

FEATURES, CLASSES = 512, 10


def measure(plan: Plan) -> Iterator[Entry]:
    """Seconds of a probe, with its epochs in the row, and of kNN."""
    count = plan.pick(gpu=IMAGES, cpu=IMAGES, quick=IMAGES, tiny=400) if not plan.cuda else IMAGES
    asked = 10_000 if plan.cuda else plan.pick(gpu=10_000, cpu=10_000, quick=2_000, tiny=100)
    epochs = 50 if plan.cuda else plan.pick(gpu=50, cpu=5, quick=1, tiny=1)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, FEATURES, generator=generator)
    labels, asked_labels = torch.arange(count) % CLASSES, torch.arange(asked) % CLASSES
    bank, queries = (
        (centres[which] + 2 * torch.randn(len(which), FEATURES, generator=generator)).to(plan.device)
        for which in (labels, asked_labels)
    )
    config = replace(SEED_PROBE, epochs=epochs)

    def probe() -> None:
        linear_probe(bank, labels, queries, asked_labels, config, seed=0, num_classes=CLASSES)

    def neighbours() -> None:
        knn_accuracy(bank, labels, queries, asked_labels, num_classes=CLASSES)

    def seconds(what: object) -> float:
        assert callable(what)
        wait_for(plan.device)
        begun = time.perf_counter()
        what()
        wait_for(plan.device)
        return time.perf_counter() - begun

    shape = f"{count:,} x {FEATURES}"
    if plan.cuda:
        linear_probe(bank, labels, queries, asked_labels, replace(config, epochs=1), seed=0, num_classes=CLASSES)
        neighbours()
    rounds = plan.pick(gpu=3, cpu=3, quick=2, tiny=2)
    besides = [] if epochs == SEED_PROBE.epochs else [f"{epochs} of the probe's {SEED_PROBE.epochs} epochs"]
    yield Row(f"linear probe, epochs: {epochs}, {shape}", "s", [seconds(probe) for _ in range(rounds)], besides)
    yield Row(f"kNN of {asked:,} images against {shape}", "s", [seconds(neighbours) for _ in range(rounds)])
