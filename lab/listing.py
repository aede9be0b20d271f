"""The shelf's rows: what a page is told of the runs that can be put on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.catalogue import Entry


def shelf_rows(
    entries: Iterable[tuple[int, Entry]], shown: str, colours: Mapping[str, str], deletable: Callable[[Entry], bool]
) -> list[dict[str, Any]]:
    """Rows for :class:`~lab.shelf.Shelf`.

    Args:
        entries: runs with their depth, from :func:`~lab.catalogue.tree`.
        shown: the key of the run on the page.
        colours: CSS colours of what is drawn, by key.
        deletable: whether the visitor may delete a run.
    """
    rows = []
    for depth, entry in entries:
        run, parent = entry.run, entry.run.parent
        origin = "recording" if entry.recording else ""
        if parent is not None:
            origin = f"from {parent.name} at step {parent.step:,}"
        if entry.staged:
            origin = "live"
        stands = entry.recording and not entry.staged
        rows.append(
            {
                "name": entry.key, "depth": depth, "state": "" if stands else run.status.state,
                "step": run.status.step, "preset": run.config.preset, "data": Path(run.config.dataset).name,
                "knn": f"{100 * run.knn:.1f} %" if run.knn is not None else "", "origin": origin,
                "shown": entry.key == shown, "colour": colours.get(entry.key, ""),
                "deletable": not entry.recording and entry.key != shown and deletable(entry),
            }
        )  # fmt: skip
    return rows
