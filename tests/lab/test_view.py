"""A moment of a run, its marks, and how runs differ, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.catalogue import Catalogue, Entry, tree
from lab.compare import differences
from lab.links import linked_config, linked_names, linked_step
from lab.looks import OTHERS
from lab.marks import MARKS, mark_width, marks, rows
from lab.panels import EffectiveRankPanel, LossPanel, PlanePanel, PredictorPanel, make_panels
from lab.view import ViewReader
from ssl_lab import RunStore, preset
from ssl_lab.errors import SSLLabError
from ssl_lab.store import Event, open_run
from tests.lab.test_panels import fill


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with RunStore.create("run", preset("directpred"), tmp_path) as made:
        fill(made, 40)
        made.add_event(10, {"predictor": "directpred"}, {"predictor": "none"}, "page")
        made.add_event(20, {"predictor": "none", "eps": 0.1}, {"predictor": "directcopy", "eps": 0.5}, "page")
        yield made


def test_a_moment_is_as_it_was(store: RunStore, tmp_path: Path) -> None:
    now = ViewReader(store).read()
    assert (now.step, now.shown, now.last) == (40, None, 40)
    with RunStore.create("short", preset("directpred"), tmp_path) as short:
        fill(short, 15)
        short.add_event(10, {"predictor": "directpred"}, {"predictor": "none"}, "page")
        was = ViewReader(short).read()
    then = ViewReader(store).read(15)
    assert (then.step, then.shown, then.last) == (15, 15, 40)
    for name in ("loss", "knn", "asymmetry", "effective_rank"):
        if name != "knn":  # fill() evaluates at its end only
            np.testing.assert_array_equal(then.curves[name], was.curves[name])
        np.testing.assert_array_equal(then.whole[name], now.curves[name])
    assert then.newest is not None
    assert was.newest is not None
    assert then.newest.step == was.newest.step == 15
    assert [r.step for r in then.earlier] == [r.step for r in was.earlier]
    assert then.knobs.predictor == "none"
    assert then.epoch == pytest.approx(15 / 11)
    assert then.knn is None
    assert "without a predictor" in then.words
    # The rule that made a step is the one before an event at it.
    reader = ViewReader(store)
    assert [reader.read(step).knobs.predictor for step in (10, 11, 20, 21)] == [
        "directpred", "none", "none", "directcopy",
    ]  # fmt: skip
    assert reader.read(0).words == "No spectrum was recorded before this."
    assert (reader.read(-5).step, reader.read(99).step) == (0, 40)


def test_panels_at_an_earlier_moment(store: RunStore) -> None:
    view = ViewReader(store).read(15)
    loss = LossPanel()
    loss.update(view)
    assert loss.line.x.tolist() == list(range(1, 16))
    assert loss.later is not None
    assert loss.cursor is not None
    assert loss.later.x.tolist() == list(range(1, 41))
    assert loss.cursor.x.tolist() == [15, 15]
    assert loss.x.max == 100
    plane = PlanePanel()
    plane.update(view)
    np.testing.assert_array_equal(plane.rule.y, 1.0)  # Without a predictor every gain is 1.
    loss.update(ViewReader(store).read())
    assert not loss.cursor.visible
    assert not loss.later.visible
    assert loss.line.x[-1] == 40
    loss.close()
    plane.close()


def test_other_runs_are_drawn_beside(store: RunStore, tmp_path: Path) -> None:
    with store.fork("child", 20) as child, RunStore.create("wide", preset("byol"), tmp_path) as wide:
        fill(wide, 30)
        readers = [ViewReader(child), ViewReader(wide)]
        view = ViewReader(store).read(None, readers)
        assert [other.step for other in view.others] == [20, 30]
        for panel in make_panels():
            panel.update(view)
            assert len(panel.others) == 2
            colours = [mark.colors for mark in panel.others]
            assert colours == [[OTHERS[0].colour], [OTHERS[1].colour]]
            # At no moment does a mark lose its data.
            assert all(np.size(mark.x) > 0 for mark in panel.figure.marks)
            panel.update(ViewReader(store).read())
            assert not any(mark.visible for mark in panel.others)
            panel.close()
        rank, gains = EffectiveRankPanel(), PredictorPanel()
        rank.update(view)
        gains.update(view)
        assert (rank.others[0].x[-1], rank.others[1].x[-1]) == (20, 30)
        np.testing.assert_allclose(gains.others[0].y, view.others[0].newest.spectrum.wp_eigenvalues)  # type: ignore[union-attr]
        # Earlier moments make room for the other runs.
        assert np.ptp(gains.lines.y, axis=0).max() == 0
        rank.close()
        gains.close()


def test_differences_in_words(store: RunStore) -> None:
    with store.fork("child", 20) as child:
        both = ViewReader(store).read(20, [ViewReader(child)])
        assert differences(both) == ["At step 20 against child: the same to the last bit."]
        (line,) = differences(ViewReader(store).read(None, [ViewReader(child)]))
        assert line == (
            "At step 40 against child (whose last step is 20): effective rank 5.0 instead of 3.0 (+2.0), "
            "1 of 4 directions aligned instead of 1 (+0)."
        )
        child.add_evaluation(20, "knn", 0.9)
        (line,) = differences(ViewReader(store).read(None, [ViewReader(child)]))
        assert "kNN 93.0 % instead of 90.0 % (+3.0), effective rank" in line


def test_marks_and_rows(store: RunStore) -> None:
    events = store.events()
    assert marks(events, mark_width(2, 40)) == [
        {"step": 10, "numbers": "1", "text": "step 10: predictor directpred → none"},
        {"step": 20, "numbers": "2", "text": "step 20: predictor none → directcopy, eps 0.1 → 0.5"},
    ]
    assert [row["number"] for row in rows(events)] == [2, 1]
    many = [Event(i + 1, 7 * i, 0.0, {"ema": 0.5}, {"ema": 0.9}, "page") for i in range(5000)]
    few = marks(many, mark_width(len(many), 35_000))
    assert MARKS / 3 < len(few) <= MARKS + 1
    assert few[0]["text"].startswith("steps 0 to ")
    same = [Event(i + 1, 5, 0.0, {"ema": 0.5}, {"ema": 0.9}, "page") for i in range(2)]
    assert marks(same, 1) == [
        {"step": 5, "numbers": "1–2", "text": "step 5: ema 0.9 → 0.5; ema 0.9 → 0.5"},
    ]


def test_links() -> None:
    usual = preset("directpred", seed=4)
    assert linked_config({"run": "x"}, usual) is usual
    config = linked_config({"preset": "byol", "knobs": "ema=0.9,symmetry=hard,stop_gradient=false"}, usual)
    assert (config.preset, config.seed, config.knobs.ema, config.knobs.symmetry) == ("byol", 4, 0.9, "hard")
    assert not config.knobs.stop_gradient
    assert linked_config({"knobs": "eps=0.4"}, usual).preset == "directpred"
    assert linked_config({"seed": "7"}, usual).seed == 7
    # A preset that is about a data set comes with it, unless the link says otherwise.
    assert linked_config({"preset": "linear"}, usual) == preset("linear", seed=4)
    assert linked_config({"preset": "linear", "dataset": "digits"}, usual).dataset == "digits"
    for query, word in (
        ({"preset": "bbyol"}, "bbyol"), ({"knobs": "speed=3"}, "speed"), ({"knobs": "ema=7"}, "ema"),
        ({"dataset": "/etc"}, "/etc"), ({"seed": "-1"}, "-1"), ({"knobs": "ema"}, "ema"),
    ):  # fmt: skip
        with pytest.raises(SSLLabError, match=word):
            linked_config(query, usual)
    assert linked_step({}, 9) is None
    assert linked_step({"step": "9"}, 9) == 9
    for text in ("10", "-1", "x", "9" * 30):
        with pytest.raises(SSLLabError, match="no step"):
            linked_step({"step": text}, 9)
    assert linked_names({"compare": "a,b,,a"}, "compare") == ["a", "b"]


@pytest.mark.parametrize(
    "value",
    [["x"], {"a": 1}, 1.5, float("nan"), True, "a\0b", "\ud800", "x" * 10**6, "9" * 10**5, 10**400, "²", "\u202e"],
)
def test_a_page_may_send_anything_in_a_link(value: Any) -> None:
    usual = preset("directpred")
    for name in ("preset", "dataset", "seed", "knobs"):
        with pytest.raises(SSLLabError) as caught:
            linked_config({name: value}, usual)
        assert len(str(caught.value)) < 1000
    with pytest.raises(SSLLabError):
        linked_step({"step": value}, 9)
    if not isinstance(value, str) or not value.isprintable() or len(value) > 2000:
        with pytest.raises(SSLLabError):
            linked_names({"compare": value}, "compare")
    # Digits of another script are none of a seed's.
    with pytest.raises(SSLLabError, match="seed"):
        linked_config({"seed": "٣"}, usual)


def _keys(listed: list[tuple[int, Entry]]) -> list[tuple[int, str]]:
    return [(depth, entry.key) for depth, entry in listed]


def test_the_shelf_is_a_tree(store: RunStore, tmp_path: Path) -> None:
    with store.fork("child", 20) as child:
        child.fork("grandchild", 10).close()
    RunStore.create("newer", preset("byol"), tmp_path).close()
    catalogue = Catalogue(tmp_path)
    listed, more = tree([entry for entry in catalogue.entries() if not entry.recording])
    assert [(depth, entry.key) for depth, entry in listed] == [
        (0, "newer"),
        (0, "run"),
        (1, "child"),
        (2, "grandchild"),
    ]
    assert more == 0
    # A run of the parent's name that was made later is not the parent.
    RunStore.create("run", preset("byol"), tmp_path, overwrite=True).close()
    listed, _ = tree([entry for entry in catalogue.entries() if not entry.recording])
    assert [(depth, entry.key) for depth, entry in listed] == [
        (0, "run"),
        (0, "newer"),
        (0, "child"),
        (1, "grandchild"),
    ]
    assert tree(catalogue.entries(), most=2)[1] >= 2
    with catalogue.open("child") as found:
        assert found.name == "child"
        assert not found.readonly
    with pytest.raises(SSLLabError, match="no run 'x'"):
        catalogue.open("x")
    # What changed is read again.
    with open_run("newer", tmp_path) as newer:
        newer.add_evaluation(3, "knn", 0.5)
        assert next(e for e in catalogue.entries() if e.key == "newer").run.knn == 0.5
