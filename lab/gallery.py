"""``Gallery``: what the front page shows, read from files and without a kernel: notebooks, recent runs, recordings."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from lab import sketch
from lab.catalogue import Catalogue, Entry, recordings
from ssl_lab.errors import SSLLabError
from ssl_lab.stage import Audience
from ssl_lab.store import RunStore, SpectrumRecord

log = logging.getLogger(__name__)

RUNS = 12
"""Most runs of one's own on the page: the newest."""

FRESH = 2.0
"""Seconds for which a look at the runs is good enough for the next page."""

PATIENCE = 1.5
"""Seconds that a page waits for a look that takes longer; then it shows the last one."""

LARGEST_NOTEBOOK = 4_000_000
LARGEST_PICTURE = 300_000
"""Bytes of a file beside the notebooks that is looked at."""

POINTS = 60
"""Points of a run's little curve."""

FILM = "collapse-and-return"
"""The recording that plays on the front page."""

_RULES = {"directpred": "DirectPred", "none": "no predictor"}
"""The film's rules, as its caption calls them."""

_PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}
_BROKEN = (SSLLabError, sqlite3.Error, ValueError, TypeError, OSError, ArithmeticError, KeyError, IndexError)


@dataclass(frozen=True)
class Card:
    """A notebook on the front page."""

    name: str
    title: str
    line: str
    picture: str
    """Markup."""


@dataclass(frozen=True)
class Line:
    """A run on the front page."""

    key: str
    state: str
    step: int
    accuracy: str
    what: str
    when: str
    """In words, from now."""
    date: str
    """As a machine reads it."""
    spark: str
    """Markup; empty without a curve."""


@dataclass(frozen=True)
class Runs:
    """What a look at the folder of runs found."""

    own: list[Line] = field(default_factory=list)
    more: int = 0
    """Own runs that are not listed."""
    recorded: list[Line] = field(default_factory=list)
    staged: list[Line] = field(default_factory=list)
    """What the instructor shows."""
    looked: bool = False
    """Whether there was a look at all."""


class Gallery:
    """Reads what the front page shows; a page never waits long for it, whatever the folder holds.

    Args:
        notebooks: folder of the notebooks.
        results: folder of all runs.
        audience: looks at the stage on which an instructor shows runs, if there is one.
    """

    def __init__(self, notebooks: Path, results: Path, audience: Audience | None = None) -> None:
        self._notebooks = notebooks
        self._catalogue = Catalogue(results, audience)
        self._runs = Runs()
        self._seen = -math.inf
        self._look: asyncio.Task[None] | None = None
        self._sparks: dict[str, tuple[Any, str]] = {}
        self._cards: dict[str, tuple[Any, Card]] = {}
        self._drawn: dict[str, sketch.Picture] | None = None
        self._film: dict[str, Any] | None = None
        self._lock = threading.Lock()
        # One thread: neither a catalogue nor the disk is better off with two.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gallery")

    async def page(self) -> dict[str, Any]:
        """All that the template needs."""
        loop = asyncio.get_running_loop()
        if time.monotonic() - self._seen > FRESH and (self._look is None or self._look.done()):
            self._look = loop.create_task(self._look_again())
        if self._look is not None:
            await asyncio.wait([self._look], timeout=PATIENCE)
        cards, film = await loop.run_in_executor(None, lambda: (self.cards(), self.film()))
        return {"cards": cards, "film": film, "runs": self._runs}

    async def _look_again(self) -> None:
        try:
            self._runs = await asyncio.get_running_loop().run_in_executor(self._thread, self.runs)
        except Exception:
            # Pages show what was found before.
            log.exception("The runs cannot be listed")
        self._seen = time.monotonic()

    def close(self) -> None:
        """Ends its thread once the look that is under way is over."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ notebooks

    def cards(self) -> list[Card]:
        """A card for each notebook."""
        return [self._card(name) for name in names(self._notebooks)]

    def _card(self, name: str) -> Card:
        path = self._notebooks / name
        try:
            stamp = (path.stat().st_mtime_ns, path.stat().st_size)
        except OSError:
            stamp = (0, 0)
        known = self._cards.get(name)
        if known is None or known[0] != stamp:
            said = _said(path) if stamp[1] <= LARGEST_NOTEBOOK else {}
            title = _text(said.get("title"), 80) or _from_name(name)
            card = Card(name, title, _text(said.get("line"), 240), self._picture(name, _text(said.get("picture"), 80)))
            self._cards[name] = known = (stamp, card)
        return known[1]

    def _picture(self, name: str, wanted: str) -> str:
        beside = self._notebooks / Path(wanted).name
        kind = _PICTURES.get(beside.suffix.lower())
        try:
            file = beside.lstat()
            if wanted and kind and stat.S_ISREG(file.st_mode) and file.st_size <= LARGEST_PICTURE:
                # As an image: what a drawing may hold besides is not run.
                return f'<img alt="" src="data:{kind};base64,{base64.b64encode(beside.read_bytes()).decode()}">'
        except OSError:
            pass
        found = re.match(r"0?([1-7])\b", name)
        usual = sketch.BY_NUMBER[int(found[1]) - 1] if found else ""
        drawn = self.drawn()
        return (drawn.get(wanted) or drawn.get(usual) or sketch.plain(name)).svg

    def drawn(self) -> Mapping[str, sketch.Picture]:
        """The pictures of the lab's own notebooks, from its recordings."""
        with self._lock:
            if self._drawn is None:
                self._drawn = _draw()
            return self._drawn

    def film(self) -> dict[str, Any] | None:
        """The recording that plays on the page; None without it."""
        with self._lock:
            if self._film is None:
                self._film = _film() or {}
            return self._film or None

    # ------------------------------------------------------------ runs

    def runs(self) -> Runs:
        """A look at all runs; a file that cannot be read is left out."""
        entries = self._catalogue.entries()
        own = [entry for entry in entries if not entry.recording]
        now = time.time()
        listed = self._lines(own[:RUNS], now)
        recorded = self._lines([entry for entry in entries if entry.recording and not entry.staged], now)
        staged = self._lines([entry for entry in entries if entry.staged], now)
        keys = {line.key for line in (*listed, *recorded, *staged)}
        self._sparks = {key: spark for key, spark in self._sparks.items() if key in keys}
        return Runs(own=listed, more=max(len(own) - RUNS, 0), recorded=recorded, staged=staged, looked=True)

    def _lines(self, entries: Iterable[Entry], now: float) -> list[Line]:
        lines = []
        for entry in entries:
            try:
                lines.append(self._line(entry, now))
            except _BROKEN:
                log.debug("No line for %s", entry.path, exc_info=True)
        return lines

    def _line(self, entry: Entry, now: float) -> Line:
        run = entry.run
        status = run.status
        return Line(
            key=entry.key,
            state="" if entry.recording and not entry.staged else status.state,
            step=status.step,
            accuracy=f"{100 * run.knn:.1f} %" if run.knn is not None else "",
            what=f"{run.config.preset} · {Path(run.config.dataset).name}",
            when=ago(now - run.created),
            date=_date(run.created),
            spark=self._spark(entry),
        )

    def _spark(self, entry: Entry) -> str:
        """The curve of a run's effective rank, drawn again when there are steps more."""
        status = entry.run.status
        # A copy on stage is read as a whole: not more often than the list itself does.
        stamp = (entry.path, entry.run.id, entry.stamp if entry.staged else (status.step, status.heartbeat))
        known = self._sparks.get(entry.key)
        if known is None or known[0] != stamp:
            drawn = ""
            try:
                with RunStore.open(entry.path, readonly=True, apart=entry.staged) as store:
                    newest = store.newest_spectrum()
                    last = newest.number if newest else 0
                    numbers = sorted({round(n) for n in np.linspace(1, last, min(last, POINTS))})
                    records = store.spectra(numbers) if last > 1 else []
                steps = [record.step for record in records]
                rank = [record.spectrum.effective_rank for record in records]
                if len(rank) > 1:
                    words = f"Effective rank from {rank[0]:.1f} to {rank[-1]:.1f}"
                    drawn = sketch.sparkline(steps, rank, words)
            except _BROKEN:
                log.debug("No curve of %s", entry.path, exc_info=True)
            self._sparks[entry.key] = known = (stamp, drawn)
        return known[1]


def names(notebooks: Path) -> list[str]:
    """The notebooks of a folder that are its own, and no links to somewhere else."""
    return sorted(path.name for path in notebooks.glob("*.ipynb") if path.is_file() and not path.is_symlink())


def ago(seconds: float) -> str:
    """How long ago, in words.

    >>> ago(5), ago(70), ago(7200), ago(200_000), ago(-3)
    ('just now', '1 minute ago', '2 hours ago', '2 days ago', 'just now')
    """
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if math.isfinite(seconds) and seconds >= size:
            count = int(seconds // size)
            return f"{count:,} {word}{'s' if count != 1 else ''} ago"
    return "just now"


def address(base_url: str, key: str, along: str = "") -> str:
    """Where a run is on the bench."""
    return f"{base_url}?run={quote(key, safe='')}" + (f"&{along}" if along else "")


def _said(path: Path) -> Mapping[str, Any]:
    """What a notebook says of itself for its card."""
    try:
        metadata = json.loads(path.read_text("utf-8"))["metadata"]
        said = metadata.get("ssl_lab")
        return said if isinstance(said, dict) else {"title": str(metadata["title"]).removesuffix(" · ssl-lab")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _text(value: object, longest: int) -> str:
    return value[:longest] if isinstance(value, str) and value.isprintable() else ""


def _from_name(name: str) -> str:
    words = re.sub(r"^\d+[-_ ]*", "", name.removesuffix(".ipynb")) or name.removesuffix(".ipynb")
    return words.replace("-", " ").replace("_", " ").capitalize()


def _date(created: float) -> str:
    try:
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


def _recorded() -> dict[str, tuple[list[SpectrumRecord], list[Any], Any]]:
    """Of each recording that can be read: spectra, events, and (data set, steps, accuracies by kNN)."""
    found: dict[str, tuple[list[SpectrumRecord], list[Any], Any]] = {}
    for path in recordings():
        try:
            with RunStore.open(path, readonly=True) as store:
                spectra = store.spectra()
                if len(spectra) > 1:
                    found[path.stem] = (
                        spectra,
                        store.events(),
                        (store.config().dataset, *store.curve("knn", points=POINTS)),
                    )
        except _BROKEN:
            log.warning("A recording cannot be read: %s", path, exc_info=True)
    return found


def _draw() -> dict[str, sketch.Picture]:
    found = _recorded()
    pictures: dict[str, sketch.Picture] = {"theory": sketch.theory()}
    if not found:
        return pictures
    film = found.get(FILM) or next(iter(found.values()))
    # Where Wp is trained, it comes into line in the course of the run; where it is set, it is in line from the start.
    astray = min(found.values(), key=lambda run: float(np.mean(run[0][0].spectrum.alignment)))
    for name, draw in sketch.OF_RUN.items():
        spectra, events, _ = astray if name == "alignment" else film
        try:
            pictures[name] = draw(spectra, events)
        except _BROKEN:
            log.warning("The picture %s cannot be drawn", name, exc_info=True)
    last = [(sketch.shares(run[0])[-1], float(run[2][2][-1])) for run in found.values() if len(run[2][2])]
    if last:
        pictures["sweep"] = sketch.sweep(last[:4])
    # Runs on one data set, the one on which there is most to learn.
    grown = max(
        (run[2] for run in found.values() if len(run[2][2])), key=lambda knn: float(np.ptp(knn[2])), default=None
    )
    if grown is not None:
        pictures["reproduce"] = sketch.reproduce([run[2][1:] for run in found.values() if run[2][0] == grown[0]])
    return pictures


def _film() -> dict[str, Any] | None:
    """Moments of the recording as whole numbers: thousandths of the logarithmic axis from bottom to top."""
    path = next((path for path in recordings() if path.stem == FILM), None)
    if path is None:
        return None
    try:
        with RunStore.open(path, readonly=True) as store:
            spectra, config = store.spectra(), store.config()
            turned = [(0, config.knobs.predictor)]
            turned += [(e.step, e.changes["predictor"]) for e in store.events() if "predictor" in e.changes]
        values = np.clip(sketch.shares(spectra), sketch.LEAST, 1)
        heights = np.round(1000 * (1 - np.log10(values) / np.log10(sketch.LEAST))).astype(int)
        return {
            "steps": [record.step for record in spectra],
            "rank": [round(float(record.spectrum.effective_rank), 1) for record in spectra],
            "heights": heights.tolist(),
            "turns": [step for step, _ in turned],
            "rules": [_RULES.get(str(mode), str(mode)) for _, mode in turned],
            "dataset": str(config.dataset),
            "key": f"recording: {FILM}",
        }
    except _BROKEN:
        log.warning("The recording %s cannot be shown", path, exc_info=True)
        return None
