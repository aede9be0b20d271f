"""The figure for print: what is drawn is what was given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ssl_lab.errors import SSLLabError
from ssl_lab.figures import eigenspace_figure, save_figure, shown_records

D = 12


def records(epochs: list[float]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = len(epochs), D
    return {
        "f_eigenvalues": -np.sort(-np.exp(rng.normal(0, 2, rows)), axis=1),
        "wp_eigenvalues": -np.sort(-rng.normal(0, 1, rows), axis=1),
        "alignment": rng.uniform(-1, 1, rows),
        "asymmetry": rng.uniform(0, 1, len(epochs)),
        "effective_rank": rng.uniform(1, D, len(epochs)),
    }


def draw(epochs: list[float], **changed: object) -> Figure:
    return eigenspace_figure(epochs, **{**records(epochs), "title": "a run", **changed})


def test_the_curves_are_the_records_of_every_fifth_epoch() -> None:
    epochs = [float(e) for e in range(21)]
    data = records(epochs)
    axes = draw(epochs).axes
    for axis, name in zip(axes, ("f_eigenvalues", "wp_eigenvalues", "alignment"), strict=False):
        lines = [line for line in axis.lines if len(line.get_xdata()) == D]
        assert len(lines) == 5
        for line, record in zip(lines, (0, 5, 10, 15, 20), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, D + 1))
            np.testing.assert_array_equal(line.get_ydata(), data[name][record])
        assert len({line.get_color() for line in lines}) == 5
    assert [axis.get_yscale() for axis in axes[:3]] == ["log", "linear", "linear"]


def test_asymmetry_and_effective_rank_have_an_axis_each_and_all_records() -> None:
    epochs = [0.0, 0.5, 1.0, 7.25]
    data = records(epochs)
    axes = draw(epochs).axes
    twin = next(a for a in axes if "effective rank" in a.get_ylabel())
    for axis, name in ((axes[3], "asymmetry"), (twin, "effective_rank")):
        (line,) = axis.lines
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        np.testing.assert_array_equal(line.get_ydata(), data[name])
    assert axes[3].get_ylabel().startswith("asymmetry")
    without = draw(epochs, effective_rank=None)
    assert not any("rank" in a.get_ylabel() for a in without.axes)


def test_every_panel_is_labelled_and_one_colour_bar_stands_for_a_legend() -> None:
    figure = draw([0.0, 5.0, 10.0])
    assert figure.get_suptitle() == "a run"
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_title(loc="left") for axis in figure.axes[:4])
    assert [axis.get_ylabel() for axis in figure.axes].count("epoch") == 1
    assert all(axis.get_legend() is None for axis in figure.axes)


def test_which_records_are_drawn() -> None:
    assert shown_records([0, 5, 10], 5) == [0, 1, 2]
    assert shown_records(np.arange(1, 12), 5) == [0, 4, 9, 10]
    assert shown_records([0.2, 0.4, 5.0, 5.2], 5) == [0, 2, 3]
    assert shown_records([3.0], 5) == [0]
    assert shown_records([1, 2, 3], 1) == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".PNG", ".svg", ".pdf"])
def test_files_are_whole_and_nothing_else_is_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"figure{suffix}"
    path.write_bytes(b"old")
    save_figure(draw([0.0, 5.0]), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix.lower() == ".png":
        with Image.open(path) as image:
            assert image.size == (1920, 1400)
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 5
    elif suffix == ".svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("epoch", [0.0, 40.0])
def test_one_record_is_enough(epoch: float) -> None:
    figure = draw([epoch])
    figure.draw_without_rendering()
    assert [len(axis.get_lines()[0].get_xdata()) for axis in figure.axes[:4]] == [D, D, D, 1]


def test_a_collapsed_run_with_zeros_and_rounding_can_be_drawn() -> None:
    f = np.zeros((3, D))
    f[0, 0], f[0, 1], f[0, 2] = 1.0, 1e-17, -1e-18
    zeros = np.zeros((3, D))
    figure = draw([0.0, 5.0, 10.0], f_eigenvalues=f, wp_eigenvalues=zeros, alignment=zeros, asymmetry=np.zeros(3))
    assert figure.axes[0].get_ylim()[0] > 1e-9
    figure.draw_without_rendering()
    empty = draw([0.0, 5.0, 10.0], f_eigenvalues=zeros, effective_rank=np.zeros(3))
    assert empty.axes[0].get_yscale() == "linear"
    empty.draw_without_rendering()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="no records"):
        draw([])
    with pytest.raises(ValueError, match=r"alignment must be \(2, 12\), and is \(2, 3\)"):
        draw([0.0, 5.0], alignment=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"effective_rank must be \(2,\), and is \(1,\)"):
        draw([0.0, 5.0], effective_rank=np.ones(1))
    with pytest.raises(ValueError, match="every must be 1 or more"):
        draw([0.0], every=0)


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    figure = draw([0.0])
    with pytest.raises(SSLLabError, match=r"'run\.gif'.*\.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "run.gif")
    with pytest.raises(SSLLabError, match="could not be written"):
        save_figure(figure, tmp_path / "missing" / "run.png")
    assert not list(tmp_path.iterdir())


def test_neither_torch_nor_pyplot_is_imported() -> None:
    code = "import ssl_lab.figures, sys; assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
