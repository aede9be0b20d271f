"""Section ``profile``: where the time of a BYOL step goes, by kind of kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.images import random_cifar
from benchmarks.machine import wait_for
from benchmarks.peak import WORDS
from benchmarks.plan import Plan
from benchmarks.stepping import bare_seconds
from benchmarks.table import Entry, Missing, Row
from ssl_lab.trainer import Trainer

GROUPS: Mapping[str, str] = {
    "batch norm": r"batch_?norm|bn_fw|bn_bw|bn::",
    "copy": r"memcpy|memset|copy|catarray|\bcat\b|nchwtonhwc|nhwctonchw|transpose|permute|contiguous|index_select"
    r"|gather",
    "convolution": r"conv|fprop|dgrad|wgrad|winograd|implicit|cudnn",
    "matrix product": r"gemm|gemv|nvjet|cublas|cutlass|matmul|addmm|\bb?mm\b|splitk",
    "reduction": r"reduce|triton_red|triton_per|\bsum\b|\bmean\b|\bnorm\b|softmax|amax|amin|argm",
    "elementwise": r"elementwise|foreach|multi_tensor|triton_poi|distribution|random|grid_sampl|clamp|threshold"
    r"|\b(add|sub|mul|div|lerp|where|relu|sqrt|pow|exp|neg|remainder|floor|round|uniform|fill|zero)_?\b",
}
"""Patterns that are tried from the first to the last on a kernel's name, whatever the case; the rest is ``other``."""


def group(kernel: str) -> str:
    """The kind of a kernel.

    >>> group("void at::native::batch_norm_backward_reduce_kernel<...>"), group("sm90_xmma_wgrad_implicit_gemm_bf16")
    ('batch norm', 'convolution')
    """
    return next((name for name, words in GROUPS.items() if re.search(words, kernel, re.IGNORECASE)), "other")


def measure(plan: Plan) -> Iterator[Entry]:
    """Shares of the kernels' time in percent, and on a GPU how much of the wall time it is."""
    precision = plan.usual
    steps, rounds = plan.pick(gpu=24, cpu=1, quick=1, tiny=1), plan.pick(gpu=3, cpu=2, quick=1, tiny=2)
    data = random_cifar(plan.images, plan.pick(gpu=1_000, cpu=64, quick=64, tiny=16))
    trainer = Trainer(plan.resnet("BYOL", plan.batch, precision), data)
    bare_seconds(trainer, plan.pick(gpu=40, cpu=1, quick=1, tiny=1))
    shares: dict[str, list[float]] = {name: [] for name in (*GROUPS, "other")}
    busy, launched = [], []
    plain = [bare_seconds(trainer, steps) for _ in range(rounds)]
    for wall in plain:
        found = _kernels(trainer, steps, plan)
        total = sum(time for time, _ in found.values())
        if total == 0:
            yield Missing("kernels", "the profiler saw none on this machine")
            return
        for name, list_ in shares.items():
            list_.append(100 * sum(time for kernel, (time, _) in found.items() if group(kernel) == name) / total)
        busy.append(100 * total / 1e6 / wall)
        launched.append(sum(count for _, count in found.values()) / steps)
    where = f"BYOL, {plan.network}, batch {plan.batch}, {WORDS[precision]}"
    kind = "kernels" if plan.cuda else "operations"
    for name, values in sorted(shares.items(), key=lambda item: -item[1][0]):
        if max(values) > 0:
            yield Row(f"{name}, share of all {kind}' own time: {where}", "%", values, [f"{steps} steps each"])
    if plan.cuda:
        besides = ["kernels' time under the profiler over the wall time without it"]
        yield Row(f"time in kernels, {where}", "% of a step", busy, besides)
        yield Row(f"kernels launched, {where}", "a step", launched)


def _kernels(trainer: Trainer, steps: int, plan: Plan) -> dict[str, tuple[float, int]]:
    """By name: (microseconds, how often) in ``steps`` steps."""
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if plan.cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as seen:
        for _ in range(steps):
            trainer.step()
        wait_for(trainer.device)
    found: dict[str, tuple[float, int]] = {}
    for event in seen.key_averages():
        on_gpu = event.device_type == DeviceType.CUDA
        if plan.cuda and on_gpu and not event.is_user_annotation:
            found[event.key] = event.self_device_time_total, event.count
        elif not plan.cuda:
            found[event.key] = event.self_cpu_time_total, event.count
    return found
