"""The machine: what it is, which versions run on it, and how fast it multiplies matrices."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

from ssl_lab import __version__
from ssl_lab.cores import usable_cores


def hardware() -> str:
    """Processor, cores and memory, and the GPU if there is one."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    words = [name, f"{usable_cores()} cores"]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        words.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        words.append(f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    else:
        words.append("no GPU")
    return ", ".join(words)


def versions() -> str:
    """Python and what decides the speed."""
    words = [f"Python {platform.python_version()}", f"ssl-lab {__version__}"]
    for name in ("torch", "torchvision", "numpy", "lightly", "playwright"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            words.append(f"{name} {importlib.metadata.version(name)}")
    if torch.version.cuda and torch.cuda.is_available():
        words.append(f"CUDA {torch.version.cuda}")
    return ", ".join(words)


def about() -> dict[str, str]:
    """What stands above the table."""
    return {"Hardware": hardware(), "Versions": versions(), "Date": time.strftime("%Y-%m-%d")}


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def convolutions_in_tf32() -> bool:
    """Whether cuDNN may round the factors of a float32 convolution to TF32, as it may by default."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        # torch refuses to answer by the old name once the new one was used.
        return str(torch.backends.cudnn.conv.fp32_precision) == "tf32"  # type: ignore[attr-defined]


def matrix_peak(device: torch.device, kind: str, size: int) -> float:
    """TFLOP/s of the product of two square matrices, the mean over about 50 ms.

    Args:
        device: where they are multiplied.
        kind: ``float32``, ``tf32`` (float32 with factors rounded to TF32) or ``bfloat16``.
        size: rows and columns.
    """
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    generator = torch.Generator(device=device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")

    def seconds(count: int) -> float:
        wait_for(device)
        begun = time.perf_counter()
        for _ in range(count):
            torch.mm(a, b, out=out)
        wait_for(device)
        return time.perf_counter() - begun

    try:
        seconds(2)
        count = max(1, round(0.05 / max(seconds(1), 1e-6)))
        return 2 * size**3 * count / seconds(count) / 1e12
    finally:
        torch.set_float32_matmul_precision(before)
