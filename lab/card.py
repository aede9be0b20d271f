"""``Card``: a lesson's question on the page. What is asked, what was bet, what is going on, what came out?"""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, EVENT, script, shared_css

_CSS = f"""{shared_css("ssl-card")}
.ssl-left > :has(> .ssl-card) {{ width: 100%; margin: 0; overflow: visible; }}
.ssl-card {{ font-size: 14px; line-height: 1.4; }}
.ssl-card section {{ border: 1px solid var(--jp-border-color1, #bdbdbd); border-top: 4px solid {ACCENT};
  border-radius: 6px; padding: 8px 12px 10px; margin: 0 0 8px; background: var(--jp-layout-color1, #fff); }}
.ssl-card .ssl-top-row {{ display: flex; align-items: center; gap: 4px; flex-wrap: wrap; }}
.ssl-card .ssl-top-row p {{ margin: 0 auto 0 0; font-size: 12px; color: var(--jp-ui-font-color2, #616161); }}
.ssl-card .ssl-place {{ font: inherit; font-size: 12px; width: 24px; height: 24px; padding: 0; cursor: pointer;
  color: inherit; border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 50%; background: none; }}
.ssl-card .ssl-place[aria-current] {{ border: 2px solid {ACCENT}; font-weight: 700; }}
.ssl-card .ssl-place.ssl-judged::after {{ content: "✓"; font-size: 9px; vertical-align: super; }}
.ssl-card h2 {{ font-size: 16px; font-weight: 600; line-height: 1.25; margin: 4px 0; outline-offset: 3px; }}
.ssl-card h2:focus:not(:focus-visible) {{ outline: none; }}
.ssl-card h3 {{ margin: 8px 0 2px; }}
.ssl-card p {{ margin: 4px 0; }}
.ssl-card fieldset {{ border: 0; margin: 6px 0; padding: 0; min-width: 0; }}
.ssl-card legend {{ padding: 0; font-weight: 600; }}
.ssl-card label {{ display: flex; align-items: baseline; gap: 8px; padding: 3px 6px; min-height: 28px; cursor: pointer;
  border-left: 3px solid transparent; }}
.ssl-card label:has(:disabled) {{ cursor: default; }}
.ssl-card label.ssl-bet {{ border-left-color: {ACCENT}; font-weight: 600; }}
.ssl-card label.ssl-came {{ border-left-color: #009e73; background: color-mix(in srgb, #009e73 12%, transparent); }}
.ssl-card label small {{ margin-left: auto; white-space: nowrap; font-weight: 400; }}
.ssl-card input[type=radio] {{ accent-color: {ACCENT}; margin: 0; flex: none; transform: translateY(2px); }}
.ssl-card .ssl-buttons-row {{ display: flex; flex-wrap: wrap; gap: 6px; margin-top: 8px; }}
.ssl-card .ssl-buttons-row:empty {{ display: none; }}
.ssl-card .ssl-first {{ background: #1a6fb0; border-color: #1a6fb0; color: #fff; font-weight: 600; }}
.ssl-card .ssl-first:hover:enabled {{ background: #155a8f; }}
.ssl-card .ssl-first:disabled {{ background: var(--jp-layout-color2, #eee);
  color: var(--jp-ui-font-color3, #757575); border-color: var(--jp-border-color2, #ddd); }}
.ssl-card .ssl-going {{ font-variant-numeric: tabular-nums; color: var(--jp-ui-font-color1, #222); min-height: 1.4em; }}
.ssl-card .ssl-going:empty {{ display: none; }}
.ssl-card progress {{ display: block; width: 100%; height: 8px; accent-color: {ACCENT}; }}
.ssl-card .ssl-trouble {{ border-left: 4px solid {EVENT}; padding: 4px 10px;
  background: color-mix(in srgb, {EVENT} 12%, transparent); }}
.ssl-card .ssl-verdict {{ border-left: 4px solid #009e73; padding: 2px 10px;
  background: color-mix(in srgb, #009e73 10%, transparent); font-variant-numeric: tabular-nums; }}
.ssl-card .ssl-verdict:focus {{ outline: 2px solid {ACCENT}; outline-offset: 2px; }}
.ssl-card .ssl-why {{ font-size: 13px; }}
.ssl-card .ssl-why .ssl-source {{ font-size: 12px; color: var(--jp-ui-font-color2, #616161); }}
.ssl-card .ssl-why .ssl-equation {{ display: block; padding: 4px 0 4px 12px; overflow-x: auto;
  font-family: Cambria, "STIX Two Math", "Times New Roman", serif; font-size: 15px; }}
.ssl-card a {{ color: var(--jp-content-link-color, #1a6fb0); text-decoration: underline; }}
.ssl-card [hidden] {{ display: none !important; }}
.ssl-bench .ssl-asked {{ box-shadow: inset 0 0 0 3px {EVENT}; border-radius: 6px; padding: 6px 8px !important; }}
.ssl-bench .ssl-asked > :first-child::before {{ content: "▶ "; color: {EVENT}; }}
.ssl-bench .ssl-look {{ box-shadow: inset 0 3px 0 {ACCENT}; border-color: {ACCENT}; }}
.ssl-bench:has(.ssl-card) .ssl-body {{ grid-template-columns: minmax(320px, 400px) minmax(0, 1fr); }}
.ssl-bench:has(.ssl-card) .ssl-help:not(:has(.ssl-idle)) {{ display: none; }}
.ssl-bench:has(.ssl-card) .ssl-panels {{
  grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); }}
@container (max-width: 760px) {{
  .ssl-bench:has(.ssl-card) .ssl-body {{ grid-template-columns: minmax(0, 1fr); }}
}}
"""


class Card(anywidget.AnyWidget):
    """Draws one question and what there is to press; all that it says comes from Python.

    What a person does arrives as custom messages, ``card.on_msg(lambda card, content, buffers: ...)``: ``{"bet": n}``
    with the answer's number, ``{"do": name}`` for a button, ``{"go": n}`` for the n-th question; each with ``"at"``,
    the number of the question that the page showed.
    """

    _esm: ClassVar[Any] = script("card.js")
    _css: ClassVar[Any] = _CSS

    state: Any = t.Dict(help="All that is on the card.").tag(sync=True)
    """``at`` and ``count``, ``titles``, ``judged`` (numbers of questions with a verdict), ``stage``, ``text``,
    ``answers``, ``bet``, ``came`` (the right answer), ``locked`` (no bet is taken), ``ask`` (what to do), ``verdict``
    and ``why``: what changes from question to question; texts are HTML."""

    going: Any = t.Dict(help="What is going on: changes many times a second.").tag(sync=True)
    """``words``, ``share`` in [0, 1] or None, ``trouble``, and ``buttons``: ``{"do", "words", "first", "off"}``."""

    said: Any = t.Unicode("", help="What a screen reader reads out when it has time.").tag(sync=True)
