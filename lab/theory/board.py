"""``Board``: what is turned on the page of the theory: sliders, what can be taken away, and the transport.

Native controls, so that a keyboard, a finger and a screen reader each work them as they do anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, script, shared_css
from lab.theory.flow import RANGES, SWITCHES

SPEEDS: tuple[tuple[str, float], ...] = (("slow", 2.0), ("as usual", 8.0), ("fast", 30.0))
"""Units of the flow's time in a second."""

LABELS: Mapping[str, str] = {"stop_gradient": "Stop-gradient", "predictor": "Predictor", "ema": "EMA"}

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The flow", ("eta", "sigma2", "alpha_p", "beta")),
    ("The start", ("gain", "offset", "tau")),
)

_CSS = f"""{shared_css("ssl-board")}
.ssl-board .ssl-buttons {{ display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 0 0 4px; }}
.ssl-board .ssl-buttons .ssl-do {{ flex: 1 1 64px; }}
.ssl-board .ssl-play {{ background: {ACCENT}; border-color: {ACCENT}; color: #000; font-weight: 600; }}
.ssl-board .ssl-do.ssl-play:hover:enabled {{ background: color-mix(in srgb, {ACCENT} 80%, #fff); }}
.ssl-board select {{ font: inherit; height: 28px; color: inherit; border-radius: 4px;
  border: 1px solid var(--jp-border-color1, #bdbdbd); background: var(--jp-layout-color1, #fff); }}
.ssl-board select:focus-visible {{ outline: 2px solid {ACCENT}; outline-offset: 1px; }}
.ssl-board .ssl-speed {{ display: flex; gap: 6px; align-items: center; }}
.ssl-board .ssl-zoom {{ flex: 1 1 100%; display: flex; gap: 8px; align-items: center; padding: 3px 0; }}
.ssl-board .ssl-zoom input {{ width: 16px; height: 16px; margin: 0; accent-color: {ACCENT}; }}
.ssl-board .ssl-turn {{ display: grid; grid-template-columns: minmax(0, 1fr) auto; column-gap: 8px;
  padding: 3px 0 5px; }}
.ssl-board .ssl-turn label i {{ font-family: "STIX Two Text", Georgia, serif; font-size: 14px; }}
.ssl-board .ssl-turn output {{ font-variant-numeric: tabular-nums; font-weight: 600; }}
.ssl-board .ssl-turn input {{ grid-column: 1 / -1; width: 100%; margin: 3px 0; height: 18px; accent-color: {ACCENT};
  touch-action: pan-y; }}
.ssl-board .ssl-turn small, .ssl-board .ssl-switch small {{ grid-column: 1 / -1; font-size: 11px; line-height: 1.25;
  color: var(--jp-ui-font-color2, #616161); }}
.ssl-board .ssl-group {{ border-top: 1px solid var(--jp-border-color2, #ddd); margin-top: 6px; }}
.ssl-board .ssl-switch {{ display: grid; grid-template-columns: auto minmax(0, 1fr); column-gap: 8px;
  align-items: center; padding: 4px 0; }}
.ssl-board .ssl-switch input {{ width: 18px; height: 18px; margin: 0; accent-color: {ACCENT}; }}
.ssl-board .ssl-switch label {{ font-weight: 600; padding: 2px 0; }}
.ssl-board .ssl-switch small {{ grid-column: 2; }}
.ssl-board .ssl-switch small b {{ font-weight: 600; color: var(--jp-ui-font-color1, #222); display: block; }}
@media (pointer: coarse) {{ .ssl-board .ssl-turn input {{ height: 28px; }}
  .ssl-board select {{ height: 36px; }} }}
"""


class Board(anywidget.AnyWidget):
    """Sliders, switches and transport.

    Buttons arrive as custom messages, ``board.on_msg(lambda board, content, buffers: ...)``, with ``content`` being
    ``{"do": "play"}``, ``"pause"``, ``"step"`` or ``"restart"``.
    """

    _esm: ClassVar[Any] = script("theory.js")
    _css: ClassVar[Any] = _CSS

    groups: Any = t.List(help="Sliders: [heading, [{name, label, symbol, low, high, step, log, help}]].").tag(sync=True)

    offered: Any = t.List(help="Switches: [{name, label}].").tag(sync=True)

    speeds: Any = t.List(help="[words, units of time in a second].").tag(sync=True)

    values: Any = t.Dict(help="Value of each slider; told at most once a frame while one is dragged.").tag(
        sync=True, echo_update=False
    )

    switches: Any = t.Dict(help="Whether each switch is on.").tag(sync=True, echo_update=False)

    speed: Any = t.Float(SPEEDS[1][1], help="Units of time in a second.").tag(sync=True, echo_update=False)

    zoom: Any = t.Bool(False, help="Whether what lies around p- fills the plane.").tag(sync=True, echo_update=False)

    playing: Any = t.Bool(True, help="Whether the flow moves.").tag(sync=True)

    why: Any = t.Dict(help="For each switch the sentence and the equation that say what it does as it stands.").tag(
        sync=True
    )

    idle: Any = t.Dict(help="For each slider that has no effect now, why.").tag(sync=True)

    def __init__(self, **state: Any) -> None:
        groups = [
            [heading, [{"name": name, **_shown(name)} for name in names]] for heading, names in GROUPS
        ]  # fmt: skip
        offered = [{"name": name, "label": LABELS[name]} for name in SWITCHES]
        super().__init__(groups=groups, offered=offered, speeds=[list(speed) for speed in SPEEDS], **state)


def _shown(name: str) -> dict[str, Any]:
    span = RANGES[name]
    return {
        "label": span.label, "symbol": span.symbol, "low": span.low, "high": span.high, "step": span.step,
        "log": span.log, "help": span.help,
    }  # fmt: skip


def are_values(value: object) -> bool:
    """Whether a page may say this of the sliders: numbers by name."""
    return isinstance(value, dict) and all(
        name in RANGES and isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= 1e6
        for name, number in value.items()
    )


def are_switches(value: object) -> bool:
    """Whether a page may say this of the switches: truths by name."""
    return isinstance(value, dict) and all(name in SWITCHES and isinstance(on, bool) for name, on in value.items())


def is_speed(value: object) -> bool:
    """Whether it is one of the speeds."""
    return not isinstance(value, bool) and value in [speed for _, speed in SPEEDS]
