"""``SweepTable``: a row for each trial, all of them in one message a look. Sorted and filtered in the page itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets as t

from lab.buttons import ACCENT, script, shared_css
from lab.sketch import LEAST
from lab.sweeping.finder import openable
from ssl_lab.sweep.progress import SweepView, TrialView

MOST = 1_000
"""Trials that are listed at once."""
NOTE = 160
"""Characters of an error in the table; all of it comes when it is asked for."""

_CSS = f"""{shared_css("ssl-sweep")}
.ssl-sweep .ssl-tools {{ display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: end; margin: 2px 0 6px; }}
.ssl-sweep .ssl-tools label {{ display: flex; flex-direction: column; font-size: 11px;
  color: var(--jp-ui-font-color2, #616161); min-width: 0; }}
.ssl-sweep .ssl-tools :is(input, select) {{ font: 13px/1.2 var(--jp-ui-font-family, system-ui, sans-serif);
  height: 28px; padding: 0 6px; min-width: 0; color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color1, #fff); border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 4px; }}
.ssl-sweep .ssl-tools input {{ width: 210px; }}
.ssl-sweep .ssl-tools .ssl-end {{ margin-left: auto; display: flex; gap: 6px; flex-wrap: wrap; align-items: center; }}
.ssl-sweep .ssl-sorts {{ display: none; gap: 6px; align-items: end; }}
.ssl-sweep a {{ color: light-dark(#0a5a96, #7cc0f0); text-decoration: underline; }}
.ssl-sweep a.ssl-do {{ display: inline-flex; align-items: center; color: inherit; text-decoration: none; }}
.ssl-sweep a.ssl-do:hover {{ background: var(--jp-layout-color2, #eee); }}
.ssl-sweep :is(select, a, pre, .ssl-scroll):focus-visible {{ outline: 2px solid {ACCENT}; outline-offset: 1px; }}
.ssl-sweep .ssl-scroll {{ position: relative; max-height: min(70vh, 720px); overflow: auto;
  border: 1px solid var(--jp-border-color2, #ddd); border-radius: 4px; }}
.ssl-sweep table {{ width: 100%; border-collapse: separate; border-spacing: 0; border: 0; margin: 0; font: inherit;
  color: inherit; table-layout: auto; }}
.ssl-sweep :is(tr, th, td) {{ background: none; border: 0; text-align: left; white-space: normal; max-width: none; }}
.ssl-sweep thead th {{ position: sticky; top: 0; z-index: 2; padding: 2px; font-size: 12px; font-weight: 600;
  white-space: nowrap; color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color2, #eee); }}
.ssl-sweep thead button {{ font: inherit; color: inherit; background: none; border: 0; border-radius: 3px; margin: 0;
  padding: 4px 5px; cursor: pointer; white-space: nowrap; }}
.ssl-sweep thead button:hover {{ background: color-mix(in srgb, currentColor 10%, transparent); }}
.ssl-sweep thead button::after {{ content: "↕"; opacity: .35; margin-left: 3px; }}
.ssl-sweep thead [aria-sort=ascending] button::after {{ content: "↑"; opacity: 1; }}
.ssl-sweep thead [aria-sort=descending] button::after {{ content: "↓"; opacity: 1; }}
.ssl-sweep thead .ssl-plain {{ padding: 4px 7px; }}
.ssl-sweep tbody td, .ssl-sweep tbody th {{ padding: 2px 7px; height: 34px; vertical-align: middle; font-weight: 400;
  font-variant-numeric: tabular-nums; border-top: 1px solid var(--jp-border-color3, #eee); }}
.ssl-sweep tbody tr.ssl-trial:hover > * {{ background: color-mix(in srgb, currentColor 6%, transparent); }}
.ssl-sweep .ssl-number {{ text-align: right; white-space: nowrap; }}
.ssl-sweep thead .ssl-number button {{ margin-left: auto; }}
.ssl-sweep .ssl-faint {{ color: var(--jp-ui-font-color2, #616161); }}
.ssl-sweep .ssl-who {{ overflow-wrap: anywhere; min-width: 140px; }}
.ssl-sweep .ssl-where {{ overflow-wrap: anywhere; font-size: 12px; }}
.ssl-sweep td.ssl-pick {{ width: 36px; padding: 0 0 0 4px; }}
.ssl-sweep label.ssl-tick {{ display: flex; align-items: center; justify-content: center; width: 32px; height: 32px;
  margin: 0; cursor: pointer; }}
.ssl-sweep label.ssl-tick:has(:disabled) {{ cursor: not-allowed; opacity: .5; }}
.ssl-sweep input[type=checkbox] {{ width: 16px; height: 16px; margin: 0; accent-color: {ACCENT}; cursor: inherit; }}
.ssl-sweep .ssl-badge {{ display: inline-flex; align-items: center; gap: 5px; font-size: 12px; line-height: 18px;
  padding: 0 8px; border-radius: 9px; border: 1px solid currentColor; white-space: nowrap;
  color: var(--jp-ui-font-color2, #616161); }}
.ssl-sweep .ssl-badge svg {{ width: 10px; height: 10px; flex: none; fill: none; stroke: currentColor;
  stroke-width: 2; }}
.ssl-sweep .ssl-badge[data-state=running] {{ color: light-dark(#00714f, #2fc79a); }}
.ssl-sweep .ssl-badge[data-state=done] {{ color: light-dark(#0a5a96, #7cc0f0); }}
.ssl-sweep .ssl-badge:is([data-state=failed], [data-state=retrying]) {{ color: light-dark(#b03c05, #ff9a62); }}
.ssl-sweep .ssl-way {{ white-space: nowrap; }}
.ssl-sweep .ssl-way progress {{ display: block; width: 100px; height: 8px; accent-color: {ACCENT}; }}
.ssl-sweep .ssl-way span {{ font-size: 11px; color: var(--jp-ui-font-color2, #616161); }}
.ssl-sweep .ssl-bars {{ display: block; width: 84px; height: 24px; }}
.ssl-sweep .ssl-bars path {{ fill: none; stroke: {ACCENT}; stroke-width: 3.4; }}
.ssl-sweep .ssl-bars path:first-child {{ stroke: var(--jp-border-color1, #bdbdbd); stroke-width: 1; }}
.ssl-sweep tr.ssl-why td {{ border-top: 0; height: auto; padding: 0 7px 6px 44px; }}
.ssl-sweep .ssl-why div {{ display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center;
  border-left: 4px solid #d55e00; padding: 2px 8px; background: color-mix(in srgb, #d55e00 12%, transparent); }}
.ssl-sweep .ssl-why span {{ flex: 1 1 200px; min-width: 0; overflow-wrap: anywhere; }}
.ssl-sweep .ssl-why pre {{ flex: 1 0 100%; max-height: 320px; overflow: auto; white-space: pre-wrap; margin: 2px 0;
  overflow-wrap: anywhere; font: 12px/1.4 var(--jp-code-font-family, monospace); color: inherit; background: none; }}
.ssl-sweep p {{ margin: 4px 0; color: var(--jp-ui-font-color2, #616161); font-size: 12px; }}
.ssl-sweep code {{ font: 12px/1.4 var(--jp-code-font-family, monospace); color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color2, #f5f5f5); overflow-wrap: anywhere; }}
.ssl-sweep :is(p:empty, [hidden]) {{ display: none !important; }}
.theme-light .ssl-sweep, [data-jp-theme-light=true] .ssl-sweep {{ color-scheme: light; }}
.theme-dark .ssl-sweep, [data-jp-theme-light=false] .ssl-sweep {{ color-scheme: dark; }}
@container (max-width: 760px) {{
  .ssl-sweep .ssl-sorts {{ display: flex; }}
  .ssl-sweep .ssl-tools label:has(input) {{ flex: 1 1 140px; }}
  .ssl-sweep .ssl-tools input {{ width: 100%; }}
  .ssl-sweep .ssl-tools .ssl-end {{ margin-left: 0; }}
  .ssl-sweep thead {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    visibility: hidden; }}
  .ssl-sweep :is(table, tbody) {{ display: block; }}
  .ssl-sweep tbody tr.ssl-trial {{ display: flex; flex-wrap: wrap; align-items: center; gap: 2px 12px;
    padding: 4px 8px 6px 40px; position: relative; border-top: 1px solid var(--jp-border-color2, #ddd); }}
  .ssl-sweep tbody tr.ssl-trial > * {{ display: block; height: auto; padding: 0; font-size: 12px; min-width: 0;
    border: 0; }}
  .ssl-sweep tbody tr.ssl-trial > td:empty {{ display: none; }}
  .ssl-sweep tbody td.ssl-pick {{ position: absolute; left: 4px; top: 2px; width: 32px; }}
  .ssl-sweep tbody .ssl-who {{ flex: 1 1 0; font-size: 13px; }}
  .ssl-sweep tbody tr.ssl-trial::before {{ content: ""; order: 0; flex: 0 0 100%; height: 0; }}
  .ssl-sweep tbody tr.ssl-trial > .ssl-who, .ssl-sweep tbody tr.ssl-trial > .ssl-state-cell {{ order: -1; }}
  .ssl-sweep tbody td.ssl-number {{ text-align: left; order: 2; }}
  .ssl-sweep tbody td:is(.ssl-way, .ssl-f) {{ order: 1; }}
  .ssl-sweep tbody td.ssl-where {{ order: 3; }}
  .ssl-sweep tbody td[data-head]:not(:empty)::before {{ content: attr(data-head) " ";
    color: var(--jp-ui-font-color2, #616161); }}
  .ssl-sweep tr.ssl-why, .ssl-sweep tr.ssl-why td {{ display: block; }}
  .ssl-sweep tr.ssl-why td {{ padding-left: 8px; }}
}}
"""


class SweepTable(anywidget.AnyWidget):
    """The trials of a sweep.

    ``table.on_msg(lambda table, content, buffers: ...)`` gets ``{"error": name}`` when all of a trial's error is
    wanted, to be answered by ``table.send({"error": name, "text": ...})``, and ``{"csv": True}``, to be answered by
    ``table.send({"save": file name, "text": ...})``.
    """

    _esm: ClassVar[Any] = script("sweep.js")
    _css: ClassVar[Any] = _CSS

    sweep: Any = t.Unicode("", help="Name of the sweep's folder; empty without one.").tag(sync=True)

    folder: Any = t.Unicode("", help="Of the sweep's results; empty where the bench has the same one.").tag(sync=True)

    trials: Any = t.List(help="What does not change: [name, label, seed] for each trial.").tag(sync=True)

    live: Any = t.List(help="What does, in the same order.").tag(sync=True)
    """For each ``[state, step, of, steps/s, kNN, accuracy, heights, attempts, where, note, openable, rest]``:
    accuracies in per cent or None, heights from :func:`heights`, ``note`` what an error comes to, ``rest`` whether
    there is more of it."""


def listed(view: SweepView) -> range:
    """Places in the plan of the trials that are listed: all, or, where they are too many, those around the work."""
    count = len(view.trials)
    if count <= MOST:
        return range(count)
    at = next((place for place, trial in enumerate(view.trials) if trial.state not in ("done", "failed")), 0)
    # It moves rarely: each time all rows are made anew.
    quarter = MOST // 4
    start = min(max(0, (at // quarter - 1) * quarter), count - MOST)
    return range(start, start + MOST)


def fixed(view: SweepView) -> list[list[Any]]:
    """For :attr:`SweepTable.trials`."""
    return [[trial.name, trial.label, trial.seed] for trial in (view.trials[place] for place in listed(view))]


def moving(view: SweepView) -> list[list[Any]]:
    """For :attr:`SweepTable.live`."""
    return [_row(view.trials[place], view.working) for place in listed(view)]


def _row(trial: TrialView, working: bool) -> list[Any]:
    rate = trial.steps_per_second
    # The last line of what Python says of an error is what it is.
    error = trial.error.strip()
    note = error.rpartition("\n")[2].strip()
    note = note if len(note) <= NOTE else f"{note[:NOTE]}…"
    return [
        trial.state, trial.step, trial.of, round(rate, 1 if rate < 10 else 0), _percent(trial.knn),
        _percent(trial.accuracy), heights(trial.spectrum), trial.attempts, trial.node,
        note, openable(trial, working), note != error,
    ]  # fmt: skip


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def heights(values: Sequence[float]) -> list[int]:
    """Eigenvalues as bars: hundredths of a logarithmic axis from 1e-5 of the largest up to the largest.

    >>> heights((2.0, 0.02, 0.0))
    [100, 60, 0]
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all() or array.max() <= 0:
        return [0] * array.size
    share = np.clip(array / array.max(), LEAST, 1.0)
    return [int(height) for height in np.round(100 * (1 - np.log10(share) / np.log10(LEAST)))]
