"""What a sweep came to so far, by label: means over seeds, and a sentence. No widget."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_lab.config import dataset_info
from ssl_lab.errors import ConfigError
from ssl_lab.sweep.progress import SweepView, TrialView

MOST = 200
"""Labels in the table of numbers."""


@dataclass(frozen=True)
class Line:
    """The trials of a label."""

    label: str
    of: int
    """Trials."""
    failed: int
    seeds: tuple[int, ...]
    """Of those that are done and have a number, in the order of the plan."""
    values: tuple[float, ...]
    """Per cent of the test images, one for each of ``seeds``."""

    @property
    def mean(self) -> float | None:
        """Over the seeds; None before the first one is done."""
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None with fewer than two."""
        if len(self.values) < 2:
            return None
        mean = math.fsum(self.values) / len(self.values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1))

    @property
    def words(self) -> str:
        """``97.2 ± 0.4 % (n = 3)``, or how it stands without a number."""
        if self.mean is None:
            return "failed" if self.failed == self.of else "nothing yet"
        spread = "" if self.spread is None else f" ± {self.spread:.1f}"
        return f"{self.mean:.1f}{spread} % (n = {len(self.values)})"


@dataclass(frozen=True)
class Measure:
    """What the trials of a sweep are compared by."""

    name: str
    """In words."""
    probed: bool
    """Whether it is the linear probe's; else kNN's."""

    def of(self, trial: TrialView) -> float | None:
        """Of a trial that is done, in [0, 1]; None where it has none."""
        if trial.state != "done":
            return None
        return trial.accuracy if self.probed else trial.knn


def measure(view: SweepView) -> Measure | None:
    """What there is to compare trials by: the linear probe where there is one, else kNN; None without labels."""
    labels = {dataset: _labelled(dataset) for dataset in {trial.trial.config.dataset for trial in view.trials}}
    labelled = [trial for trial in view.trials if labels[trial.trial.config.dataset]]
    if any(trial.trial.probe_epochs for trial in labelled):
        return Measure("linear probe", True)
    return Measure("kNN", False) if labelled else None


def _labelled(dataset: str) -> bool:
    try:
        return dataset_info(dataset).labelled
    except ConfigError:
        # A folder that is on another machine; what the record has says it all the same.
        return True


def lines(view: SweepView, by: Measure | None) -> list[Line]:
    """A line for each label, in the order of the plan."""
    trials: dict[str, list[TrialView]] = {}
    for trial in view.trials:
        trials.setdefault(trial.label, []).append(trial)
    found = []
    for label, own in trials.items():
        known = [(t.seed, 100 * value) for t in own if by is not None and (value := by.of(t)) is not None]
        found.append(
            Line(
                label, len(own), sum(t.state == "failed" for t in own),
                tuple(seed for seed, _ in known), tuple(value for _, value in known),
            )
        )  # fmt: skip
    return found


def best(found: Sequence[Line]) -> Line | None:
    """The label with the greatest mean; None before the first number."""
    known = [line for line in found if line.mean is not None]
    return max(known, key=lambda line: line.mean or 0.0) if known else None


def sentence(view: SweepView, found: Sequence[Line]) -> str:
    """How the sweep stands: ``7 of 12 trials done, 1 failed; best so far: ema-0.99, 97.2 ± 0.4 % (n = 3).``"""
    count = len(view.trials)
    words = f"{view.done} of {count} trial{'s' * (count != 1)} done"
    for state, word in (("running", "running"), ("retrying", "being tried again"), ("cut", "cut short"),
                        ("failed", "failed")):  # fmt: skip
        number = view.count(state)  # type: ignore[arg-type]
        if number:
            words += f", {number} {word}"
    leader = best(found)
    if leader is not None:
        so_far = " so far" if view.done + view.count("failed") < count else ""
        words += f"; best{so_far}: {leader.label}, {leader.words}"
    return f"{words}."


def standing(view: SweepView) -> str:
    """What there is to say of whoever works on it."""
    if view.working:
        left = view.runner.left_seconds
        where = f" on {view.runner.machines} machines" if view.runner.machines > 1 else ""
        if left is None:
            return f"Somebody works on it{where}; the time left is not known yet."
        words = f"{max(1, round(left))} s" if left < 90 else f"{left / 60:.0f} min"
        return f"Somebody works on it{where}; about {words} left."
    return {
        "waiting": "Nobody has begun it yet.",
        "stopped": "Nobody works on it; the same command goes on with it.",
        "failed": "Some trials could not be had. The same command tries them again.",
    }.get(view.state, "")


def table(found: Sequence[Line], by: Measure | None) -> str:
    """The lines as an HTML table, best first, for whoever reads better than looks."""
    if by is None:
        return ""
    ordered = sorted(found, key=lambda line: (line.mean is None, -(line.mean or 0.0)))[:MOST]
    some = (
        f" The best {MOST} of {len(found):,} labels; the command line's summary.csv has all."
        if len(found) > MOST
        else ""
    )
    rows = ""
    for line in ordered:
        mean = "" if line.mean is None else f"{line.mean:.2f}"
        spread = "" if line.spread is None else f"{line.spread:.2f}"
        done = f"{len(line.values)} of {line.of}" + (f", {line.failed} failed" if line.failed else "")
        rows += (
            f"<tr><th scope='row'>{html.escape(line.label)}</th><td>{mean}</td><td>{spread}</td><td>{done}</td></tr>"
        )
    return (
        # It is reached by Tab, so that the arrow keys scroll the box that it lies in.
        f"<table tabindex='0'><caption>{by.name.capitalize()}, % of the test images, over the seeds; spread is the "
        f"standard deviation.{some}</caption><thead><tr><th scope='col'>label</th><th scope='col'>mean</th>"
        "<th scope='col'>spread</th><th scope='col'>trials done</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
