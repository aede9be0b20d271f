"""Which configurations a table or a figure needs, and at which size.

Sources: **P** Tian, Chen & Ganguli 2021, arXiv 2102.06810; **C** Wang, Chen, Du & Tian 2021, arXiv 2110.04947; **S**
the course reproduction of P by Höppe, Miszkurka & Wilkman.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ssl_lab.config import PRESETS, RunConfig, dataset_info, preset
from ssl_lab.errors import ConfigError

Kind = Literal["pretrained", "untrained", "supervised"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration; its runs are called ``NAME-seed0``, ``NAME-seed1``, ..."""

    name: str
    """Name in the tables."""
    title: str
    """What it is, for a person."""
    source: str
    """Paper, and table or section."""
    preset: str = "byol"
    """What it is set up from."""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Knobs that differ from the preset's."""
    reused_layers: int = 0
    """Layers of the projector that a further probe keeps."""
    kind: Kind = "pretrained"
    """Pre-trained without labels, or one of the two baselines."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A table or a figure."""

    name: str
    """As on the command line."""
    title: str
    """Its caption."""
    rows: tuple[str, ...]
    """What it needs."""
    form: Literal["table", "bars", "eigenspace", "theory"]
    """How it is drawn."""


def _from_preset(name: str, **more: Any) -> Row:
    return Row(name=name, title=PRESETS[name].title, source=PRESETS[name].source, preset=name, **more)


def _directpred(name: str, title: str, source: str, **knobs: Any) -> Row:
    return Row(name=name, title=f"DirectPred, {title}", source=source, preset="directpred", knobs=knobs)


def _directcopy(norm: str) -> Row:
    return Row(
        name=f"directcopy-{norm}", title=f"DirectCopy, F over its {norm} norm" if norm != "none" else
        "DirectCopy, F as it is", source="C", preset="directcopy", knobs={"norm": norm},
    )  # fmt: skip


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            Row(name="untrained", title="The encoder as it is initialised", source="baseline", kind="untrained"),
            Row(name="supervised", title="The same encoder trained with labels", source="ceiling", kind="supervised"),
            *map(
                _from_preset,
                (
                    "byol", "byol-symmetric", "simsiam", "simsiam-symmetric", "simsiam-symmetric-decay",
                    "simsiam-symmetric-stable", "byol-one-layer", "directpred", "directcopy", "simsiam-one-layer",
                    "directpred-simsiam", "directcopy-simsiam",
                ),
            ),
            _directpred("directpred-freq2", "every 2nd step", "P table 8", freq=2),
            _directpred("directpred-freq3", "every 3rd step", "P table 8", freq=3),
            _from_preset("directpred-freq5"),
            _from_preset("directpred-deeper", reused_layers=1),
            _directpred("directpred-eps0", "eps 0", "P sec. 5", eps=0.0),
            _directpred("directpred-eps001", "eps .01", "P sec. 5", eps=0.01),
            _directpred("directpred-eps05", "eps .5", "P sec. 5", eps=0.5),
            _directcopy("spectral"),
            _directcopy("none"),
            _from_preset("optimal"),
            _from_preset("directpred-centred"),
        )
    }
)  # fmt: skip
"""All rows, in the order of the report."""

BASELINES = ("untrained", "supervised")

ITEMS: Mapping[str, Item] = MappingProxyType(
    {
        item.name: item
        for item in (
            Item(
                name="table1", title="Two-layer predictors, with and without EMA and symmetry", form="table",
                rows=("byol", "byol-symmetric", "simsiam", "simsiam-symmetric", "simsiam-symmetric-decay",
                      "simsiam-symmetric-stable"),
            ),
            Item(
                name="figure1", title="One-layer predictors, with and without EMA", form="bars",
                rows=("byol-one-layer", "directpred", "directcopy", "simsiam-one-layer", "directpred-simsiam",
                      "directcopy-simsiam"),
            ),
            Item(name="figure2", title="The eigenspace of BYOL, plain and symmetric", form="eigenspace",
                 rows=("byol", "byol-symmetric")),
            Item(name="figure3", title="The eigenspace of SimSiam, plain and symmetric", form="eigenspace",
                 rows=("simsiam", "simsiam-symmetric")),
            Item(name="figure4", title="The eigenspace of symmetric SimSiam with other rates", form="eigenspace",
                 rows=("simsiam-symmetric-decay", "simsiam-symmetric-stable")),
            Item(
                name="table2", title="The family of directly set predictors", form="table",
                rows=("byol-one-layer", "directpred", "directpred-freq2", "directpred-freq3", "directpred-freq5",
                      "directpred-deeper", "directpred-eps0", "directpred-eps001", "directpred-eps05", "directcopy",
                      "directcopy-spectral", "directcopy-none", "optimal", "directpred-centred"),
            ),
            Item(name="theory", title="The linear theory against its test values", form="theory", rows=()),
        )
    }
)  # fmt: skip
"""What there is to reproduce, by the name on the command line."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A size of the study."""

    name: str
    """``paper``, ``small`` or ``lesson``."""
    title: str
    """What it is, in words, for the report."""
    epochs: int
    """Passes over the training images."""
    seeds: int
    """Runs of each row."""
    resnet: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a run with a ResNet that differ from the papers'."""
    ema: float | None = None
    """EMA rate of the rows that have one, if it is not theirs."""
    lr_predictor: float | None = None
    """The predictor's rate of the rows that have an EMA, if it is not theirs."""
    augmentation: tuple[float, float] = (1.0, 1.0)
    """Strength of the views' augmentation, times the recipe: of the rows that have an EMA, and of the others."""
    probe_epochs: int = 50
    """Passes of both probes."""
    supervised_epochs: int = 30
    """Passes of the ceiling; a ResNet-18 is within a point of its best by then, and it is no row to be tuned."""


PAPER = Scale(name="paper", title="the papers' networks, images and epochs", epochs=101, seeds=3)
SMALL = Scale(
    name="small",
    title="a small study for two cores: a narrow ResNet-18 on a part of the images, brought to 16x16 pixels; for so "
    "few steps the rows with EMA have augmentation at .5 of its strength, an EMA rate of .98 and a predictor's rate "
    "of .2",
    epochs=6, seeds=2, supervised_epochs=12, ema=0.98, lr_predictor=0.2, augmentation=(0.5, 1.0),
    resnet={"width": 8, "image_size": 16, "train_limit": 5_000, "test_limit": 1_000, "batch_size": 32},
)  # fmt: skip
LESSON = Scale(
    name="lesson",
    title="a lesson's study, a few minutes on two cores: on the digits their small network; on larger images a narrow "
    "ResNet-18 on a part of them, at 16x16 pixels",
    epochs=40, seeds=3, supervised_epochs=12, resnet=SMALL.resnet,
)  # fmt: skip
SCALES: Mapping[str, Scale] = MappingProxyType({scale.name: scale for scale in (PAPER, SMALL, LESSON)})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run of a row."""

    row: str
    """Which configuration."""
    seed: int
    """Its seed."""
    config: RunConfig
    """All of it."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"{self.row}-seed{self.seed}"


def chosen(items: Sequence[str]) -> list[Item]:
    """The items of some names, ``all`` being all, in the order of the report.

    Raises:
        ConfigError: there is no such item.
    """
    for name in items:
        if name != "all" and name not in ITEMS:
            raise ConfigError(f"There is no {name!r} to reproduce. There are: {', '.join(ITEMS)}, all.")
    return [item for item in ITEMS.values() if "all" in items or item.name in items]


def jobs(
    items: Sequence[Item], scale: Scale, *, dataset: str, seeds: int, epochs: int, device: str, data_dir: str | None
) -> list[Job]:
    """The runs that some items need, each once; all rows of a seed before the next seed."""
    needed = {name for item in items for name in item.rows}
    if needed:
        needed |= set(BASELINES)
    rows = [row for row in ROWS.values() if row.name in needed]
    return [
        Job(row=row.name, seed=seed, config=_config(row, scale, dataset, seed, epochs, device, data_dir))
        for seed in range(seeds)
        for row in rows
    ]


def _config(
    row: Row, scale: Scale, dataset: str, seed: int, epochs: int, device: str, data_dir: str | None
) -> RunConfig:
    info = dataset_info(dataset)
    fields: dict[str, Any] = dict(scale.resnet) if info.encoder == "resnet18" else {}
    knobs = dict(row.knobs)
    start = preset(row.preset, dataset=dataset).knobs
    if start.ema > 0:
        knobs |= {"ema": scale.ema} if scale.ema is not None else {}
        knobs |= {"lr_predictor": scale.lr_predictor} if scale.lr_predictor is not None else {}
    strength = scale.augmentation[0 if start.ema > 0 else 1]
    if strength != 1.0:
        knobs["augmentation"] = strength
    if data_dir is not None:
        fields["data_dir"] = data_dir
    passes = {"pretrained": epochs, "untrained": 0, "supervised": scale.supervised_epochs}[row.kind]
    return preset(
        row.preset, dataset=dataset, knobs=knobs, seed=seed, device=device, epochs=passes, **fields,
    )  # fmt: skip
