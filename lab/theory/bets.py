"""``Bets``: the lesson on the page: questions, choices to bet on, and verdicts."""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, script, shared_css

_CSS = f"""{shared_css("ssl-lesson")}
.ssl-lesson .ssl-questions {{ display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }}
.ssl-lesson .ssl-bet {{ border: 1px solid var(--jp-border-color2, #ddd); border-radius: 6px; padding: 4px 12px 10px;
  margin: 0; min-width: 0; background: var(--jp-layout-color1, #fff); }}
.ssl-lesson legend {{ font-weight: 600; font-size: 14px; padding: 0 4px; float: left; width: 100%; margin: 4px 0 6px; }}
.ssl-lesson legend + * {{ clear: both; }}
.ssl-lesson label {{ display: flex; gap: 8px; align-items: center; padding: 3px 4px; border-radius: 4px; }}
.ssl-lesson label:has(:checked) {{ background: color-mix(in srgb, {ACCENT} 14%, transparent); }}
.ssl-lesson input {{ margin: 0; width: 16px; height: 16px; accent-color: {ACCENT}; flex: none; }}
.ssl-lesson .ssl-buttons {{ display: flex; gap: 6px; margin: 8px 0 0; }}
.ssl-lesson p {{ margin: 6px 0 0; }}
.ssl-lesson p:empty, .ssl-lesson b:empty, .ssl-lesson [hidden] {{ display: none !important; }}
.ssl-lesson .ssl-verdict {{ margin-top: 8px; padding: 2px 10px 8px; border-left: 4px solid {ACCENT};
  background: color-mix(in srgb, {ACCENT} 8%, transparent); }}
.ssl-lesson .ssl-verdict b {{ display: block; font-weight: 600; }}
.ssl-lesson .ssl-verdict.ssl-won {{ border-color: #009e73; }}
.ssl-lesson .ssl-verdict.ssl-lost {{ border-color: #d55e00; }}
.ssl-lesson .ssl-equation {{ font-family: "STIX Two Text", Georgia, serif; font-size: 14px; overflow-wrap: anywhere; }}
.ssl-lesson .ssl-says {{ font-variant-numeric: tabular-nums; }}
@media (pointer: coarse) {{ .ssl-lesson label {{ padding: 8px 4px; }} }}
"""


class Bets(anywidget.AnyWidget):
    """Questions with a bet each.

    Buttons arrive as custom messages: ``{"do": "bet", "question": i, "choice": j}`` and
    ``{"do": "show", "question": i}``.
    """

    _esm: ClassVar[Any] = script("bets.js")
    _css: ClassVar[Any] = _CSS

    questions: Any = t.List(help="As ``Lesson.state`` gives them.").tag(sync=True)
