"""``python -m benchmarks.trust``: every harness of what the lab survives, in one table of test, tried, failed.

Each harness is run with a planted fault first: one that does not catch it fails, whatever else it says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from benchmarks.trust.case import Case, Verdict

MODULES: Sequence[str] = (
    "crash", "writes", "moments", "load", "files", "strangers", "visitors", "machine", "races", "crowd", "long",
)  # fmt: skip
"""Modules of this package that hold ``CASES``, in the order in which they run."""

HEAD = "| test | tried | failed | planted fault | besides |\n| --- | --- | --- | --- | --- |"


def cases() -> Iterator[Case]:
    """All harnesses, in order."""
    for module in MODULES:
        yield from importlib.import_module(f"benchmarks.trust.{module}").CASES


def attempt(case: Case, count: int | None) -> Verdict:
    """The harness on ``count`` cases, or with its planted fault if that is None; what breaks it is a failure."""
    with tempfile.TemporaryDirectory(prefix="ssl-lab-trust-") as folder:
        try:
            if count is not None:
                return case.run(count, Path(folder))
            assert case.fault is not None
            return case.fault(Path(folder))
        except Exception as error:
            traceback.print_exc()
            return Verdict(
                1, [f"the harness itself broke: {type(error).__name__}: {error}"] if count is not None else []
            )


def row(case: Case, verdict: Verdict, fault: Verdict | None) -> str:
    """A line of the table."""
    planted = (
        "none can be planted" if fault is None else f"{'caught' if fault.failed else 'NOT CAUGHT'}: {case.fault_words}"
    )
    cells = (f"{case.name}: {case.what}", verdict.tried, verdict.failed, planted, "; ".join(verdict.notes))
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries all and prints the table; gives 0, or 1 if anything failed or a planted fault went unseen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cases of each: a first look")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these harnesses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where everything goes that was seen")
    options = parser.parse_args(arguments)
    known = list(cases())
    if options.list:
        for case in known:
            print(f"{case.name:<14}{case.whole:>7,}  {case.what}")
        return 0
    wanted = [word.strip() for word in (options.only or "").split(",") if word.strip()]
    if unknown := [word for word in wanted if word not in {case.name for case in known}]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(case.name for case in known)}")
    for name, value in about().items():
        print(f"{name}: {value}")
    print(f"\n{HEAD}", flush=True)
    good, kept = True, []
    for case in known:
        if wanted and case.name not in wanted:
            continue
        begun = time.monotonic()
        fault = None if case.fault is None else attempt(case, None)
        verdict = attempt(case, case.quick if options.quick else case.whole)
        verdict.notes.append(f"{time.monotonic() - begun:.0f} s")
        good &= not verdict.failed and verdict.tried > 0 and (fault is None or fault.failed > 0)
        print(row(case, verdict, fault), flush=True)
        for line in verdict.failures[:20]:
            print(f"    {case.name}: {line}", file=sys.stderr, flush=True)
        kept.append(_state(case, verdict, fault))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"about": dict(about()), "cases": kept}, indent=1))
    return 0 if good else 1


def _state(case: Case, verdict: Verdict, fault: Verdict | None) -> dict[str, Any]:
    return {
        "name": case.name, "what": case.what, "tried": verdict.tried, "failed": verdict.failed,
        "failures": verdict.failures, "notes": verdict.notes, "fault": case.fault_words,
        "fault_failures": None if fault is None else fault.failures,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
