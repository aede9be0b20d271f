"""Curves at any width agree with what is recorded, whatever order it was written in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_lab import RunStore, preset
from ssl_lab.pyramid import BITS
from ssl_lab.store import Metrics


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with RunStore.create("run", preset("byol"), tmp_path) as made:
        yield made


def write(store: RunStore, losses: np.ndarray, first: int = 1, block: int = 37) -> None:
    for start in range(0, len(losses), block):
        part = losses[start : start + block]
        store.add_metrics(Metrics(first + start + i, 0.0, float(x), 0.0) for i, x in enumerate(part))


def check(store: RunStore, losses: np.ndarray, upto: int, points: int) -> None:
    steps, values = store.curve("loss", upto=upto, points=points)
    shown = losses[:upto]
    assert len(steps) == len(values)
    assert len(steps) <= max(points, 4) + 8
    assert np.all(np.diff(steps) >= 0)
    assert steps[0] >= 1
    assert steps[-1] <= upto
    # No peak is lost, none is invented.
    assert (values.min(), values.max()) == (shown.min(), shown.max())
    assert np.isin(values, shown).all()


def test_a_short_curve_is_every_value(store: RunStore) -> None:
    losses = np.random.default_rng(0).normal(size=300)
    write(store, losses)
    steps, values = store.curve("loss")
    assert steps.tolist() == list(range(1, 301))
    assert values.tolist() == losses.tolist()
    assert store.curve("loss", upto=0)[0].size == 0


def test_long_curves_keep_every_peak_at_any_width(store: RunStore) -> None:
    rng = np.random.default_rng(1)
    losses = rng.normal(size=5000)
    write(store, losses)
    for points in (4, 50, 100, 400, 9000):
        for upto in (1, 3, 399, 401, 1023, 1024, 1025, 4999, 5000, *rng.integers(1, 5000, 10).tolist()):
            check(store, losses, upto, points)
    steps, _ = store.curve("loss", points=100)
    assert 50 <= len(steps) <= 108
    # A lone peak is drawn at its place, to the width of a stretch.
    lone = np.zeros(5000)
    lone[3210] = 7.0
    write(store, lone)
    steps, values = store.curve("loss", points=400)
    assert abs(steps[values.argmax()] - 3211) <= 5000 / 200


def test_steps_that_are_done_again_are_drawn_as_they_are_now(store: RunStore) -> None:
    rng = np.random.default_rng(2)
    losses = rng.normal(size=3000)
    losses[1500] = 99.0
    write(store, losses)
    losses[1400:2100] = rng.normal(size=700)
    write(store, losses[1400:2100], first=1401, block=53)
    check(store, losses, 3000, 100)
    check(store, losses, 1777, 100)
    # Every level is what the steps below it are.
    with store.transaction() as db:
        for level in range(1, 7):
            size = 1 << (BITS * level)
            found = db.execute(
                "SELECT bucket, low, high FROM pyramid WHERE curve = 1 AND level = ? ORDER BY bucket", (level,)
            ).fetchall()
            wanted = [
                (start // size, float(part.min()), float(part.max()))
                for start in range(0, 3000, size)
                for part in [losses[start : start + size]]
            ]
            # Of the levels above the whole run only the first stretch is kept, if at all.
            assert found == wanted or (size > 3000 and found in ([], wanted))


def test_gaps_are_no_trouble(store: RunStore) -> None:
    """A kNN accuracy every thousandth step, and none for a long time."""
    store.add_metrics(Metrics(i, 0.0, 0.0, 0.0) for i in range(1, 20_001))
    for step in (1000, 2000, 3000, 17_000):
        store.add_evaluation(step, "knn", step / 20_000)
    steps, values = store.curve("knn", points=100)
    assert values.tolist() == [0.05, 0.1, 0.15, 0.85]
    np.testing.assert_allclose(steps, [1000, 2000, 3000, 17_000], atol=200)
    assert store.curve("knn", upto=999)[0].size == 0
