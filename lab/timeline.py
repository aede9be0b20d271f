"""``Timeline``: the bar under the panels. Which step do they show, where were knobs turned, and from where to fork?"""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, EVENT, script, shared_css

# The thumb's middle goes from half a thumb to half a thumb before the end: so does all that lies along the bar.
_CSS = f"""{shared_css("ssl-timeline")}
.ssl-timeline {{ --ssl-thumb: 24px; }}
.ssl-timeline .ssl-scrub {{ position: relative; container-type: inline-size; }}
.ssl-timeline .ssl-scrub-row {{ display: grid; align-items: end; gap: 0 12px;
  grid-template: "live bar where fork" auto / auto minmax(0, 1fr) auto auto; }}
.ssl-timeline .ssl-live {{ grid-area: live; margin-bottom: 10px; display: flex; align-items: center; gap: 7px; }}
.ssl-timeline .ssl-live::before {{ content: ""; width: 9px; height: 9px; border-radius: 50%;
  border: 2px solid currentColor; opacity: .6; }}
.ssl-timeline .ssl-live[aria-pressed=true] {{ border-color: {ACCENT}; font-weight: 600;
  background: color-mix(in srgb, {ACCENT} 16%, var(--jp-layout-color1, #fff)); }}
.ssl-timeline .ssl-live[aria-pressed=true]::before {{ background: {ACCENT}; border-color: {ACCENT}; opacity: 1; }}
.ssl-timeline .ssl-fork {{ grid-area: fork; margin-bottom: 10px; }}
.ssl-timeline .ssl-where {{ grid-area: where; margin-bottom: 10px; min-height: 28px; min-width: 12.5em; display: flex;
  flex-direction: column; justify-content: center; line-height: 1.15; font-variant-numeric: tabular-nums; }}
.ssl-timeline .ssl-where small {{ font-size: 11px; color: var(--jp-ui-font-color2, #616161); }}
.ssl-timeline .ssl-where small:empty {{ display: none; }}
.ssl-timeline .ssl-bar {{ grid-area: bar; position: relative; padding: 22px 0 10px; }}
.ssl-timeline .ssl-lane {{ position: absolute; left: calc(var(--ssl-thumb) / 2); right: calc(var(--ssl-thumb) / 2);
  pointer-events: none; }}
.ssl-timeline .ssl-track {{ top: 33px; height: 6px; margin: 0 -3px; border-radius: 3px; overflow: hidden;
  background: var(--jp-border-color2, #ddd); }}
.ssl-timeline .ssl-fill {{ height: 100%; background: {ACCENT}; }}
.ssl-timeline .ssl-marks {{ top: 0; height: 22px; isolation: isolate; }}
.ssl-timeline .ssl-mark {{ position: absolute; top: 0; height: 22px; min-width: 16px; padding: 0 0 4px; margin: 0;
  transform: translateX(-50%); border: 0; background: none; color: inherit; cursor: pointer; pointer-events: auto;
  font: 600 10.5px/1 var(--jp-ui-font-family, system-ui, sans-serif); font-variant-numeric: tabular-nums; }}
.ssl-timeline .ssl-mark span {{ display: block; margin: 0 auto; width: max-content; min-width: 16px; padding: 2px 4px;
  border: 1.5px solid {EVENT}; border-radius: 8px; background: var(--jp-layout-color1, #fff); }}
.ssl-timeline .ssl-mark:not(.ssl-crowded) {{ z-index: 1; }}
.ssl-timeline .ssl-mark:is(:hover, :focus-visible) {{ z-index: 2; }}
.ssl-timeline .ssl-mark:is(:hover, :focus-visible) span {{
  background: color-mix(in srgb, {EVENT} 22%, var(--jp-layout-color1, #fff)); }}
.ssl-timeline .ssl-mark::after {{ content: ""; position: absolute; left: calc(50% - 1px); top: 17px; height: 25px;
  width: 2px; background: {EVENT}; pointer-events: none; }}
.ssl-timeline .ssl-mark.ssl-crowded {{ min-width: 10px; width: 10px; }}
.ssl-timeline .ssl-mark.ssl-crowded span {{ visibility: hidden; min-width: 0; width: 10px; padding: 0; }}
.ssl-timeline .ssl-mark.ssl-crowded::after {{ top: 21px; height: 21px; }}
.ssl-timeline .ssl-mark.ssl-crowded:is(:hover, :focus-visible)::after {{ left: calc(50% - 2px); width: 4px; }}
.ssl-timeline .ssl-checkpoints {{ bottom: 3px; height: 5px; }}
.ssl-timeline .ssl-checkpoints i {{ position: absolute; top: 0; bottom: 0; width: 1px; margin-left: -.5px;
  background: var(--jp-ui-font-color2, #616161); }}
.ssl-timeline input[type=range] {{ appearance: none; -webkit-appearance: none; position: relative; display: block;
  width: 100%; height: 28px; margin: 0; padding: 0; background: none; cursor: pointer; touch-action: pan-y;
  outline: none; }}
.ssl-timeline input[type=range]:focus-visible {{ outline: none; }}
.ssl-timeline input[type=range]::-webkit-slider-runnable-track {{ background: none; height: 28px; }}
.ssl-timeline input[type=range]::-moz-range-track {{ background: none; height: 28px; }}
.ssl-timeline input[type=range]::-webkit-slider-thumb {{ appearance: none; -webkit-appearance: none;
  width: var(--ssl-thumb); height: var(--ssl-thumb); margin-top: 2px; border-radius: 50%; border: 3px solid {ACCENT};
  background: var(--jp-layout-color1, #fff); box-shadow: 0 1px 3px rgb(0 0 0 / 35%); }}
.ssl-timeline input[type=range]::-moz-range-thumb {{ width: var(--ssl-thumb); height: var(--ssl-thumb);
  box-sizing: border-box; border-radius: 50%; border: 3px solid {ACCENT}; background: var(--jp-layout-color1, #fff);
  box-shadow: 0 1px 3px rgb(0 0 0 / 35%); }}
.ssl-timeline input[type=range]:focus-visible::-webkit-slider-thumb {{
  box-shadow: 0 0 0 4px color-mix(in srgb, {ACCENT} 45%, transparent); }}
.ssl-timeline input[type=range]:focus-visible::-moz-range-thumb {{
  box-shadow: 0 0 0 4px color-mix(in srgb, {ACCENT} 45%, transparent); }}
.ssl-timeline .ssl-bubble {{ position: absolute; z-index: 20; width: max-content; max-width: min(340px, 100%);
  padding: 6px 10px; border-radius: 4px; border-left: 4px solid {EVENT}; white-space: pre-line; pointer-events: none;
  overflow-wrap: anywhere; color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color1, #fff);
  box-shadow: 0 0 0 1px var(--jp-border-color1, #bdbdbd), 0 4px 12px rgb(0 0 0 / 25%); }}
.ssl-timeline .ssl-bubble[hidden] {{ display: none; }}
.ssl-timeline .ssl-event-list {{ list-style: none; margin: 0; padding: 0 4px 0 0; max-height: 11em; max-width: 760px;
  overflow-y: auto; overflow-x: hidden; }}
.ssl-timeline .ssl-event-list li {{ display: flex; flex-wrap: nowrap; align-items: center; gap: 8px; padding: 3px 2px;
  margin: 0; border-bottom: 1px solid var(--jp-border-color3, #eee); }}
.ssl-timeline .ssl-event-list li.ssl-at {{ background: color-mix(in srgb, {ACCENT} 12%, transparent); }}
.ssl-timeline .ssl-event-list span {{ flex: 1; min-width: 0; padding-left: 29px; text-indent: -29px;
  overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }}
.ssl-timeline .ssl-event-list b {{ display: inline-block; min-width: 20px; padding: 0 5px; margin-right: 5px;
  text-indent: 0; text-align: center; font-size: 11px; line-height: 16px; border: 1.5px solid {EVENT};
  border-radius: 9px; }}
.ssl-timeline .ssl-event-list .ssl-do {{ flex: none; }}
.ssl-timeline p {{ margin: 4px 0; color: var(--jp-ui-font-color2, #616161); }}
.ssl-timeline p:empty {{ display: none; }}
@container (max-width: 760px) {{
  .ssl-timeline .ssl-scrub-row {{
    grid-template: "bar bar bar" auto "live where fork" auto / auto minmax(0, 1fr) auto; }}
  .ssl-timeline .ssl-where {{ min-width: 0; }}
}}
"""


class Timeline(anywidget.AnyWidget):
    """A scrub bar over the steps of a run, with its knob events on it and listed beneath.

    Buttons arrive as custom messages, ``timeline.on_msg(lambda timeline, content, buffers: ...)``: ``{"do": "fork",
    "step": n}`` for "Fork here" (n as in ``step``, for the message may overtake the trait), and ``{"do": "undo",
    "event": number}`` for "Undo" beside an event.
    """

    _esm: ClassVar[Any] = script("timeline.js")
    _css: ClassVar[Any] = _CSS

    step: Any = t.Int(-1, help="Step that the panels show; -1 while they follow the run.").tag(
        sync=True, echo_update=False
    )
    """While the thumb is dragged it is told about every 60 ms, the last place always."""

    last: Any = t.Int(0, help="Last recorded step: the bar's right end, which is live.").tag(sync=True)

    marks: Any = t.List(t.Dict(), help='On the bar: {"step": int, "text": str, "numbers": "3" or "3–7"}.').tag(
        sync=True
    )
    """At most about 120; what lies too close together is put into one by Python. The text says the step too."""

    events: Any = t.List(t.Dict(), help='In the list, newest first: {"number": int, "step": int, "text": str}.').tag(
        sync=True
    )
    """An event that cannot be undone may say so: ``"undo": False`` and the reason as ``"why"``."""

    more: Any = t.Int(0, help="Events before those that are listed.").tag(sync=True)

    checkpoints: Any = t.List(t.Int(), help="Steps with a checkpoint, small ticks under the bar.").tag(sync=True)

    note: Any = t.Unicode("", help='A remark on what is shown, such as "spectra of step 298".').tag(sync=True)

    can_fork: Any = t.Bool(False, help='Whether "Fork here" may be pressed.').tag(sync=True)

    fork_why: Any = t.Unicode("", help='Tooltip of "Fork here": what it does, or why it cannot.').tag(sync=True)
