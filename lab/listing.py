"""The shelf's rows: what a page is told of the runs that can be put on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.catalogue import TRIAL, Entry
from lab.members import knob_word


def shelf_rows(
    entries: Iterable[tuple[int, Entry]],
    shown: str,
    colours: Mapping[str, str],
    deletable: Callable[[Entry], bool],
    every: Iterable[Entry] | None = None,
) -> list[dict[str, Any]]:
    """Rows for :class:`~lab.shelf.Shelf`.

    Args:
        entries: runs with their depth, from :func:`~lab.catalogue.tree`.
        shown: the key of the run on the page.
        colours: CSS colours of what is drawn, by key.
        deletable: whether the visitor may delete a run.
        every: all runs, also those that are not listed, as which a family's members count; default those listed.
    """
    entries = list(entries)
    families: dict[str, list[Entry]] = {}
    for entry in (entry for _, entry in entries) if every is None else every:
        if entry.grouped is not None:
            families.setdefault(entry.grouped.id, []).append(entry)
    # Where a member's family stands: its rows, and those of the forks under them, follow under one heading. A family
    # that was begun from a member stands under a heading of its own among them.
    rows: list[dict[str, Any]] = []
    open_groups: list[tuple[str, int, dict[str, Any]]] = []
    headed: set[str] = set()
    for depth, entry in entries:
        family = entry.grouped
        while open_groups:
            group, level, _ = open_groups[-1]
            if depth > level or (depth == level and family is not None and family.id == group):
                break
            open_groups.pop()
        if family is not None and family.id not in headed:
            headed.add(family.id)
            heading = _heading(depth + len(open_groups), families[family.id], deletable)
            heading["group"] = open_groups[-1][0] if open_groups else ""
            open_groups.append((family.id, depth, heading))
            rows.append(heading)
        group = open_groups[-1][0] if open_groups else ""
        rows.append(_row(depth + len(open_groups), entry, shown, colours, deletable, group))
        if entry.key == shown:
            # The run on the page is folded away under no heading.
            for _, _, heading in open_groups:
                heading["shown"] = True
    return rows


def _row(
    depth: int,
    entry: Entry,
    shown: str,
    colours: Mapping[str, str],
    deletable: Callable[[Entry], bool],
    group: str,
) -> dict[str, Any]:
    run, parent = entry.run, entry.run.parent
    trial = entry.key.startswith(TRIAL)
    origin = "sweep" if trial else "recording" if entry.recording else ""
    if parent is not None:
        origin = f"from {parent.name} at step {parent.step:,}"
    if entry.staged:
        origin = "live"
    stands = entry.recording and not trial and not entry.staged
    return {
        "name": entry.key, "depth": depth, "state": "" if stands else run.status.state,
        "step": run.status.step, "preset": run.config.preset, "data": Path(run.config.dataset).name,
        "knn": f"{100 * run.knn:.1f} %" if run.knn is not None else "", "origin": origin,
        "shown": entry.key == shown, "colour": colours.get(entry.key, ""),
        "deletable": not entry.recording and entry.key != shown and deletable(entry), "group": group,
    }  # fmt: skip


def _heading(depth: int, members: Sequence[Entry], deletable: Callable[[Entry], bool]) -> dict[str, Any]:
    """The row that stands over a family's members and folds them away; whether the run on the page is among what
    stands under it, and under which other heading it stands itself, is filled in where that is known."""
    first = members[0]
    assert first.family is not None
    states = [member.run.status.state for member in members]
    running, parent = states.count("running"), first.run.parent
    return {
        "name": f"family {first.family.id}", "heads": first.family.id, "group": "", "depth": depth,
        "label": f"Family along {knob_word(first.family.knob)}", "count": len(members),
        "state": "running" if running else states[0] if len(set(states)) == 1 else "", "colour": "", "knn": "",
        "step": min(member.run.status.step for member in members), "preset": first.run.config.preset,
        "data": Path(first.run.config.dataset).name,
        "origin": f"from {parent.name} at step {parent.step:,}" if parent else "",
        "shown": False,
        "deletable": all(not member.recording and deletable(member) for member in members),
    }  # fmt: skip
