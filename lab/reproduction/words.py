"""What the page says of a study, in words."""

from __future__ import annotations

import html
from collections.abc import Sequence

from lab.panels.base import NOW
from lab.reproduction.bets import Bet, Finding
from lab.reproduction.chart import AUTHORS, PRINT
from lab.reproduction.numbers import chance
from ssl_lab.reproduce.record import RunRecord, StudyRecord


def about(record: StudyRecord) -> str:
    """What a study is of, and whether its numbers may be compared with those in print."""
    size = f"a {record.encoder} network" if record.encoder != "resnet18" else "ResNet-18"
    if record.encoder == "resnet18" and record.width and record.width < 64:
        size = f"a narrow ResNet-18 (width {record.width} for 64)"
    train = f"{record.train:,} training images" if record.train else "training images"
    side = f" at {record.image_size}x{record.image_size} pixels" if record.image_size else ""
    test = f", {record.test:,} test images" if record.test else ""
    seeds = f"{record.seeds} seed{'s' * (record.seeds != 1)}"
    runs = [run for run in record.runs if run.device]
    devices = sorted({_device(run) for run in runs})
    versions = sorted({run.torch for run in runs if run.torch})
    where = f" Computed on {', '.join(devices)}" if devices else ""
    where += f", with torch {', '.join(versions)}." if devices and versions else "." if devices else ""
    guess = chance(record.data)
    lucky = f" A guess is right for {guess:g} %." if guess is not None else ""
    said = f"{record.data_note}: {size}, {train}{side}{test}, {record.epochs} epochs, {seeds}.{where}{lucky}"
    text = html.escape(said[0].upper() + said[1:] if record.data_note else said.removeprefix(": "))
    if record.papers:
        return f"<p>{text} This is the papers’ size: the numbers may be compared.</p>"
    note = "<b>It is not the papers’ size</b>: compare the order of the rows, not the numbers."
    if record.data == "digits":
        note += (
            " On the digits an untrained encoder is nearly as good as a trained one for the probe, so that it can "
            "hardly tell the rows apart; effective rank and aligned directions can."
        )
    return f"<p>{text} {note}</p>"


def _device(run: RunRecord) -> str:
    if run.device != "cpu":
        return run.device
    return f"a CPU ({run.threads} thread{'s' * (run.threads != 1)} a run)" if run.threads else "a CPU"


def legend() -> str:
    """What is what in the pictures, also without colour."""

    def swatch(inside: str) -> str:
        return f"<svg width='26' height='12' aria-hidden='true'>{inside}</svg>"

    def line(style: str) -> str:
        return f"<line x1='1' x2='25' y1='6' y2='6' stroke='{NOW}' stroke-width='2' stroke-dasharray='{style}'/>"

    keys = (
        (f"<rect x='1' y='2' width='24' height='8' fill='{PRINT}' fill-opacity='.45' stroke='{PRINT}'/>",
         "S, the course reproduction (one run)"),
        (f"<path d='M13 1l5 5-5 5-5-5z' fill='{AUTHORS}'/><path d='M3 6h20' stroke='{AUTHORS}' stroke-width='1.8'/>",
         "P, the paper"),
        (f"<rect x='1' y='2' width='24' height='8' fill='{NOW}'/>", "this study; whiskers: ± one standard deviation"),
        (line("6 4"), "its untrained encoder"),
        (line("2 3"), "its encoder trained with labels"),
    )  # fmt: skip
    return "<p>" + "".join(f"<span class='ssl-key'>{swatch(inside)} {words}</span>" for inside, words in keys) + "</p>"


def verdict(bet: Bet, chosen: int | None, found: Sequence[Finding]) -> str:
    """What became of a bet; of none, what would have been right."""
    lines = ""
    for finding in found:
        answer = finding.judge(chosen)
        if finding.choice is None:
            word = f"<b>Not decided</b>: {html.escape(finding.why_open)}."
        elif chosen is None:
            word = f"<b>{html.escape(bet.choices[finding.choice])}</b>."
        else:
            right = "" if answer == "holds" else f": {html.escape(bet.choices[finding.choice])}"
            word = f"<b class='ssl-{answer}'>Your bet {'holds' if answer == 'holds' else 'does not hold'}{right}</b>."
        lines += f"<p>{html.escape(finding.who)}: {html.escape(finding.text)} {word}</p>"
    return f"<div class='ssl-verdict'>{lines}<p>{html.escape(bet.lesson)}</p></div>"
