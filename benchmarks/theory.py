"""Section ``theory``: phase maps, what a live picture of the theory is made of, and the theory's own model trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.plan import Plan
from benchmarks.table import Entry, Row
from ssl_lab import Trainer, preset, theory


def measure(plan: Plan) -> Iterator[Entry]:
    """Seconds of each, and steps a second of the preset ``linear``."""
    side = plan.pick(gpu=200, cpu=200, quick=200, tiny=8)
    rounds = plan.pick(gpu=10, cpu=10, quick=3, tiny=2)
    size = f"{side} x {side}"
    eta, sigma2 = np.linspace(0, 0.25, side)[:, None], np.linspace(0, 1, side)
    gain, s = np.linspace(-0.5, 1.5, side)[:, None], np.linspace(0, 1, side)
    edge = np.linspace(0, 1, 200) ** 3
    decays = iter(np.linspace(0.01, 0.15, 10 * rounds))

    def integrated() -> None:
        times = np.linspace(0, 40, 200)
        theory.integrate_modes(np.geomspace(0.02, 0.4, 16), 0.01, times=times, sigma2=0.3, eta=0.05)

    # The first calls import scipy's integrators.
    integrated()
    for what, do in (
        (f"phase map over eta and sigma2, {size}", lambda: theory.phase_map(0.3, 0.09, sigma2=sigma2, eta=eta)),
        (f"phase map over starts s and p, {size}", lambda: theory.phase_map(gain, s, sigma2=0.3, eta=0.05)),
        (
            f"phase map over eta and sigma2 with an EMA, {size}",
            lambda: theory.phase_map(0.1, 0.09, 0.3, sigma2=sigma2, eta=eta, beta=0.1),
        ),
        ("edge of the basin, 200 points, new settings", lambda: theory.basin_edge(edge, eta=next(decays), sigma2=0.3)),
        ("16 modes followed at 200 times", integrated),
    ):
        yield Row(what, "s", [_seconds(do) for _ in range(rounds)])
    trainer = Trainer(preset("linear", device="cpu"))
    steps = plan.pick(gpu=300, cpu=300, quick=100, tiny=4)
    _seconds(lambda: [trainer.step() for _ in range(steps // 4)])
    rates = [steps / _seconds(lambda: [trainer.step() for _ in range(steps)]) for _ in range(rounds)]
    yield Row("preset linear, 16 modes, batch 1,024, on the CPU", "steps/s", rates)


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun
