"""What the panels draw: a moment of a run, read from its file. Costs what is shown, not what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lab.looks import Look
from ssl_lab.config import Knobs, RunConfig
from ssl_lab.family import FAMILY, Membership, membership
from ssl_lab.pyramid import Curve
from ssl_lab.spectrum import describe
from ssl_lab.store import Event, Metrics, RunStore, SpectrumRecord, Status

_BEFORE = {
    "queued": "Getting ready.",
    "loading": "Getting ready.",
    "paused": "Nothing to see yet: press Run.",
    "asleep": "Nothing to see yet: press Run.",
    "running": "The first steps are coming.",
}
"""What there is to say before the first spectrum."""

CurveName = Literal["loss", "knn", "asymmetry", "effective_rank"]
DRAWN: tuple[CurveName, ...] = ("loss", "knn", "asymmetry", "effective_rank")

EARLIER = 6
"""Earlier moments that stay as faint curves."""


@dataclass(frozen=True)
class RunView:
    """A run as a page shows it at one moment: now, or at an earlier step."""

    name: str
    id: str
    """Tells runs of one name apart."""
    config: RunConfig
    status: Status
    events: list[Event]
    """All of the run's, also those after the moment."""
    last: int
    """The last recorded step."""
    step: int
    """The step of the moment."""
    shown: int | None
    """The step that was asked for; None for now."""
    knobs: Knobs
    """The rules by which that step was made."""
    newest: SpectrumRecord | None
    """The latest spectrum at the moment; None before the first."""
    earlier: list[SpectrumRecord]
    """At most EARLIER spectra before it, oldest first."""
    metrics: Metrics | None
    """Of the latest step at the moment."""
    knn: tuple[int, float] | None
    """Latest evaluation at the moment: (step, accuracy in [0, 1])."""
    curves: Mapping[CurveName, Curve]
    """(steps, values) up to the moment: loss, accuracy in [0, 1], asymmetry of Wp, effective rank of F."""
    whole: Mapping[CurveName, Curve]
    """The same over the whole run."""
    look: Look | None = None
    """How it is drawn; None as the bench's other pictures have it."""
    family: Membership | None = None
    """Where it stands in the family that is drawn; None if it is drawn by itself."""
    others: list[RunView] = field(default_factory=list)
    """Runs that are drawn with this one, each at the same step or, if it has not come so far, at its last."""

    @property
    def words(self) -> str:
        """What is going on, in a line of plain words."""
        if self.newest is None:
            return _BEFORE.get(self.status.state, "") if self.shown is None else "No spectrum was recorded before this."
        return describe(self.newest.spectrum, self.knobs.predictor)

    @property
    def epoch(self) -> float:
        """Passes over the training images at the moment."""
        if self.shown is None:
            return self.status.epoch
        return self.metrics.epoch if self.metrics else 0.0

    @property
    def members(self) -> list[RunView]:
        """The members of the family that is drawn, in the order of the knob's range; empty if there is none."""
        together = [view for view in (self, *self.others) if view.family is not None]
        return sorted(together, key=lambda view: view.family.place if view.family else 0)

    @property
    def right_end(self) -> int:
        """Right end of the time axes: they show the whole of every run, whatever the moment."""
        return max(self.last, self.status.step, 1, *(other.last for other in self.others))


class ViewReader:
    """Reads views of one run, again and again; what cannot change is read once."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._name, self.id = store.name, str(store.meta("id"))
        self._config = store.config()
        self.family = membership(store.meta(FAMILY))
        """Of which family the run is."""
        self.look: Look | None = None
        """How it is drawn, as a member of a family that is on the page."""
        self._events: list[Event] = []
        self._whole: tuple[object, dict[CurveName, Curve]] = (None, {})

    def read(self, shown: int | None = None, others: list[ViewReader] | None = None) -> RunView:
        """The run as it is now, or as it was at the step ``shown``.

        Args:
            shown: a step; one that the run has not is taken for the nearest that it has.
            others: readers of the runs that are drawn with it.
        """
        store = self.store
        store.refresh()
        self._events += store.events(after=self._events[-1].number if self._events else 0)
        status, last = store.status(), store.last_step()
        if shown is not None:
            shown = min(max(shown, 0), last)
        step = status.step if shown is None else shown
        newest = store.newest_spectrum(upto=shown)
        whole = self._all(last, status)
        earlier = store.spectra(earlier_numbers(newest.number)) if newest else []
        return RunView(
            name=self._name,
            id=self.id,
            config=self._config,
            status=status,
            events=list(self._events),
            last=last,
            step=step,
            shown=shown,
            knobs=status.knobs if shown is None else self._knobs_at(shown),
            newest=newest,
            # Steps that were done again after a cut lie out of order in the file.
            earlier=[record for record in earlier if newest and record.step < newest.step],
            metrics=store.metrics(upto=shown),
            knn=store.newest_evaluation("knn", upto=shown),
            curves=whole if shown is None else {name: store.curve(name, upto=shown) for name in DRAWN},
            whole=whole,
            look=self.look,
            family=self.family if self.look is not None else None,
            others=[other.read(step) for other in others or ()],
        )

    def _all(self, last: int, status: Status) -> dict[CurveName, Curve]:
        # While a person drags through a run that stands still, its whole curves stay the same.
        key = (last, status.state, status.heartbeat)
        if self._whole[0] != key:
            self._whole = key, {name: self.store.curve(name) for name in DRAWN}
        return self._whole[1]

    def _knobs_at(self, step: int) -> Knobs:
        knobs = self._config.knobs
        changes = {name: value for event in self._events if event.step < step for name, value in event.changes.items()}
        return knobs.changed(changes)


def earlier_numbers(newest: int, most: int = EARLIER) -> list[int]:
    """Places of the spectra to keep as faint curves: multiples of a power of two, so that they stay where they are.

    >>> earlier_numbers(5), earlier_numbers(20)
    ([1, 2, 3, 4], [4, 8, 12, 16])
    """
    stride = 1
    while (newest - 1) // stride > most:
        stride *= 2
    return list(range(stride, newest, stride))
