"""Tables of the docs that are made from the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssl_lab.config import PRESETS, Knobs, RunConfig, allowed, knob_meta


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in the tables that are made from the code."""
    for name, rows in (("knobs", _knobs), ("settings", _settings), ("presets", _presets)):
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(map(_row, rows())))
    return markdown


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _knobs() -> Iterator[tuple[str, ...]]:
    yield "knob", "takes", "what it does", "source"
    yield ("---",) * 4
    for name, field in Knobs.model_fields.items():
        meta = knob_meta(name)
        unit = f", {meta.unit}" if meta.unit else ""
        default = f"`{field.default!r}`".replace("'", '"')
        called = f"`{name}` {meta.symbol}".strip()
        yield called, f"{allowed(name)}{unit}; {default}", str(field.description), meta.source


def _settings() -> Iterator[tuple[str, ...]]:
    yield "field", "default", "what it is"
    yield ("---",) * 3
    for name, field in RunConfig.model_fields.items():
        default = "`Knobs()`" if name == "knobs" else f"`{field.default!r}`".replace("'", '"')
        yield f"`{name}`", default, str(field.description)


def _presets() -> Iterator[tuple[str, ...]]:
    yield "preset", "what it is", "differs from `byol` by", "source"
    yield ("---",) * 4
    for preset in PRESETS.values():
        changed = ", ".join(f"`{name}={value}`" for name, value in {**preset.knobs, **preset.config}.items())
        yield f"`{preset.name}`", preset.title, changed, preset.source
