"""The numbers as a table that is read by eyes and by screen readers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Set

from lab.reproduction.numbers import Line, Sample, in_print, line, printed_data
from ssl_lab.reproduce.published import Published
from ssl_lab.reproduce.record import StudyRecord
from ssl_lab.reproduce.rows import ROWS

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Baselines": ("untrained", "supervised"),
    "Table 1: two-layer predictors": (
        "byol", "byol-symmetric", "simsiam", "simsiam-symmetric", "simsiam-symmetric-decay", "simsiam-symmetric-stable",
    ),
    "Figure 1: one-layer predictors": (
        "byol-one-layer", "directpred", "directcopy", "simsiam-one-layer", "directpred-simsiam", "directcopy-simsiam",
    ),
}  # fmt: skip
COLUMNS = 10


def table(record: StudyRecord, hidden: Set[str], title: str) -> str:
    """As HTML.

    Args:
        record: the study whose numbers stand beside those in print.
        hidden: rows whose numbers wait for a bet.
        title: of the study.
    """
    printed = printed_data(record.data)
    compared = " and of the difference" if record.papers else ""
    head = (
        "<tr><th scope='col' rowspan='2' class='ssl-corner'>row</th>"
        f"<th scope='colgroup' colspan='2'>In print, {printed}</th>"
        f"<th scope='colgroup' colspan='7'>{html.escape(title)}</th></tr>"
        "<tr><th scope='col'>S</th><th scope='col'>P</th><th scope='col'>runs</th>"
        "<th scope='col'>S’s probe</th><th scope='col'>P’s probe, best</th><th scope='col'>kNN</th>"
        "<th scope='col'>effective rank</th><th scope='col'>aligned</th><th scope='col'>seconds</th></tr>"
    )
    groups = ""
    for name, rows in GROUPS.items():
        there = [row for row in rows if row in record.rows or in_print(record.data, row)]
        if there:
            groups += f"<tbody><tr><th scope='rowgroup' colspan='{COLUMNS}'><span>{name}</span></th></tr>"
            groups += "".join(_row(record, row, hidden) for row in there) + "</tbody>"
    return (
        # It is reached by Tab, so that the arrow keys scroll the box that it lies in.
        "<table class='ssl-numbers-table' tabindex='0'><caption>Linear probe in per cent of the test images"
        f"{compared}: mean ± standard deviation over the runs.</caption><thead>{head}</thead>{groups}</table>"
    )


def _row(record: StudyRecord, row: str, hidden: Set[str]) -> str:
    title = ROWS[row].title
    if row in hidden:
        # "... : collapses" would give it away.
        title = title.partition(":")[0]
    head = f"<th scope='row'><span>{html.escape(title)} <small>{html.escape(row)}</small></span></th>"
    if row in hidden:
        return f"<tr>{head}<td colspan='{COLUMNS - 1}' class='ssl-hidden'>bet first</td></tr>"
    printed, ours = in_print(record.data, row), line(record, row)
    cells = [_printed(printed.get("S"), ours.probe, record), _printed(printed.get("P"), ours.best, record)]
    cells += [_state(ours), _text(ours.probe), _text(ours.best)]
    cells += [_seeds(ours, "knn", 1), _seeds(ours, "effective_rank", 1), _aligned(ours), _seeds(ours, "seconds", 0)]
    return f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _printed(known: Published | None, ours: Sample | None, record: StudyRecord) -> str:
    if known is None:
        return "–<span class='ssl-unseen'> none in print</span>"
    note = f" <br><small>{known.note}</small>" if known.note else ""
    runs = f" <small>n = {known.n}</small>" if known.n else ""
    difference = f" <small>({ours.mean - known.accuracy:+.1f} here)</small>" if record.papers and ours else ""
    return f"{Sample.printed(known)}{runs}{note}{difference}"


def _state(ours: Line) -> str:
    count = len(ours.runs)
    if not count:
        return "–<span class='ssl-unseen'> not in this study</span>"
    if ours.done == count:
        return f"n = {count}"
    failed = [run for run in ours.runs if run.state == "failed"]
    if failed:
        return f"<span title='{html.escape(failed[0].why, quote=True)}'>failed</span>"
    # Not how many steps: each change takes a reader's place in the table away.
    word = "training" if any(run.state == "running" for run in ours.runs) else "waits"
    return f"{ours.done} of {count}, {word}"


def _text(sample: Sample | None) -> str:
    return "" if sample is None else str(sample)


def _seeds(ours: Line, name: str, digits: int) -> str:
    found = ours.over(name)
    return "" if found is None else f"{found.mean:,.{digits}f}"


def _aligned(ours: Line) -> str:
    found = ours.over("aligned")
    of = next((run.directions for run in ours.runs if run.directions), None)
    return "" if found is None or of is None else f"{found.mean:.0f} of {of}"
