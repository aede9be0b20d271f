"""What a page's address asks for: ``?run=NAME&step=N&compare=A,B``, or a new bench by ``?preset=...&knobs=...``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_lab.config import DATASETS, RunConfig, parse_knobs, preset
from ssl_lab.errors import ConfigError


def linked_config(query: Mapping[str, Any], usual: RunConfig) -> RunConfig:
    """The run that ``preset``, ``dataset``, ``seed`` and ``knobs`` of an address ask for; ``usual`` if none is there.

    Raises:
        ConfigError, KnobError: one of them cannot be; the message says which and what is allowed.
    """
    asked = {name: str(query[name]) for name in ("preset", "dataset", "seed", "knobs") if query.get(name)}
    if not asked:
        return usual
    dataset = asked.get("dataset", usual.dataset)
    # A folder's path is the business of whoever sits at the machine, not of whoever wrote the link.
    if dataset not in DATASETS and dataset != usual.dataset:
        raise ConfigError(f"There is no data set {dataset!r}. A link can ask for: {', '.join(DATASETS)}.")
    seed = usual.seed
    if "seed" in asked:
        if not asked["seed"].isdecimal() or len(asked["seed"]) > 19 or int(asked["seed"]) >= 2**63:
            raise ConfigError(f"The seed cannot be {asked['seed']!r}: it takes a whole number from 0 on.")
        seed = int(asked["seed"])
    knobs = parse_knobs(asked["knobs"]) if "knobs" in asked else {}
    return preset(asked.get("preset", usual.preset), dataset=dataset, knobs=knobs, seed=seed, device=usual.device)


def linked_step(query: Mapping[str, Any], last: int) -> int | None:
    """The step that an address asks for; None for now.

    Raises:
        ConfigError: the run has no such step.
    """
    text = str(query.get("step") or "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18 or int(text) > last:
        raise ConfigError(f"The run has no step {text!r}: it is recorded up to step {last:,}.")
    return int(text)


def linked_names(query: Mapping[str, Any], name: str) -> list[str]:
    """Names in a comma-separated parameter, each once."""
    return list(dict.fromkeys(word for word in str(query.get(name) or "").split(",") if word))
