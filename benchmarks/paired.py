"""Measurements side by side: A B A B ..., so that a machine that drifts drifts under both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every measure once a round, in turn forwards and backwards; the i-th values of all are of one round."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds):
        # What comes first in a round would otherwise always follow the same neighbour.
        for name in list(measures)[:: -1 if turn % 2 else 1]:
            found[name].append(measures[name]())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round, ``above`` over ``below``.

    >>> ratios([2.0, 9.0], [1.0, 3.0])
    [2.0, 3.0]
    """
    return [a / b for a, b in zip(above, below, strict=True)]
