"""``Shelf``: the runs of the results folder as a tree of forks. Which to open, and which to draw together?"""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, script, shared_css

_CSS = f"""{shared_css("ssl-shelf")}
.ssl-shelf .ssl-scroll {{ position: relative; max-height: 16em; overflow-x: hidden; overflow-y: auto;
  border: 1px solid var(--jp-border-color2, #ddd); border-radius: 4px; }}
.ssl-shelf table {{ width: 100%; border-collapse: collapse; border: 0; margin: 0; font: inherit; color: inherit;
  table-layout: auto; }}
.ssl-shelf :is(tr, th, td) {{ background: none; border: 0; text-align: left; white-space: normal; max-width: none; }}
.ssl-shelf th {{ position: sticky; top: 0; z-index: 1; padding: 4px 8px; font-size: 11px; font-weight: 600;
  color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color2, #eee); }}
.ssl-shelf td {{ padding: 2px 8px; height: 32px; vertical-align: middle; font-variant-numeric: tabular-nums; }}
.ssl-shelf tbody tr {{ border-top: 1px solid var(--jp-border-color3, #eee); }}
.ssl-shelf tbody tr:hover {{ background: color-mix(in srgb, currentColor 6%, transparent); }}
.ssl-shelf tbody tr[aria-current] {{ background: color-mix(in srgb, {ACCENT} 14%, transparent);
  box-shadow: inset 3px 0 0 {ACCENT}; }}
.ssl-shelf :is(th, td).ssl-right-hand {{ text-align: right; white-space: nowrap; }}
.ssl-shelf .ssl-faint {{ color: var(--jp-ui-font-color2, #616161); }}
.ssl-shelf td.ssl-draw {{ width: 40px; padding: 0 0 0 6px; }}
.ssl-shelf label.ssl-tick {{ display: flex; align-items: center; justify-content: center; width: 32px; height: 32px;
  margin: 0; cursor: pointer; }}
.ssl-shelf label.ssl-tick:has(:disabled) {{ cursor: not-allowed; opacity: .5; }}
.ssl-shelf input[type=checkbox] {{ width: 16px; height: 16px; margin: 0; accent-color: {ACCENT}; cursor: inherit; }}
.ssl-shelf .ssl-name {{ display: flex; align-items: center; gap: 7px; min-width: 0;
  padding-left: calc(16px * var(--ssl-depth, 0)); }}
.ssl-shelf .ssl-name b {{ font-weight: 600; overflow-wrap: anywhere; min-width: 0; }}
.ssl-shelf .ssl-branch {{ color: var(--jp-ui-font-color3, #757575); flex: none; margin-left: -10px; }}
.ssl-shelf .ssl-fold {{ flex: none; width: 28px; height: 28px; margin: 0 -4px 0 -8px; padding: 0; border: 0;
  border-radius: 4px; background: none; color: inherit; font: inherit; cursor: pointer; }}
.ssl-shelf .ssl-fold:hover {{ background: var(--jp-layout-color2, #eee); }}
@media (pointer: coarse) {{ .ssl-shelf .ssl-fold {{ width: 36px; height: 36px; }} }}
.ssl-shelf .ssl-swatch {{ flex: none; width: 12px; height: 12px; border-radius: 3px; }}
.ssl-shelf .ssl-badge {{ display: inline-block; font-size: 11px; line-height: 16px; padding: 0 8px; border-radius: 9px;
  border: 1px solid currentColor; white-space: nowrap; color: var(--jp-ui-font-color2, #616161); }}
.ssl-shelf .ssl-badge[data-state=running] {{ color: light-dark(#00714f, #2fc79a); }}
.ssl-shelf .ssl-badge[data-state=failed] {{ color: light-dark(#b03c05, #ff9a62); }}
.theme-light .ssl-shelf, [data-jp-theme-light=true] .ssl-shelf {{ color-scheme: light; }}
.theme-dark .ssl-shelf, [data-jp-theme-light=false] .ssl-shelf {{ color-scheme: dark; }}
.ssl-shelf td.ssl-last {{ width: 1px; white-space: nowrap; text-align: right; }}
.ssl-shelf .ssl-last .ssl-do + .ssl-do {{ margin-left: 6px; }}
.ssl-shelf .ssl-delete.ssl-sure {{ border-color: light-dark(#b03c05, #ff9a62); color: light-dark(#b03c05, #ff9a62);
  font-weight: 600; }}
.ssl-shelf .ssl-here {{ font-size: 12px; color: var(--jp-ui-font-color2, #616161); padding: 0 4px; }}
.ssl-shelf tr[aria-current] :is(.ssl-faint, .ssl-here, .ssl-badge:not([data-state=running], [data-state=failed])) {{
  color: var(--jp-ui-font-color1, #222); }}
.ssl-shelf p {{ margin: 4px 0; color: var(--jp-ui-font-color2, #616161); font-size: 12px; }}
.ssl-shelf :is(p:empty, .ssl-badge:empty, [hidden]) {{ display: none !important; }}
@container (max-width: 700px) {{
  .ssl-shelf thead {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }}
  .ssl-shelf :is(table, tbody) {{ display: block; }}
  .ssl-shelf tbody tr {{ display: flex; flex-wrap: wrap; align-items: center; column-gap: 10px;
    padding: 4px 8px 6px 40px; position: relative; }}
  .ssl-shelf tbody td {{ display: block; height: auto; padding: 0; font-size: 12px; min-width: 0;
    overflow-wrap: anywhere; }}
  .ssl-shelf tbody :is(td:empty, td:has(> .ssl-badge:empty)) {{ display: none; }}
  .ssl-shelf tbody td.ssl-draw {{ position: absolute; left: 4px; top: 3px; width: 32px; }}
  .ssl-shelf tbody td.ssl-who {{ order: -3; flex: 1 1 0; font-size: 13px; }}
  .ssl-shelf tbody td.ssl-last {{ order: -2; width: auto; }}
  .ssl-shelf tbody tr::before {{ content: ""; order: -1; flex: 0 0 100%; height: 2px; }}
  .ssl-shelf tbody td[data-head]:not(:empty)::before {{ content: attr(data-head) " "; }}
}}
"""


class Shelf(anywidget.AnyWidget):
    """The list of runs: forks under the run they grew from, a checkbox to draw a run with the one on the page.

    ``shelf.on_msg(lambda shelf, content, buffers: ...)`` gets ``{"open": name}`` for the button "Open" and
    ``{"delete": name}`` for "Delete", once it was pressed twice; of a family's heading ``{"open_family": id}`` and
    ``{"delete_family": id}``.
    """

    _esm: ClassVar[Any] = script("shelf.js")
    _css: ClassVar[Any] = _CSS

    runs: Any = t.List(t.Dict(), help="The runs, a fork right after the run (or fork) that it grew from.").tag(
        sync=True
    )
    """Each ``{"name", "depth", "state", "step", "preset", "data", "knn", "origin", "shown", "colour", "deletable"}``:
    ``depth`` is 0 for a root, ``knn`` a percentage as text or "", ``origin`` such as "from directpred-1 at step 300" or
    "recording", ``shown`` whether it is the run on the page, ``colour`` the CSS colour it is drawn in, or "",
    ``deletable`` whether the visitor may delete it. A family's members, each with ``"group"``, stand under a row with
    ``"heads"``, its id, and ``"label"`` and ``"count"``, which folds them away, and is ``"shown"`` if the run on the
    page stands under it."""

    more: Any = t.Int(0, help="Older runs that are not listed.").tag(sync=True)

    most: Any = t.Int(4, help="Most runs that are drawn together, the one on the page counted.").tag(sync=True)

    ticked: Any = t.List(t.Unicode(), help="Runs to draw with the one on the page, in the order of ticking.").tag(
        sync=True, echo_update=False
    )
    """Never the run on the page itself, when the page has set it."""
