"""The timeline, the shelf and the files in process: what their messages mean, and that none of them does harm."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.files import DROP_ENDS, MOST_WAITING, OFFER_ENDS, PIECE, SAY_AGAIN, Files
from lab.shelf import Shelf
from lab.timeline import Timeline


class Page:
    """The page's side of ``Files``, with a clock that is turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = Files()
        self.now = 0.0
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        self.came: list[tuple[bytes, str]] = []
        self.pokes = 0
        self.files.clock = lambda: self.now
        self.files.poke = self.poke
        self.files.dropped = self.dropped
        monkeypatch.setattr(self.files, "send", self.send)

    def poke(self) -> None:
        self.pokes += 1

    def dropped(self, path: Path, name: str) -> None:
        self.came.append((path.read_bytes(), name))

    def send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.sent.append((content, list(buffers or ())))

    def say(self, content: Any, buffers: Any = ()) -> None:
        self.files._handle_custom_msg(content, buffers)

    def heard(self) -> list[tuple[dict[str, Any], list[bytes]]]:
        """What was sent since it was last asked."""
        heard, self.sent = self.sent, []
        return heard

    def pumped(self, content: Any, buffers: Any = ()) -> list[dict[str, Any]]:
        self.say(content, buffers)
        self.files.pump()
        return [content for content, _ in self.heard()]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


@pytest.fixture
def offered(page: Page, tmp_path: Path) -> Callable[..., Path]:
    def offer(size: int, **how: Any) -> Path:
        path = tmp_path / "run.csv"
        path.write_bytes(bytes(i % 251 for i in range(size)))
        page.files.offer("run.csv", "text/csv", path, **how)
        return path

    return offer


# ---------------------------------------------------------------- out


def test_a_file_goes_out_in_pieces_no_faster_than_the_server_lets_it(page: Page, offered: Callable[..., Path]) -> None:
    path = offered(5 * PIECE + 100)
    data = path.read_bytes()
    assert page.pokes == 1
    assert page.files.pump() == SAY_AGAIN
    assert page.heard() == [({"offer": 1, "name": "run.csv", "mime": "text/csv", "size": len(data)}, [])]

    for at in range(0, len(data), PIECE):
        page.say({"want": 1, "at": at})
    page.say({"want": 1, "at": 2 * PIECE})
    assert page.pokes == 8
    got: dict[int, bytes] = {}
    log: list[tuple[float, int]] = []
    while len(got) < 6:
        wait = page.files.pump()
        for content, buffers in page.heard():
            assert content["piece"] == 1
            assert content["at"] not in got
            got[content["at"]] = buffers[0]
            log.append((page.now, len(buffers[0])))
        assert re.fullmatch(r"Saving run\.csv… \d+ %", page.files.progress)
        # With nothing left to send, it only looks in now and then.
        page.now += (wait or 0.0) if len(got) < 6 else 0.0
    assert b"".join(got[at] for at in sorted(got)) == data
    assert page.now == pytest.approx((len(data) - PIECE) / 600_000, abs=0.05)
    # A piece that has been saved up is all that may come on top.
    for begin, _ in log:
        assert sum(size for when, size in log if begin <= when < begin + 1.0) <= 600_000 + PIECE

    page.say({"done": 1})
    assert page.files.pump() is None
    assert page.files.progress == ""
    assert not path.exists()


def test_a_fast_server_gets_several_pieces_at_once(page: Page, offered: Callable[..., Path]) -> None:
    page.files.rate = 8_000_000
    offered(9 * PIECE)
    page.files.pump()
    page.now = 1.0
    for at in range(0, 8 * PIECE, PIECE):
        page.say({"want": 1, "at": at})
    page.files.pump()
    assert len([1 for content, _ in page.heard() if "piece" in content]) == 7


def test_a_piece_that_was_lost_is_sent_again(page: Page, offered: Callable[..., Path]) -> None:
    offered(100)
    page.files.pump()
    page.heard()
    assert page.pumped({"want": 1, "at": 0}) == [{"piece": 1, "at": 0}]
    assert page.pumped({"want": 1, "at": 0}) == [{"piece": 1, "at": 0}]


def test_an_offer_is_repeated_until_it_is_answered_and_taken_back_in_the_end(
    page: Page, offered: Callable[..., Path]
) -> None:
    path = offered(100)
    page.files.pump()
    page.now += SAY_AGAIN
    page.files.pump()
    assert [content.get("offer") for content, _ in page.heard()] == [1, 1]
    page.pumped({"want": 1, "at": 0})
    page.now += SAY_AGAIN
    page.files.pump()
    assert page.heard() == []
    page.now += OFFER_ENDS
    page.files.pump()
    assert not path.exists()
    assert page.files.progress == ""


def test_a_file_that_is_gone_is_said_to_be(page: Page, offered: Callable[..., Path]) -> None:
    path = offered(100)
    page.files.pump()
    page.heard()
    path.write_bytes(b"short")
    assert page.pumped({"want": 1, "at": 0}) == [{"gone": 1}]
    assert page.pumped({"want": 1, "at": 0}) == []


def test_a_file_that_shall_stay_stays(page: Page, offered: Callable[..., Path]) -> None:
    path = offered(100, remove=False)
    page.files.pump()
    page.pumped({"done": 1})
    page.files.close()
    assert path.exists()


# ---------------------------------------------------------------- in


def test_a_file_comes_in_piece_by_piece(page: Page) -> None:
    assert page.pumped({"drop": 7, "name": "C:\\runs\\my run.sqlite\n", "size": 10}) == [{"got": 7, "at": 0}]
    assert page.pumped({"drop": 7, "at": 0}, [memoryview(b"abcdef")]) == [{"got": 7, "at": 6}]
    assert page.files.progress == "Reading my run.sqlite… 60 %"
    assert page.pumped({"drop": 7, "at": 6}, [memoryview(b"ghij")]) == [{"got": 7, "at": 10}]
    assert page.came == [(b"abcdefghij", "my run.sqlite")]
    assert page.files.progress == ""
    # It lies there until the widget is closed.
    folder = page.files._folder
    assert folder is not None
    assert len(list(folder.glob("*/*"))) == 1
    page.files.close()
    assert not folder.exists()


@pytest.mark.parametrize("size", [0, -1, 500_000_001, 1.5, True, "9", None])
def test_a_file_of_such_a_size_is_refused(page: Page, size: Any) -> None:
    (answer,) = page.pumped({"drop": 7, "name": "run.sqlite", "size": size})
    assert answer["refused"] == 7
    assert answer["why"]
    assert page.pumped({"drop": 7, "at": 0}, [b"abc"]) == []
    assert page.files._folder is None


@pytest.mark.parametrize(
    ("at", "buffers"),
    [(0, [b"x" * 11]), (1, [b"x"]), (-1, [b"x"]), ("0", [b"x"]), (0, []), (0, [b""]), (0, [b"x", b"y"])],
)
def test_a_piece_that_does_not_fit_ends_the_file(page: Page, at: Any, buffers: list[bytes]) -> None:
    page.pumped({"drop": 7, "name": "run.sqlite", "size": 10})
    (answer,) = page.pumped({"drop": 7, "at": at}, buffers)
    assert answer["refused"] == 7
    assert page.files._folder is not None
    assert list(page.files._folder.iterdir()) == []
    assert page.pumped({"drop": 7, "at": 0}, [b"x" * 10]) == []
    assert page.came == []
    assert page.files.progress == ""
    # The next one may come.
    assert page.pumped({"drop": 8, "name": "run.sqlite", "size": 10}) == [{"got": 8, "at": 0}]
    page.files.close()


def test_one_file_at_a_time_and_one_that_stops_makes_way(page: Page) -> None:
    page.pumped({"drop": 7, "name": "first", "size": 10})
    (answer,) = page.pumped({"drop": 8, "name": "second", "size": 10})
    assert answer["refused"] == 8
    assert page.pumped({"drop": 7, "at": 0}, [b"abc"]) == [{"got": 7, "at": 3}]
    page.now += DROP_ENDS
    page.files.pump()
    assert [content["refused"] for content, _ in page.heard()] == [7]
    assert page.pumped({"drop": 9, "name": "third", "size": 1}) == [{"got": 9, "at": 0}]
    page.files.close()


def test_a_file_that_cannot_be_used_does_not_end_the_pump(page: Page) -> None:
    def fail(_path: Path, _name: str) -> None:
        raise RuntimeError("no run")

    page.files.dropped = fail
    page.pumped({"drop": 7, "name": "run", "size": 1})
    assert page.pumped({"drop": 7, "at": 0}, [b"a"]) == [{"got": 7, "at": 1}]
    assert page.files._folder is not None
    assert list(page.files._folder.glob("*/*")) == []
    page.files.close()


def test_unless_somebody_wants_it_what_came_in_is_removed(page: Page) -> None:
    page.files.dropped = Files().dropped
    page.pumped({"drop": 7, "name": "run", "size": 1})
    page.pumped({"drop": 7, "at": 0}, [b"a"])
    assert page.files._folder is not None
    assert list(page.files._folder.glob("*/*")) == []
    page.files.close()


# ---------------------------------------------------------------- garbage

GARBAGE: list[Any] = [
    None, 3, "want", [], {}, {"other": 1}, {"want": None}, {"want": "1", "at": 0}, {"want": 1},
    {"want": 1, "at": -PIECE}, {"want": 1, "at": 7}, {"want": 1, "at": PIECE}, {"want": 1, "at": True},
    {"want": 99, "at": 0}, {"want": [1], "at": 0}, {"want": 1.0, "at": 0.0}, {"done": "1"}, {"done": {}},
    {"done": 99}, {"drop": None}, {"drop": []}, {"drop": 99, "at": 0}, {"drop": -1, "size": 3, "name": "x"},
    {"drop": 10**40, "size": 3, "name": "x"}, {"want": {}, "done": [], "drop": ""},
]  # fmt: skip


@pytest.mark.parametrize("content", GARBAGE, ids=repr)
@pytest.mark.parametrize("buffers", [(), None, 5, "text", [5], [b"x"]], ids=repr)
def test_garbage_is_passed_over(page: Page, offered: Callable[..., Path], content: Any, buffers: Any) -> None:
    path = offered(100)
    page.files.pump()
    page.heard()
    assert page.pumped(content, buffers) == []
    assert path.exists()
    assert page.files._folder is None
    assert page.files.progress == ""


def test_a_flood_does_not_fill_the_memory(page: Page) -> None:
    for _ in range(4 * MOST_WAITING):
        page.say({"drop": 7, "at": 0}, [b"x" * 1000])
    assert page.files._messages.qsize() == MOST_WAITING
    assert page.pokes == MOST_WAITING
    page.files.pump()
    assert page.files._messages.empty()


def test_closing_takes_everything_back(page: Page, offered: Callable[..., Path]) -> None:
    path = offered(100)
    page.files.pump()
    page.pumped({"drop": 7, "name": "run", "size": 10})
    folder = page.files._folder
    page.files.close()
    assert not path.exists()
    assert folder is not None
    assert not folder.exists()
    page.heard()
    page.say({"want": 1, "at": 0})
    assert page.files.pump() is None
    assert page.heard() == []


# ---------------------------------------------------------------- what the page may write


def test_what_the_page_writes_is_not_echoed() -> None:
    timeline, shelf = Timeline(), Shelf()
    assert timeline.step == -1
    for widget, own in ((timeline, {"step"}), (shelf, {"ticked"})):
        quiet = {name for name, trait in widget.traits(sync=True).items() if trait.metadata.get("echo_update") is False}
        assert quiet == own
    timeline.close()
    shelf.close()


def test_colours_are_the_theme_s() -> None:
    allowed = {"#2a8fd4", "#d55e00"}
    for kind in (Timeline, Shelf, Files):
        # A colour of its own is only what a theme does not define, or one of a pair for light and dark.
        css = re.sub(r"var\([^()]*\)|light-dark\([^()]*\)", "", kind._css)
        assert set(re.findall(r"#[0-9a-f]{3,6}\b", css)) <= allowed
