"""Runs a recorded config, seed and list of knob events again, and says whether it came to the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_lab import __version__
from ssl_lab.errors import KnobError, NonFiniteLossError, SSLLabError
from ssl_lab.loop import fingerprint
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import RunStore
from ssl_lab.trainer import StepRecord, Trainer


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """How a replay compares with the record."""

    steps: int
    """Steps that were gone through."""
    spectra: int
    """Spectra that were compared."""
    first_difference: int | None
    """The first step whose loss or spectrum is not bit-equal; None if all are."""
    largest_loss_difference: float
    """Over all steps, in units of the loss."""
    largest_rank_difference: float
    """Over all spectra, in directions of effective rank."""
    elsewhere: dict[str, tuple[Any, Any]]
    """What the numbers may depend on and is not as recorded: name -> (recorded, here)."""
    altered_event: int | None = None
    """Number of the first knob event that is missing or not as it was logged; None if all are as they were."""
    broke_off: int | None = None
    """The step at which the replay's loss became infinite or not a number, which the record's did not; or before which
    an altered event asks for what no trainer takes."""

    @property
    def equal(self) -> bool:
        """Whether every loss and every spectrum is bit-equal, and the list of events as it was logged."""
        return self.first_difference is None and self.altered_event is None

    @property
    def excused(self) -> bool:
        """Whether what differs may come from another machine or version."""
        return bool(self.elsewhere) and self.altered_event is None

    def describe(self) -> str:
        """In words, for a person."""
        what = f"{self.steps:,} losses and {self.spectra:,} spectra"
        if self.equal:
            return f"Bit-equal: {what}."
        altered = f"The record was altered: knob event {self.altered_event} is missing or not as it was logged"
        if self.first_difference is None:
            return f"{altered}, though it makes no difference to {what}."
        how = (
            f"the first difference is at step {self.first_difference:,}; the losses differ by up to "
            f"{self.largest_loss_difference:.3g}, the effective ranks by up to {self.largest_rank_difference:.3g}"
        )
        if self.broke_off is not None:
            how += f", and at step {self.broke_off:,} the replay cannot go on, which the record could"
        if self.altered_event is not None:
            return f"Not the same. {altered}: {how}."
        if self.elsewhere:
            changes = ", ".join(f"{name} was {was} and is {now}" for name, (was, now) in self.elsewhere.items())
            return f"It can only be close here ({changes}): {how}."
        return f"Not the same, though it should be: {how}. The record was altered, or a rule has changed."


# What of the fingerprint decides bits; the Python version and the name of a CPU's family do not.
_DECIDES = (
    "ssl_lab", "torch", "device", "device_name", "machine", "threads", "capability", "blas", "precision", "arithmetic",
)  # fmt: skip

# What a replay is, and only the records of several ranks say: sums over ranks have another order.
_ALONE = (("ranks", 1), ("backend", "none"))

# What the first records do not say, and so may have been another one.
_LATER = ("blas",)


def replay(store: RunStore, on_step: Callable[[StepRecord], object] | None = None) -> ReplayReport:
    """Goes through a run again from nothing and compares every recorded loss and spectrum.

    Args:
        store: the run; it is only read.
        on_step: called after each step.

    Raises:
        SSLLabError: the run has no steps, or it began from a state that is not on record.
        ConfigError, DataError: the config cannot be run here.
    """
    steps, losses = store.recorded_losses()
    if len(steps) == 0:
        raise SSLLabError(f"The run {store.name!r} has no steps; there is nothing to replay.")
    if steps[0] != 1 or len(steps) != steps[-1]:
        raise SSLLabError(
            f"The run {store.name!r} has no record of each step from 1 to {steps[-1]}: it began from a trainer that "
            "had been stepped before, and cannot be replayed from nothing."
        )
    trainer = Trainer(store.config())
    here = {"ssl_lab": __version__, **fingerprint(trainer)}
    # A run that was woken on another machine, or forked there, was made on more than one.
    elsewhere = {
        name: (made.get(name, "not on record"), here[name])
        for made in store.fingerprints()
        for name in _DECIDES
        if name in here and (name in made or name in _LATER) and made.get(name) != here[name]
    }
    for made in store.fingerprints():
        elsewhere |= {name: (made[name], alone) for name, alone in _ALONE if made.get(name, alone) != alone}
    altered = store.altered_event()
    events = store.events()
    spectra = {record.step: record.spectrum for record in store.spectra()}
    first: int | None = None
    broke_off: int | None = None
    loss_difference = rank_difference = 0.0
    for index, recorded_loss in enumerate(losses):
        try:
            while events and events[0].step <= index:
                trainer.set(**events.pop(0).changes)
            done = trainer.step()
        except (NonFiniteLossError, KnobError) as error:
            if isinstance(error, KnobError) and altered is None:
                raise
            # The record has this step.
            broke_off = index + 1
            first = first or broke_off
            break
        same = done.loss == recorded_loss
        loss_difference = max(loss_difference, abs(done.loss - recorded_loss))
        if done.step in spectra:
            found, kept = trainer.spectrum(), spectra[done.step]
            same = same and _same(found, kept)
            rank_difference = max(rank_difference, abs(found.effective_rank - kept.effective_rank))
        if not same and first is None:
            first = done.step
        if on_step is not None:
            on_step(done)
    return ReplayReport(
        steps=index if broke_off else len(losses),
        spectra=sum(step < broke_off for step in spectra) if broke_off else len(spectra),
        first_difference=first,
        largest_loss_difference=loss_difference,
        largest_rank_difference=rank_difference,
        elsewhere=elsewhere,
        altered_event=altered,
        broke_off=broke_off,
    )


def _same(found: Spectrum, kept: Spectrum) -> bool:
    """Bit-equal as they are kept: curves in four bytes a number, the two scalars in eight."""
    return (
        found.asymmetry == kept.asymmetry
        and found.effective_rank == kept.effective_rank
        and all(
            np.array_equal(np.float32(getattr(found, name)), np.float32(getattr(kept, name)))
            for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal")
        )
    )
