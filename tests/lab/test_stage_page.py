"""A bench with a stage: what an instructor's page shows there, and what everybody else's does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from lab.catalogue import Catalogue
from lab.house import House
from lab.stagebox import STEERED, WAITING, WITHDRAWN
from ssl_lab import preset, stage
from ssl_lab.errors import SSLLabError, WriteError
from ssl_lab.stage import Audience
from ssl_lab.store import Metrics, RunStore, open_run
from tests.lab.conftest import wait_for

Page = Callable[..., Bench]


def metrics(store: RunStore, upto: int) -> None:
    last = store.last_step()
    with store.transaction():
        store.add_metrics(Metrics(i, i / 10, 1 / i, 0.0) for i in range(last + 1, upto + 1))
        store.set_status(state="running", step=upto)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create("lesson", preset("directpred"), tmp_path / "instructor") as store:
        metrics(store, 20)
        yield store


@pytest.fixture
def page(folder: Path, tmp_path: Path) -> Iterator[Page]:
    """Benches of an instructor, and of students with results of their own; no engine is started."""
    benches: list[Bench] = []

    def make(query: dict[str, str], *, instructor: bool = False, follow: bool = False) -> Bench:
        house = House(stage=str(folder), instructor=instructor, follow=follow)
        bench = Bench(results=tmp_path / ("instructor" if instructor else "student"), house=house)
        bench._host.wake = lambda store: None  # type: ignore[method-assign]
        benches.append(bench)
        bench.browser.query = query
        return bench

    yield make
    for bench in benches:
        bench.close()


def words(bench: Bench) -> str:
    assert bench.stage is not None
    return str(bench.stage.words.value)


def banner(bench: Bench) -> str:
    return str(bench.banner.value)


def shown(part: object) -> bool:
    return part.layout.display != "none"  # type: ignore[attr-defined]


def step(bench: Bench) -> str:
    return str(bench.headline.value)


# ---------------------------------------------------------------- who follows


def test_a_page_that_follows_waits_goes_along_and_keeps_the_last(run: RunStore, folder: Path, page: Page) -> None:
    bench = page({"follow": "1"})
    wait_for(lambda: WAITING in words(bench))
    assert bench.store is None
    assert bench.transport.run.disabled
    assert bench.knobs.controls["predictor"].control.disabled
    assert not banner(bench)

    stage.show(run, folder)
    wait_for(lambda: "You follow the instructor" in words(bench))
    assert bench.shown == "instructor: lesson"
    wait_for(lambda: STEERED in banner(bench))
    wait_for(lambda: "data-step='20'" in step(bench))
    metrics(run, 33)
    wanted = stage.wish(run.folder.parent)
    assert wanted is not None
    stage._put(run, folder, wanted)
    wait_for(lambda: "data-step='33'" in step(bench))

    # Another run takes its place.
    with RunStore.create("second", preset("byol"), run.folder.parent) as second:
        metrics(second, 5)
        stage.show(second, folder)
        wait_for(lambda: bench.shown == "instructor: second")
    stage.withdraw(run.folder.parent, folder)
    wait_for(lambda: WITHDRAWN in words(bench))
    wait_for(lambda: "no longer shown" in step(bench))
    assert "data-step='5'" in step(bench)
    assert "is gone" not in banner(bench)


def test_the_house_may_have_every_page_follow(run: RunStore, folder: Path, page: Page) -> None:
    stage.show(run, folder)
    bench = page({}, follow=True)
    wait_for(lambda: bench.shown == "instructor: lesson")
    # Whoever asks for something else gets that.
    other = page({"run": "recording: collapse-and-return"}, follow=True)
    wait_for(lambda: other.shown == "recording: collapse-and-return")
    assert other.stage is not None
    wait_for(lambda: "The instructor shows <b>lesson</b>, live." in words(other))
    assert shown(other.stage.buttons)
    other.stage.follow.click()
    wait_for(lambda: other.shown == "instructor: lesson")
    wait_for(lambda: not shown(other.stage.buttons))


def test_nothing_that_a_page_says_goes_to_the_run(run: RunStore, folder: Path, page: Page) -> None:
    stage.show(run, folder)
    bench = page({"follow": "1"})
    wait_for(lambda: bench.transport.run.disabled and bench.shown == "instructor: lesson")
    control = bench.knobs.controls["predictor"].control
    wait_for(lambda: control.disabled)
    # A page that says it all the same, over its own socket, and one that says so by a key.
    for button in (bench.transport.run, bench.transport.pause, bench.transport.step):
        button._handle_button_msg(button, {"event": "click"}, [])
        wait_for(lambda: "ssl-error'>The instructor steers" in banner(bench))
        bench._complaint = ""
        bench.publisher.poke()
        wait_for(lambda: "ssl-error'>The instructor steers" not in banner(bench))
    control.set_state({"index": 1, "disabled": False})
    wait_for(lambda: "ssl-error'>The instructor steers" in banner(bench))
    bench._on_key(bench.browser, {"key": "run_pause"}, [])
    bench._on_shelf(bench.shelf, {"delete": "instructor: lesson"}, [])
    bench.turn(lr=0.5)
    bench.run()
    wait_for(lambda: not bench.waiting)
    assert control.disabled
    store = bench.store
    assert store is not None
    with pytest.raises(WriteError, match="open for reading only"):
        store.send("pause")
    assert run.waiting() == []
    assert run.events() == []
    assert list(run.rows("SELECT count(*) FROM commands")) == [(0,)]


def test_a_fork_is_a_run_of_one_s_own(run: RunStore, folder: Path, page: Page, tmp_path: Path) -> None:
    stage.show(run, folder)
    bench = page({"follow": "1"})
    wait_for(lambda: bench.shown == "instructor: lesson")
    bench._on_timeline(bench.timeline, {"do": "fork", "step": 15}, [])
    wait_for(lambda: bench.shown == "lesson-fork-1")
    wait_for(lambda: not bench.transport.run.disabled)
    with open_run("lesson-fork-1", tmp_path / "student", readonly=True) as fork:
        assert fork.parent is not None
        assert (fork.parent.id, fork.parent.step, fork.last_step()) == (run.meta("id"), 15, 15)
    # Drawn with the instructor's, which still moves; and the way back is there.
    wait_for(lambda: bench._ticked() == ["instructor: lesson"])
    wait_for(lambda: "The instructor shows <b>lesson</b>" in words(bench))
    before = sorted(path.name for path in folder.rglob("*"))
    bench.pause()
    wait_for(lambda: not bench.waiting)
    assert run.waiting() == []
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_the_shelf_and_the_front_page_list_it_first(run: RunStore, folder: Path, tmp_path: Path) -> None:
    from lab.gallery import Gallery
    from lab.listing import shelf_rows
    from lab.serve import notebooks_dir

    stage.show(run, folder)
    with RunStore.create("own", preset("byol"), tmp_path / "student") as own:
        metrics(own, 3)
    catalogue = Catalogue(tmp_path / "student", Audience(folder))
    entries = catalogue.entries()
    assert [entry.key for entry in entries[:2]] == ["instructor: lesson", "own"]
    (row,) = shelf_rows([(0, entries[0])], "own", {}, lambda entry: True)
    assert (row["state"], row["origin"], row["deletable"], row["step"]) == ("running", "live", False, 20)
    gallery = Gallery(notebooks_dir(), tmp_path / "student", Audience(folder))
    try:
        runs = gallery.runs()
    finally:
        gallery.close()
    assert [(line.key, line.state) for line in runs.staged] == [("instructor: lesson", "running")]
    assert [line.key for line in runs.own] == ["own"]
    assert not any(line.key.startswith("instructor") for line in runs.recorded)


def test_a_list_reads_a_copy_only_now_and_then(
    run: RunStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows the run reads all copies: a list beside it must not do so too."""
    stage.show(run, folder)
    catalogue = Catalogue(tmp_path / "student", Audience(folder))
    opened: list[Path] = []
    usual = RunStore.open

    def spy(path: Path, **how: bool) -> RunStore:
        opened.append(path)
        return usual(path, **how)

    monkeypatch.setattr(RunStore, "open", spy)

    def look() -> tuple[int, str, int]:
        (entry,) = [entry for entry in catalogue.entries() if entry.staged]
        on_stage = [path for path in opened if folder in Path(path).parents]
        return entry.run.status.step, entry.run.status.state, len(on_stage)

    assert look() == (20, "running", 1)
    assert look() == (20, "running", 1)
    wanted = stage.wish(run.folder.parent)
    assert wanted is not None
    metrics(run, 30)
    stage._put(run, folder, wanted)
    _, _, before = look()
    # The stage itself says how the run stands.
    assert look() == (30, "running", before)
    catalogue._copy_due = 0.0
    _, _, after = look()
    assert after == before + 1
    # Another run of that name is read at once.
    with RunStore.create("lesson", preset("byol"), tmp_path / "again") as other:
        metrics(other, 4)
        stage.show(other, folder)
        (entry,) = [entry for entry in catalogue.entries() if entry.staged]
        assert (entry.run.id, entry.run.status.step) == (other.meta("id"), 4)


def test_a_page_follows_another_run_of_the_same_name(
    run: RunStore, folder: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.show(run, folder)
    bench = page({"follow": "1"})
    wait_for(lambda: "data-step='20'" in step(bench))
    with RunStore.create("lesson", preset("byol"), tmp_path / "again") as other:
        metrics(other, 4)
        identity = str(other.meta("id"))
        usual = stage._announce

        def announce(*what: Any, **how: Any) -> None:
            # A copy is there before the word of it, and the page may have read it by then.
            wait_for(lambda: bench._store is not None and bench._store.meta("id") == identity)
            usual(*what, **how)

        monkeypatch.setattr(stage, "_announce", announce)
        stage._put(other, folder, stage.Wish(other.name, identity, "token", str(folder), 0.0))
        wait_for(lambda: bench._reader is not None and bench._reader.id == identity)
        wait_for(lambda: "data-step='4'" in step(bench))
        assert bench._config.preset == "byol"


def test_what_is_drawn_with_another_run_goes_by_its_id_too(
    run: RunStore, folder: Path, page: Page, tmp_path: Path
) -> None:
    stage.show(run, folder)
    with RunStore.create("mine", preset("byol"), tmp_path / "student") as mine:
        metrics(mine, 2)
    bench = page({"run": "mine"})
    wait_for(lambda: bench.shown == "mine")
    key = "instructor: lesson"
    bench._ask(lambda: bench._compare([key]))
    wait_for(lambda: list(bench._compared) == [key])
    with RunStore.create("lesson", preset("byol"), tmp_path / "again") as other:
        metrics(other, 4)
        stage.show(other, folder)
        wait_for(lambda: key in bench._compared and bench._compared[key].id == other.meta("id"))


def test_a_run_that_is_deleted_is_taken_down(run: RunStore, folder: Path, page: Page) -> None:
    from lab.owners import delete_run

    results = run.folder.parent
    bench = page({"run": "lesson"}, instructor=True)
    assert bench.stage is not None
    wait_for(lambda: bench.shown == "lesson")
    run.set_status(state="paused")
    bench.stage.show.click()
    wait_for(lambda: "The class sees this run" in words(bench))
    with RunStore.create("other", preset("byol"), results) as other:
        metrics(other, 2)
    bench.visit("other")
    wait_for(lambda: bench.shown == "other")
    run.close()
    delete_run("lesson", results, bench.owners)
    assert stage.on_stage(folder) is None
    wait_for(lambda: not words(bench) and bench.stage is not None and not shown(bench.stage.stop))


def test_who_was_left_alone_is_told(run: RunStore, folder: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.show(run, folder)
    bench = page({"follow": "1"})
    wait_for(lambda: bench.shown == "instructor: lesson")
    monkeypatch.setattr(Audience, "left_alone", 200.0)
    wait_for(lambda: "The instructor’s run has stood for 3 min: nothing new has come of it." in banner(bench))
    wait_for(lambda: "left alone" in step(bench))
    assert "data-step='20'" in step(bench)


def test_a_copy_that_cannot_be_read_is_waited_for(
    run: RunStore, folder: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.show(run, folder)
    opened = Audience.open

    def fails(self: Audience, program: stage.OnStage) -> RunStore:
        raise SSLLabError("It is just being replaced.")

    monkeypatch.setattr(Audience, "open", fails)
    bench = page({"follow": "1"})
    wait_for(lambda: "It is just being replaced." in banner(bench))
    assert bench.store is None
    assert not list((tmp_path / "student").glob("*/run.sqlite"))
    # What else goes wrong meanwhile is said too, and the page keeps its seat.
    entered: list[int | None] = []
    monkeypatch.setattr(bench._host, "enter", lambda most: not entered.append(most))
    bench.visit("no-such-run")
    wait_for(lambda: "no-such-run" in banner(bench))
    bench.present()
    assert entered == [None]
    monkeypatch.setattr(Audience, "open", opened)
    wait_for(lambda: bench.shown == "instructor: lesson")
    wait_for(lambda: "You follow the instructor" in words(bench))
    wait_for(lambda: "replaced" not in banner(bench))


@pytest.mark.parametrize("form", ["csv", "together", "sqlite"])
def test_what_was_shown_can_be_taken_along_after_it_was_taken_down(
    form: str, run: RunStore, folder: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.show(run, folder)
    bench = page({"follow": "1"})
    wait_for(lambda: bench.shown == "instructor: lesson")
    wait_for(lambda: "data-step='20'" in step(bench))
    stage.withdraw(run.folder.parent, folder)
    wait_for(lambda: WITHDRAWN in words(bench))
    assert bench.export is not None
    got: list[tuple[str, Path]] = []
    monkeypatch.setattr(bench.files, "offer", lambda name, mime, path: got.append((name, path)))
    bench.export.form.value = form
    bench.export.download.click()
    wait_for(lambda: got or bench._complaint)
    assert not bench._complaint
    ((name, path),) = got
    assert name.startswith("lesson.")
    if form == "sqlite":
        with RunStore.open(path, readonly=True) as copy:
            assert (copy.name, copy.last_step()) == ("lesson", 20)
    else:
        lines = path.read_text().splitlines()
        assert len(lines) == 21
        assert form == "csv" or lines[1].startswith('"lesson",1,')
    path.unlink()


# ---------------------------------------------------------------- who shows


def test_an_instructor_shows_and_takes_down(run: RunStore, folder: Path, page: Page) -> None:
    bench = page({"run": "lesson"}, instructor=True)
    assert bench.stage is not None
    wait_for(lambda: bench.shown == "lesson")
    assert shown(bench.stage.show)
    assert not shown(bench.stage.stop)
    bench.stage.show.click()
    wait_for(lambda: "The class sees this run, now at step 20." in words(bench))
    wait_for(lambda: shown(bench.stage.stop) and not shown(bench.stage.show))
    with RunStore.create("other", preset("byol"), run.folder.parent) as other:
        metrics(other, 2)
    bench.visit("other")
    wait_for(lambda: "The class sees <b>lesson</b>, not this run." in words(bench))
    assert bench.stage.show.description == "Show this run instead"
    bench.visit("recording: collapse-and-return")
    wait_for(lambda: bench.stage is not None and bench.stage.show.disabled)
    bench.stage.show.click()
    wait_for(lambda: "This is a recording" in banner(bench))
    bench.stage.stop.click()
    wait_for(lambda: not words(bench))
    assert stage.on_stage(folder) is None
    # The shelf of whoever shows has the run itself, and not its copy besides.
    assert not any(entry.staged for entry in bench.catalogue.entries())


def test_nobody_else_shows(run: RunStore, folder: Path, page: Page, tmp_path: Path) -> None:
    with RunStore.create("mine", preset("byol"), tmp_path / "student") as mine:
        metrics(mine, 2)
    bench = page({"run": "mine"})
    assert bench.stage is not None
    wait_for(lambda: bench.shown == "mine")
    # The buttons are there for Python alone: a page that has their names says so over its socket.
    for button in (bench.stage.show, bench.stage.stop):
        button._handle_button_msg(button, {"event": "click"}, [])
        wait_for(lambda: "The instructor alone shows runs" in banner(bench))
        bench._complaint = ""
    assert list(folder.iterdir()) == []


def test_without_a_stage_there_is_nothing_of_it(tmp_path: Path) -> None:
    bench = Bench(results=tmp_path, house=House())
    try:
        assert bench.stage is None
        assert not bench.catalogue.follows
    finally:
        bench.close()


def test_the_house_says_where_the_stage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(stage="/srv/stage", instructor=True, follow=True)
    for name, value in house.environment().items():
        monkeypatch.setenv(name, value)
    assert House.here() == house
