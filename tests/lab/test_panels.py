"""The pictures: what they draw is what was recorded, in the shape that bqplot takes without growing or flickering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.panels import (
    AccuracyPanel,
    AlignmentPanel,
    AsymmetryPanel,
    CorrelationPanel,
    EffectiveRankPanel,
    LossPanel,
    PlanePanel,
    PredictorPanel,
    make_panels,
)
from lab.panels.base import round_up
from lab.view import EARLIER, ViewReader, earlier_numbers
from ssl_lab import RunStore, preset
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import Metrics


def some_spectrum(scale: float, d: int = 4) -> Spectrum:
    s = scale * 0.1 ** np.arange(d, dtype=float)
    return Spectrum(
        f_eigenvalues=s, wp_eigenvalues=np.sqrt(s / s[0]), alignment=np.linspace(1, 0.25, d),
        wp_diagonal=np.sqrt(s / s[0]), asymmetry=0.25 * scale, effective_rank=1.0 + scale,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with RunStore.create("run", preset("directpred"), tmp_path) as made:
        yield made


def fill(store: RunStore, steps: int = 40) -> None:
    store.add_metrics(Metrics(i, i / 11, -1 - i / 100, 0.0) for i in range(1, steps + 1))
    for i in range(1, steps + 1):
        store.add_spectrum(i, i / 11, some_spectrum(i / 10))
    store.add_evaluation(steps, "knn", 0.93)
    store.set_status(step=steps, epoch=steps / 11)


def test_earlier_moments_stay_where_they_are() -> None:
    assert earlier_numbers(1) == []
    assert earlier_numbers(5) == [1, 2, 3, 4]
    for newest in range(1, 500):
        numbers = earlier_numbers(newest)
        assert len(numbers) <= EARLIER
        assert all(number < newest for number in numbers)
        assert newest < 8 or len(numbers) >= EARLIER // 2
    # From one moment to the next the curves are kept, or every second one of them.
    for newest in range(8, 400):
        before, now = earlier_numbers(newest), earlier_numbers(newest + 1)
        assert set(before) <= set(now) or now == before[1::2] or set(now[:-1]) <= set(before)


def test_panels_of_an_empty_run_show_nothing_and_have_data(store: RunStore) -> None:
    view = ViewReader(store).read()
    for panel in make_panels():
        panel.update(view)
        for mark in panel.figure.marks:
            assert np.size(mark.x) > 0
        panel.close()
    assert view.words == "Getting ready."


def test_curves_by_index(store: RunStore) -> None:
    fill(store)
    view = ViewReader(store).read()
    newest = view.newest
    assert newest is not None
    assert newest.step == 40
    for panel, expected in (
        (CorrelationPanel(), newest.spectrum.f_eigenvalues),
        (PredictorPanel(), newest.spectrum.wp_eigenvalues),
        (AlignmentPanel(), newest.spectrum.alignment),
    ):
        panel.update(view)
        lines = panel.lines
        assert lines.visible
        assert lines.y.shape == (EARLIER + 1, 4)
        assert lines.y.dtype == np.float32
        assert lines.x.tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(lines.y[-1], expected, rtol=1e-6)
        # Older curves below, fainter and fainter.
        np.testing.assert_allclose(lines.y[-2], panel.values(view.earlier[-1].spectrum), rtol=1e-6)
        assert lines.opacities == sorted(lines.opacities)
        low, high = panel.y.min, panel.y.max
        assert low <= lines.y.min()
        assert lines.y.max() <= high * (1 + 1e-6)
        panel.close()


def test_gain_by_direction(store: RunStore) -> None:
    fill(store)
    panel = PlanePanel()
    panel.update(ViewReader(store).read())
    np.testing.assert_allclose(panel.points.x, [1, 0.1, 0.01, 0.001], rtol=1e-5)
    np.testing.assert_allclose(panel.points.y, np.sqrt([1, 0.1, 0.01, 0.001]), rtol=1e-5)
    # The rule of the running mode: DirectPred's eps is .1.
    np.testing.assert_allclose(panel.rule.y[[0, -1]], [0.1 / 1.1, 1.0], rtol=1e-5)
    panel.close()


@pytest.mark.parametrize(
    ("kind", "last"),
    [(EffectiveRankPanel, 5.0), (AsymmetryPanel, 1.0), (LossPanel, -1.4), (AccuracyPanel, 93.0)],
)
def test_curves_over_steps(kind, last, store: RunStore) -> None:  # type: ignore[no-untyped-def]
    fill(store)
    panel = kind()
    panel.update(ViewReader(store).read())
    assert panel.line.visible
    assert panel.line.x[-1] == 40
    assert panel.line.y[-1] == pytest.approx(last, rel=1e-6)
    assert panel.x.max == 100
    assert panel.y.min <= panel.line.y.min()
    assert panel.line.y.max() <= panel.y.max
    assert not panel.marks.visible
    panel.close()


def test_a_turned_knob_is_marked(store: RunStore) -> None:
    fill(store)
    reader, panel = ViewReader(store), LossPanel()
    store.add_event(12, {"ema": 0.9}, {"ema": 0.5}, "page")
    panel.update(reader.read())
    assert panel.marks.visible
    assert panel.marks.x.tolist() == [[12, 12], [12, 12]]
    assert panel.numbers.text.tolist() == ["1"]
    store.add_event(30, {"ema": 0.5}, {"ema": 0.1}, "page")
    panel.update(reader.read())
    assert panel.marks.x.tolist() == [[12, 12], [30, 30]]
    assert panel.marks.y.tolist() == [[0, 1], [0, 1]]
    panel.close()


def test_a_range_does_not_jump_at_every_tick() -> None:
    assert [round_up(v) for v in (0.0, 0.9, 1.0, 1.1, 1.6, 2.5, 80, 650)] == [1, 1, 1, 1.5, 2, 3, 100, 750]
