"""Weights and states on disk: safetensors with a readable JSON header, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from ssl_lab.atomic import write_whole
from ssl_lab.errors import RunMissingError, SSLLabError

ENCODER = "encoder.safetensors"
CLASSIFIER = "classifier.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes named tensors and a JSON object beside them; a reader sees the old file or the new one.

    Raises:
        WriteError: it could not be written, and what was there is there still.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, [serialised(ready, metadata={"ssl_lab": json.dumps(dict(about))})])


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`save` wrote, on the CPU.

    Raises:
        RunMissingError: there is no such file.
        SSLLabError: the file is broken or not ours.
    """
    if not path.is_file():
        raise RunMissingError(f"{path} is not there.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("ssl_lab")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SSLLabError(
            f"{path} cannot be read: {error}. It was not written to its end, or is no such file."
        ) from None
    if header is None:
        raise SSLLabError(f"{path} was not written by ssl-lab.")
    return tensors, json.loads(header)


def save_state(path: Path, state: Mapping[str, Any], events: int) -> None:
    """Writes ``Trainer.state_dict()`` and how many knob events it has seen."""
    save(path, state["tensors"], {**state["counters"], "events": events})


def load_state(path: Path) -> tuple[dict[str, Any], int]:
    """(state for ``Trainer.load_state_dict``, number of knob events it has seen)."""
    tensors, counters = load(path)
    return {"tensors": tensors, "counters": counters}, int(counters["events"])
