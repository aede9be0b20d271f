"""What a run is: ``RunConfig`` (fixed for a run), ``Knobs`` (changeable mid-run), data sets and presets.

Nothing here imports torch, so that a page's kernel can build its controls from this module alone.

Sources named in this file: **P** Tian, Chen & Ganguli 2021, arXiv 2102.06810 (DirectPred); **C** Wang,
Chen, Du & Tian 2021, arXiv 2110.04947 (DirectCopy); **S** the course reproduction of P by Höppe,
Miszkurka & Wilkman.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_lab.errors import ConfigError, KnobError, shown

PredictorMode = Literal["mlp", "linear", "directpred", "directcopy", "optimal", "none"]
SymmetryMode = Literal["off", "penalty", "hard"]
NormMode = Literal["fro", "spectral", "none"]
EncoderName = Literal["small", "resnet18", "linear"]
LossName = Literal["cosine", "euclidean"]
StartName = Literal["random", "aligned"]
StemName = Literal["small-image", "large-image"]

DIRECT_MODES = ("directpred", "directcopy")
"""Modes that make Wp from F, symmetric and with F's eigenvectors."""

SET_MODES = (*DIRECT_MODES, "optimal")
"""Modes that set Wp at every ``freq``-th step, instead of training it."""


@dataclass(frozen=True, kw_only=True)
class KnobMeta:
    """How a knob is shown to a person; the range itself is the field's own constraint."""

    group: str
    """Heading under which the bench lists the knob."""
    label: str
    """Short name on the page."""
    symbol: str
    """The paper's symbol, or an empty string."""
    unit: str
    """Unit of the value, or an empty string for a pure number."""
    source: str
    """Where the knob comes from: paper and equation."""
    scale: Literal["choice", "switch", "linear", "log", "number", "integer"]
    """Kind of control that suits the knob."""
    handy: tuple[float, float, float] | None = None
    """(low, high, step) that a slider offers; the full range may be wider."""


class Knobs(BaseModel):
    """Every rule that may change at any step. Immutable: :meth:`changed` returns a checked copy."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    predictor: Annotated[
        PredictorMode,
        KnobMeta(group="Predictor", label="mode", symbol="Wp", unit="", source="P sec. 2, eq. 18; C", scale="choice"),
    ] = Field(
        default="mlp",
        description="How the predictor is made: two layers or one layer trained by SGD, set directly from F "
        "(DirectPred, DirectCopy), set to the least-squares optimum, or none (the identity).",
    )
    eps: Annotated[
        float,
        KnobMeta(
            group="Predictor", label="eps", symbol="ε", unit="", source="P eq. 18; C", scale="linear",
            handy=(0.0, 1.0, 0.01),
        ),
    ] = Field(
        default=0.1, ge=0.0, le=10.0,
        description="Boost added to every eigenvalue of a directly set predictor, relative to the largest.",
    )  # fmt: skip
    rho: Annotated[
        float,
        KnobMeta(
            group="Predictor", label="rho", symbol="ρ", unit="per step", source="P eq. 17", scale="linear",
            handy=(0.0, 1.0, 0.01),
        ),
    ] = Field(
        default=0.3, ge=0.0, le=1.0,
        description="Memory of the correlation F: F <- rho F + (1 - rho) E[f f^T] at each step.",
    )  # fmt: skip
    freq: Annotated[
        int,
        KnobMeta(
            group="Predictor", label="set every", symbol="freq", unit="steps", source="P table 8", scale="integer",
            handy=(1, 50, 1),
        ),
    ] = Field(
        default=1, ge=1, le=10_000,
        description="A direct mode sets Wp at every freq-th step; in between SGD trains it.",
    )  # fmt: skip
    centred: Annotated[
        bool,
        KnobMeta(
            group="Predictor", label="centred F", symbol="F − E[f]E[f]ᵀ", unit="", source="P sec. 5", scale="switch"
        ),
    ] = Field(
        default=False,
        description="On: the mean of the projections is taken out of F, which makes it their covariance. The paper "
        "found that it hurts.",
    )
    norm: Annotated[
        NormMode,
        KnobMeta(group="Predictor", label="norm of F", symbol="‖F‖", unit="", source="C", scale="choice"),
    ] = Field(default="fro", description="What DirectCopy divides F by: Frobenius norm, spectral norm, or nothing.")
    ema: Annotated[
        float,
        KnobMeta(
            group="Target", label="EMA rate", symbol="τ", unit="per step", source="P sec. 2", scale="linear",
            handy=(0.0, 1.0, 0.001),
        ),
    ] = Field(
        default=0.996, ge=0.0, le=1.0,
        description="Share of the target network kept at each step; 0 copies the online network (SimSiam).",
    )  # fmt: skip
    stop_gradient: Annotated[
        bool,
        KnobMeta(group="Target", label="stop-gradient", symbol="sg", unit="", source="P theorem 2", scale="switch"),
    ] = Field(
        default=True,
        description="On: the target branch passes no gradient. Off: the online network's own output is the "
        "target and is trained too, which collapses.",
    )
    symmetry: Annotated[
        SymmetryMode,
        KnobMeta(group="Symmetry", label="symmetry", symbol="", unit="", source="P sec. 3; S", scale="choice"),
    ] = Field(
        default="off",
        description="Off, a penalty on the asymmetry of Wp in the loss, or hard: symmetrised after each step.",
    )
    symmetry_strength: Annotated[
        float,
        KnobMeta(
            group="Symmetry", label="strength", symbol="λ", unit="", source="this project", scale="linear",
            handy=(0.0, 10.0, 0.1),
        ),
    ] = Field(
        default=1.0, ge=0.0, le=10.0,
        description="Weight of the penalty 1/2 |Wp - Wp^T|_F^2 when symmetry is set to penalty.",
    )  # fmt: skip
    lr: Annotated[
        float,
        KnobMeta(
            group="Optimiser", label="learning rate", symbol="α", unit="per step", source="P sec. 5", scale="log",
            handy=(-4, 1, 0.1),
        ),
    ] = Field(default=0.03, ge=0.0, le=100.0, description="SGD rate of the encoder and the projector.")  # fmt: skip
    lr_predictor: Annotated[
        float,
        KnobMeta(
            group="Optimiser", label="predictor's", symbol="α·αp", unit="per step", source="P sec. 3",
            scale="log", handy=(-4, 1, 0.1),
        ),
    ] = Field(default=0.03, ge=0.0, le=100.0, description="SGD rate of the predictor.")  # fmt: skip
    weight_decay: Annotated[
        float,
        KnobMeta(
            group="Optimiser", label="weight decay", symbol="η", unit="", source="P sec. 3.3", scale="number",
            handy=(0.0, 1.0, 0.0001),
        ),
    ] = Field(
        default=4e-4, ge=0.0, le=1.0,
        description="L2 added to the gradient of the encoder's and projector's weights; biases have none.",
    )  # fmt: skip
    weight_decay_predictor: Annotated[
        float,
        KnobMeta(
            group="Optimiser", label="predictor's", symbol="ηp", unit="", source="P sec. 3.3",
            scale="number", handy=(0.0, 1.0, 0.0001),
        ),
    ] = Field(
        default=4e-4, ge=0.0, le=1.0, description="L2 added to the gradient of the predictor's weights."
    )  # fmt: skip
    augmentation: Annotated[
        float,
        KnobMeta(
            group="Views", label="augmentation", symbol="σ²", unit="times the recipe", source="P sec. 2",
            scale="linear", handy=(0.0, 2.0, 0.05),
        ),
    ] = Field(
        default=1.0, ge=0.0, le=2.0,
        description="Strength of the views' augmentation: 0 shows the image itself, 1 is the paper's recipe.",
    )  # fmt: skip

    def changed(self, changes: Mapping[str, Any]) -> Knobs:
        """A checked copy with ``changes`` applied, all or nothing.

        Raises:
            KnobError: a name that is no knob, or a value out of range or of the wrong kind; the message
                names the knob, the value and what is allowed. This object is unchanged in any case.
        """
        unknown = sorted(set(changes) - set(type(self).model_fields), key=str)
        if unknown:
            known = ", ".join(type(self).model_fields)
            raise KnobError(f"There is no knob called {shown(unknown[0])}. The knobs are: {known}.")
        plain = {name: _plain_number(value) for name, value in changes.items()}
        try:
            return type(self).model_validate({**self.model_dump(), **plain})
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise KnobError(
                f"The knob {name!r} cannot be {shown(plain.get(name))}: it takes {allowed(name)}. Nothing was changed."
            ) from None

    def difference(self, other: Knobs) -> dict[str, Any]:
        """What to hand to :meth:`changed` so that this becomes ``other``."""
        return {n: getattr(other, n) for n in type(self).model_fields if getattr(self, n) != getattr(other, n)}


def parse_assignment(text: str) -> tuple[str, Any]:
    """``ema=0.99`` as ("ema", 0.99): a number, true or false, else a word; checked.

    Raises:
        ConfigError: it is no assignment.
        KnobError: there is no such knob, or it does not take the value.
    """
    name, equals, word = text.partition("=")
    if not equals:
        raise ConfigError(f"A knob is set by KNOB=VALUE, such as ema=0.99, and not by {shown(text)}.")
    value = plain_value(word.lower() if word.lower() in ("true", "false") else word)
    Knobs().changed({name: value})
    return name, value


def parse_knobs(text: str) -> dict[str, Any]:
    """``ema=0.9,predictor=none`` as a dictionary; checked, see :func:`parse_assignment`."""
    return dict(parse_assignment(word.strip()) for word in text.split(",") if word.strip())


def plain_value(word: str) -> Any:
    """A number, true, false or null as JSON has them; any other word as it is."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        # A number of some thousand digits is none either.
        return word


def _plain_number(value: Any) -> Any:
    """numpy and torch scalars as Python numbers; everything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 0) == 0 else value


def knob_meta(name: str) -> KnobMeta:
    """How the knob ``name`` is shown to a person."""
    for extra in Knobs.model_fields[name].metadata:
        if isinstance(extra, KnobMeta):
            return extra
    raise KeyError(name)


def knob_range(name: str) -> tuple[float, float] | None:
    """Lowest and highest value of a numeric knob, ``None`` for the others."""
    low = high = None
    for extra in Knobs.model_fields[name].metadata:
        low = getattr(extra, "ge", low)
        high = getattr(extra, "le", high)
    return None if low is None or high is None else (float(low), float(high))


def knob_choices(name: str) -> tuple[str, ...]:
    """The words a choice knob takes; empty for the others."""
    kind = Knobs.model_fields[name].annotation
    return tuple(get_args(kind)) if get_origin(kind) is Literal else ()


def allowed(name: str) -> str:
    """In words, what the knob ``name`` takes."""
    choices = knob_choices(name)
    if choices:
        return "one of " + ", ".join(choices)
    span = knob_range(name)
    if span is None:
        return "True or False"
    kind = "a whole number" if Knobs.model_fields[name].annotation is int else "a number"
    return f"{kind} from {span[0]:g} to {span[1]:g}"


def idle_knobs(knobs: Knobs) -> dict[str, str]:
    """Knobs that do nothing in the present mode, each with the reason in words."""
    idle: dict[str, str] = {}
    mode = knobs.predictor
    if mode not in DIRECT_MODES:
        idle["eps"] = "only DirectPred and DirectCopy use it"
    if mode not in SET_MODES:
        idle["freq"] = "only a mode that sets Wp uses it"
        for name in ("rho", "centred"):
            idle[name] = "only a mode that sets Wp acts on it; F is still measured with it"
    if mode != "directcopy":
        idle["norm"] = "only DirectCopy uses it"
    if not knobs.stop_gradient:
        idle["ema"] = "without stop-gradient the online network is its own target"
    if mode == "none":
        for name in ("symmetry", "symmetry_strength", "lr_predictor", "weight_decay_predictor"):
            idle[name] = "there is no predictor"
    elif mode in SET_MODES and knobs.freq == 1:
        anew = "Wp is set anew at every step"
        for name in ("symmetry", "symmetry_strength"):
            idle[name] = anew if mode == "optimal" else "a directly set predictor is symmetric already"
        for name in ("lr_predictor", "weight_decay_predictor"):
            idle[name] = anew
    if knobs.symmetry != "penalty" and "symmetry_strength" not in idle:
        idle["symmetry_strength"] = "only the penalty uses it"
    return idle


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The augmentation of one kind of images; strengths at ``augmentation`` = 1."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area, as a share of the image."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width over height, drawn uniformly in its logarithm."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them."""
    jitter_probability: float = 0.8
    """Probability that the colours are jittered at all."""
    grey: float = 0.2
    """Probability of turning the image grey."""
    blur_taps: int = 0
    """Width of the Gaussian blur in pixels (odd); 0 for none."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation, in pixels."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean subtracted at the end, in units of a pixel in [0, 1]; None for no normalisation."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation divided by at the end."""
    noise: float = 0.0
    """Variance of Gaussian noise that each number of the normalised image gets, drawn anew for each view; the theory's
    sigma^2."""

    @property
    def only_noise(self) -> bool:
        """Whether nothing but noise is done to an image."""
        still = self.crop_scale == self.crop_ratio == (1.0, 1.0) and not self.flip and not self.blur_taps
        return still and not (self.jitter_probability or self.grey)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is read."""

    name: str
    """Name on the command line; for a folder of images, ``folder``."""
    title: str
    """Name for a person."""
    image_size: int
    """Height and width of an image, in pixels."""
    channels: int
    """1 for grey, 3 for colour."""
    download: bool
    """Whether the data has to be fetched once."""
    recipe: Recipe
    """Its augmentation."""
    encoder: EncoderName = "resnet18"
    """Encoder a preset takes for it."""
    stem: StemName = "small-image"
    """Stem of a ResNet for it."""
    labelled: bool = True
    """Whether its images have classes; of data without there is no accuracy."""
    train_images: int = 50_000
    """Training images; of a folder a guess, until it is read."""


DIGITS = DatasetInfo(
    name="digits", title="Digits (8x8, embedded)", image_size=8, channels=1, download=False, encoder="small",
    train_images=1_437,
    # Made for this set: a crop of an 8x8 digit keeps at least half of it, a mirrored digit is another
    # sign, and there is no colour to turn.
    recipe=Recipe(crop_scale=(0.4, 1.0), flip=0.0, jitter=(0.4, 0.4, 0.0, 0.0), grey=0.0, mean=(0.305,), std=(0.376,)),
)  # fmt: skip
CIFAR10 = DatasetInfo(
    name="cifar10", title="CIFAR-10", image_size=32, channels=3, download=True,
    recipe=Recipe(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
)  # fmt: skip
STL10 = DatasetInfo(
    name="stl10", title="STL-10", image_size=96, channels=3, download=True, stem="large-image", train_images=105_000,
    recipe=Recipe(jitter=(0.8, 0.8, 0.8, 0.2), blur_taps=9),
)  # fmt: skip
FASHION_MNIST = DatasetInfo(
    name="fashion-mnist", title="Fashion-MNIST", image_size=28, channels=1, download=True, train_images=60_000,
    recipe=Recipe(jitter=(0.4, 0.4, 0.0, 0.0), grey=0.0, mean=(0.2860,), std=(0.3530,)),
)  # fmt: skip
CODE = (128, 32)
"""How numbers that are no pixels are kept as bytes: byte = number * 32 + 128, so that a byte holds -4 to 3.97."""
GAUSSIAN = DatasetInfo(
    name="gaussian", title="Gaussian (16 numbers, embedded)", image_size=4, channels=1, download=False,
    encoder="linear", labelled=False, train_images=16_384,
    # The theory's own data: x of covariance I, and views x + noise of covariance sigma^2 I. Normalising undoes the
    # bytes' code and nothing else.
    recipe=Recipe(
        crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), jitter_probability=0.0,
        grey=0.0, mean=(CODE[0] / 255,), std=(CODE[1] / 255,), noise=0.3,
    ),
)  # fmt: skip
FOLDER = DatasetInfo(
    name="folder", title="Folder of images", image_size=32, channels=3, download=False,
    recipe=CIFAR10.recipe,
)  # fmt: skip

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {info.name: info for info in (DIGITS, CIFAR10, STL10, FASHION_MNIST, GAUSSIAN)}
)


def dataset_info(dataset: str) -> DatasetInfo:
    """What is known of ``dataset``: a name from ``DATASETS``, or the path of a folder of images.

    Raises:
        ConfigError: neither a known name nor something that looks like a path to an existing folder.
    """
    if not isinstance(dataset, str):
        raise ConfigError(f"A data set is called by a text, and not by {shown(dataset)}.")
    if dataset in DATASETS:
        return DATASETS[dataset]
    with suppress(OSError, ValueError):
        if Path(dataset).is_dir():
            return FOLDER
    raise ConfigError(
        f"There is no data set {shown(dataset)}. Take one of {', '.join(DATASETS)}, or the path of a folder that "
        "holds train/<class>/* and test/<class>/* images."
    )


def portable_dataset(dataset: str) -> str:
    """A data set as a file that leaves this machine names it: of a folder its last name, never where it lies.

    A folder that is called as a data set of this project does not become that one.

    >>> portable_dataset("digits"), portable_dataset("/home/ada/images/cats/"), portable_dataset("/home/ada/cifar10")
    ('digits', 'cats', 'cifar10-images')
    """
    if dataset in DATASETS:
        return dataset
    parts = [part for part in re.split(r"[/\\]", dataset) if part not in ("", ".", "..")]
    name = parts[-1] if parts else FOLDER.name
    return f"{name}-images" if name in DATASETS else name


class RunConfig(BaseModel):
    """All that is fixed for a run. Two runs of one config and one list of knob events are the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    preset: str = Field(default="byol", max_length=200, description="Name of the preset the run began as.")
    dataset: str = Field(
        default="digits", max_length=4096, description="Data set: a name, or the path of a folder of images."
    )
    data_dir: str | None = Field(
        default=None,
        max_length=4096,
        description="Folder that downloads go to; None for the default (SSL_LAB_DATA or ./data).",
    )
    image_size: int | None = Field(
        default=None, ge=8, le=512,
        description="Height and width in pixels that the images are brought to; None for their own, of a folder 32.",
    )  # fmt: skip
    train_limit: int | None = Field(
        default=None,
        ge=2,
        le=2**53,
        description="Train on this many images, an even share of each class; None for all.",
    )
    test_limit: int | None = Field(default=None, ge=1, le=2**53, description="Test on this many images; None for all.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of every random stream of the run.")
    device: str = Field(
        default="auto", max_length=100, description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the encoder's and projector's products: bfloat16 is faster where the processor "
        "has it, auto takes it on a GPU. Weights, BN, F, Wp and EMA are float32 always.",
    )
    batch_size: int = Field(default=128, ge=2, le=65_536, description="Images a step; each gives two views.")
    epochs: int | None = Field(
        default=None, ge=0, le=2**53, description="Length of pre-training in epochs; None goes on until told to stop."
    )
    encoder: EncoderName = Field(default="small", description="Network that is trained to see.")
    stem: StemName = Field(
        default="small-image",
        description="First layers of a ResNet: 3x3 stride 1 without pooling, or 7x7 stride 2 with max-pool.",
    )
    width: int = Field(default=64, ge=1, le=1024, description="Channels of the encoder's first stage.")
    projector_layers: int = Field(
        default=2, ge=0, le=8,
        description="Linear layers of the projector; 0, of a linear encoder alone, for none.",
    )  # fmt: skip
    projector_hidden: int = Field(default=512, ge=1, le=16_384, description="Hidden units of the projector.")
    projector_dim: int = Field(
        default=128, ge=2, le=4096, description="Outputs of the projector, d; F and Wp are d x d."
    )
    predictor_hidden: int = Field(default=512, ge=2, le=16_384, description="Hidden units of a two-layer predictor.")
    probe_layers: int = Field(
        default=0, ge=0, le=7,
        description="Layers of the projector that the probe keeps on top of the encoder (0: the encoder alone).",
    )  # fmt: skip
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="Momentum of SGD.")
    loss: LossName = Field(
        default="cosine",
        description="What two views' outputs are compared by: -2 times their cosine, or half their squared distance as "
        "in the linear theory, either as a mean over images and views.",
    )
    start: StartName = Field(
        default="random",
        description="First weights: drawn at random, or, of a linear encoder without projector, with Wp symmetric in "
        "the eigenbasis of F, modes of many sizes.",
    )
    spectrum_every: int | None = Field(
        default=None, ge=1, le=2**53,
        description="Record the spectrum at every this many steps besides what a page asks for; None for each epoch.",
    )  # fmt: skip
    knobs: Knobs = Field(default_factory=Knobs, description="The knobs at step 0.")


def make_config(cls: type[RunConfig] = RunConfig, /, **fields: Any) -> RunConfig:
    """``RunConfig(**fields)`` with an error that a person can read.

    Raises:
        ConfigError: names the field, the value and what is wrong with it.
    """
    try:
        config = cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The setting {shown(where)} cannot be {shown(first['input'])}: {first['msg']}.") from None
    return check_together(config)


def check_together(config: RunConfig) -> RunConfig:
    """The config itself, whose settings fit together.

    Raises:
        ConfigError: two of them do not.
    """
    if config.encoder != "linear" and config.projector_layers == 0:
        raise ConfigError(
            f"The setting 'projector_layers' cannot be 0: the encoder {config.encoder!r} needs a projector to come to "
            "projector_dim outputs. Only a linear encoder does without."
        )
    if config.start == "aligned" and (config.encoder != "linear" or config.projector_layers > 0):
        raise ConfigError(
            "The setting 'start' cannot be 'aligned': only a linear encoder without projector (projector_layers 0) has "
            "modes to align."
        )
    if config.probe_layers >= max(1, config.projector_layers):
        raise ConfigError(
            f"The setting 'probe_layers' cannot be {config.probe_layers}: the projector has "
            f"{config.projector_layers} layers, and the probe keeps fewer than that."
        )
    if config.start == "aligned" and config.knobs.predictor == "mlp":
        raise ConfigError(
            "The setting 'start' cannot be 'aligned' with a predictor of two layers, which has no one matrix to align: "
            "take predictor=linear."
        )
    if config.projector_dim > config.predictor_hidden:
        raise ConfigError(
            f"The setting 'predictor_hidden' cannot be {config.predictor_hidden}: two layers can hold any Wp only "
            f"with at least projector_dim = {config.projector_dim} hidden units."
        )
    return config


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One row of the papers' tables: a name, what it is, where it is from, and what it sets."""

    name: str
    """Plain name, as ``preset()`` takes it."""
    title: str
    """One line for a person: what to expect."""
    source: str
    """Where the row is from."""
    knobs: Mapping[str, Any]
    """Knobs that differ from the two-layer BYOL."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fixed settings that differ."""
    dataset: str | None = None
    """Data set that it is about; None for any."""


# Sizes of the networks that go with an encoder: the paper's for a ResNet, and small ones with which two
# cores give a live picture of the digits.
_SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "resnet18": {"width": 64, "projector_hidden": 512, "projector_dim": 128, "predictor_hidden": 512},
        # 64 hidden units did as well as 128 in fewer operations: DirectPred's probe on the digits after 660 steps gave
        # 99.17, 98.89 and 98.33 % against 98.61, 98.89 and 97.50 % (seeds 0 to 2), and it collapses and returns alike.
        "small": {"width": 16, "projector_hidden": 64, "projector_dim": 32, "predictor_hidden": 128},
        # No projector: the encoder's outputs are the d modes.
        "linear": {"projector_layers": 0, "projector_dim": 16, "predictor_hidden": 64},
    }
)

_SIMSIAM: Mapping[str, Any] = {"ema": 0.0}
_DIRECTPRED: Mapping[str, Any] = {"predictor": "directpred", "eps": 0.1, "rho": 0.3}
_DIRECTCOPY: Mapping[str, Any] = {"predictor": "directcopy", "eps": 0.3, "rho": 0.5}
_HARD: Mapping[str, Any] = {"symmetry": "hard"}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        p.name: p
        for p in (
            Preset(name="byol", title="BYOL: two-layer predictor, EMA target", source="S get_byol", knobs={}),
            Preset(
                name="byol-symmetric", title="BYOL with a symmetric predictor: aligns sooner",
                source="S get_eigenspace_experiment_with_symmetry", knobs=_HARD,
            ),
            Preset(
                name="byol-one-layer", title="BYOL with one linear layer as predictor",
                source="S get_byol_baseline; P table 8", knobs={"predictor": "linear"},
            ),
            Preset(name="simsiam", title="SimSiam: no EMA, the target is the online network", source="S get_simsiam",
                   knobs=_SIMSIAM),
            Preset(
                name="simsiam-symmetric", title="SimSiam with a symmetric predictor: collapses",
                source="S get_simsiam_symmetric", knobs={**_SIMSIAM, **_HARD},
            ),
            Preset(
                name="simsiam-symmetric-decay", title="Symmetric SimSiam, weight decay on the predictor only",
                source="S get_simsiam_symmetric_predictor_decay",
                knobs={**_SIMSIAM, **_HARD, "weight_decay": 0.0},
            ),
            Preset(
                name="simsiam-symmetric-stable", title="Symmetric SimSiam with lr .2 and predictor lr 2: stable",
                source="S branch simsiam_predictor, lr adjusted",
                knobs={**_SIMSIAM, **_HARD, "weight_decay": 0.0, "lr": 0.2, "lr_predictor": 2.0},
            ),
            Preset(
                name="simsiam-one-layer", title="SimSiam with one linear layer as predictor",
                source="S get_simsiam_baseline", knobs={**_SIMSIAM, "predictor": "linear"},
            ),
            Preset(name="directpred", title="DirectPred: Wp set from the eigenvectors of F",
                   source="P eq. 18; S get_direct_pred", knobs=_DIRECTPRED),
            Preset(
                name="directpred-freq5", title="DirectPred every fifth step, SGD in between",
                source="P table 8; S get_direct_pred_freq_5", knobs={**_DIRECTPRED, "freq": 5},
            ),
            Preset(name="directpred-simsiam", title="DirectPred without EMA", source="S get_simsiam_pred",
                   knobs={**_DIRECTPRED, **_SIMSIAM}),
            Preset(
                name="directpred-centred", title="DirectPred from the covariance: the mean taken out of F",
                source="P sec. 5", knobs={**_DIRECTPRED, "centred": True},
            ),
            Preset(
                name="directpred-deeper", title="DirectPred with a three-layer projector",
                source="S get_deeper_projection", knobs=_DIRECTPRED, config={"projector_layers": 3},
            ),
            Preset(name="directcopy", title="DirectCopy: Wp is F itself, normalised, no eigenvectors needed",
                   source="C; S get_direct_copy", knobs=_DIRECTCOPY),
            Preset(name="directcopy-simsiam", title="DirectCopy without EMA", source="S figure 1",
                   knobs={**_DIRECTCOPY, **_SIMSIAM}),
            Preset(
                name="optimal", title="The least-squares optimal predictor: does badly",
                source="P table 1", knobs={"predictor": "optimal", "rho": 0.3},
            ),
            Preset(
                name="no-predictor", title="Lesson: without a predictor it collapses", source="P theorem 2",
                knobs={**_SIMSIAM, "predictor": "none"},
            ),
            Preset(
                name="no-stop-gradient", title="Lesson: without stop-gradient it collapses", source="P theorem 2",
                knobs={**_SIMSIAM, "stop_gradient": False},
            ),
            Preset(
                name="linear", title="The theory's own model: linear network on Gaussian data", source="P sec. 3",
                # Weight decay as in the theory's test values, the same for both: the flow has one eta.
                knobs={
                    **_SIMSIAM, "predictor": "linear", "lr": 0.02, "lr_predictor": 0.02, "weight_decay": 0.05,
                    "weight_decay_predictor": 0.05, "rho": 0.5,
                },
                config={
                    "encoder": "linear", "batch_size": 1024, "momentum": 0.0, "loss": "euclidean",
                    "start": "aligned",
                },
                dataset="gaussian",
            ),
        )
    }
)  # fmt: skip


def presets() -> dict[str, Preset]:
    """Every preset by its plain name, in the order of the papers' tables."""
    return dict(PRESETS)


LARGE_IMAGE = 64
"""Height in pixels from which images get the large-image stem."""


def preset(
    name: str, *, dataset: str | None = None, knobs: Mapping[str, Any] | None = None, **fields: Any
) -> RunConfig:
    """The configuration of a preset on a data set.

    Args:
        name: one of :func:`presets`.
        dataset: a name from ``DATASETS`` or the path of a folder of images; None for the one that the preset is
            about, or the digits.
        knobs: knobs to start with that differ from the preset's.
        **fields: any field of :class:`RunConfig`, such as ``seed=0`` or ``width=16``.

    Raises:
        ConfigError: an unknown preset, data set or setting.
        KnobError: a knob of ``knobs`` is unknown or out of range.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"There is no preset {shown(name)}. The presets are: {', '.join(PRESETS)}.")
    row = PRESETS[name]
    dataset = dataset or row.dataset or "digits"
    info = dataset_info(dataset)
    start = Knobs().changed({**row.knobs, **(knobs or {})})
    encoder = fields.get("encoder", row.config.get("encoder", info.encoder))
    if info is FOLDER:
        # The engine, a page's kernel and a later test have other working directories.
        dataset = str(Path(dataset).absolute())
    # Where a 3x3 stem would keep a large image at its full size, a ResNet takes its usual one.
    size = fields.get("image_size") or info.image_size
    large = isinstance(size, int) and size >= LARGE_IMAGE
    defaults = {
        "stem": "large-image" if large else info.stem,
        **_SIZES.get(str(encoder), {}),
        **row.config,
        "encoder": encoder,
    }
    if encoder != "linear":
        # Another encoder has no modes that could start aligned.
        defaults.pop("start", None)
    return make_config(**{**defaults, **fields, "preset": name, "dataset": dataset, "knobs": start.model_dump()})


def total_steps(config: RunConfig) -> int:
    """Steps of a run of some epochs; an estimate where the size of the data set is not known before it is read."""
    images = DATASETS.get(config.dataset, FOLDER).train_images
    if config.train_limit is not None:
        images = min(images, config.train_limit)
    return (config.epochs or 0) * (images // config.batch_size)
