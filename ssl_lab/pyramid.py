"""Curves of a run at any width: least and greatest values over stretches of 4, 16, 64, ... steps, kept as they grow.

Reading a curve costs what is shown, not what is stored: a picture of a million steps is read from some hundred
stretches. Works inside the run's file; :mod:`ssl_lab.store` calls it in the transaction that writes the values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.errors import shown

TABLE = """
CREATE TABLE pyramid (
    curve INTEGER NOT NULL, level INTEGER NOT NULL, bucket INTEGER NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
    PRIMARY KEY (curve, level, bucket)
) WITHOUT ROWID;
"""

BITS = 2
"""A stretch of one level holds 2**BITS of the level below; level 0 is the steps themselves."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class _Source:
    """Where the values of a curve are kept."""

    number: int
    table: str
    column: str
    where: str = "1"


CURVES: Mapping[str, _Source] = MappingProxyType(
    {
        "loss": _Source(1, "metrics", "loss"),
        "asymmetry": _Source(2, "spectra", "asymmetry"),
        "effective_rank": _Source(3, "spectra", "effective_rank"),
        "aligned": _Source(4, "spectra", "aligned"),
        "knn": _Source(5, "evaluations", "value", "kind = 'knn'"),
    }
)
"""The curves that are kept, by name."""


def grow(db: sqlite3.Connection, curve: str, first: int, last: int) -> None:
    """Brings the stretches over steps ``first`` to ``last`` up to date; values there were added or written over."""
    source = CURVES[curve]
    low, high = (first - 1) >> BITS, (last - 1) >> BITS
    db.execute(
        f"INSERT OR REPLACE INTO pyramid SELECT ?, 1, (step - 1) >> {BITS}, min({source.column}), max({source.column}) "
        f"FROM {source.table} WHERE {source.where} AND step BETWEEN ? AND ? GROUP BY 3",
        (source.number, (low << BITS) + 1, (high + 1) << BITS),
    )
    level = 1
    while high > 0:
        low, high = low >> BITS, high >> BITS
        db.execute(
            f"INSERT OR REPLACE INTO pyramid SELECT curve, level + 1, bucket >> {BITS}, min(low), max(high) "
            "FROM pyramid WHERE curve = ? AND level = ? AND bucket BETWEEN ? AND ? GROUP BY 3",
            (source.number, level, low << BITS, ((high + 1) << BITS) - 1),
        )
        level += 1


def read(rows: Rows, curve: str, last: int, points: int) -> Curve:
    """(steps, values) of a curve up to step ``last``, about ``points`` of them at most.

    Up to ``points`` steps, each value as it was recorded; beyond, the least and the greatest of each stretch, drawn at
    its middle, so that no peak is lost.

    Args:
        rows: runs a query on the run's file.
        curve: a name of ``CURVES``.
        last: the last step that is wanted.
        points: most points that are wanted, 4 or more.

    Raises:
        ValueError: something of it is no finite number.
    """
    source = CURVES[curve]

    def recorded(first: int, end: int) -> NDArray[np.float64]:
        found = rows(
            f"SELECT step, {source.column} FROM {source.table} WHERE {source.where} AND step BETWEEN ? AND ? "
            "ORDER BY step",
            (first, end),
        )
        return _numbers(found, 2)

    if last <= points:
        table = recorded(1, last)
        return table[:, 0], table[:, 1]
    level = 1
    # Finer than is drawn, and joined below: four times as wide at once would jump from too many points to too few.
    while (last >> (BITS * level)) > 2 * points:
        level += 1
    found: list[tuple[float, float, float]] = []
    size = 1 << (BITS * level)
    whole = last >> (BITS * level)
    for bucket, low, high in rows(
        "SELECT bucket, low, high FROM pyramid WHERE curve = ? AND level = ? AND bucket BETWEEN 0 AND ? "
        "ORDER BY bucket",
        (source.number, level, whole - 1),
    ):
        found.append((bucket * size + (size + 1) / 2, low, high))
    # The stretch that is not whole is put together from finer ones.
    begin = done = whole * size
    ends: list[tuple[float, float]] = []
    for finer in range(level - 1, 0, -1):
        until = last >> (BITS * finer)
        ends += [
            (low, high)
            for low, high in rows(
                "SELECT low, high FROM pyramid WHERE curve = ? AND level = ? AND bucket >= ? AND bucket < ?",
                (source.number, finer, done >> (BITS * finer), until),
            )
        ]
        done = until << (BITS * finer)
    ends += [(value, value) for value in recorded(done + 1, last)[:, 1]]
    if ends:
        _numbers(ends, 2)
        found.append(((begin + 1 + last) / 2, min(low for low, _ in ends), max(high for _, high in ends)))
    return _polyline(_numbers(found, 3), points)


def _numbers(rows: Sequence[Sequence[Any]], columns: int) -> NDArray[np.float64]:
    """(rows, columns) of finite numbers; a file from elsewhere may hold anything."""
    for row in rows:
        for value in row:
            # NumPy would take a text that looks like a number for one, and nothing for NaN.
            if not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise ValueError(f"expected a finite number, found {shown(value)}")
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def _polyline(stretches: NDArray[np.float64], points: int) -> Curve:
    """Stretches (n, 3) of middle, low and high as (steps, values), neighbours joined until they are few enough."""
    join = -(-2 * len(stretches) // points)
    if join > 1:
        starts = np.arange(0, len(stretches), join)
        counts = np.diff([*starts, len(stretches)])
        stretches = np.column_stack(
            [
                np.add.reduceat(stretches[:, 0], starts) / counts,
                np.minimum.reduceat(stretches[:, 1], starts),
                np.maximum.reduceat(stretches[:, 2], starts),
            ]
        )
    # A stretch with one value is one point.
    twice = np.where(stretches[:, 1] == stretches[:, 2], 1, 2)
    steps, values = np.repeat(stretches[:, 0], twice), np.repeat(stretches[:, 1], twice)
    values[np.cumsum(twice) - 1] = stretches[:, 2]
    return steps, values
