"""A visitor watches every run and steers their own; how many they keep is bounded; what they made they can delete."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from lab.catalogue import Catalogue
from lab.house import House, digest
from lab.owners import FOREIGN, KEEPER, CapError, Owners, delete_run, keeper_of, weight
from lab.trouble import GONE
from ssl_lab import RunStore
from ssl_lab.desk import EngineDesk
from ssl_lab.errors import SSLLabError
from ssl_lab.family import FAMILY, Membership
from ssl_lab.store import open_run
from tests.lab.class_room import CLASS, come, make_run, say, stepped, tell, trace
from tests.lab.conftest import wait_for
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No process is started; gives what was asked to be woken."""
    woken: list[str] = []
    monkeypatch.setattr(EngineDesk, "ensure_engine", lambda _: None)
    monkeypatch.setattr(EngineDesk, "ask", lambda _, run: woken.append(run))
    return woken


def done(bench: Bench) -> None:
    """All that was asked for is done."""
    over = threading.Event()
    wait_for(lambda: bench._actions.empty())
    bench._do(over.set)
    assert over.wait(30)


def shows(bench: Bench, key: str) -> None:
    wait_for(lambda: bench._key == key)
    done(bench)


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("visitor", "keeper", "steers", "minds", "awake"),
    [
        ("ann", "ann", True, True, True),
        ("ann", "bob", False, False, False),
        ("ann", "", False, False, True),
        ("ann", "teacher", False, False, True),
        ("", "", False, False, True),
        ("", "ann", False, False, False),
        ("teacher", "teacher", True, True, True),
        ("teacher", "", True, True, True),
        ("teacher", "ann", True, False, True),
    ],
)
def test_whose_a_run_is(visitor: str, keeper: str, steers: bool, minds: bool, awake: bool) -> None:
    owners = Owners(CLASS, digest(visitor) or None)
    whose = digest(keeper)
    assert (owners.may_steer(whose), owners.minds(whose), owners.keeps_awake(whose)) == (steers, minds, awake)
    # Where nobody keeps account, whoever comes is at home.
    at_home = Owners(House(served=True), digest(visitor) or None)
    assert at_home.known
    assert (at_home.may_steer(whose), at_home.minds(whose), at_home.keeps_awake(whose)) == (True, True, True)


def test_nobody_is_the_host_where_there_is_none() -> None:
    assert not Owners(replace(CLASS, host_key=""), None).host
    assert not Owners(replace(CLASS, host_key=""), "").host
    assert not Owners(CLASS, CLASS.host_key[::-1]).host


# ---------------------------------------------------------------- who comes


def test_the_key_is_kept_as_a_digest_alone(open_bench: Open, tmp_path: Path) -> None:
    make_run(tmp_path, "first")
    bench = open_bench(house=CLASS)
    for order in ({"query": {"run": "first"}}, {"key": "ann's secret"}):
        assert bench.store is None
        tell(bench.browser, **order)
        done(bench)
    assert bench.store is not None
    assert bench.owners.visitor == bench.browser.visitor == digest("ann's secret")
    assert bench.browser.key is None
    assert "secret" not in json.dumps(bench.browser.get_state(), default=str)
    # Whoever has come stays who they are.
    tell(bench.browser, key="teacher")
    done(bench)
    assert bench.owners.visitor == digest("ann's secret")


@pytest.mark.parametrize("key", ["", 5, None, ["a"], "x" * 3000])
def test_what_is_no_key_opens_nothing(key: Any, open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(house=CLASS)
    tell(bench.browser, query={}, key=key, alive=1)
    bench.new.click()
    done(bench)
    assert bench.store is None
    assert not list(tmp_path.glob("*/run.sqlite"))


def test_a_run_says_whose_it_is_and_files_that_leave_do_not(open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(house=CLASS)
    come(bench, "ann")
    wait_for(lambda: bench.store is not None)
    assert bench.store is not None
    assert keeper_of(bench.store) == digest("ann")
    bench.store.copy_to(tmp_path / "out.sqlite")
    with RunStore.open(tmp_path / "out.sqlite", readonly=True) as out:
        assert out.meta(KEEPER) is None
    assert digest("ann").encode() not in (tmp_path / "out.sqlite").read_bytes()
    assert digest("ann") not in json.dumps(bench.shelf.runs)
    # At home nobody is asked.
    home = open_bench(house=House())
    come(home, "ann")
    wait_for(lambda: home.store is not None)
    assert home.store is not None
    assert home.store.meta(KEEPER) is None


# ---------------------------------------------------------------- watching


def test_nothing_that_a_watcher_does_reaches_the_run(open_bench: Open, tmp_path: Path, no_engine: list[str]) -> None:
    with stepped(tmp_path, "bobs", "bob") as theirs, stepped(tmp_path, "anns", "ann") as own:
        theirs.send("step", {"steps": 8})
        wait_for(lambda: theirs.status().step == 8 and theirs.status().state == "paused")
        before = trace(theirs)
        bench = open_bench(house=CLASS)
        come(bench, "ann", run="bobs")
        wait_for(lambda: "somebody else" in bench.banner.value and bench.transport.run.disabled)
        assert bench.knobs.controls["ema"].control.disabled
        tell(bench.knobs.controls["ema"].control, value=0.5)
        tell(bench.transport.speed, index=2)
        for button in (bench.transport.run, bench.transport.step10, bench.transport.pause, bench.restart):
            say(button, {"event": "click"})
        for content in ({"key": "step"}, {"key": "run_pause"}):
            say(bench.browser, content)
        say(bench.shelf, {"delete": "bobs"})
        bench.present()
        done(bench)
        wait_for(lambda: "ssl-error" in bench.banner.value)
        # A fork of it is one's own; the way there leaves no word in it, nor does leaving it.
        say(bench.timeline, {"do": "fork", "step": -1})
        wait_for(lambda: bench.store is not None and bench.store.name == "bobs-fork-1")
        assert bench.store is not None
        assert keeper_of(bench.store) == digest("ann")
        assert bench.store.last_step() == 8
        say(bench.shelf, {"open": "bobs"})
        shows(bench, "bobs")
        say(bench.shelf, {"open": "anns"})
        wait_for(lambda: bench._key == "anns" and not bench.transport.step.disabled)
        assert trace(theirs) == before
        assert "bobs" not in no_engine
        say(bench.transport.step10, {"event": "click"})
        wait_for(lambda: own.status().step == 10)
        assert own.status().viewer > 0


def test_a_sleeping_run_is_not_woken_by_who_watches(open_bench: Open, tmp_path: Path, no_engine: list[str]) -> None:
    make_run(tmp_path, "bobs", "bob")
    make_run(tmp_path, "anns", "ann")
    with open_run("bobs", tmp_path) as theirs:
        before = trace(theirs)
        bench = open_bench(house=CLASS)
        come(bench, "ann", run="bobs")
        wait_for(lambda: "somebody else" in bench.banner.value)
        say(bench.transport.step, {"event": "click"})
        done(bench)
        assert no_engine == []
        assert trace(theirs) == before
        say(bench.shelf, {"open": "anns"})
        shows(bench, "anns")
        assert no_engine == ["anns"]


def test_who_looks_keeps_the_hosts_run_going_and_no_other_visitors(open_bench: Open, tmp_path: Path) -> None:
    for name, key in (("bobs", "bob"), ("lesson", "teacher"), ("before", "")):
        make_run(tmp_path, name, key)
    looked = {}
    for name in ("bobs", "lesson", "before"):
        bench = open_bench(house=CLASS)
        come(bench, "ann", run=name)
        wait_for(lambda bench=bench: bench._why_not == FOREIGN)
        bench.present()
        done(bench)
        with open_run(name, tmp_path) as store:
            looked[name] = store.status().viewer > 0
            assert store.waiting() == []
    assert looked == {"bobs": False, "lesson": True, "before": True}


def test_the_host_steers_every_run_and_leaves_a_visitors_going(open_bench: Open, tmp_path: Path) -> None:
    with stepped(tmp_path, "bobs", "bob") as theirs, stepped(tmp_path, "lesson") as own:
        bench = open_bench(house=CLASS)
        come(bench, "teacher", run="bobs")
        shows(bench, "bobs")
        tell(bench.knobs.controls["ema"].control, value=0.5)
        wait_for(lambda: theirs.status().knobs.ema == 0.5)
        say(bench.transport.run, {"event": "click"})
        wait_for(lambda: theirs.status().state == "running")
        say(bench.shelf, {"open": "lesson"})
        shows(bench, "lesson")
        done(bench)
        assert theirs.status().state == "running"
        say(bench.transport.step, {"event": "click"})
        wait_for(lambda: own.status().step == 1)
        theirs.send("pause")


# ---------------------------------------------------------------- how many


def test_a_visitor_keeps_so_many_runs_and_no_more(open_bench: Open, tmp_path: Path) -> None:
    house = replace(CLASS, max_runs=2)
    make_run(tmp_path, "bobs", "bob")
    bench = open_bench(house=house)
    come(bench, "ann")
    wait_for(lambda: bench.store is not None)
    assert bench.store is not None
    first = bench.store.name
    bench.new.click()
    wait_for(lambda: bench._key != first)
    second = bench._key
    for ask in (bench.new.click, bench.reset.click):
        bench._complaint = ""
        ask()
        wait_for(lambda: "You keep 2 runs, and a visitor may keep 2 here" in bench.banner.value)
    bench._complaint = ""
    say(bench.shelf, {"open": "bobs"})
    shows(bench, "bobs")
    say(bench.timeline, {"do": "fork", "step": 3})
    wait_for(lambda: "You keep 2 runs" in bench.banner.value)
    assert {path.parent.name for path in tmp_path.glob("*/run.sqlite")} == {"bobs", first, second}
    # Who comes back, and can have no new run, finds an old one.
    again = open_bench(house=house)
    come(again, "ann")
    wait_for(lambda: again._key == second and "Here is your latest run" in again.banner.value)
    # The way out: one is deleted.
    say(bench.shelf, {"delete": first})
    done(bench)
    assert not (tmp_path / first).exists()
    say(bench.timeline, {"do": "fork", "step": 3})
    shows(bench, "bobs-fork-1")
    # The host has as many as there is room for.
    teacher = open_bench(house=replace(house, max_runs=0))
    come(teacher, "teacher")
    wait_for(lambda: teacher.store is not None)


def test_who_may_keep_nothing_still_sees_the_shelf(open_bench: Open, tmp_path: Path) -> None:
    make_run(tmp_path, "bobs", "bob")
    bench = open_bench(house=replace(CLASS, max_runs=0))
    come(bench, "ann")
    wait_for(lambda: "a visitor may keep 0 here" in bench.banner.value and bench.shelf.runs)
    assert bench.store is None
    say(bench.shelf, {"open": "bobs"})
    wait_for(lambda: bench._key == "bobs" and "data-step='12'" in bench.headline.value)


def test_bytes_are_counted_once_and_bounded(open_bench: Open, tmp_path: Path) -> None:
    folder = make_run(tmp_path, "anns", "ann")
    (folder / "twice").hardlink_to(folder / "run.sqlite")
    assert weight(folder) == sum({path.stat().st_ino: path.stat().st_size for path in folder.rglob("*.*")}.values())
    bench = open_bench(house=replace(CLASS, max_bytes=weight(folder) + 1000))
    come(bench, "ann", run="anns")
    shows(bench, "anns")
    say(bench.timeline, {"do": "fork", "step": 3})
    wait_for(lambda: "the new one would take" in bench.banner.value)
    assert not (tmp_path / "anns-fork-1").exists()


def test_what_runs_share_counts_once_over_all_of_them(tmp_path: Path) -> None:
    one, two = make_run(tmp_path, "one", "ann"), make_run(tmp_path, "two", "ann")
    (one / "shared").write_bytes(b"x" * 1000)
    entries = Catalogue(tmp_path).entries()
    # After a look: SQLite leaves files of its own beside what it opens.
    alone = weight(one) + weight(two)
    (two / "shared").hardlink_to(one / "shared")
    owners = Owners(replace(CLASS, max_bytes=alone), digest("ann"))
    assert (owners.account(entries).bytes, owners.overweight(entries)) == (alone, "")
    assert weight(one) + weight(two) == alone + 1000


def test_a_run_that_grows_beyond_the_bound_pauses_and_says_why(open_bench: Open, tmp_path: Path) -> None:
    with stepped(tmp_path, "anns", "ann") as store:
        bench = open_bench(house=replace(CLASS, max_bytes=weight(tmp_path / "anns") + 50_000_000))
        come(bench, "ann", run="anns")
        shows(bench, "anns")
        say(bench.transport.run, {"event": "click"})
        wait_for(lambda: store.status().state == "running")
        with (tmp_path / "anns" / "weights").open("wb") as file:
            file.truncate(60_000_000)
        bench._weigh_due = 0.0
        wait_for(lambda: store.status().state == "paused")
        wait_for(lambda: "Your 1 run take" in bench.banner.value or "is what a visitor" in bench.banner.value)
        say(bench.transport.step, {"event": "click"})
        done(bench)
        assert [command.kind for command in store.waiting()] == []
        stood = store.status().step
        (tmp_path / "anns" / "weights").unlink()
        bench._weigh_due = 0.0
        wait_for(lambda: not bench._overweight)
        say(bench.transport.step, {"event": "click"})
        wait_for(lambda: store.status().step == stood + 1)


def test_commands_that_wait_are_bounded(open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.bench.MOST_COMMANDS", 7)
    make_run(tmp_path, "anns", "ann")
    bench = open_bench(house=CLASS)
    come(bench, "ann", run="anns")
    shows(bench, "anns")
    for _ in range(30):
        say(bench.transport.step, {"event": "click"})
    done(bench)
    with open_run("anns", tmp_path) as store:
        assert len(store.waiting()) == 7
    wait_for(lambda: "7 commands wait" in bench.banner.value)


# ---------------------------------------------------------------- deleting


def test_who_may_delete_what(open_bench: Open, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make_run(outside, "elsewhere", "ann")
    results = tmp_path / "results"
    for name, key in (("anns", "ann"), ("second", "ann"), ("bobs", "bob"), ("lesson", "")):
        make_run(results, name, key)
    (results / "linked").symlink_to(outside / "elsewhere")
    bench = Bench(results=results, house=CLASS)
    try:
        come(bench, "ann", run="anns")
        wait_for(lambda: bench._key == "anns" and len(bench.shelf.runs) >= 5)
        shown = {row["name"]: row["deletable"] for row in bench.shelf.runs}
        assert {name for name, deletable in shown.items() if deletable} == {"second", "linked"}
        for name in ("bobs", "lesson", "anns", "linked", "../outside/elsewhere", "recording: collapse-and-return", "."):
            bench._complaint = ""
            say(bench.shelf, {"delete": name})
            done(bench)
            assert bench._complaint, name
        tell(bench.shelf, ticked=["second"])
        wait_for(lambda: "second" in bench._compared)
        say(bench.shelf, {"delete": "second"})
        done(bench)
        assert bench._complaint == ""
        assert bench._compared == {}
    finally:
        bench.close()
    left = {path.name for path in results.iterdir() if path.is_dir()}
    assert left == {"anns", "bobs", "lesson", "linked"}
    assert (outside / "elsewhere" / "run.sqlite").exists()


def test_a_run_that_is_awake_is_let_go_of_first_and_one_that_runs_is_not_deleted(tmp_path: Path) -> None:
    owners = Owners(House())
    with stepped(tmp_path, "run") as store:
        store.send("run")
        wait_for(lambda: store.status().state == "running")
        with pytest.raises(SSLLabError, match="pause it first"):
            delete_run("run", tmp_path, owners)
        store.send("pause")
        wait_for(lambda: store.status().state == "paused")
        delete_run("run", tmp_path, owners)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(SSLLabError, match="no run"):
        delete_run("run", tmp_path, owners)


def test_a_page_whose_run_is_deleted_says_so_and_lives(open_bench: Open, tmp_path: Path) -> None:
    for name, key in (("anns", "ann"), ("bobs", "bob")):
        make_run(tmp_path, name, key)
    ann, bob = open_bench(house=CLASS), open_bench(house=CLASS)
    come(ann, "ann", run="bobs")
    come(bob, "bob", run="bobs")
    wait_for(lambda: "data-step='12'" in ann.headline.value and "data-step='12'" in bob.headline.value)
    delete_run("bobs", tmp_path, Owners(CLASS, digest("bob")))
    for bench in (ann, bob):
        wait_for(lambda bench=bench: "ssl-failed'>gone" in bench.headline.value and GONE[:20] in bench.banner.value)
        assert bench.transport.run.disabled
        say(bench.transport.step, {"event": "click"})
        done(bench)
        assert not (tmp_path / "bobs").exists()
    # It is another run, if one of that name comes again.
    make_run(tmp_path, "bobs", "bob", steps=3)
    bob.publisher.poke()
    assert bob._watch.gone(bob.store)  # type: ignore[arg-type]
    say(ann.shelf, {"open": "anns"})
    wait_for(lambda: ann._key == "anns" and "ssl-paused" in ann.headline.value and not ann.transport.run.disabled)


def test_a_cap_is_an_error_for_persons() -> None:
    assert issubclass(CapError, SSLLabError)


# ---------------------------------------------------------------- families

GROUP = "ab" * 16


def make_family(folder: Path, *keys: str) -> list[str]:
    """A root of the first one's, and a member at step 0 for each of the keys; gives the members' names."""
    names = [f"member-{place}" for place in range(len(keys))]
    with RunStore.create("root", small_config(device="cpu"), folder) as root:
        root.set_meta(KEEPER, digest(keys[0]))
        for place, (name, key) in enumerate(zip(names, keys, strict=True)):
            with root.fork(name, 0) as member:
                member.set_meta(KEEPER, digest(key))
                member.set_meta(FAMILY, Membership(GROUP, "ema", place / 10, place, len(keys)).kept())
    return names


def there(folder: Path, names: list[str]) -> list[str]:
    return [name for name in names if (folder / name / "run.sqlite").exists()]


def test_a_family_goes_as_a_whole_or_not_at_all(open_bench: Open, tmp_path: Path) -> None:
    names = make_family(tmp_path, "ann", "ann", "bob")
    bench = open_bench(house=CLASS)
    come(bench, "ann", run="root")
    shows(bench, "root")
    say(bench.shelf, {"delete_family": GROUP})
    done(bench)
    assert "member-2 is somebody else" in bench._complaint
    with open_run("member-2", tmp_path) as store:
        store.set_meta(KEEPER, digest("ann"))
    # A page that only watches deletes nothing.
    watcher = open_bench(house=CLASS)
    come(watcher, "ann", run="root", watch="")
    shows(watcher, "root")
    say(watcher.shelf, {"delete_family": GROUP})
    done(watcher)
    assert "only watches" in watcher._complaint
    assert there(tmp_path, names) == names
    # One that does not stand keeps all of them.
    with RunStore.open(tmp_path / "member-2") as driver:
        driver.claim("engine")
        driver.set_status(state="running")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lab.owners.PAUSING", 0.1)
            say(bench.shelf, {"delete_family": GROUP})
            done(bench)
        assert "member-2 is running" in bench._complaint
        assert [command.kind for command in driver.waiting()] == ["pause"]
        assert there(tmp_path, names) == names
    say(bench.shelf, {"delete_family": GROUP})
    done(bench)
    assert there(tmp_path, names) == []


def test_what_holds_for_a_run_holds_for_its_family(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_family(tmp_path, "ann", "ann")
    bench = open_bench(house=replace(CLASS, max_bytes=10**9))
    come(bench, "ann", run="member-0", compare="member-1")
    wait_for(lambda: list(bench.family._hands) == ["member-1"])
    with RunStore.open(tmp_path / "member-0") as own, RunStore.open(tmp_path / "member-1") as other:

        def waiting() -> list[list[str]]:
            return [[command.kind for command in store.waiting()] for store in (own, other)]

        other.claim("engine")
        other.set_status(state="running")
        # What is too heavy pauses wherever it runs, and is told nothing else.
        monkeypatch.setattr(Owners, "overweight", lambda self, entries: "All is full.")
        bench._weigh_due = 0.0
        wait_for(lambda: waiting() == [[], ["pause"]])
        bench.run()
        done(bench)
        assert bench._complaint == "All is full."
        assert waiting() == [[], ["pause"]]
        # So it is with one that was told much already.
        monkeypatch.setattr(Owners, "overweight", lambda self, entries: "")
        monkeypatch.setattr("lab.bench.MOST_COMMANDS", 1)
        bench._overweight = ""
        bench.run()
        done(bench)
        assert "wait for the driver of member-1 already" in bench._complaint
        assert waiting() == [["run"], ["pause"]]


def test_a_click_on_a_family_is_meant_for_the_run_that_was_there(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_family(tmp_path, "ann", "ann")
    bench = open_bench(house=CLASS)
    come(bench, "ann", run="root")
    shows(bench, "root")
    asked: list[str] = []

    def start(knob: str) -> None:
        asked.append(bench.shown)
        bench._show_entry("member-0")
        bench._compare(["member-1"])

    monkeypatch.setattr(bench.family, "start", start)
    busy, free = threading.Event(), threading.Event()
    bench._do(lambda: (busy.set(), free.wait(30))[0])
    assert busy.wait(30)
    bench.family.ask("ema")
    bench.family.ask("ema")
    free.set()
    shows(bench, "member-0")
    assert asked == ["root"]
    # The way back is gone: it is said.
    bench._actions.put(lambda: delete_run("root", tmp_path, bench.owners))
    done(bench)
    bench.family.close_button.click()
    done(bench)
    assert "root, from which they grew, is not among the runs here" in bench._complaint
    assert (bench.shown, bench.family.id) == ("member-0", "")


def test_what_is_trained_elsewhere_is_not_paused_when_the_page_leaves(open_bench: Open, tmp_path: Path) -> None:
    make_family(tmp_path, "ann", "ann", "ann")
    bench = open_bench(house=CLASS)
    come(bench, "ann", run="member-0", compare="member-1,member-2")
    wait_for(lambda: sorted(bench.family._hands) == ["member-1", "member-2"])
    with RunStore.open(tmp_path / "member-1") as trained, RunStore.open(tmp_path / "member-2") as stepped_here:
        for store, owner in ((trained, "train"), (stepped_here, "engine")):
            store.claim(owner)
            store.set_status(state="running")
        bench.compare()
        done(bench)
        assert [command.kind for command in stepped_here.waiting()] == ["pause"]
        assert trained.waiting() == []
