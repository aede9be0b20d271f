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
from ssl_lab.errors import RunMissingError, StoreError, shown
from ssl_lab.foreign import STEP, from_json, understood

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
        StoreError: the file is broken or not ours.
    """
    if not path.is_file():
        raise RunMissingError(f"{path} is not there.")
    try:
        # Before the library gets to see it: no memory is taken for what a file only says that it holds.
        about = _checked_header(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise StoreError(
            f"{path} cannot be read: {reason}. It was not written to its end, was changed, or is no such file."
        ) from None
    if about is None:
        raise StoreError(f"{path} was not written by ssl-lab.")
    with understood(path, "header"):
        said = from_json(about)
        if not isinstance(said, dict):
            raise ValueError(f"expected a JSON object under 'ssl_lab', found {shown(said)}")
    return tensors, said


HEADER = 4_000_000
"""Bytes of the longest header that is read; that of a ResNet has 30,000."""

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def _checked_header(path: Path) -> object:
    """What stands under ``ssl_lab`` in the header of a file whose tensors are all there, one after the other; or None.

    Raises:
        ValueError: what was expected of it, and what was found.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            raise ValueError(
                f"expected a header of 2 to {max(2, min(HEADER, size - 8)):,} bytes in a file of {size:,}, found one "
                f"of {length:,}"
            )
        header = from_json(file.read(length).decode(), HEADER)
    if not isinstance(header, dict):
        raise ValueError(f"expected a header that is a JSON object, found {shown(header)}")
    about = header.pop("__metadata__", {})
    spans = []
    for name, entry in header.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if not all(type(n) is int and 0 <= n <= size for n in (*shape, begin, end)) or len(shape) > 8:
            raise ValueError(f"expected shape and place of {shown(name)} within the file, found {shown(entry)}")
        expected = _BYTES[entry["dtype"]]
        for n in shape:
            expected *= n
        if end - begin != expected:
            raise ValueError(f"expected {expected:,} bytes for {shown(name)}, found {end - begin:,}")
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise ValueError(f"expected a tensor at byte {place:,}, found the next at {begin:,}")
        place = end
    if place != size - 8 - length:
        raise ValueError(f"expected {place:,} bytes of tensors, found {size - 8 - length:,}")
    return about.get("ssl_lab") if isinstance(about, dict) else None


def save_state(path: Path, state: Mapping[str, Any], events: int) -> None:
    """Writes ``Trainer.state_dict()`` and how many knob events it has seen."""
    save(path, state["tensors"], {**state["counters"], "events": events})


def load_state(path: Path) -> tuple[dict[str, Any], int]:
    """(state for ``Trainer.load_state_dict``, number of knob events it has seen)."""
    tensors, counters = load(path)
    with understood(path, "state"):
        seen = STEP.validate_python(counters.get("events"))
        # None is written of a run that has diverged.
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"expected finite numbers, found others in {shown(name)}")
    return {"tensors": tensors, "counters": counters}, seen
