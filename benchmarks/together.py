"""Section ``together``: small runs one after another, and as one batch (:mod:`ssl_lab.batched`).

The run is the embedded default (digits, the small encoder, batch 128): BYOL's members lie along the EMA rate, and
DirectPred's along the learning rate, as a family from the page does. All rates are steps of all members in a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.paired import ratios
from benchmarks.peak import WORDS
from benchmarks.plan import METHODS, Plan
from benchmarks.stepping import bare_seconds
from benchmarks.table import Entry, Missing, Row
from ssl_lab.batched import Verdict, worth_it
from ssl_lab.config import RunConfig, preset
from ssl_lab.datasets import load_dataset
from ssl_lab.trainer import Trainer

ALONG: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "BYOL": ("ema", (0.0, 0.5, 0.9, 0.99, 0.999)),
    "DirectPred": ("lr", (0.003, 0.01, 0.03, 0.05, 0.1)),
}
"""Knob and values of a family; of more members than values several have the same, which costs the same."""


def measure(plan: Plan) -> Iterator[Entry]:
    """For each method, precision and number of members: one alone, all one after another, and all as one."""
    for method in ALONG if not plan.quick or plan.cuda else ("BYOL",):
        yield from _family(plan, method, plan.usual)
    if plan.cuda and plan.usual != "float32":
        yield from _family(plan, "BYOL", "float32")


def _family(plan: Plan, method: str, precision: str) -> Iterator[Entry]:
    config = _config(plan, method, precision)
    parent = Trainer(config, load_dataset(config))
    steps, rounds = plan.pick(gpu=40, cpu=6, quick=4, tiny=1), plan.pick(gpu=8, cpu=8, quick=3, tiny=2)
    where = f"{method}, digits, batch {config.batch_size}, {WORDS[precision]}"
    bare_seconds(parent, plan.pick(gpu=40, cpu=20, quick=10, tiny=2))
    alone = [steps / bare_seconds(parent, steps) for _ in range(rounds)]
    yield Row(f"one run, {where}", "steps/s", alone, [f"blocks of {steps} steps"])
    knob, values = ALONG[method]
    for count in (2,) if plan.tiny else (2, 5, 16):
        members = [parent.fork() for _ in range(count)]
        for number, member in enumerate(members):
            member.set(**{knob: values[number % len(values)]})
        verdict = worth_it(members, steps=steps, rounds=rounds)
        yield from _rows(verdict, count, steps, f"{where}, along {knob}")
        if plan.cuda and count == 5 and verdict.captured:
            plain = worth_it(members, steps=steps, rounds=max(2, rounds // 3), capture=False)
            yield from _rows(plain, count, steps, f"{where}, along {knob}, not captured")


def _rows(verdict: Verdict, count: int, steps: int, where: str) -> Iterator[Entry]:
    blocks = f"blocks of {steps} steps of each"
    yield Row(f"{count} runs one after another, {where}", "steps/s in all", verdict.alone, [blocks])
    if verdict.failure:
        yield Missing(f"{count} runs as one, {where}", verdict.failure)
        return
    besides = [
        blocks,
        "captured as a graph" if verdict.captured else "launched operation by operation",
        f"a step leads {verdict.apart:.1e} from where it leads alone, in full float32",
    ]
    yield Row(f"{count} runs as one, {where}", "steps/s in all", verdict.together, besides)
    over = ratios(verdict.together, verdict.alone)
    yield Row(f"{count} runs as one over one after another, {where}", "times", over, ["side by side"])


def _config(plan: Plan, method: str, precision: str) -> RunConfig:
    fields: dict[str, Any] = {"device": str(plan.device), "precision": precision}
    if plan.tiny:
        fields |= {"width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16, "batch_size": 32}
    return preset(METHODS[method], **fields)
