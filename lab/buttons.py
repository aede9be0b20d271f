"""How the lab's own widgets draw what they have in common: buttons, the focus ring, what only a screen reader sees."""

from __future__ import annotations

from pathlib import Path

ACCENT = "#2a8fd4"
EVENT = "#d55e00"


def shared_css(root: str) -> str:
    """The common rules, for what lies in elements of class ``root``."""
    return f"""
.ssl-wide {{ width: 100%; min-width: 0; margin: 0; overflow: visible; }}
.{root} {{ box-sizing: border-box; width: 100%; container-type: inline-size; color: var(--jp-ui-font-color1, #222);
  font: 13px/1.35 var(--jp-ui-font-family, system-ui, sans-serif); }}
.{root} *, .{root} *::before, .{root} *::after {{ box-sizing: border-box; }}
.{root} h3 {{ font-size: 14px; font-weight: 600; margin: 6px 0 2px; }}
.{root} .ssl-do {{ font: inherit; line-height: 1; color: inherit; height: 28px; padding: 0 12px; margin: 0;
  cursor: pointer; white-space: nowrap; border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 4px;
  background: var(--jp-layout-color1, #fff); }}
.{root} .ssl-do:hover:enabled {{ background: var(--jp-layout-color2, #eee); }}
.{root} .ssl-do:disabled {{ cursor: not-allowed; color: var(--jp-ui-font-color3, #757575);
  border-color: var(--jp-border-color2, #ddd); }}
.{root} .ssl-do.ssl-little {{ height: 24px; padding: 0 9px; font-size: 12px; }}
.{root} :is(button, input):focus-visible {{ outline: 2px solid {ACCENT}; outline-offset: 1px; }}
.{root} .ssl-unseen {{ position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }}
@media (pointer: coarse) {{
  .{root} .ssl-do {{ height: 36px; }}
  .{root} .ssl-do.ssl-little {{ height: 32px; padding: 0 12px; }}
}}
"""


def script(name: str) -> str:
    """A widget's script, with what all of them use before it: a widget's module is one text and can import nothing."""
    static = Path(__file__).parent / "static"
    return "".join((static / part).read_text(encoding="utf-8") for part in ("dom.js", name))
