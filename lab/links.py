"""What a page's address asks for: ``?run=NAME&step=N&compare=A,B``, or a new bench by ``?preset=...&knobs=...``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_lab.config import DATASETS, PRESETS, RunConfig, parse_knobs, preset
from ssl_lab.errors import ConfigError, shown

WORDS = frozenset({"run", "step", "compare", "preset", "dataset", "knobs", "seed", "watch", "follow"})
"""Parameters of an address that ask for the bench."""

LONGEST = 2_000
"""Characters of the longest value that is followed; all knobs together have some 400."""


def linked_config(query: Mapping[str, Any], usual: RunConfig) -> RunConfig:
    """The run that ``preset``, ``dataset``, ``seed`` and ``knobs`` of an address ask for; ``usual`` if none is there.

    Raises:
        ConfigError, KnobError: one of them cannot be; the message says which and what is allowed.
    """
    asked = {
        name: text for name in ("preset", "dataset", "seed", "knobs") if (text := linked_text(query, name).strip())
    }
    if not asked:
        return usual
    about = PRESETS[asked["preset"]].dataset if asked.get("preset") in PRESETS else None
    dataset = asked.get("dataset", about or usual.dataset)
    # A folder's path is the business of whoever sits at the machine, not of whoever wrote the link.
    if dataset not in DATASETS and dataset != usual.dataset:
        raise ConfigError(f"There is no data set {shown(dataset)}. A link can ask for: {', '.join(DATASETS)}.")
    seed = usual.seed
    if "seed" in asked:
        if not _is_number(asked["seed"], 2**63 - 1):
            raise ConfigError(f"The seed cannot be {shown(asked['seed'])}: it takes a whole number from 0 on.")
        seed = int(asked["seed"])
    knobs = parse_knobs(asked["knobs"]) if "knobs" in asked else {}
    return preset(asked.get("preset", usual.preset), dataset=dataset, knobs=knobs, seed=seed, device=usual.device)


def linked_step(query: Mapping[str, Any], last: int) -> int | None:
    """The step that an address asks for; None for now.

    Raises:
        ConfigError: the run has no such step.
    """
    text = linked_text(query, "step")
    if not text:
        return None
    if not _is_number(text, last):
        raise ConfigError(f"The run has no step {shown(text)}: it is recorded up to step {last:,}.")
    return int(text)


def linked_names(query: Mapping[str, Any], name: str) -> list[str]:
    """Names in a comma-separated parameter, each once.

    Raises:
        ConfigError: it is no text, or a very long one.
    """
    return list(dict.fromkeys(word for word in linked_text(query, name).split(",") if word))


def linked_text(query: Mapping[str, Any], name: str) -> str:
    """A parameter as text, empty if it is not there; a page may send anything.

    Raises:
        ConfigError: it is no text, or a very long one.
    """
    value = query.get(name)
    if value is None or value == "":
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
        raise ConfigError(
            f"The parameter {name!r} cannot be {shown(value)}: it takes a text of at most {LONGEST:,} characters that "
            "can be shown."
        )
    return value


def _is_number(text: str, most: int) -> bool:
    """Whether it is a whole number from 0 to ``most`` in plain digits."""
    return text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= most
