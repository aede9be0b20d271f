"""The bench's downloads: the run in every form that ``ssl-lab export`` writes, and each picture as PNG and SVG."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import ipywidgets as w

from lab.files import Files
from lab.panels import Panel
from ssl_lab.errors import SSLLabError
from ssl_lab.store import FILE_NAME, RunStore

log = logging.getLogger(__name__)

FORMS: tuple[tuple[str, str, str], ...] = (
    ("Python script that does it again", "script", "text/x-python"),
    ("Command line that does it again", "command", "text/x-sh"),
    ("Numbers of every step (CSV)", "csv", "text/csv"),
    ("Numbers of all runs drawn together (CSV)", "together", "text/csv"),
    ("Numbers of every step (Parquet)", "parquet", "application/vnd.apache.parquet"),
    ("All arrays (NPZ)", "npz", "application/octet-stream"),
    ("The whole record (SQLite), to be opened on any bench", "sqlite", "application/vnd.sqlite3"),
)
"""What a run is written as: words, kind, media type."""


class ExportBox:
    """Two rows: the run as a file, a picture as a file.

    Args:
        panels: the pictures.
        do: runs an action on the publisher's thread.
        store: the run that is shown, or None.
        files: hands files to the page.
        complain: says on the page what went wrong; called on the publisher's thread.
        drawn: the runs that are drawn with the one that is shown, by what the shelf calls them.
    """

    def __init__(
        self,
        panels: list[Panel],
        do: Callable[[Callable[[], None]], object],
        store: Callable[[], RunStore | None],
        files: Files,
        complain: Callable[[str], None],
        drawn: Callable[[], Mapping[str, RunStore]] = dict,
    ) -> None:
        self._drawn = drawn
        self._do, self._store, self._files, self._complain = do, store, files, complain
        self._panels = {panel.title: panel for panel in panels}
        wide = w.Layout(width="auto", min_width="0", flex="1 1 120px")
        self.form = w.Dropdown(
            options=[(words, kind) for words, kind, _ in FORMS], value="script", tooltip="The run as", layout=wide
        )
        self.download = w.Button(description="Download", tooltip="Save this run as a file")
        self.picture = w.Dropdown(options=list(self._panels), tooltip="The picture", layout=wide)
        self.png = w.Button(description="PNG", tooltip="Save this picture as it is drawn now, as PNG")
        self.svg = w.Button(description="SVG", tooltip="Save this picture as it is drawn now, as SVG")
        self.download.on_click(lambda _: do(self._write))
        self.png.on_click(lambda _: do(lambda: self._save_picture("png")))
        self.svg.on_click(lambda _: do(lambda: self._save_picture("svg")))
        self._writing = threading.Lock()
        self._heading = w.HTML("<h3>Take it with you</h3>")
        self._rows = [w.HBox([self.form, self.download]), w.HBox([self.picture, self.png, self.svg])]
        for row in self._rows:
            row.add_class("ssl-buttons")
        self.widget = w.VBox([self._heading, *self._rows, files])
        self.widget.add_class("ssl-panel")
        self.widget.add_class("ssl-export")

    def _write(self) -> None:
        store = self._store()
        if store is None:
            return
        kind = self.form.value
        mime = next((mime for _, known, mime in FORMS if known == kind), None)
        if mime is None:
            return
        if not self._files.room_to_offer():
            raise SSLLabError("Several files wait to be saved by this page. Wait until they are, or reload it.")
        if not self._writing.acquire(blocking=False):
            raise SSLLabError("Another file is still being written. Try again when it is there.")
        copies = ExitStack()
        try:
            path = _to_read(store, copies)
            drawn = self._drawn() if kind == "together" else {}
            beside = {key: _to_read(other, copies) for key, other in drawn.items()}
        except BaseException:
            copies.close()
            self._writing.release()
            raise
        # Pictures go on while a long run is written out.
        what = (path, store.name, kind, mime, beside, copies)
        threading.Thread(target=self._write_file, args=what, daemon=True).start()

    def _write_file(
        self, path: Path, name: str, kind: str, mime: str, beside: Mapping[str, Path], copies: ExitStack
    ) -> None:
        from ssl_lab.export import KINDS, write

        target, ending = Path(), KINDS.get(kind, ".csv")
        try:
            handle, text = tempfile.mkstemp(prefix="ssl-lab-", suffix=ending)
            os.close(handle)
            target = Path(text)
            with RunStore.open(path, readonly=True) as store:
                if kind == "together":
                    _write_together({name: path, **beside}, target)
                else:
                    write(store, kind, target)
        except Exception as error:
            if not isinstance(error, SSLLabError | OSError):
                log.exception("The file could not be written")
            if target.name:
                target.unlink(missing_ok=True)
            words = str(error) or type(error).__name__
            self._do(lambda: self._complain(words))
            return
        finally:
            copies.close()
            self._writing.release()
        together = f"-and-{len(beside)}-more" if beside else ""
        self._do(lambda: self._files.offer(f"{name}{together}{ending}", mime, target))

    def _save_picture(self, kind: str) -> None:
        store = self._store()
        panel = self._panels.get(self.picture.value)
        if panel is None:
            return
        name = f"{store.name if store else 'ssl-lab'}-{panel.title.lower().replace(' ', '-')}"
        if kind == "png":
            panel.figure.save_png(f"{name}.png", scale=2)
        else:
            panel.figure.save_svg(f"{name}.svg")

    def close(self) -> None:
        """Frees the widgets in the browser."""
        parts = (self.form, self.download, self.picture, self.png, self.svg, self._heading, *self._rows, self.widget)
        for part in parts:
            part.close()


def _to_read(store: RunStore, copies: ExitStack) -> Path:
    """Where another thread can read a run: what the instructor shows may be taken down, or replaced, at any moment, so
    that it is read from a copy of what the page has of it, which goes with ``copies``."""
    if not store.apart:
        return store.path
    folder = copies.enter_context(tempfile.TemporaryDirectory(prefix="ssl-lab-", ignore_cleanup_errors=True))
    path = Path(folder) / store.name / FILE_NAME
    path.parent.mkdir()
    store.snapshot_to(path)
    return path


def _write_together(runs: Mapping[str, Path], target: Path) -> None:
    """One table of several runs: a line for each of their steps, with the run's name before it."""
    from ssl_lab.export import csv_lines

    with target.open("w", encoding="utf-8", newline="\n") as file:
        for number, (name, path) in enumerate(runs.items()):
            # A name from elsewhere may hold what a table takes for the end of a cell.
            cell = '"' + name.replace('"', '""') + '"'
            with RunStore.open(path, readonly=True) as store:
                lines = csv_lines(store)
                head = next(lines)
                if number == 0:
                    file.write(f"run,{head}")
                file.writelines(f"{cell},{line}" for line in lines)
