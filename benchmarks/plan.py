"""How much is measured, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.app import Stage
from ssl_lab.config import RunConfig, preset
from ssl_lab.errors import ConfigError
from ssl_lab.trainer import resolve_precision

IMAGES = 50_000
"""Training images of CIFAR-10."""
METHODS: Mapping[str, str] = {
    "BYOL": "byol",
    "SimSiam": "simsiam",
    "DirectPred": "directpred",
    "DirectCopy": "directcopy",
    "linear predictor": "byol-one-layer",
}
"""The methods that are compared, by the presets that make them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the sections are told."""

    device: torch.device
    """Where networks are stepped."""
    quick: bool = False
    """Fewer and shorter measurements, for a first look."""
    tiny: bool = False
    """Sizes that a CPU steps at once: the same code is tried, and the figures mean nothing."""

    stage: Stage = field(default_factory=Stage)
    """The app and the browser; whoever made the plan closes it."""

    @property
    def cuda(self) -> bool:
        """Whether the networks are stepped by a GPU."""
        return self.device.type == "cuda"

    def pick(self, *, gpu: int, cpu: int, quick: int, tiny: int) -> int:
        """The count for this plan; ``quick`` is for a CPU, and a quick GPU does half of what it would."""
        if self.tiny:
            return tiny
        if self.cuda:
            return max(1, gpu // 2) if self.quick else gpu
        return quick if self.quick else cpu

    @property
    def images(self) -> int:
        """Training images of the data that stand for CIFAR-10: as many on a GPU, enough for some steps on a CPU."""
        return IMAGES if self.cuda else self.pick(gpu=IMAGES, cpu=640, quick=256, tiny=32)

    @property
    def batch(self) -> int:
        """Images a step where one size is measured: the papers' 128, but in a first look on a CPU."""
        return 128 if self.cuda else self.pick(gpu=128, cpu=128, quick=16, tiny=8)

    @property
    def batches(self) -> tuple[int, ...]:
        """Images a step where several sizes are measured."""
        return (128, 256, 512) if self.cuda else (self.batch,)

    @property
    def network(self) -> str:
        """The network in words."""
        return "tiny ResNet" if self.tiny else "ResNet-18"

    def resnet(self, method: str, batch: int, precision: str = "auto") -> RunConfig:
        """A ResNet run on 32x32 colour images with the papers' heads."""
        fields: dict[str, Any] = {"batch_size": batch, "device": str(self.device), "precision": precision}
        if self.tiny:
            fields |= {"width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16}
        return preset(METHODS[method], dataset="cifar10", **fields)

    @property
    def usual(self) -> str:
        """The precision that a run takes on this device by itself."""
        return "bfloat16" if self.cuda else "float32"

    def precisions(self) -> tuple[str, ...]:
        """Precisions to be compared: not bf16 where the processor has none."""
        try:
            resolve_precision(RunConfig(precision="bfloat16"), self.device)
        except ConfigError:
            return ("float32",)
        return ("float32", "bfloat16")
