"""Members of a family are told apart by eyes of every kind, and on paper without colours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.looks import ALONG, OTHERS, SHOWN, Look, family_look
from lab.panels.ends import LINE, apart
from ssl_lab.family import MOST

# What a colour in linear sRGB is to those who lack one kind of cones (Machado, Oliveira & Fernandes 2009, severity 1).
EYES = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> NDArray[np.float64]:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def cielab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    t = XYZ @ np.clip(rgb, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def least_distance(colours: list[str], eye: str) -> float:
    seen = [cielab(EYES[eye] @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("eye", EYES)
def test_colours_are_told_apart(eye: str) -> None:
    # 2.3 is what can just be told apart side by side.
    assert least_distance([look.colour for look in ALONG], eye) > 25


def test_the_check_of_colours_can_fail() -> None:
    assert least_distance(["#d00000", "#2a7000"], "protanopia") < 25
    assert least_distance(["#d00000", "#2a7000"], "usual") > 25


def test_in_grey_the_order_along_the_range_stays() -> None:
    lightness = [cielab(linear(look.colour))[0] for look in ALONG]
    assert all(b - a > 5 for a, b in itertools.pairwise(lightness))
    # And on white as on JupyterLab's dark ground there is something to see.
    shares = [float(XYZ[1] @ linear(look.colour)) for look in ALONG]
    assert all(1.05 / (share + 0.05) > 1.9 and (share + 0.05) / 0.0556 > 2.7 for share in shares)


def test_no_two_lines_are_alike_without_colour() -> None:
    for size in range(1, MOST + 1):
        looks = [family_look(place, size) for place in range(size)]
        assert len({(look.line, look.width) for look in looks}) == size
        assert len({look.colour for look in looks}) == size
        order = [ALONG.index(look) for look in looks]
        assert order == sorted(order)
    assert len({look.line for look in (SHOWN, *OTHERS)}) == 4


def test_a_place_that_a_file_makes_up_is_drawn_all_the_same() -> None:
    assert isinstance(family_look(5, 2), Look)
    assert isinstance(family_look(0, 99), Look)


def test_labels_never_lie_on_one_another() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        heights = rng.uniform(-0.1, 1.1, rng.integers(1, MOST + 1)).tolist()
        placed = apart(heights)
        ordered = sorted(placed)
        assert all(b - a > LINE - 1e-9 for a, b in itertools.pairwise(ordered))
        assert ordered[0] >= LINE / 2
        assert ordered[-1] <= 1 - LINE / 2 + 1e-9
        assert np.argsort(heights, kind="stable").tolist() == np.argsort(placed, kind="stable").tolist()
