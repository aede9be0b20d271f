"""The front page: what it lists, what it says of it, and what it does with what strangers have put there."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from benchmarks.trust.client import alone
from lab import gallery as gallery_module
from lab import sketch
from lab.catalogue import Entry, recordings
from lab.gallery import FILM, RUNS, Gallery, ago, names
from lab.serve import TEMPLATES, _front, notebooks_dir
from ssl_lab import RunStore, preset
from ssl_lab.errors import SSLLabError
from ssl_lab.store import Metrics
from tests.lab.class_room import make_run
from tests.lab.test_gate import TOKEN, _Built, ask, behind_gate

__all__ = ["behind_gate"]


def notebook(path: Path, **metadata: object) -> None:
    path.write_text(json.dumps({"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def quick_run(folder: Path, name: str, created: float | None = None) -> None:
    """A run that is done, without a step having been computed."""
    with RunStore.create(name, preset("directpred"), folder) as store:
        store.add_metrics(Metrics(i, i / 10, 1 / i, 0.0) for i in range(1, 5))
        store.add_evaluation(4, "knn", 0.5)
        store.set_status(state="done", step=4)
        if created is not None:
            store.set_meta("created", created)


def copies(folder: Path, name: str, count: int) -> None:
    """Further runs as copies of one, each a second younger."""
    for number in range(count):
        copy = folder / f"run-{number}"
        copy.mkdir()
        shutil.copy(folder / name / "run.sqlite", copy / "run.sqlite")
        with contextlib.closing(sqlite3.connect(copy / "run.sqlite", isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("UPDATE meta SET value = ? WHERE key = 'created'", (str(1_000_000.0 + number),))


def shown(body: str, section: str) -> list[str]:
    """The texts of the entries of a section."""
    part = body.partition(f'id="{section}"')[2].partition("</section>")[0]
    entries = re.findall(r"<li>(.*?)</li>", part, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", entry)).split()) for entry in entries]


def test_a_card_for_each_notebook_with_what_it_says_of_itself_or_its_name(tmp_path: Path) -> None:
    notebook(tmp_path / "01-bench.ipynb", ssl_lab={"title": "The bench", "line": "Turn a knob.", "picture": "bench"})
    notebook(tmp_path / "my_own-study.ipynb")
    notebook(tmp_path / "titled.ipynb", title="Some title · ssl-lab")
    notebook(tmp_path / "odd.ipynb", ssl_lab={"title": 7, "line": ["x"], "picture": "../../../etc/passwd"})
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "deep.ipynb").write_text('{"metadata":' * 2000)
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")
    shelf = Gallery(tmp_path, tmp_path / "results")
    cards = {card.name: card for card in shelf.cards()}
    assert {name: card.title for name, card in cards.items()} == {
        "01-bench.ipynb": "The bench", "broken.ipynb": "Broken", "deep.ipynb": "Deep", "my_own-study.ipynb":
        "My own study", "odd.ipynb": "Odd", "titled.ipynb": "Some title",
    }  # fmt: skip
    assert cards["01-bench.ipynb"].line == "Turn a knob."
    assert cards["odd.ipynb"].line == ""
    assert "aria-label" in cards["01-bench.ipynb"].picture
    assert cards["odd.ipynb"].picture == cards["broken.ipynb"].picture == sketch.plain("x").svg
    # A change is seen, without a look at what has not changed.
    notebook(tmp_path / "my_own-study.ipynb", ssl_lab={"title": "Mine"})
    assert next(card.title for card in shelf.cards() if card.name.startswith("my")) == "Mine"


def test_a_picture_beside_the_notebook_is_shown_as_an_image_whose_scripts_do_not_run(tmp_path: Path) -> None:
    (tmp_path / "own.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    notebook(tmp_path / "own.ipynb", ssl_lab={"picture": "own.svg"})
    (tmp_path / "large.png").write_bytes(b"x" * 400_000)
    notebook(tmp_path / "large.ipynb", ssl_lab={"picture": "large.png"})
    # One would wait for ever on a pipe that nobody writes.
    os.mkfifo(tmp_path / "pipe.png")
    notebook(tmp_path / "pipe.ipynb", ssl_lab={"picture": "pipe.png"})
    shelf, found = Gallery(tmp_path, tmp_path), []
    reader = threading.Thread(target=lambda: found.extend(shelf.cards()), daemon=True)
    reader.start()
    reader.join(30)
    large, own, pipe = found
    assert own.picture.startswith('<img alt="" src="data:image/svg+xml;base64,')
    assert "script" not in own.picture
    assert large.picture == pipe.picture == sketch.plain("x").svg


def test_a_notebook_that_says_anything_of_itself_still_has_a_title() -> None:
    folder = TEMPLATES / "nbconvert" / "templates" / "ssl-lab"
    parent = jinja2.DictLoader({"voila/templates/lab/index.html.j2": "{{ nb.metadata.title }}"})
    loader = jinja2.ChoiceLoader([parent, jinja2.FileSystemLoader(folder)])
    page = jinja2.Environment(loader=loader, extensions=["jinja2.ext.do"], autoescape=True).get_template(
        "index.html.j2"
    )

    def title(said: object) -> str:
        return page.render(nb=SimpleNamespace(metadata={"ssl_lab": said}, cells=[]), page_config={})

    assert title({"title": "The bench"}) == "The bench · ssl-lab"
    assert [title(said) for said in ("words", ["x"], 7, None, {})] == ["ssl-lab"] * 5


def test_pictures_and_the_film_are_drawn_from_the_recording() -> None:
    shelf = Gallery(notebooks_dir(), Path("nowhere"))
    drawn = shelf.drawn()
    assert set(drawn) == set(sketch.BY_NUMBER)
    for picture in drawn.values():
        assert picture.words
        assert html.escape(picture.words, quote=True) in picture.svg
    film = shelf.film()
    assert film is not None
    (path,) = (path for path in recordings() if path.stem == FILM)
    with RunStore.open(path, readonly=True) as store:
        spectra = store.spectra()
    assert film["steps"] == [record.step for record in spectra]
    assert film["turns"] == [0, 300, 600]
    assert film["rules"] == ["DirectPred", "no predictor", "DirectPred"]
    values = spectra[40].spectrum.f_eigenvalues
    for height, value in zip(film["heights"][40], values, strict=True):
        assert 10 ** (5 * (height / 1000 - 1)) == pytest.approx(value / max(values), rel=0.01, abs=2e-5)
    before, gone, after = (film["heights"][film["steps"].index(step)][8] for step in (297, 594, 900))
    assert gone < before - 200, "what the caption says is what the film shows"
    assert gone < after - 100


def test_runs_are_listed_newest_first_and_recordings_after_them(tmp_path: Path) -> None:
    results = tmp_path / "results"
    make_run(results, "stepped", steps=12)
    quick_run(results, "oldest", created=999_999.0)
    copies(results, "oldest", RUNS + 3)
    runs = Gallery(tmp_path, results).runs()
    assert [line.key for line in runs.own] == ["stepped", *(f"run-{n}" for n in range(RUNS + 2, 3, -1))]
    assert runs.more == 5
    assert runs.own[0].step == 12
    assert "effective rank from" in runs.own[0].spark.lower()
    assert runs.own[1].spark == ""
    assert (runs.own[1].accuracy, runs.own[1].state) == ("50.0 %", "done")
    assert {line.key for line in runs.recorded} == {f"recording: {path.stem}" for path in recordings()}
    assert all(line.spark and not line.state for line in runs.recorded)


def test_what_cannot_be_read_does_not_break_the_page(
    tmp_path: Path, behind_gate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    monkeypatch.setenv("SSL_LAB_RESULTS", str(results))
    quick_run(results, "whole")
    quick_run(results, "bent")
    for name, content in (("empty", b""), ("noise", b"\x00\xff" * 4000), ("words", b"SQLite format 3\0" + b"x" * 5000)):
        (results / name).mkdir(parents=True)
        (results / name / "run.sqlite").write_bytes(content)
    (results / "folder" / "run.sqlite").mkdir(parents=True)
    (results / "gone").mkdir()
    (results / "gone" / "run.sqlite").symlink_to("nowhere")
    with sqlite3.connect(results / "bent" / "run.sqlite") as db:
        db.execute("UPDATE meta SET value = '1e999' WHERE key = 'created'")

    async def use(_app: _Built, port: int) -> None:
        answer = await ask(port, "/")
        assert answer.status == 200
        assert [text.split()[0] for text in shown(answer.body, "runs")] == ["whole"]
        assert len(shown(answer.body, "recordings")) == len(recordings())

    behind_gate(use, front=None)


def test_a_run_that_cannot_be_listed_keeps_no_other_one_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "odd"):
        quick_run(tmp_path / "results", name)
    usual = Gallery._line

    def line(shelf: Gallery, entry: Entry, now: float) -> gallery_module.Line:
        if entry.key == "odd":
            raise ValueError("of another kind")
        return usual(shelf, entry, now)

    monkeypatch.setattr(Gallery, "_line", line)
    shelf = Gallery(tmp_path, tmp_path / "results")
    found = shelf.runs()
    assert ([run.key for run in found.own], found.more, len(found.recorded)) == (["whole"], 0, len(recordings()))

    def broken() -> gallery_module.Runs:
        raise RuntimeError("a mistake of ours")

    async def go() -> None:
        assert [run.key for run in (await shelf.page())["runs"].own] == ["whole"]
        monkeypatch.setattr(shelf, "runs", broken)
        await shelf._look_again()
        assert [run.key for run in shelf._runs.own] == ["whole"], "what was found before is still shown"

    alone(go)
    shelf.close()


def test_names_and_titles_are_words_and_no_markup(
    tmp_path: Path, behind_gate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "<script>alert(1)</script>\"'&"
    results = tmp_path / "results"
    monkeypatch.setenv("SSL_LAB_RESULTS", str(results))
    quick_run(results, "honest")
    # As a folder that somebody has copied here may be called.
    (results / "honest").rename(results / "<b>x&y")

    async def use(app: _Built, port: int) -> None:
        folder = Path(app.root_dir)
        notebook(folder / "a<img src=x onerror=alert(1)>.ipynb", ssl_lab={"title": evil, "line": evil})
        page = await ask(port, "/?theme=%22%3E%3Cscript%3E&voila-theme=dark")
        assert page.status == 200
        assert "<script>alert" not in page.body
        assert "<img src=x" not in page.body
        assert "<b>x" not in page.body
        assert '"><script>' not in page.body
        assert any(evil in text for text in shown(page.body, "notebooks"))
        assert [text.split()[0] for text in shown(page.body, "runs")] == ["<b>x&y"]
        assert 'href="/?run=%3Cb%3Ex%26y&amp;theme=' in page.body, "the theme goes along"

    behind_gate(use, front=None)


def test_words_of_the_bench_lead_to_the_bench(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, port: int) -> None:
        for query in (
            "run=a%20b&step=3&key=k", "preset=byol", "knobs=lr=0.1", "step=7", "watch", "run=recording:%20x",
            "dataset=digits&voila-theme=dark", "seed=3", "compare=a,b",
        ):  # fmt: skip
            answer = await ask(port, f"/?{query}")
            assert (answer.status, answer.headers["location"]) == (302, f"/voila/render/01-bench.ipynb?{query}")
        for query in ("", "?key=secret", "?voila-theme=dark", "?nothing=1"):
            answer = await ask(port, f"/{query}")
            assert answer.status == 200
            assert "secret" not in answer.body, "who the host is stands in no page"
        # Without a bench there is nowhere to lead to.
        (Path(app.root_dir) / "01-bench.ipynb").rename(Path(app.root_dir) / "other.ipynb")
        answer = await ask(port, "/?run=x")
        assert answer.status == 200
        assert shown(answer.body, "runs") == []
        assert app.kernel_manager.list_kernel_ids() == [], "nobody needed a kernel"

    behind_gate(use, front=None)


def test_one_notebook_can_be_the_front(tmp_path: Path, behind_gate: Callable[..., None]) -> None:
    assert _front(notebooks_dir().resolve(), None) is None
    notebook(tmp_path / "only.ipynb")
    assert _front(tmp_path, None) == "only.ipynb"
    notebook(tmp_path / "two.ipynb")
    assert _front(tmp_path, None) is None
    assert _front(tmp_path, "two.ipynb") == "two.ipynb"
    with pytest.raises(SSLLabError, match=r"no notebook 'x.ipynb' .* there are: only.ipynb, two.ipynb"):
        _front(tmp_path, "x.ipynb")

    async def use(_app: _Built, port: int) -> None:
        answer = await ask(port, "/?theme=dark")
        assert answer.headers["location"] == "/voila/render/01-bench.ipynb?theme=dark"

    behind_gate(use, front="01-bench.ipynb")


def test_the_front_page_is_behind_the_gate(
    tmp_path: Path, behind_gate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_LAB_RESULTS", str(tmp_path / "results"))
    quick_run(tmp_path / "results", "somebodys")

    async def use(_app: _Built, port: int) -> None:
        refused = await ask(port, "/")
        assert refused.status == 403
        assert "somebodys" not in refused.body
        let_in = await ask(port, f"/?token={TOKEN}")
        assert (let_in.status, let_in.headers["location"]) == (302, "/")
        page = await ask(port, "/", f"Cookie: {let_in.headers['set-cookie'].partition(';')[0]}")
        assert page.status == 200
        assert "somebodys" in page.body, "as on the shelf, every run is there to be looked at"
        assert TOKEN not in page.body

    behind_gate(use, front=None, token=TOKEN)


def test_a_slow_disk_holds_up_neither_the_page_nor_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_module, "PATIENCE", 0.1)
    monkeypatch.setattr(gallery_module, "FRESH", 0.0)
    shelf = Gallery(tmp_path, tmp_path / "results")
    quick_run(tmp_path / "results", "a-run")
    looks = []
    usual, disk = shelf.runs, threading.Event()

    def slowly() -> gallery_module.Runs:
        looks.append(1)
        disk.wait(60)
        return usual()

    monkeypatch.setattr(shelf, "runs", slowly)

    async def go() -> None:
        pages = await asyncio.gather(*(shelf.page() for _ in range(20)))
        assert all(page["runs"].looked is False for page in pages), "they say so, and do not wait"
        assert len(looks) == 1, "one look for all"
        disk.set()
        async with asyncio.timeout(30):
            while not (await shelf.page())["runs"].own:
                await asyncio.sleep(0.05)

    alone(go)
    shelf.close()


def test_hundreds_of_runs_cost_a_look_at_their_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    quick_run(results, "one")
    copies(results, "one", 200)
    shelf = Gallery(tmp_path, results)
    first = shelf.runs()
    opened = []
    usual = RunStore.open

    def count(*words: object, **named: object) -> RunStore:
        opened.append(words)
        return usual(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(RunStore, "open", count)
    again = shelf.runs()
    assert [line.key for line in again.own] == [line.key for line in first.own]
    assert opened == [], "what has not changed is not opened again"


def test_words_for_the_time() -> None:
    assert ago(float("inf")) == ago(float("nan")) == "just now"
    assert ago(86_400) == "1 day ago"
    assert names(notebooks_dir())[0] == "01-bench.ipynb"
