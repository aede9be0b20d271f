"""The recordings that come with the lab: real runs, shown without torch, and the same again from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.catalogue import Catalogue, recordings
from ssl_lab import RunStore
from ssl_lab.config import DATASETS
from ssl_lab.replay import replay
from ssl_lab.store import LIVE_STATES

EMBEDDED = {name for name, info in DATASETS.items() if not info.download}


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_a_recording_is_a_run_that_is_done(path: Path) -> None:
    with RunStore.open(path, readonly=True) as store:
        assert store.name == path.stem
        assert store.status().state not in LIVE_STATES
        assert store.config().device == "auto"
        assert store.altered_event() is None
        # Whoever trained it is nobody's business.
        assert store.status().host is None
        # Nor where the images lay: a set's name, or a folder's last one.
        assert os.sep not in store.config().dataset
        if store.config().dataset not in EMBEDDED:
            # Of images that do not come with the lab: the steps are all there, and in order.
            assert store.first_step() == 1
            assert len(store.losses()) == store.last_step() == store.status().step
            return
        report = replay(store)
    # On the machine that it was made on it is bit-equal; anywhere else it is close.
    assert report.equal or report.excused
    assert report.largest_loss_difference < 0.05
    assert report.largest_rank_difference < 0.5


def test_collapse_and_return() -> None:
    """What the recording is there to show: without a predictor the directions go, with it they come back."""
    (path,) = (path for path in recordings() if path.stem == "collapse-and-return")
    with RunStore.open(path, readonly=True) as store:
        assert [(e.step, e.changes) for e in store.events()] == [
            (300, {"predictor": "none"}), (600, {"predictor": "directpred"}),
        ]  # fmt: skip
        rank = {r.step: r.spectrum.effective_rank for r in store.spectra()}
    assert min(rank[step] for step in rank if 200 < step <= 300) > 6
    assert rank[max(step for step in rank if step <= 600)] < 2
    assert rank[max(rank)] > 4


def test_figure_two_at_a_small_scale() -> None:
    """What the CIFAR-10 recordings are there to show: a symmetric predictor aligns more, and sooner."""
    aligned, asymmetry = {}, {}
    for name in ("cifar10-byol", "cifar10-byol-symmetric"):
        with RunStore.open(next(path for path in recordings() if path.stem == name), readonly=True) as store:
            spectra = store.spectra()
            assert store.config().projector_dim == 128
            # An epoch each, from the first to the last.
            assert [round(record.epoch) for record in spectra] == list(range(1, 41))
            aligned[name] = [record.spectrum.aligned for record in spectra]
            asymmetry[name] = [record.spectrum.asymmetry for record in spectra]
    plain, symmetric = aligned["cifar10-byol"], aligned["cifar10-byol-symmetric"]
    assert plain[-1] < symmetric[-1] / 2
    assert all(a <= b for a, b in zip(plain[4:], symmetric[4:], strict=True))
    assert asymmetry["cifar10-byol"][0] > 3 * asymmetry["cifar10-byol"][-1]
    assert max(asymmetry["cifar10-byol-symmetric"]) < 1e-6


def test_from_a_package_without_torch(tmp_path: Path) -> None:
    """Also from a package in a zip file, whose resources are no files."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "lesson.zip", "w") as package:
        package.writestr("lesson/__init__.py", "")
        (path,) = (path for path in recordings() if path.stem == "collapse-and-return")
        package.write(path, "lesson/run.sqlite")
    code = """
import sys, time
from importlib.resources import files
from lab import Bench

def comes_to(bench, step):
    end = time.time() + 30
    while f"data-step='{step}'" not in bench.headline.value and time.time() < end:
        time.sleep(0.02)
    assert f"data-step='{step}'" in bench.headline.value, (bench.headline.value, bench.banner.value)

sys.path.insert(0, "lesson.zip")
for file in (files("lab") / "recordings" / "collapse-and-return.sqlite", files("lesson") / "run.sqlite"):
    bench = Bench.open(file)
    comes_to(bench, 900)
    bench.timeline.step = 450
    comes_to(bench, 450)
    assert "close to collapse" in bench.words.value, bench.words.value
    bench.close()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lesson.zip"]


def test_they_stand_at_the_end_of_every_shelf(tmp_path: Path) -> None:
    entries = Catalogue(tmp_path).entries()
    assert {entry.key for entry in entries} == {f"recording: {path.stem}" for path in recordings()}
    assert all(entry.recording for entry in entries)
