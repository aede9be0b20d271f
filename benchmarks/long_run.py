"""A made-up run of any length in a file, for measurements of what is far along."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ssl_lab.config import preset
from ssl_lab.spectrum import Spectrum, effective_rank
from ssl_lab.store import Metrics, RunStore

STEPS, SPECTRA, EVENTS, DIM = 1_000_000, 10_000, 400, 128


def long_run(folder: Path, steps: int = STEPS, spectra: int = SPECTRA) -> float:
    """A made-up run, written as a driver writes it, only faster; gives the seconds that took."""
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    with RunStore.create("long", preset("byol", projector_dim=DIM), folder) as store:
        each, block = steps // spectra, 1000
        noise = rng.normal(scale=0.02, size=steps)
        for start in range(0, steps, block):
            with store.transaction():
                numbers = range(start + 1, start + block + 1)
                store.add_metrics(
                    Metrics(i, i / 390, float(-1.9 + 0.9 * np.exp(-i / 1e5) + noise[i - 1]), 0.0) for i in numbers
                )
                for step in range(start + each, start + block + 1, each):
                    decay = 10 + 30 * (1 - np.exp(-step / 2e5))
                    f = np.exp(-np.arange(DIM) / decay) * (1 + 0.05 * rng.random(DIM))
                    f = np.sort(f)[::-1]
                    store.add_spectrum(
                        step,
                        step / 390,
                        Spectrum(
                            f_eigenvalues=f, wp_eigenvalues=np.sqrt(f),
                            alignment=1 - rng.random(DIM) * np.exp(-step / 3e5), wp_diagonal=np.sqrt(f),
                            asymmetry=float(1.4 * np.exp(-step / 2e5)),
                            effective_rank=effective_rank(f),
                        ),
                    )  # fmt: skip
                if start % 10_000 == 0:
                    store.add_evaluation(start + 1, "knn", 0.4 + 0.4 * (1 - np.exp(-start / 2e5)))
                if start % (steps // EVENTS) == 0:
                    value = round(0.9 + 0.0001 * (start // (steps // EVENTS)), 6)
                    store.add_event(start, {"ema": 0.996}, {"ema": value}, "page")
        store.set_status(state="done", step=steps, epoch=steps / 390)
    return time.perf_counter() - begun
