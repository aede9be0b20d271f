"""A recorded eigenspace to lay over one's own: what a reference file holds, and how far a run is from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_lab.errors import DataError
from ssl_lab.reproduce.rows import ROWS
from ssl_lab.spectrum import ALIGNED, effective_rank
from ssl_lab.store import SpectrumRecord

Array = NDArray[np.float64]

ARRAYS = ("epoch", "f_eigenvalues", "wp_eigenvalues", "alignment", "asymmetry")
"""What a reference file holds: (T,), three of (T, d), (T,). Column i of ``alignment`` belongs to column i of
``f_eigenvalues``; the columns need not be in order. ``asymmetry`` may have one entry more, of the run's very end."""

LARGEST = 64_000_000
"""Bytes of a reference file above which it is none."""


@dataclass(frozen=True)
class Reference:
    """A recorded eigenspace, each row in descending order of its eigenvalues."""

    row: str
    """The configuration it belongs to."""
    epochs: Array
    """(T,), ascending."""
    f_eigenvalues: Array
    """(T, d)."""
    wp_eigenvalues: Array
    """(T, d)."""
    alignment: Array
    """(T, d), in the order of ``f_eigenvalues``."""
    asymmetry: Array
    """(T,)."""

    @property
    def aligned(self) -> NDArray[np.int64]:
        """(T,): eigenvectors of F with a cosine above .9."""
        found: NDArray[np.int64] = (self.alignment > ALIGNED).sum(axis=1)
        return found

    @property
    def effective_rank(self) -> Array:
        """(T,): of F."""
        return np.array([effective_rank(row) for row in self.f_eigenvalues])


@dataclass(frozen=True)
class Distance:
    """A run beside its reference at one epoch."""

    epoch: float
    """Passes over the training images."""
    aligned: tuple[int, int]
    """(ours, theirs): directions with a cosine above .9."""
    effective_rank: tuple[float, float]
    """(ours, theirs), in directions."""
    asymmetry: tuple[float, float]
    """(ours, theirs)."""


def read_reference(word: str) -> Reference:
    """Reads ``FILE.npz`` or ``ROW=FILE.npz``; without ROW the file's name must end with one.

    Raises:
        DataError: there is no such file, it is no reference, or no row is named.
    """
    row, equals, text = word.partition("=")
    path = Path(text if equals else word).expanduser()
    if not equals:
        ends = [name for name in ROWS if path.stem == name or path.stem.endswith(f"-{name}")]
        if not ends:
            raise DataError(f"The name of {path} ends with no row. Say which it belongs to: --reference ROW={path}.")
        row = max(ends, key=len)
    if row not in ROWS:
        raise DataError(f"There is no row {row!r} for {path}. There are: {', '.join(ROWS)}.")
    try:
        if os.path.getsize(path) > LARGEST:
            raise DataError(f"{path} is no reference: it is larger than {LARGEST // 1_000_000} MB.")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file]
            if missing:
                raise DataError(f"{path} is no reference: it has no array {missing[0]!r}.")
            arrays = {name: np.asarray(file[name], dtype=np.float64) for name in ARRAYS}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The reference {path} cannot be read: {error}.") from None
    return _in_order(row, arrays, path)


def _in_order(row: str, arrays: dict[str, Array], path: Path) -> Reference:
    epochs, f = arrays["epoch"], arrays["f_eigenvalues"]
    if arrays["asymmetry"].shape == (len(epochs) + 1,):
        arrays["asymmetry"] = arrays["asymmetry"][:-1]
    shapes = {"f_eigenvalues": f.shape, "wp_eigenvalues": f.shape, "alignment": f.shape, "asymmetry": epochs.shape}
    for name, shape in shapes.items():
        if f.ndim != 2 or len(f) != len(epochs) or arrays[name].shape != shape:
            raise DataError(f"{path} is no reference: its array {name!r} has the shape {arrays[name].shape}.")
        if not np.isfinite(arrays[name]).all():
            raise DataError(f"{path} is no reference: its array {name!r} has entries that are not finite.")
    time = np.argsort(epochs)
    by_f = np.argsort(-f[time], axis=1, kind="stable")
    return Reference(
        row,
        epochs[time],
        np.take_along_axis(f[time], by_f, axis=1),
        -np.sort(-arrays["wp_eigenvalues"][time], axis=1),
        np.take_along_axis(arrays["alignment"][time], by_f, axis=1),
        arrays["asymmetry"][time],
    )


def distances(records: Sequence[SpectrumRecord], reference: Reference) -> list[Distance]:
    """The run at every epoch that both have recorded, but for the start."""
    ours = {round(r.epoch): r.spectrum for r in records if r.epoch > 0 and abs(r.epoch - round(r.epoch)) < 1e-6}
    found = []
    for i, epoch in enumerate(reference.epochs):
        s = ours.get(round(float(epoch)))
        if s is None or abs(epoch - round(float(epoch))) > 1e-6:
            continue
        found.append(
            Distance(
                float(epoch),
                (s.aligned, int(reference.aligned[i])),
                (s.effective_rank, float(reference.effective_rank[i])),
                (s.asymmetry, float(reference.asymmetry[i])),
            )
        )
    return found
