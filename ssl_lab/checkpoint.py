"""Weights and states on disk: safetensors with a readable JSON header, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ssl_lab.errors import RunMissingError, SSLLabError

ENCODER = "encoder.safetensors"
CLASSIFIER = "classifier.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes named tensors and a JSON object beside them; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, temporary, metadata={"ssl_lab": json.dumps(dict(about))})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise SSLLabError(f"{path} could not be written: {error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The new name is on the disk only when its folder is; Windows cannot open one.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
