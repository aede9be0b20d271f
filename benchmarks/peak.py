"""Section ``peak``: how fast the device multiplies large matrices, by which the shares of the peak are told."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.machine import convolutions_in_tf32, matrix_peak
from benchmarks.plan import Plan
from benchmarks.table import Entry, Row

WORDS = {"float32": "fp32", "tf32": "TF32", "bfloat16": "bf16"}


def measure(plan: Plan) -> Iterator[Entry]:
    """A row for each kind of number."""
    size, rounds = _size(plan)
    for kind in ("float32", "tf32", "bfloat16") if plan.cuda else ("float32", "bfloat16"):
        yield Row(
            f"matrix product, {size} x {size}, {WORDS[kind]}", "TFLOP/s",
            matrix_peak(plan.device, kind, size, rounds),
        )  # fmt: skip


def _size(plan: Plan) -> tuple[int, int]:
    return plan.pick(gpu=8192, cpu=2048, quick=2048, tiny=256), plan.pick(gpu=10, cpu=7, quick=5, tiny=3)


def share(plan: Plan, precision: str, flop_per_second: float) -> str:
    """In words, which share of the measured peak ``flop_per_second`` is.

    A float32 step on a GPU is held against TF32 where cuDNN may use it, for nearly all its work is convolutions.
    """
    kind = "tf32" if plan.cuda and precision == "float32" and convolutions_in_tf32() else precision
    size, rounds = _size(plan)
    peak = statistics.median(matrix_peak(plan.device, kind, size, rounds))
    return f"{100 * flop_per_second / 1e12 / peak:.1f} % of the {WORDS[kind]} peak"
