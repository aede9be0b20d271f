"""What the panels draw: one moment of a run, read from its file. Costs what is shown, not what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_lab.config import RunConfig
from ssl_lab.spectrum import describe
from ssl_lab.store import Event, RunStore, SpectrumRecord, Status

_BEFORE = {
    "queued": "Getting ready.",
    "loading": "Getting ready.",
    "paused": "Nothing to see yet: press Run.",
    "asleep": "Nothing to see yet: press Run.",
    "running": "The first steps are coming.",
}
"""What there is to say before the first spectrum."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

EARLIER = 6
"""Earlier moments that stay as faint curves."""


@dataclass(frozen=True)
class RunView:
    """A run as a page shows it."""

    name: str
    config: RunConfig
    status: Status
    events: list[Event]
    newest: SpectrumRecord | None
    """The latest spectrum; None before the first."""
    earlier: list[SpectrumRecord]
    """At most EARLIER spectra before it, oldest first."""
    loss: Curve
    """(steps, loss)."""
    knn: Curve
    """(steps, accuracy in [0, 1])."""
    asymmetry: Curve
    """(steps, asymmetry of Wp)."""
    effective_rank: Curve
    """(steps, effective rank of F)."""

    @property
    def words(self) -> str:
        """What is going on, in a line of plain words."""
        if self.newest is None:
            return _BEFORE.get(self.status.state, "")
        return describe(self.newest.spectrum, self.status.knobs.predictor)

    @property
    def last_step(self) -> int:
        """Right end of the time axes."""
        return max(self.status.step, int(self.loss[0][-1]) if len(self.loss[0]) else 0, 1)


class ViewReader:
    """Reads views of one run, again and again; what cannot change is read once."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._name = store.name
        self._config = store.config()
        self._events: list[Event] = []

    def read(self) -> RunView:
        """The run as it is now."""
        store = self.store
        self._events += store.events(after=self._events[-1].number if self._events else 0)
        newest = store.newest_spectrum()
        return RunView(
            name=self._name,
            config=self._config,
            status=store.status(),
            events=list(self._events),
            newest=newest,
            earlier=store.spectra(earlier_numbers(newest.number)) if newest else [],
            loss=store.curve("loss"),
            knn=store.curve("knn"),
            asymmetry=store.curve("asymmetry"),
            effective_rank=store.curve("effective_rank"),
        )


def earlier_numbers(newest: int, most: int = EARLIER) -> list[int]:
    """Places of the spectra to keep as faint curves: multiples of a power of two, so that they stay where they are.

    >>> earlier_numbers(5), earlier_numbers(20)
    ([1, 2, 3, 4], [4, 8, 12, 16])
    """
    stride = 1
    while (newest - 1) // stride > most:
        stride *= 2
    return list(range(stride, newest, stride))
