"""Section ``peers``: one BYOL step of ours beside lightly's and beside plain PyTorch, same network, same images.

* ``lightly`` is written from its documented API in the way its own example goes: transforms per image in the workers of
  a ``DataLoader``, its heads, loss and EMA, ``torch.optim.SGD``. Where it is not installed, the same loop stands with
  torchvision's transforms and our heads, under a name that says so.
* ``plain`` is an eager float32 step on views that lie ready on the device: no augmentation, no loader.
* ``ours`` is ``Trainer.step``, its augmentation included.

All are taken in turn, so that what drifts drifts under all of them. The first two live in processes of their own, where
nothing of ours is set, such as the memory that a ``Trainer`` has the C library keep.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.images import random_cifar
from benchmarks.machine import wait_for
from benchmarks.paired import interleaved, ratios
from benchmarks.peak import WORDS
from benchmarks.plan import Plan
from benchmarks.stepping import bare_seconds
from benchmarks.table import Entry, Missing, Row
from ssl_lab.config import RunConfig
from ssl_lab.cores import usable_cores
from ssl_lab.datasets import Dataset
from ssl_lab.networks import ResNet18, mlp
from ssl_lab.trainer import Trainer

MOMENTUM, RATE, DECAY, EMA = 0.9, 0.03, 4e-4, 0.996
PLAIN = "plain eager PyTorch, fp32, views ready"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def measure(plan: Plan) -> Iterator[Entry]:
    """Images a second of each, and ours over lightly's and over the plain step."""
    steps, rounds = plan.pick(gpu=32, cpu=2, quick=1, tiny=1), plan.pick(gpu=6, cpu=5, quick=1, tiny=2)
    config = plan.resnet("BYOL", plan.batch)
    data = random_cifar(plan.images, 64)
    loop, plain = _Elsewhere(_Loop, plan, config, data.train.images), _Elsewhere(_Plain, plan, config, None)
    try:
        yield from _side_by_side(plan, data, loop, plain, steps, rounds)
    finally:
        loop.close()
        plain.close()


def _side_by_side(
    plan: Plan, data: Dataset, loop: _Elsewhere, plain: _Elsewhere, steps: int, rounds: int
) -> Iterator[Entry]:
    batch = plan.batch
    ours = {f"ours, {WORDS[p]}": Trainer(plan.resnet("BYOL", batch, p), data) for p in plan.precisions()}
    measures: dict[str, Callable[[], float]] = {loop.name: partial(loop.seconds, steps)}
    measures[PLAIN] = partial(plain.seconds, steps)
    for name, trainer in ours.items():
        bare_seconds(trainer, plan.pick(gpu=40, cpu=1, quick=1, tiny=1))
        measures[name] = partial(bare_seconds, trainer, steps)
    plain.seconds(plan.pick(gpu=20, cpu=1, quick=1, tiny=1))
    found = interleaved(measures, rounds)
    where = f"BYOL, {plan.network}, batch {batch}"
    for name, seconds in found.items():
        besides = [f"{loop.workers} workers"] if name == loop.name else []
        yield Row(f"{name}: {where}", "images/s", [steps * batch / s for s in seconds], besides)
    for name in ours:
        for other in (loop.name, PLAIN):
            besides = [f"side by side, blocks of {steps} steps"]
            yield Row(f"{name} over {other}: {where}", "times", ratios(found[other], found[name]), besides)
    if not loop.lightly:
        yield Missing("lightly", "it is not installed here; the same loop has torchvision's transforms and our heads")


# ---------------------------------------------------------------- processes of their own


class _Elsewhere:
    """A peer in a process of its own; ``peer`` is its class."""

    def __init__(self, peer: type[_Loop | _Plain], plan: Plan, config: RunConfig, images: Tensor | None) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        numbers = None if images is None else images.numpy()
        lightly = importlib.util.find_spec("lightly") is not None
        what = (theirs, peer, str(plan.device), plan.quick, plan.tiny, config, numbers, lightly)
        self._process = context.Process(target=_serve, args=what)
        self._process.start()
        theirs.close()
        self.name, self.workers, self.lightly = self._pipe.recv()

    def seconds(self, steps: int) -> float:
        """Seconds of ``steps`` steps, measured there."""
        self._pipe.send(steps)
        return float(self._pipe.recv())

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=30)
        self._process.kill()


def _serve(
    pipe: Any,
    peer: type[_Loop | _Plain],
    device: str,
    quick: bool,
    tiny: bool,
    config: RunConfig,
    images: Any,
    lightly: bool,
) -> None:
    """Answers counts of steps with seconds, until told to end."""
    if tiny:
        torch.set_num_threads(1)
    plan = Plan(device=torch.device(device), quick=quick, tiny=tiny)
    made = peer(plan, config, torch.zeros(0) if images is None else torch.from_numpy(images), lightly)
    pipe.send((made.name, made.workers, made.lightly))
    while (steps := pipe.recv()) is not None:
        pipe.send(made.seconds(steps))


# ---------------------------------------------------------------- the loop with a loader


class _Pictures(TorchDataset[Any]):
    """Images as torchvision's data sets give them: a PIL image, transformed, and its label."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.pictures = [Image.fromarray(np.ascontiguousarray(image)) for image in images.permute(0, 2, 3, 1).numpy()]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> tuple[list[Tensor], int]:
        return self.transform(self.pictures[place]), place % 10


class TwoViews:
    """Two views of a PIL image by torchvision, one transform after the other."""

    def __init__(self, size: int) -> None:
        from torchvision import transforms as t

        jitter = t.RandomApply([t.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
        self._view = t.Compose(
            [
                t.RandomResizedCrop(size, scale=(0.08, 1.0)), t.RandomHorizontalFlip(), jitter, t.RandomGrayscale(0.2),
                t.ToTensor(), t.Normalize(MEAN, STD),
            ]
        )  # fmt: skip

    def __call__(self, picture: Image.Image) -> list[Tensor]:
        """Two tensors (3, S, S)."""
        return [self._view(picture), self._view(picture)]


def _lightly_views(size: int) -> Any:
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    normal = {"mean": list(MEAN), "std": list(STD)}
    # Without blur: that is for large images, and our recipe for 32 pixels has none either.
    return BYOLTransform(
        BYOLView1Transform(input_size=size, gaussian_blur=0.0, normalize=normal),
        BYOLView2Transform(input_size=size, gaussian_blur=0.0, normalize=normal),
    )


class _Siamese(nn.Module):
    """Backbone, projector and predictor with a copy of the first two that follows by EMA."""

    def __init__(self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.backbone_ema, self.projector_ema = copy.deepcopy(backbone), copy.deepcopy(projector)
        for module in (self.backbone_ema, self.projector_ema):
            module.requires_grad_(False)

    def forward(self, view: Tensor) -> Tensor:
        """q (B, d)."""
        out: Tensor = self.predictor(self.projector(self.backbone(view)))
        return out

    @torch.no_grad()
    def followed(self, view: Tensor) -> Tensor:
        """z (B, d) of the copy."""
        out: Tensor = self.projector_ema(self.backbone_ema(view))
        return out

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the copy."""
        for leader, follower in ((self.backbone, self.backbone_ema), (self.projector, self.projector_ema)):
            for p, q in zip(leader.parameters(), follower.parameters(), strict=True):
                q.lerp_(p, 1 - EMA)


def _siamese(config: RunConfig) -> _Siamese:
    backbone = ResNet18(3, config.width, config.stem)
    projector = mlp(backbone.features, config.projector_hidden, config.projector_dim, config.projector_layers)
    return _Siamese(backbone, projector, mlp(config.projector_dim, config.predictor_hidden, config.projector_dim, 2))


def _sgd(model: nn.Module) -> torch.optim.SGD:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)


class _Loop:
    """Training as a tutorial writes it: a loader that augments image by image, then the step."""

    def __init__(self, plan: Plan, config: RunConfig, images: Tensor, lightly: bool) -> None:
        self.device, self.batch, self.lightly = plan.device, config.batch_size, lightly
        self.workers = 0 if plan.tiny else min(8, usable_cores())
        size = images.shape[-1]
        if self.lightly:
            self.name = "lightly's example, fp32"
            self.model, self.follow, criterion = _lightly_model(config)
            pictures = _Pictures(images, _lightly_views(size))
        else:
            self.name = "the same loop with torchvision's transforms per image, fp32"
            self.model = _siamese(config)
            self.follow, criterion = self.model.follow, _negative_cosine
            pictures = _Pictures(images, TwoViews(size))
        self.criterion = criterion
        self.model.to(self.device)
        self.optimiser = _sgd(self.model)
        self.loader: DataLoader[Any] = DataLoader(
            pictures, batch_size=self.batch, shuffle=True, drop_last=True, num_workers=self.workers,
        )  # fmt: skip
        # On a GPU the loader is what is waited for: what lies ready when the clock starts would be a gift.
        self.warm = 2 * self.workers + 2 if plan.cuda else 1

    def seconds(self, steps: int) -> float:
        """Seconds of ``steps`` iterations, batches included; the workers' start is left out, and they end with it."""
        begun, done = 0.0, 0
        batches = iter(self.loader)
        while done < self.warm + steps:
            if done == self.warm:
                wait_for(self.device)
                begun = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                batches = iter(self.loader)
                continue
            self._step(*batch[0])
            done += 1
        wait_for(self.device)
        return time.perf_counter() - begun

    def _step(self, view0: Tensor, view1: Tensor) -> None:
        self.follow()
        view0, view1 = view0.to(self.device), view1.to(self.device)
        q0, z0 = self.model(view0), self.model.followed(view0)
        q1, z1 = self.model(view1), self.model.followed(view1)
        loss = 0.5 * (self.criterion(q0, z1) + self.criterion(q1, z0))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad()


def _lightly_model(config: RunConfig) -> tuple[_Siamese, Callable[[], None], Callable[[Tensor, Tensor], Tensor]]:
    """The network with lightly's heads in our sizes, lightly's EMA and lightly's loss."""
    from lightly.loss import NegativeCosineSimilarity  # type: ignore[import-untyped]
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead  # type: ignore[import-untyped]
    from lightly.models.utils import deactivate_requires_grad, update_momentum  # type: ignore[import-untyped]

    backbone = ResNet18(3, config.width, config.stem)
    model = _Siamese(
        backbone,
        BYOLProjectionHead(backbone.features, config.projector_hidden, config.projector_dim),
        BYOLPredictionHead(config.projector_dim, config.predictor_hidden, config.projector_dim),
    )
    for module in (model.backbone_ema, model.projector_ema):
        deactivate_requires_grad(module)

    def follow() -> None:
        update_momentum(model.backbone, model.backbone_ema, m=EMA)
        update_momentum(model.projector, model.projector_ema, m=EMA)

    return model, follow, NegativeCosineSimilarity()


def _negative_cosine(q: Tensor, z: Tensor) -> Tensor:
    return -nnf.cosine_similarity(q, z).mean()


# ---------------------------------------------------------------- the plain step


class _Plain:
    """BYOL in plain PyTorch on two views that are there."""

    name, workers, lightly = PLAIN, 0, False

    def __init__(self, plan: Plan, config: RunConfig, _images: Tensor, _lightly: bool) -> None:
        self.device = plan.device
        self.model = _siamese(config).to(self.device)
        self.optimiser = _sgd(self.model)
        generator = torch.Generator().manual_seed(0)
        shape = (config.batch_size, 3, 32, 32)
        self.views = [torch.randn(shape, generator=generator).to(self.device) for _ in range(2)]

    def seconds(self, steps: int) -> float:
        """Seconds of ``steps`` steps."""
        wait_for(self.device)
        begun = time.perf_counter()
        for _ in range(steps):
            self._step(*self.views)
        wait_for(self.device)
        return time.perf_counter() - begun

    def _step(self, view0: Tensor, view1: Tensor) -> None:
        q0, q1 = self.model(view0), self.model(view1)
        z0, z1 = self.model.followed(view0), self.model.followed(view1)
        loss = _negative_cosine(q0, z1) + _negative_cosine(q1, z0)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.model.follow()
