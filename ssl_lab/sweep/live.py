"""A study in the terminal: a table that is drawn anew while it goes on, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ssl_lab.sweep.progress import SweepView, TrialState, TrialView

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

BARS = " ▁▂▃▄▅▆▇█"
DECADES = 4.0
"""How far below the largest an eigenvalue may lie to be seen in the small picture, in powers of ten."""

COLOURS = {"done": "green", "failed": "red", "running": "cyan", "retrying": "yellow", "cut": "yellow", "waiting": "dim"}
ORDER = ("failed", "retrying", "running", "cut", "done", "waiting")
"""Which trials are shown where there is no room for all of them."""


def sparkline(values: Sequence[float]) -> str:
    """Eigenvalues, largest first, as a row of bars whose heights go by their logarithms.

    >>> sparkline([1.0, 0.1, 0.001, 0.0])
    '█▆▂ '
    """
    top = max(values, default=0.0)
    if top <= 0:
        return BARS[0] * len(values)
    return "".join(
        BARS[0] if value <= 0 else BARS[max(0, round(8 * (1 + math.log10(value / top) / DECADES)))] for value in values
    )


def headline(view: SweepView) -> str:
    """Where the study stands, in one line."""
    parts = [f"{view.done} of {len(view.trials)} trials done"]
    states: tuple[TrialState, ...] = ("running", "retrying", "failed", "cut")
    parts += [f"{n} {state}" for state in states if (n := view.count(state))]
    if view.runner.with_ray:
        parts.append(f"{view.runner.machines} machine{'s' * (view.runner.machines != 1)}")
    if view.runner.left_seconds is not None and view.working:
        parts.append(f"about {duration(view.runner.left_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def percent(value: float | None) -> str:
    """Of an accuracy in [0, 1]; empty if there is none."""
    return "" if value is None else f"{100 * value:.2f} %"


def line(view: TrialView, done: int, of: int) -> str:
    """A trial that is done, for a log."""
    accuracy = f", accuracy {percent(view.accuracy)}" if view.accuracy is not None else ""
    again = f", begun {view.attempts} times" if view.attempts > 1 else ""
    return f"[{done}/{of}] {view.name}: done{accuracy}{again}"


class Live:
    """``with Live() as live: live.show(view)``, as often as one likes."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._live: Any = None
        self._said: dict[str, str] | None = None
        self._message = ""

    def __enter__(self) -> Live:
        if self._terminal:
            try:
                from rich.console import Console
                from rich.live import Live as RichLive
            except ImportError:
                # A machine that only computes may do without; lines say the same.
                self._terminal = False
                return self
            self._console = Console()
            self._live = RichLive(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, view: SweepView) -> None:
        """Draws it, or says what is new."""
        if self._live is not None:
            size = self._console.size
            self._live.update(screen(view, size.width, size.height), refresh=True)
            return
        first, said = self._said is None, self._said or {}
        done = 0
        for trial in view.trials:
            done += trial.state == "done"
            now = trial.state if trial.state != "retrying" else f"retrying {trial.attempts}"
            if not first and said.get(trial.name) != now:
                if trial.state == "done":
                    print(line(trial, view.done, len(view.trials)), flush=True)
                elif trial.state == "failed":
                    print(f"{trial.name}: failed. {trial.error}", flush=True)
                elif trial.state == "retrying":
                    print(f"{trial.name}: begun again. {trial.error}", flush=True)
            said[trial.name] = now
        if first:
            print(headline(view), flush=True)
        if view.runner.message and view.runner.message != self._message:
            print(view.runner.message, flush=True)
        self._message = view.runner.message
        self._said = said


MOST_ERRORS = 3
"""Errors that are shown under the table; all are said at the end."""


def screen(view: SweepView, width: int, height: int) -> Group:
    """The study in a terminal of so many columns and rows: where it stands, the trials, and what went wrong."""
    from rich.console import Group
    from rich.text import Text

    wrong = [trial for trial in view.trials if trial.error and trial.state in ("failed", "retrying")]
    lines = [
        Text(f"{trial.name} {trial.state}: {trial.error}", COLOURS[trial.state], no_wrap=True, overflow="ellipsis")
        for trial in wrong[:MOST_ERRORS]
    ]
    if view.runner.message:
        lines.append(Text(view.runner.message))
    # Title, frame and head take five rows.
    rows = max(1, height - len(lines) - 7)
    shown = list(view.trials)
    if len(shown) > rows:
        kept = sorted(range(len(shown)), key=lambda i: (ORDER.index(shown[i].state), i))[:rows]
        shown = [shown[i] for i in sorted(kept)]
        lines.insert(0, Text(f"{len(view.trials) - len(shown)} more are not shown.", "dim"))
    return Group(Text(f"{view.name}: {headline(view)}", "bold"), table(shown, width), *lines)


def table(trials: Sequence[TrialView], width: int) -> Table:
    """A row for each trial, with as many columns as the terminal has room for."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    found.add_column("trial", no_wrap=True, overflow="ellipsis", min_width=12)
    found.add_column("state", no_wrap=True)
    found.add_column("step", justify="right", no_wrap=True)
    found.add_column("probe", justify="right", no_wrap=True)
    more: list[tuple[str, Callable[[TrialView], str]]] = []
    if width >= 70:
        more.append(("kNN", lambda trial: percent(trial.knn)))
    if width >= 80:
        more.append(("steps/s", lambda trial: f"{trial.steps_per_second:,.0f}" if trial.steps_per_second else ""))
    if width >= 100:
        more.append(("F's eigenvalues", lambda trial: sparkline(trial.spectrum)))
    if width >= 110:
        more.append(("begun", lambda trial: str(trial.attempts or "")))
    if width >= 120:
        more.append(("on", lambda trial: trial.node))
    for name, _ in more:
        found.add_column(name, justify="right" if name in ("kNN", "steps/s", "begun") else "left", no_wrap=True)
    for trial in trials:
        found.add_row(
            trial.name, Text(trial.state, style=COLOURS[trial.state]), f"{trial.step:,}/{trial.of:,}",
            percent(trial.accuracy), *(cell(trial) for _, cell in more),
        )  # fmt: skip
    return found
