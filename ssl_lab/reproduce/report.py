"""One document of all that a study came to: tables with what is in print beside it, and the figures inside."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from ssl_lab import __version__
from ssl_lab.reproduce import pictures
from ssl_lab.reproduce.findings import findings
from ssl_lab.reproduce.published import REUSED, Protocol, published
from ssl_lab.reproduce.reference import Reference, distances
from ssl_lab.reproduce.results import Outcome, Seeds, over_seeds, read_outcome
from ssl_lab.reproduce.rows import BASELINES, ROWS, Item, Job, Scale
from ssl_lab.reproduce.theory_check import checks
from ssl_lab.spectrum import Spectrum

BAR_PAIRS = (
    ("SGD", "byol-one-layer", "simsiam-one-layer"),
    ("DirectPred", "directpred", "directpred-simsiam"),
    ("DirectCopy", "directcopy", "directcopy-simsiam"),
)
"""(rule, row with EMA, row without) of the bar chart."""

TABLE_HEAD = (
    "row", "n", "probe (S)", "published", "difference", "probe (authors') last", "best", "published", "difference",
    "effective rank", "aligned", "asymmetry", "minutes", "images/s",
)  # fmt: skip


@dataclass
class Document:
    """Headings, paragraphs, tables and figures, written as Markdown and as HTML."""

    title: str
    parts: list[Heading | Paragraph | Table | Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells of plain text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure as a data address."""

    address: str
    caption: str


def write_report(
    folder: Path,
    items: Sequence[Item],
    jobs: Sequence[Job],
    scale: Scale,
    *,
    dataset: str,
    data_note: str,
    references: Sequence[Reference] = (),
    failures: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Writes ``report.html`` and ``report.md`` into the folder of a study; gives their paths.

    Args:
        items: what is reported.
        jobs: the runs that it needs; those that are not done yet are said to be missing.
        scale: at which size.
        dataset: whose published numbers stand beside.
        data_note: what the images are, for the reader.
        references: recorded eigenspaces to lay over.
        failures: run -> why it could not be had.
    """
    outcomes: dict[str, list[Outcome]] = {}
    for job in jobs:
        outcome = read_outcome(job, folder)
        if outcome is not None:
            outcomes.setdefault(job.row, []).append(outcome)
    document = Document("The papers again: a report of ssl-lab")
    _preface(document, jobs, outcomes, scale, data_note, failures or {})
    shown = findings(outcomes, papers=dataset == "cifar10" and scale.name == "paper")
    if shown:
        document.parts.append(Heading("What must show"))
        lines = [[f.claim, f.found, "shows" if f.holds else "DOES NOT SHOW"] for f in shown]
        document.parts.append(Table(("what", "found", ""), lines))
    by_row = {reference.row: reference for reference in references}
    compared = dataset if scale.name == "paper" else ""
    for item in items:
        document.parts.append(Heading(f"{item.name}: {item.title}"))
        if item.form == "theory":
            _theory(document)
            continue
        if item.form == "eigenspace":
            for row in item.rows:
                _eigenspace(document, row, outcomes.get(row, []), by_row.get(row))
            continue
        if item.form == "bars":
            _bars(document, item, outcomes, compared)
        rows = [row for row in (*BASELINES, *item.rows) if row in outcomes]
        document.parts.append(_without_empty(Table(TABLE_HEAD, [_line(r, outcomes[r], compared) for r in rows])))
        _reused(document, item, outcomes, compared)
        missing = [row for row in item.rows if row not in outcomes]
        if missing:
            document.parts.append(Paragraph(f"Not there yet: {', '.join(missing)}."))
    _legend(document, scale)
    paths = folder / "report.html", folder / "report.md"
    for path, text in zip(paths, (_html(document), _markdown(document)), strict=True):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    return paths


# ------------------------------------------------------------------ sections


def _preface(
    document: Document,
    jobs: Sequence[Job],
    outcomes: Mapping[str, list[Outcome]],
    scale: Scale,
    data_note: str,
    failures: Mapping[str, str],
) -> None:
    there = [outcome for found in outcomes.values() for outcome in found]
    costs = [outcome.cost for outcome in there if outcome.cost.get("device")]
    pretrained = [job for job in jobs if ROWS[job.row].kind == "pretrained"]
    lines = [f"Scale: {scale.name} ({scale.title})."]
    if scale.name != "paper":
        lines.append(
            "This is not the papers' setting: no number here is to be compared with one in print. What must show is "
            "the order of things."
        )
    lines.append(f"Data: {data_note}.")
    if pretrained:
        config = pretrained[0].config
        seeds = sorted({job.seed for job in jobs})
        lines.append(
            f"{config.epochs} epochs at batch {config.batch_size}, {config.encoder} of width {config.width}, "
            f"{len(seeds)} seed{'s' * (len(seeds) != 1)}."
        )
    if costs:
        seconds = sum(float(outcome.cost.get("seconds", 0.0)) for outcome in there)

        def each(name: str) -> str:
            return ", ".join(sorted({str(cost[name]) for cost in costs if name in cost}))

        lines.append(
            f"{costs[0]['train']:,} training and {costs[0]['test']:,} test images; computed on {each('device')} "
            f"({each('threads')} CPU threads a run) in {each('precision')} with torch {each('torch')} and ssl-lab "
            f"{__version__}; {_minutes(seconds)} minutes of training in all. Written {time.strftime('%Y-%m-%d')}."
        )
    document.parts += [Paragraph(line) for line in lines]
    for name, why in failures.items():
        document.parts.append(Paragraph(f"{name} could not be had: {why}"))


def _without_empty(table: Table) -> Table:
    """The table without columns of which no row says anything."""
    kept = [i for i in range(len(table.head)) if any(row[i] for row in table.rows)]
    return Table([table.head[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def _line(row: str, found: Sequence[Outcome], dataset: str) -> list[str]:
    probe = over_seeds([o.probe for o in found])
    best = over_seeds([o.authors_best for o in found])
    ends = [o.last.spectrum for o in found if o.last is not None]
    ours = {"S": probe, "P": best}
    cells = [row, str(len(found)), _text(probe), *_printed(row, dataset, "S", ours["S"])]
    cells += [_text(over_seeds([o.authors_last for o in found])), _text(best), *_printed(row, dataset, "P", ours["P"])]
    cells += [
        _text(over_seeds([s.effective_rank for s in ends])),
        _aligned(ends),
        _text(over_seeds([s.asymmetry for s in ends])),
        _minutes(sum(float(o.cost.get("seconds", 0.0)) for o in found)),
    ]
    rate = over_seeds([o.images_per_second for o in found])
    return [*cells, f"{rate.mean:,.0f}" if rate else ""]


def _printed(row: str, dataset: str, protocol: Protocol, ours: Seeds | None) -> tuple[str, str]:
    known = published(dataset, row, protocol)
    if known is None:
        return "", ""
    spread = f" ± {known.spread}" if known.spread is not None else ""
    note = f" ({known.note})" if known.note else ""
    return f"{known.accuracy}{spread}{note}", "" if ours is None else f"{ours.mean - known.accuracy:+.2f}"


def _reused(document: Document, item: Item, outcomes: Mapping[str, list[Outcome]], dataset: str) -> None:
    for row in item.rows:
        ours = over_seeds([o.reused for o in outcomes.get(row, [])])
        if ours is None:
            continue
        text = f"{row} with {ROWS[row].reused_layers} layer of its projector kept for the probe: {ours}"
        if dataset == "cifar10":
            text += f" (published {REUSED.accuracy}, difference {ours.mean - REUSED.accuracy:+.2f})"
        document.parts.append(Paragraph(f"{text}."))


def _bars(document: Document, item: Item, outcomes: Mapping[str, list[Outcome]], dataset: str) -> None:
    accuracy = {row: s for row in item.rows if (s := over_seeds([o.probe for o in outcomes.get(row, [])]))}
    printed = {row: p for row in item.rows if (p := published(dataset, row, "S"))}
    if accuracy:
        figure = pictures.bars(BAR_PAIRS, accuracy, printed)
        dashed = "; dashed: published by S" if printed else ""
        _picture(document, figure, f"S's probe; error bars: standard deviation over seeds{dashed}.")


def _eigenspace(document: Document, row: str, found: Sequence[Outcome], reference: Reference | None) -> None:
    if not found or not found[0].spectra:
        document.parts.append(Paragraph(f"{row} is not there yet."))
        return
    outcome = found[0]
    same = reference if reference is not None and _fits(outcome, reference) else None
    figure = pictures.eigenspace(outcome, f"{ROWS[row].title} (seed {outcome.job.seed})", same)
    laid_over = ", dotted: the reference, its effective rank dash-dotted" if same else ""
    _picture(document, figure, row + laid_over)
    if reference is not None and same is None:
        document.parts.append(Paragraph(f"The reference of {row} is of another size, and is not laid over."))
    apart = distances(outcome.spectra, same) if same is not None else []
    if apart:
        document.parts.append(
            Table(
                ("epoch", "aligned", "reference", "effective rank", "reference", "asymmetry", "reference"),
                [
                    [
                        f"{d.epoch:g}", str(d.aligned[0]), str(d.aligned[1]), f"{d.effective_rank[0]:.1f}",
                        f"{d.effective_rank[1]:.1f}", f"{d.asymmetry[0]:.3f}", f"{d.asymmetry[1]:.3f}",
                    ]
                    for d in apart
                ],
            )
        )  # fmt: skip


def _fits(outcome: Outcome, reference: Reference) -> bool:
    assert outcome.last is not None
    return outcome.last.spectrum.f_eigenvalues.shape == reference.f_eigenvalues.shape[1:]


def _theory(document: Document) -> None:
    _picture(
        document, pictures.theory(),
        f"The linear model at σ² = {pictures.SIGMA2}, η = {pictures.ETA}, τ = 1. Its mapping to a run with a cosine "
        "loss and momentum is qualitative.",
    )  # fmt: skip
    found = [[c.what, f"{c.found:.6g}", f"{c.expected:g}", "holds" if c.holds else "DOES NOT HOLD"] for c in checks()]
    document.parts.append(Table(("what", "here", "theory", ""), found))


def _legend(document: Document, scale: Scale) -> None:
    document.parts += [
        Heading("How to read it"),
        Paragraph(
            "Accuracies are in per cent of the test images, mean ± standard deviation over n seeds. probe (S): a "
            f"linear layer on the frozen encoder by Adam from 5e-2 to 5e-4, last of {scale.probe_epochs} epochs. probe "
            "(authors'): on standardised features by Adam at 3e-4 with weight decay 1e-3; best is chosen on the test "
            "images and is an upper bound. S's numbers are compared with the first, the authors' with the best of the "
            "second."
        ),
        Paragraph(
            "Effective rank: exp(entropy) of F's eigenvalues; aligned: eigenvectors v of F with cos(Wp v, v) above .9; "
            "asymmetry: Σ|Wp - Wpᵀ| / Σ|Wp|; all at the end. A collapsed run is a result: its effective rank is near 1."
        ),
        Paragraph(
            "Published: P = Tian, Chen & Ganguli 2021 (arXiv 2102.06810), table 8; S = the course reproduction of P by "
            "Höppe, Miszkurka & Wilkman."
        ),
        Table(("row", "what it is", "source"), [[r.name, r.title, r.source] for r in ROWS.values()]),
    ]


def _picture(document: Document, figure: Figure, caption: str) -> None:
    document.parts.append(Picture(pictures.data_address(figure), caption))


def _aligned(ends: Sequence[Spectrum]) -> str:
    """A count; over several seeds its mean."""
    if not ends:
        return ""
    found = Seeds(tuple(float(s.aligned) for s in ends))
    return f"{found if len(ends) > 1 else ends[0].aligned} of {len(ends[0].alignment)}"


def _text(seeds: Seeds | None) -> str:
    return "" if seeds is None else str(seeds)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


# ------------------------------------------------------------------ writing


def _markdown(document: Document) -> str:
    lines = [f"# {document.title}", ""]
    for part in document.parts:
        if isinstance(part, Heading):
            lines += [f"## {part.text}", ""]
        elif isinstance(part, Paragraph):
            lines += [part.text, ""]
        elif isinstance(part, Table):
            lines += [_row(part.head), _row(["---"] * len(part.head)), *map(_row, part.rows), ""]
        else:
            lines += [f"![{part.caption}]({part.address})", "", f"*{part.caption}*", ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 24px auto; padding: 0 16px; }}
.table {{ overflow-x: auto; margin: 12px 0; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 8px; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent);
  text-align: right; white-space: nowrap; }}
th {{ white-space: normal; vertical-align: bottom; max-width: 7em; }}
:is(th, td):first-child, .words :is(th, td) {{ text-align: left; white-space: nowrap; }}
.words td {{ white-space: normal; }}
figure {{ margin: 16px 0; }} img {{ max-width: 100%; height: auto; background: #fff; border-radius: 4px; }}
figcaption {{ font-size: 13px; opacity: .8; }}
</style></head><body>
{body}
</body></html>
"""


def _html(document: Document) -> str:
    out = [f"<h1>{html.escape(document.title)}</h1>"]
    for part in document.parts:
        if isinstance(part, Heading):
            out.append(f"<h2>{html.escape(part.text)}</h2>")
        elif isinstance(part, Paragraph):
            out.append(f"<p>{html.escape(part.text)}</p>")
        elif isinstance(part, Table):
            words = ' class="words"' if "what" in " ".join(part.head) else ""
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.head)
            rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in part.rows)
            out.append(f'<div class="table"><table{words}><tr>{head}</tr>{rows}</table></div>')
        else:
            caption = html.escape(part.caption)
            image = f'<img src="{part.address}" alt="{caption}">'
            out.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return _PAGE.format(title=html.escape(document.title), body="\n".join(out))
