"""``python -m benchmarks``: everything that is said of the lab's speed, measured on this machine, in one table.

Each row carries n, the median and the spread; hardware, versions and the date stand above the table, and every single
value is kept as JSON. What cannot be measured here has no row: a line under the table says why.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.machine import about
from benchmarks.plan import Plan
from benchmarks.table import Table

SECTIONS: Mapping[str, tuple[str, str]] = {
    "peak": ("benchmarks.peak", "how fast the device multiplies large matrices"),
    "step": ("benchmarks.step", "images a second of a ResNet-18 by method, batch size and precision"),
    "digits": ("benchmarks.digits", "steps a second of the embedded default: alone, recorded, live in Chromium"),
    "overhead": ("benchmarks.overhead", "DirectPred and DirectCopy over a linear predictor; the record over none"),
    "together": ("benchmarks.together", "small runs one after another, and stepped as one batch"),
    "latency": ("benchmarks.latency", "from a knob turned in Chromium to its effect and to its picture"),
    "family": ("benchmarks.family", "steps a second of a family of five over those of one run, and its members' lag"),
    "page": ("benchmarks.page", "first picture of each notebook, cold and with a kernel ready; memory of a visitor"),
    "peers": ("benchmarks.peers", "a BYOL step beside lightly's and plain PyTorch's"),
    "evaluation": ("benchmarks.evaluation", "linear probe and kNN"),
    "theory": ("benchmarks.theory", "phase maps of the linear theory, and its own model trained"),
    "profile": ("benchmarks.kernels", "where the time of a step goes, by kind of kernel"),
}
"""Name, module and what it measures, in the order in which they run."""
GPU = ("peak", "step", "overhead", "together", "peers", "evaluation", "profile")
"""Sections of the GPU part: they need neither Jupyter nor a browser."""
USUAL = tuple(name for name in SECTIONS if name != "profile")
"""Sections of a call without ``--gpu``: on a CPU the kinds of kernel say little."""
RESULTS = Path(__file__).parent / "results"


def chosen(only: str | None, gpu: bool) -> list[str]:
    """The sections to run, in their order.

    Raises:
        ValueError: there is no such section.
    """
    if only is None:
        return list(GPU if gpu else USUAL)
    wanted = [word.strip() for word in only.split(",") if word.strip()]
    unknown = [word for word in wanted if word not in SECTIONS]
    if unknown or not wanted:
        raise ValueError(f"there is no section {', '.join(unknown) or only}; the sections are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; gives 0, or 1 if a section failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    device_help = (
        "where networks are stepped; default cuda with --gpu, else cpu. --gpu --device cpu tries the GPU part at tiny "
        "sizes, and its figures mean nothing"
    )
    for flag, words in (
        ("--quick", "fewer and shorter measurements: minutes in all"),
        ("--gpu", f"the GPU part: {', '.join(GPU)}"),
        ("--list", "say which sections there are"),
    ):
        parser.add_argument(flag, action="store_true", help=words)
    parser.add_argument("--device", help=device_help)
    parser.add_argument("--only", metavar="SECTION[,SECTION]", help="these sections")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every value goes; default benchmarks/results/")
    options = parser.parse_args(arguments)
    if options.list:
        for name, (_, words) in SECTIONS.items():
            print(f"{name:<12}{'GPU part  ' if name in GPU else '          '}{words}")
        return 0
    device = torch.device(options.device or ("cuda" if options.gpu else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --gpu --device cpu tries the same code at tiny sizes")
    try:
        sections = chosen(options.only, options.gpu)
    except ValueError as error:
        parser.error(str(error))
    plan = Plan(device=device, quick=options.quick, tiny=options.gpu and device.type == "cpu")
    extent = "a first look: few and short measurements" if plan.quick else "whole"
    if plan.tiny:
        extent = "a trial at tiny sizes: the figures mean nothing"
        # Beside anything else on the machine, two threads on a tiny network wait for one another.
        torch.set_num_threads(1)
    file = options.json or RESULTS / time.strftime("%Y-%m-%d-%H%M%S.json")
    table = Table({**about(), "Networks on": str(device), "Extent": extent}, sys.stdout, file)
    table.begin()
    try:
        for name in sections:
            begun = time.monotonic()
            table.take(name, importlib.import_module(SECTIONS[name][0]).measure(plan))
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        plan.stage.close()
    table.end()
    return 1 if table.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
