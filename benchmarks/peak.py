"""Section ``peak``: how fast the device multiplies large matrices, by which the shares of the peak are told."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.machine import convolutions_in_tf32, matrix_peak
from benchmarks.plan import Plan
from benchmarks.table import Entry, Row

WORDS = {"float32": "fp32", "tf32": "TF32", "bfloat16": "bf16"}


def measure(plan: Plan) -> Iterator[Entry]:
    """A row for each kind of number."""
    size, rounds = _size(plan), plan.pick(gpu=10, cpu=10, quick=5, tiny=3)
    for kind in ("float32", "tf32", "bfloat16") if plan.cuda else ("float32", "bfloat16"):
        values = [matrix_peak(plan.device, kind, size) for _ in range(rounds)]
        yield Row(f"matrix product, {size} x {size}, {WORDS[kind]}", "TFLOP/s", values)


def _size(plan: Plan) -> int:
    return 8192 if plan.cuda else 256 if plan.tiny else 2048


def kind_of(plan: Plan, precision: str) -> str:
    """Whose peak a step is held against.

    A float32 step on a GPU is held against TF32 where cuDNN may use it, for nearly all its work is convolutions.
    """
    return "tf32" if plan.cuda and precision == "float32" and convolutions_in_tf32() else precision


def peak_now(plan: Plan, precision: str) -> float:
    """FLOP/s of a large matrix product at this moment: a machine that others share is not always as fast."""
    return 1e12 * matrix_peak(plan.device, kind_of(plan, precision), _size(plan))
