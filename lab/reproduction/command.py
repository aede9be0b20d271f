"""The command for whoever has a GPU: the papers' study, with what was chosen on the page."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as w

from ssl_lab.config import DATASETS
from ssl_lab.reproduce.rows import PAPER

SOURCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("CIFAR-10 (downloaded)", ("--dataset", "cifar10")),
    ("STL-10 (downloaded)", ("--dataset", "stl10")),
    ("CIFAR-10 as a folder of images", ("--dataset", "FOLDER", "--data", "cifar10")),
)
"""Words, and how the command line says it."""


class CommandBox:
    """Four controls and the command that they make.

    Args:
        changed: called in the page's thread when one is turned.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        wide = w.Layout(width="auto", min_width="0")
        self.source = w.Dropdown(options=[words for words, _ in SOURCES], layout=wide, description="Images")
        self.seeds = w.BoundedIntText(value=PAPER.seeds, min=1, max=20, layout=wide, description="Seeds")
        self.epochs = w.BoundedIntText(value=PAPER.epochs, min=1, max=1_000, layout=wide, description="Epochs")
        self.minutes = w.BoundedIntText(value=0, min=0, max=100_000, layout=wide, description="Minutes")
        self.minutes.tooltip = "Stop by itself after so many minutes, to be gone on with; 0: go on to the end"
        self.text = w.HTML()
        self.text.add_class("ssl-command")
        for control in (self.source, self.seeds, self.epochs, self.minutes):
            control.observe(lambda _: changed(), names="value")
        self.controls = w.VBox([self.source, self.seeds, self.epochs, self.minutes])
        self.controls.add_class("ssl-command-knobs")
        self.widget = w.VBox([self.controls, self.text])
        self.update()

    def command(self) -> str:
        """As it is typed."""
        words = ["ssl-lab", "reproduce", "table1", "figure1", *dict(SOURCES)[self.source.value]]
        words += ["--seeds", str(self.seeds.value), "--epochs", str(self.epochs.value), "--device", "cuda"]
        if self.minutes.value:
            words += ["--minutes", str(self.minutes.value)]
        return " ".join(words)

    def update(self) -> bool:
        """Writes the command; says whether it changed. Only the publisher's thread calls it."""
        command = self.command()
        hint = ""
        if "FOLDER" in command:
            hint = " FOLDER holds train/&lt;class&gt;/* and test/&lt;class&gt;/*."
        elif "stl10" in command:
            hint = f" {html.escape(DATASETS['stl10'].title)} are images of 96x96: it takes far longer."
        again = " Give the same command again until it ends with 0." if self.minutes.value else ""
        text = (
            f"<textarea readonly rows='4' spellcheck='false' aria-label='The command'>{html.escape(command)}</textarea>"
            f"<p>Its study lies in the results folder, and shows above while it runs, here or over a mounted folder."
            f"{hint}{again}</p>"
        )
        if text == self.text.value:
            return False
        self.text.value = text
        return True
