"""``Files``: files out of the page and into it, in pieces, because a server drops what is large or comes too fast.

jupyter_server takes messages of at most 10 MB, and a JupyterLab as it comes lets 1 MB a second out of a kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.buttons import ACCENT, script, shared_css

log = logging.getLogger(__name__)

PIECE = 256 * 1024
"""Bytes of a piece on its way out."""

LARGEST_PIECE_IN = 1024 * 1024
"""Most bytes of a piece on its way in; the page sends half of it."""

SAY_AGAIN = 5.0
"""Seconds after which an offer that no page has answered is made again: it may not have been there yet."""

OFFER_ENDS = 300.0
"""Seconds without a word of the page after which an offer is taken back; a hidden tab speaks once a minute."""

DROP_ENDS = 60.0
"""Seconds without a piece after which a file on its way in is given up, so that the next may come."""

BURST = 0.25
"""Seconds' worth of bytes that may go out at once: the publisher comes by a few times a second only."""

LARGEST_IN = 500_000_000
"""Bytes of the largest file that is taken in, and of all that a page may have lying here."""

MOST_IN = 20
"""Files that a page may have lying here."""

MOST_OFFERED = 8
"""Files that may wait for the page to fetch them."""

MOST_WAITING = 256
"""Messages that wait for the next pump; a page that is well sends far fewer, and any further are dropped."""

_CSS = f"""{shared_css("ssl-files")}
.ssl-files {{ display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; padding: 4px 0; }}
.ssl-files .ssl-open-file {{ flex: none; }}
.ssl-files .ssl-progress {{ color: var(--jp-ui-font-color2, #616161); font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; min-width: 0; }}
.ssl-files .ssl-refusal {{ flex: 1 1 240px; border-left: 4px solid #d55e00; padding: 4px 10px; overflow-wrap: anywhere;
  background: color-mix(in srgb, #d55e00 12%, transparent); }}
.ssl-files :is(.ssl-progress, .ssl-refusal):empty {{ display: none; }}
.ssl-drop-here {{ position: fixed; z-index: 9999; pointer-events: none; display: flex; align-items: center;
  justify-content: center; padding: 16px; text-align: center; border: 3px dashed {ACCENT}; border-radius: 12px;
  font: 600 20px/1.3 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--jp-ui-font-color1, #222);
  background: color-mix(in srgb, {ACCENT} 14%, color-mix(in srgb, var(--jp-layout-color1, #fff) 88%, transparent)); }}
"""


@dataclass(frozen=True)
class _Offer:
    """A file that the page is to save."""

    number: int
    name: str
    mime: str
    path: Path
    size: int
    remove: bool


@dataclass
class _Sending:
    """How far an offer has come."""

    offer: _Offer
    said: float
    heard: float
    answered: bool = False
    furthest: int = 0


@dataclass
class _Drop:
    """A file on its way in."""

    number: int
    name: str
    size: int
    path: Path
    heard: float
    have: int = 0


def _whole(value: object) -> int | None:
    """A whole number that is not negative, as a page's message may hold one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


class Files(anywidget.AnyWidget):
    """Saves files in the browser of the page, and takes files that a person drops on it or opens.

    Has no thread: messages of the page wait until ``pump()`` is called, which does all sending and all writing. Set
    ``poke`` to hear when there is something to do, ``dropped`` to get what has come in, ``rate`` to the bytes a second
    that the server lets out.

    Under Voila a file may be dropped anywhere on the page; elsewhere on the enclosing element of class ``ssl-bench``.
    """

    _esm: ClassVar[Any] = script("files.js")
    _css: ClassVar[Any] = _CSS

    progress: Any = t.Unicode("", help='What is on its way: "Saving run.csv… 45 %", or nothing.').tag(sync=True)

    most_bytes: Any = t.Int(LARGEST_IN, help="Largest file that is taken in, as the page is told.").tag(sync=True)

    def __init__(self, *, limit: int = LARGEST_IN, **traits: Any) -> None:
        super().__init__(most_bytes=limit, **traits)
        # What counts; the trait is the page's word.
        self._limit = limit
        self.rate: float = 600_000
        self.clock: Callable[[], float] = time.monotonic
        self.poke: Callable[[], None] = lambda: None
        self.dropped: Callable[[Path, str], None] = lambda path, _name: path.unlink(missing_ok=True)
        """Called by ``pump`` with a file that has come in whole and the name it had. The file lies in a folder that
        ``close`` removes: move it to keep it."""
        self._pumping = threading.RLock()
        self._numbers = itertools.count(1)
        self._offered: deque[_Offer] = deque()
        self._messages: queue.Queue[tuple[Mapping[str, Any], list[bytes]]] = queue.Queue(MOST_WAITING)
        self._sending: dict[int, _Sending] = {}
        self._wanted: dict[tuple[int, int], None] = {}
        self._drop: _Drop | None = None
        self._folder: Path | None = None
        self._closed = False
        self._allowed = float(PIECE)
        self._counted: float | None = None
        self.on_msg(self._on_message)

    # ------------------------------------------------------------ from any thread

    def room_to_offer(self) -> bool:
        """Whether the page has fetched enough of what it was offered to be offered more."""
        return len(self._offered) + len(self._sending) < MOST_OFFERED

    def offer(self, name: str, mime: str, path: Path, *, remove: bool = True) -> None:
        """Has the page's browser save a file under ``name``; ``remove`` deletes it once that is done or given up."""
        size = path.stat().st_size
        self._offered.append(_Offer(next(self._numbers), name, mime, path, size, remove))
        self.poke()

    def _on_message(self, _widget: Any, content: Any, buffers: Any) -> None:
        # A page's message may be anything; what it means is looked at by pump.
        if not isinstance(content, dict) or not {"want", "done", "drop"} & content.keys():
            return
        if buffers is not None and not isinstance(buffers, Sequence):
            return
        try:
            pieces = [bytes(memoryview(buffer)) for buffer in buffers or ()]
            self._messages.put_nowait((content, pieces))
        except (TypeError, ValueError, queue.Full):
            return
        self.poke()

    def close(self) -> None:
        """Takes back all offers, removes all temporary files and frees the widget."""
        with self._pumping:
            self._closed = True
            for offer in [*self._offered, *(sending.offer for sending in self._sending.values())]:
                self._discard(offer)
            self._offered.clear()
            self._sending.clear()
            self._wanted.clear()
            self._drop = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
        super().close()

    # ------------------------------------------------------------ what the publisher calls

    def pump(self) -> float | None:
        """Does what there is to do; gives the seconds until it wants to be called again, or None: when poked."""
        with self._pumping:
            if self._closed:
                return None
            now = self.clock()
            self._make_offers(now)
            self._read_messages(now)
            self._give_up(now)
            wait = self._send_pieces(now)
            self._show_progress()
            if wait is None and (self._sending or self._drop):
                wait = SAY_AGAIN
            return wait

    def _make_offers(self, now: float) -> None:
        while self._offered:
            offer = self._offered.popleft()
            self._sending[offer.number] = _Sending(offer, said=now, heard=now)
            self._say_offer(offer)
        for sending in self._sending.values():
            if not sending.answered and now - sending.said >= SAY_AGAIN:
                sending.said = now
                self._say_offer(sending.offer)

    def _say_offer(self, offer: _Offer) -> None:
        self.send({"offer": offer.number, "name": offer.name, "mime": offer.mime, "size": offer.size})

    def _read_messages(self, now: float) -> None:
        while True:
            try:
                content, pieces = self._messages.get_nowait()
            except queue.Empty:
                return
            if (number := _whole(content.get("want"))) is not None:
                self._on_want(number, _whole(content.get("at")), now)
            elif (number := _whole(content.get("done"))) is not None:
                self._end_offer(number)
            elif (number := _whole(content.get("drop"))) is not None:
                self._on_drop(number, content, pieces, now)

    def _give_up(self, now: float) -> None:
        for number, sending in list(self._sending.items()):
            if now - sending.heard >= OFFER_ENDS:
                self._end_offer(number)
        if self._drop is not None and now - self._drop.heard >= DROP_ENDS:
            self._end_drop("It has stopped coming in.")

    # ------------------------------------------------------------ out

    def _on_want(self, number: int, at: int | None, now: float) -> None:
        sending = self._sending.get(number)
        if sending is None or at is None or at % PIECE or (at and at >= sending.offer.size):
            return
        sending.heard, sending.answered = now, True
        # A page that asks again for a piece that still waits gets it once.
        self._wanted.setdefault((number, at))

    def _send_pieces(self, now: float) -> float | None:
        if self._counted is not None:
            most = max(float(PIECE), BURST * self.rate)
            self._allowed = min(most, self._allowed + max(0.0, now - self._counted) * self.rate)
        self._counted = now
        while self._wanted:
            number, at = next(iter(self._wanted))
            sending = self._sending[number]
            size = min(PIECE, sending.offer.size - at)
            if size > self._allowed:
                # Never a wait so short that a clock would not notice it.
                return max(0.005, (size - self._allowed) / self.rate)
            del self._wanted[number, at]
            try:
                with sending.offer.path.open("rb") as file:
                    file.seek(at)
                    piece = file.read(size)
            except OSError:
                piece = b""
            if len(piece) != size:
                # The file is no longer what was offered.
                self.send({"gone": number})
                self._end_offer(number)
                continue
            self._allowed -= size
            sending.furthest = max(sending.furthest, at + size)
            self.send({"piece": number, "at": at}, buffers=[piece])
        return None

    def _end_offer(self, number: int) -> None:
        sending = self._sending.pop(number, None)
        if sending is None:
            return
        for key in [key for key in self._wanted if key[0] == number]:
            del self._wanted[key]
        self._discard(sending.offer)

    @staticmethod
    def _discard(offer: _Offer) -> None:
        if offer.remove:
            with contextlib.suppress(OSError):
                offer.path.unlink(missing_ok=True)

    # ------------------------------------------------------------ in

    def _on_drop(self, number: int, content: Mapping[str, Any], pieces: list[bytes], now: float) -> None:
        if "size" in content:
            self._begin_drop(number, content, now)
        elif self._drop is not None and self._drop.number == number:
            self._take_piece(self._drop, content, pieces, now)

    def _begin_drop(self, number: int, content: Mapping[str, Any], now: float) -> None:
        name, size = content.get("name"), _whole(content.get("size"))
        if self._drop is not None:
            if self._drop.number == number:
                self._end_drop("It was announced twice.")
            else:
                self._refuse(number, "Another file is still coming in.")
            return
        if not isinstance(name, str) or not size:
            self._refuse(number, "There is nothing in it.")
        elif size > self._limit:
            self._refuse(number, f"It is too large: at most {self._limit / 1e6:,.0f} MB are taken.")
        elif not self._room_for(size):
            self._refuse(number, "This page holds as much as it may already. Reload it to let go of what was dropped.")
        else:
            plain = "".join(c for c in name.replace("\\", "/").rsplit("/", 1)[-1] if c.isprintable())[-200:]
            try:
                if self._folder is None:
                    self._folder = Path(tempfile.mkdtemp(prefix="ssl-lab-"))
                    # A page's kernel may end without a word.
                    weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
                path = Path(tempfile.mkdtemp(dir=self._folder)) / "dropped.sqlite"
                path.touch()
            except OSError as error:
                self._refuse(number, f"It could not be written: {error.strerror}.")
                return
            self._drop = _Drop(number, plain or "dropped.sqlite", size, path, now)
            self.send({"got": number, "at": 0})

    def _room_for(self, size: int) -> bool:
        lying = [path.stat().st_size for path in self._folder.glob("*/*")] if self._folder is not None else []
        return len(lying) < MOST_IN and sum(lying) + size <= self._limit

    def _take_piece(self, drop: _Drop, content: Mapping[str, Any], pieces: list[bytes], now: float) -> None:
        at = _whole(content.get("at"))
        if at is None or len(pieces) != 1 or not 0 < len(pieces[0]) <= LARGEST_PIECE_IN:
            self._end_drop("A piece of it was not as it should be.")
        elif at != drop.have or at + len(pieces[0]) > drop.size:
            self._end_drop("A piece of it did not fit.")
        else:
            try:
                with drop.path.open("ab") as file:
                    file.write(pieces[0])
            except OSError as error:
                self._end_drop(f"It could not be written: {error.strerror}.")
                return
            drop.have += len(pieces[0])
            drop.heard = now
            self.send({"got": drop.number, "at": drop.have})
            if drop.have == drop.size:
                self._drop = None
                try:
                    self.dropped(drop.path, drop.name)
                except Exception:
                    # The next file may be a better one; what is wrong stands in the kernel's log.
                    log.exception("A file that came in could not be used")
                    drop.path.unlink(missing_ok=True)

    def _refuse(self, number: int, why: str) -> None:
        self.send({"refused": number, "why": why})

    def _end_drop(self, why: str) -> None:
        drop, self._drop = self._drop, None
        if drop is not None:
            self._refuse(drop.number, why)
            shutil.rmtree(drop.path.parent, ignore_errors=True)

    # ------------------------------------------------------------ the line that says so

    def _show_progress(self) -> None:
        lines = []
        for sending in self._sending.values():
            if sending.answered:
                share = sending.furthest / max(1, sending.offer.size)
                lines.append(f"Saving {sending.offer.name}… {100 * share:.0f} %")
        if self._drop is not None:
            lines.append(f"Reading {self._drop.name}… {100 * self._drop.have / self._drop.size:.0f} %")
        text = " · ".join(lines)
        if self.progress != text:
            self.progress = text
