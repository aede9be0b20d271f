"""A family on the bench: one click, members in a real engine process, and what a refused one leaves behind."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import Bench, exports
from lab.catalogue import Catalogue, Entry, tree
from lab.family import FamilyDesk
from lab.house import House
from lab.listing import shelf_rows
from lab.looks import family_look
from lab.owners import Owners
from ssl_lab import RunStore, Trainer, preset
from ssl_lab.engine import MOST_AWAKE
from ssl_lab.family import FAMILY, Membership, membership
from ssl_lab.store import Parent, open_run
from tests.lab.conftest import wait_for
from tests.lab.test_bench import ready, state
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]
EMA = ("0", "0.5", "0.9", "0.996", "0.999")


def click(bench: Bench, knob: str) -> None:
    button = bench.knobs.controls[knob].family
    assert button is not None
    button.click()


def folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_a_family_from_the_click_to_its_end(open_bench: Open, tmp_path: Path) -> None:
    small = small_config()
    bench = open_bench(config=small)
    bench.browser.query = {}
    ready(bench)
    assert bench.store is not None
    parent = bench.store.name
    bench.transport.step10.click()
    wait_for(lambda: state(bench).step == 10 and state(bench).state == "paused")

    # What does not fit is refused as a whole.
    before, owners = folders(tmp_path), bench.owners
    bench.owners = Owners(House(max_runs=4), "somebody")
    bench.house = replace(bench.house, max_runs=4)
    click(bench, "ema")
    wait_for(lambda: "A family of 5 does not fit" in bench.banner.value)
    bench.owners, bench.house = owners, House()
    room, bench._host.room_for = bench._host.room_for, lambda runs: room(MOST_AWAKE + 1)  # type: ignore[method-assign]
    click(bench, "ema")
    wait_for(lambda: "the engine has" in bench.banner.value)
    bench._host.room_for = room  # type: ignore[method-assign]
    wake, bench._host.wake_all = bench._host.wake_all, fails  # type: ignore[method-assign,attr-defined]
    click(bench, "ema")
    wait_for(lambda: "No engine today" in bench.banner.value)
    bench._host.wake_all = wake  # type: ignore[method-assign]
    assert folders(tmp_path) == before
    assert bench.shown == parent
    # A knob without effect has no family to offer.
    wait_for(lambda: bench.knobs.controls["norm"].family.disabled)  # type: ignore[union-attr]

    # One click, at an earlier moment.
    bench.timeline.step = 6
    wait_for(lambda: "data-step='6'" in bench.headline.value)
    click(bench, "ema")
    names = [f"directpred-ema-{value}" for value in EMA]
    wait_for(lambda: bench.shown == "directpred-ema-0.996" and len(bench._compared) == 4)
    assert folders(tmp_path) == before | set(names)
    wait_for(lambda: state(bench).step > 20, 120)
    with open_run("directpred-ema-0", tmp_path) as member:
        assert member.parent is not None
        assert (member.parent.name, member.parent.step) == (parent, 6)
        assert [(event.step, event.changes) for event in member.events()] == [(6, {"ema": 0.0})]
    assert bench.store.events() == []
    # Drawn as a family: each look along the range, on the shelf too, labels at the curves' ends, words.
    looks = [bench._reader.look, *(reader.look for reader in bench._compared.values())]  # type: ignore[union-attr]
    assert looks == [family_look(place, 5) for place in (3, 0, 1, 2, 4)]
    rank = next(panel for panel in bench.panels if panel.key == "effective_rank")
    wait_for(lambda: rank.ends.labels is not None and list(rank.ends.labels.text) == list(EMA))  # type: ignore[attr-defined]
    wait_for(lambda: "by EMA rate: 0: effective rank" in bench.legend.value)
    assert bench.legend.value.count("ssl-member'") == 5
    wait_for(lambda: "A family of 5 along EMA rate" in bench.family._words.value)
    assert bench.shelf is not None
    wait_for(lambda: [row["heads"] for row in bench.shelf.runs if "heads" in row] == [bench.family.id])  # type: ignore[union-attr]
    assert bench.shelf.most == 5

    # The transport is everybody's, a knob is the shown one's alone.
    stores = [open_run(name, tmp_path, readonly=True) for name in names]
    bench.transport.pause.click()
    wait_for(lambda: all(store.status().state == "paused" for store in stores))
    stood = [store.status().step for store in stores]
    bench.transport.step.click()
    wait_for(lambda: [store.status().step for store in stores] == [step + 1 for step in stood])
    # One table of all of them.
    target = tmp_path.parent / "together.csv"
    exports._write_together({name: tmp_path / name / "run.sqlite" for name in names}, target)
    with target.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {(row["run"], row["ema"]) for row in table if int(row["step"]) > 6} == {
        (name, str(float(value))) for name, value in zip(names, EMA, strict=True)
    }
    assert len(table) == sum(store.last_step() for store in stores)
    bench.turn(rho=0.7)
    wait_for(lambda: state(bench).knobs.rho == 0.7)
    assert [store.status().knobs.rho for store in stores] == [0.3, 0.3, 0.3, 0.7, 0.3]

    # Another member is picked on the shelf; then a link brings all of it back.
    bench._on_shelf(bench.shelf, {"open": "directpred-ema-0.5"}, [])
    wait_for(lambda: bench.shown == "directpred-ema-0.5" and len(bench._compared) == 4)
    again = open_bench()
    again.browser.query = {"run": bench.browser.run, "compare": bench.browser.compare}
    wait_for(lambda: again.family.id == bench.family.id and len(again._compared) == 4)
    again.transport.run.click()
    wait_for(lambda: all(store.status().state == "running" for store in stores))
    again.browser.visible = False

    # A run of no kin takes the page without them, and they stand; the browser's way back has all of them again.
    bench._on_shelf(bench.shelf, {"open": parent}, [])
    wait_for(lambda: bench.shown == parent and bench._compared == {} and bench.family.id == "")
    wait_for(lambda: all(store.status().state == "paused" for store in stores))
    group = membership(stores[0].meta(FAMILY)).id  # type: ignore[union-attr]
    bench._on_shelf(bench.shelf, {"open_family": group}, [])
    wait_for(lambda: bench.family.id == group and len(bench._compared) == 4)

    # Closed, all of them stand, and the page is where it was; deleted, they are gone.
    bench.family.close_button.click()
    wait_for(lambda: bench.shown == parent and bench.timeline.step == 6)
    wait_for(lambda: all(store.status().state == "paused" for store in stores))
    assert bench._compared == {}
    identity = membership(stores[0].meta(FAMILY)).id  # type: ignore[union-attr]
    bench._on_shelf(bench.shelf, {"open_family": identity}, [])
    wait_for(lambda: bench.shown == names[0] and list(bench._compared) == names[1:])
    for store in stores:
        store.close()
    bench._on_shelf(bench.shelf, {"delete_family": identity}, [])
    wait_for(lambda: folders(tmp_path) == before, 120)
    wait_for(lambda: bench.shown == parent and bench.family.id == "")


def fails(stores: object) -> None:
    raise OSError("No engine today")


def test_a_kernel_that_steps_one_run_has_no_such_button(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    assert all(control.family is None for control in bench.knobs.controls.values())


@pytest.mark.parametrize("forks_between", [False, True])
def test_a_family_is_one_group_on_the_shelf(tmp_path: Path, *, forks_between: bool) -> None:
    with RunStore.create("root", preset("byol"), tmp_path) as root:
        for place, value in enumerate((False, True)):
            with root.fork(f"member-{place}", 0) as member:
                said = {"id": "ab" * 16, "knob": "stop_gradient", "value": value, "place": place, "size": 2}
                member.set_meta(FAMILY, said)
                if forks_between:
                    member.fork(f"under-{place}", 0).close()
        root.fork("other", 0).close()
    entries, _ = tree(Catalogue(tmp_path).entries())
    own = [(depth, entry) for depth, entry in entries if not entry.recording]
    rows = shelf_rows(own, "member-1", {}, lambda entry: True)
    found = [(row["name"], row["depth"], row["group"]) for row in rows]
    head, group = f"family {'ab' * 16}", "ab" * 16
    under = [[(f"under-{i}", 3, group)] if forks_between else [] for i in (0, 1)]
    assert found == [
        ("root", 0, ""), (head, 1, ""), ("member-0", 2, group), *under[0], ("member-1", 2, group), *under[1],
        ("other", 1, ""),
    ]  # fmt: skip
    heading = rows[1]
    assert (heading["heads"], heading["count"], heading["shown"]) == (group, 2, True)
    assert heading["label"] == "Family along stop-gradient"


def member(root: RunStore, name: str, group: str, place: int = 0) -> RunStore:
    child = root.fork(name, 0)
    child.set_meta(FAMILY, Membership(group, "ema", place / 10, place, 2).kept())
    return child


def listed(folder: Path, shown: str, loose: dict[str, Path] | None = None) -> list[dict[str, Any]]:
    catalogue = Catalogue(folder)
    catalogue.loose = loose or {}
    entries, _ = tree(catalogue.entries())
    own = [(depth, entry) for depth, entry in entries if not entry.key.startswith("recording")]
    return shelf_rows(own, shown, {}, lambda entry: True)


def test_a_family_of_a_member_has_a_heading_of_its_own(tmp_path: Path) -> None:
    outer, inner = "ab" * 16, "cd" * 16
    with RunStore.create("root", preset("byol"), tmp_path) as root:
        with member(root, "outer-0", outer) as first:
            for place in (0, 1):
                with member(first, f"inner-{place}", inner, place) as nested:
                    nested.fork(f"under-{place}", 0).close()
        member(root, "outer-1", outer, 1).close()
        root.fork("other", 0).close()
    rows = listed(tmp_path, "under-1")
    assert [(row["name"], row["depth"], row["group"]) for row in rows] == [
        ("root", 0, ""), (f"family {outer}", 1, ""), ("outer-0", 2, outer), (f"family {inner}", 3, outer),
        ("inner-0", 4, inner), ("under-0", 5, inner), ("inner-1", 4, inner), ("under-1", 5, inner),
        ("outer-1", 2, outer), ("other", 1, ""),
    ]  # fmt: skip
    # What is on the page is folded away under no heading.
    assert [row["shown"] for row in rows if "heads" in row] == [True, True]
    assert [row["shown"] for row in listed(tmp_path, "outer-1") if "heads" in row] == [True, False]
    # Members count that are not listed.
    entries = [entry for entry in Catalogue(tmp_path).entries() if not entry.recording]
    rows = shelf_rows([(0, e) for e in entries if e.key == "inner-0"], "root", {}, can_delete("inner-0"), entries)
    assert (rows[0]["count"], rows[0]["deletable"]) == (2, False)


def can_delete(name: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.key == name


def test_a_member_that_can_only_be_looked_at_stands_by_itself(tmp_path: Path) -> None:
    with RunStore.create("root", preset("byol"), tmp_path / "far") as root, member(root, "theirs", "ab" * 16) as theirs:
        theirs.copy_to(tmp_path / "theirs.sqlite")
    (tmp_path / "near").mkdir()
    (row,) = listed(tmp_path / "near", "file: theirs.sqlite", {"file: theirs.sqlite": tmp_path / "theirs.sqlite"})
    assert (row["name"], row["group"], row["depth"], row["shown"]) == ("file: theirs.sqlite", "", 0, True)
    assert "heads" not in row


def test_what_a_stranger_wrote_is_shown_as_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    bench: Any = SimpleNamespace(store=SimpleNamespace(parent=Parent(name=evil, id="ab", step=3, events=0)))
    desk = FamilyDesk(bench)
    family = Membership("ab" * 16, "ema", 0.5, 0, 2)
    view: Any = SimpleNamespace(members=[None, None], family=family)
    desk.show(view)
    assert "from &lt;img" in desk._words.value
    assert "<img" not in desk._words.value
    desk.end()
