"""``Setup``: which preset on which data set the next run begins as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from ssl_lab.config import DATASETS, PRESETS, RunConfig


class Setup:
    """Two lists and two buttons.

    Args:
        config: what is chosen to begin with.
        begin: called in the page's thread when *New run* is pressed.
        again: the same for *Reset*.
    """

    def __init__(self, config: RunConfig, begin: Callable[[], object], again: Callable[[], object]) -> None:
        names = {p.title: p.name for p in PRESETS.values()}
        if config.preset not in PRESETS:
            names[config.preset] = config.preset
        sets = {info.title: info.name for info in DATASETS.values()}
        if config.dataset not in sets.values():
            sets[_folder(config.dataset)] = config.dataset
        auto = w.Layout(width="auto", min_width="0")
        self.preset = w.Dropdown(options=list(names.items()), value=config.preset, layout=auto)
        self.dataset = w.Dropdown(options=list(sets.items()), value=config.dataset, layout=auto)
        self.new = w.Button(description="New run", tooltip="Start a new run with this preset on this data set")
        self.reset = w.Button(description="Reset", tooltip="Start again from step 0 as this run began, as a new run")
        self.new.on_click(lambda _: begin())
        self.reset.on_click(lambda _: again())
        chosen = w.GridBox([w.HTML("Preset"), self.preset, w.HTML("Data"), self.dataset])
        chosen.add_class("ssl-setup")
        buttons = w.HBox([self.new, self.reset])
        buttons.add_class("ssl-buttons")
        self.rows = (chosen, buttons)

    def show(self, config: RunConfig, *, add: bool) -> None:
        """Chooses what a run is of.

        Args:
            add: a folder of images that is not on the list is put there.
        """
        if config.preset in PRESETS:
            self.preset.value = config.preset
        values = [value for _, value in self.dataset.options]
        if config.dataset not in values and add:
            self.dataset.options = [*self.dataset.options, (_folder(config.dataset), config.dataset)]
            values.append(config.dataset)
        if config.dataset in values:
            self.dataset.value = config.dataset


def _folder(path: str) -> str:
    return f"Folder {Path(path).name}"
