"""A family's members in words: what each is called, and how they differ."""

from __future__ import annotations

import html
from typing import Any

from lab.looks import SHOWN, Look
from lab.view import RunView
from ssl_lab.config import knob_meta

VALUE_WORDS = {
    "predictor": {
        "mlp": "two layers",
        "linear": "one layer",
        "directpred": "DirectPred",
        "directcopy": "DirectCopy",
        "optimal": "least squares",
        "none": "none",
    },
    "norm": {"fro": "Frobenius", "spectral": "spectral", "none": "none"},
    "symmetry": {"off": "off", "penalty": "penalty", "hard": "hard"},
}
"""How the choices are called on the page."""

DASHES = {"solid": "none", "dashed": "8 4", "dotted": "2 4", "dash_dotted": "8 4 2 4"}


def value_word(knob: str, value: Any) -> str:
    """A knob's value, short.

    >>> value_word("ema", 0.999), value_word("stop_gradient", True), value_word("predictor", "mlp")
    ('0.999', 'on', 'two layers')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return VALUE_WORDS.get(knob, {}).get(str(value), str(value)) if isinstance(value, str) else f"{value:.4g}"


def knob_word(knob: str) -> str:
    """A knob by its name on the page, such that it says which: "predictor's learning rate".

    >>> knob_word("ema"), knob_word("lr_predictor"), knob_word("predictor")
    ('EMA rate', "predictor's learning rate", 'predictor mode')
    """
    own = {
        "lr_predictor": "predictor's learning rate",
        "weight_decay_predictor": "predictor's weight decay",
        "predictor": "predictor mode",
        "freq": "steps between sets of Wp",
        "symmetry_strength": "strength of the symmetry penalty",
    }
    return own.get(knob, knob_meta(knob).label)


def key_of(look: Look) -> str:
    """The little line that stands before a name in the legend."""
    return (
        f"<svg width='30' height='10' aria-hidden='true'><line x1='1' x2='29' y1='5' y2='5' stroke='{look.colour}' "
        f"stroke-width='{max(look.width, 2.0):g}' stroke-dasharray='{DASHES[look.line]}'/></svg>"
    )


def family_legend(view: RunView, keys: dict[str, str]) -> str:
    """The values with their lines, the shown one marked, and the sentence on how they differ.

    Args:
        view: the run on the page, with members of its family.
        keys: what the shelf calls each run, by the run's id.
    """
    members = view.members
    assert members[0].family is not None
    knob = members[0].family.knob
    entries = []
    for run in members:
        assert run.family is not None
        here = " <small>on the page</small>" if run is view else ""
        name = html.escape(keys.get(run.id, run.name), quote=True)
        word = html.escape(value_word(knob, run.family.value))
        entries.append(
            f"<span class='ssl-key ssl-member' title='{name}'>{key_of(run.look or SHOWN)} {word}{here}</span>"
        )
    title = html.escape(knob_word(knob))
    return f"<p class='ssl-members'><span class='ssl-along'>{title}</span> {''.join(entries)}</p>" + (
        f"<p class='ssl-difference'>{html.escape(in_words(view))}</p>"
    )


def in_words(view: RunView) -> str:
    """How the members differ: effective rank, and accuracy where there is one, in the order of the range."""
    members = view.members
    assert members[0].family is not None
    knob = members[0].family.knob
    steps = [run.step for run in members]
    where = f"At step {steps[0]:,}" if len(set(steps)) == 1 else f"At steps {min(steps):,} to {max(steps):,}"
    accuracy = all(run.knn is not None for run in members)
    parts = []
    for run in members:
        assert run.family is not None
        word = value_word(knob, run.family.value)
        if run.newest is None:
            parts.append(f"{word}: no spectrum yet")
            continue
        first = "effective rank " if not parts else ""
        found = f"{word}: {first}{run.newest.spectrum.effective_rank:.1f}"
        if accuracy and run.knn is not None:
            found += f", {'kNN ' if first else ''}{100 * run.knn[1]:.1f} %"
        parts.append(found)
    return f"{where}, by {knob_word(knob)}: {'; '.join(parts)}."
