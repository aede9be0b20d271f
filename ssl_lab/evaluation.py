"""How much a frozen encoder knows: k nearest neighbours and a linear probe on its features.

Features are (N, D) float32, labels (N,) int64 in [0, num_classes), never -1. Nothing here touches torch's global
random state. Sources: **W** Wu et al. 2018, arXiv 1805.01978 (weighted kNN); **P** Tian, Chen & Ganguli 2021, arXiv
2102.06810, whose authors' probe is ``AUTHORS_PROBE``; **S** the course reproduction of P, whose probe is
``SEED_PROBE``; **K** Kingma & Ba 2015, arXiv 1412.6980 (Adam).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ssl_lab.errors import ConfigError, SSLLabError

_NUMBERS_HELD = 1 << 24
"""Most cosines or votes held at a time: 64 MiB of float32, where all of CIFAR-10's would be 2 GB."""


@torch.no_grad()
def extract_features(
    encode: Callable[[Tensor], Tensor],
    images: Tensor,
    prepare: Callable[[Tensor], Tensor],
    device: torch.device | str,
    batch_size: int = 512,
) -> Tensor:
    """Features (N, D) float32, on ``device``, of uint8 ``images`` (N, C, H, W).

    Args:
        encode: the encoder, put in eval mode by the caller: in train mode features would depend on their batch.
        images: where they lie; each batch is moved to the device by itself.
        prepare: what makes an encoder's input of a uint8 batch on the device, such as normalising.
        device: where the encoder is.
        batch_size: images a batch.

    Raises:
        ValueError: no images.
    """
    if len(images) == 0:
        raise ValueError("There are no images to take features of.")
    return torch.cat([encode(prepare(part.to(device))).float() for part in torch.split(images, batch_size)])


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.1,
    weights: Literal["exp", "uniform"] = "exp",
) -> float:
    """Share in [0, 1] of test images whose k nearest training images (by cosine) vote for the right class.

    Each neighbour's vote counts ``exp(cos / temperature)`` (W section 3.4), or 1 with ``weights="uniform"``; a tie goes
    to the class of the smaller number. Healthy: well above 1 / classes. Collapsed: near it. A feature that is zero or
    not finite (a network that diverged) is like nothing: its cosine with everything is 0.

    Args:
        train_features: (N, D); with fewer than k of them, all vote.
        train_labels: (N,) int64.
        test_features: (M, D).
        test_labels: (M,) int64.
        num_classes: number of classes.
        k: neighbours that vote.
        temperature: of W; smaller listens more to the nearest.
        weights: "exp" or "uniform".

    Raises:
        ValueError: no features, features and labels of different lengths, or a k or temperature that is not positive.
    """
    _check(train_features, train_labels, test_features, test_labels)
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature must be positive: {k}, {temperature}.")
    bank = _unit(train_features).T.contiguous()
    k = min(k, len(train_features))
    classes = functional.one_hot(train_labels.to(bank.device), num_classes).float()
    right = torch.zeros((), dtype=torch.int64, device=bank.device)
    step = max(1, _NUMBERS_HELD // max(len(train_features), k * num_classes))
    for part, labels in zip(torch.split(test_features, step), torch.split(test_labels, step), strict=True):
        cosines, nearest = (_unit(part) @ bank).topk(k)
        # Relative to the nearest, which changes no vote, so that a small temperature cannot overflow.
        votes = torch.ones_like(cosines) if weights == "uniform" else ((cosines - cosines[:, :1]) / temperature).exp()
        # A product and no scattered sum, whose order, and so whose rounding, differs from call to call on a GPU.
        counts = (votes[:, None, :] @ classes[nearest])[:, 0]
        right += (counts.argmax(1) == labels.to(bank.device)).sum()
    return int(right) / len(test_labels)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=1).nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How the linear probe is trained: by Adam on the cross-entropy, over shuffled batches of frozen features."""

    epochs: int = 50
    """Passes over the training features."""
    batch_size: int = 128
    """Features a step; a last batch that is smaller is kept."""
    lr: float = 5e-2
    """Adam's rate at the first step."""
    final_lr: float = 5e-4
    """Rate that the decay would reach one step after the last; equal to ``lr`` for a constant rate."""
    power: float = 2.0
    """Power of the polynomial decay; 1 is linear."""
    weight_decay: float = 0.0
    """L2 added to the gradient of weight and bias."""
    standardise: bool = False
    """Whether features are brought to mean 0 and standard deviation 1 by the training features' statistics."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            ConfigError: names the field and its value.
        """
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"The probe's {name} cannot be {getattr(self, name)}: it takes 1 or more.")
        for name in ("lr", "final_lr", "power", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"The probe's {name} cannot be {getattr(self, name)}: it takes 0 or more.")

    def rate(self, step: int, steps: int) -> float:
        """Adam's rate at ``step`` of 0 to ``steps`` - 1: (lr - final_lr) (1 - step / steps)^power + final_lr (S)."""
        return float((self.lr - self.final_lr) * (1 - step / steps) ** self.power + self.final_lr)


SEED_PROBE = ProbeConfig()
"""S: raw features, Adam from 5e-2 to 5e-4 with power 2, no weight decay; its figure is the last epoch's."""
AUTHORS_PROBE = ProbeConfig(lr=3e-4, final_lr=3e-4, weight_decay=1e-3, standardise=True)
"""P's authors: standardised features, Adam at 3e-4, L2 1e-3. They report the best test epoch, which peeks at the test
images: report the last beside it, never the best alone."""


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """A trained probe and how well it did on the test features. Tensors are on the CPU, float32."""

    accuracy_last: float
    """Test accuracy in [0, 1] after the last epoch: the honest figure."""
    accuracy_best: float
    """Best test accuracy in [0, 1] of any epoch; chosen on the test images, so an upper bound."""
    best_epoch: int
    """First epoch, from 1, that reached the best."""
    accuracies: tuple[float, ...]
    """Test accuracy in [0, 1] after each epoch."""
    weight: Tensor
    """(C, D), after the last epoch."""
    bias: Tensor
    """(C,), after the last epoch."""
    mean: Tensor
    """(D,) subtracted from features; 0 unless standardised."""
    std: Tensor
    """(D,) that features are divided by then; 1 unless standardised."""

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(N, C) float32 of features (N, D), on the features' device."""
        weight, bias, mean, std = (t.to(features.device) for t in (self.weight, self.bias, self.mean, self.std))
        return functional.linear((features.float() - mean) / std, weight, bias)

    def predict(self, features: Tensor) -> Tensor:
        """(N,) int64: the class of features (N, D), on their device."""
        return self.logits(features).argmax(1)

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors, for a file; :meth:`from_state` takes it back."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return {**tensors, "accuracies": torch.tensor(self.accuracies, dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ProbeResult:
        """The result that :meth:`state` wrote.

        Raises:
            SSLLabError: a tensor is missing.
        """
        missing = [name for name in (*_TENSORS, "accuracies") if name not in state]
        if missing:
            raise SSLLabError(
                f"The probe's state lacks {', '.join(missing)}; it holds {', '.join(state) or 'nothing'}."
            )
        return cls._made([float(a) for a in state["accuracies"]], *(state[name] for name in _TENSORS))

    @classmethod
    def _made(cls, accuracies: list[float], *tensors: Tensor) -> ProbeResult:
        best = max(accuracies)
        return cls(accuracies[-1], best, accuracies.index(best) + 1, tuple(accuracies), *tensors)


_TENSORS = ("weight", "bias", "mean", "std")


@torch.no_grad()
def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    config: ProbeConfig,
    *,
    seed: int,
    num_classes: int,
    on_epoch: Callable[[int, int], object] | None = None,
) -> ProbeResult:
    """Trains a linear classifier on frozen features and tests it after every epoch.

    The same input, seed and machine give the same bits; all that is random is drawn on the CPU from ``seed``.

    Args:
        train_features: (N, D), on the device that is to do the work.
        train_labels: (N,) int64.
        test_features: (M, D).
        test_labels: (M,) int64.
        config: such as ``SEED_PROBE``.
        seed: of the first weights and of the order of the features.
        num_classes: C.
        on_epoch: called with (epochs done, epochs in all) after every epoch.

    Raises:
        ValueError: no features, or features and labels of different lengths.
        SSLLabError: training features that are not finite.
    """
    _check(train_features, train_labels, test_features, test_labels)
    device, dim = train_features.device, train_features.shape[1]
    generator = torch.Generator().manual_seed(seed)
    mean, std = _statistics(train_features, config.standardise)
    train, test = _with_ones(train_features, mean, std), _with_ones(test_features.to(device), mean, std)
    wanted, test_labels = functional.one_hot(train_labels.to(device), num_classes).float(), test_labels.to(device)
    if not bool(train.isfinite().all()):
        raise SSLLabError("The features to train the probe on are not all finite: the network has diverged.")
    # Weight and bias side by side, (C, D + 1): the bias is the weight of a feature that is always 1.
    weights = torch.zeros(num_classes, dim + 1, device=device)
    first = torch.empty(num_classes, dim).uniform_(-(dim**-0.5), dim**-0.5, generator=generator)
    weights[:, :dim] = first.to(device)
    adam = _Adam(weights, config.weight_decay)
    steps = config.epochs * -(-len(train) // config.batch_size)
    accuracies = []
    for epoch in range(config.epochs):
        order = torch.randperm(len(train), generator=generator).to(device)
        for batch in torch.split(order, config.batch_size):
            adam.step(_gradient(weights, train[batch], wanted[batch]), config.rate(adam.steps, steps))
        right = ((test @ weights.T).argmax(1) == test_labels).sum()
        accuracies.append(int(right) / len(test))
        if on_epoch is not None:
            on_epoch(epoch + 1, config.epochs)
    parts = weights[:, :dim].contiguous(), weights[:, dim].contiguous(), mean, std
    return ProbeResult._made(accuracies, *(part.cpu() for part in parts))


class _Adam:
    """K algorithm 1 on one tensor. torch.optim would load torch's compiler at its first use: seconds, for this."""

    def __init__(self, weights: Tensor, weight_decay: float) -> None:
        self.weights, self.weight_decay, self.steps = weights, weight_decay, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, gradient: Tensor, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.steps += 1
        if self.weight_decay:
            gradient = gradient.add(self.weights, alpha=self.weight_decay)
        self.mean.lerp_(gradient, 1 - beta1)
        self.square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = self.square.sqrt().div_((1 - beta2**self.steps) ** 0.5).add_(eps)
        self.weights.addcdiv_(self.mean, spread, value=-lr / (1 - beta1**self.steps))


def _gradient(weights: Tensor, features: Tensor, wanted: Tensor) -> Tensor:
    """Of the mean cross-entropy of ``features @ weights.T`` against one-hot ``wanted``, by ``weights``."""
    return ((features @ weights.T).softmax(1) - wanted).T @ features / len(features)


def _with_ones(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return functional.pad((features.float() - mean) / std, (0, 1), value=1.0)


def _statistics(features: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros(features.shape[1], device=features.device)
    if not standardise:
        return zeros, zeros + 1
    std, mean = torch.std_mean(features.float(), dim=0, correction=0)
    # A feature that never changes (a dead unit) has rounding for a deviation; dividing by it would make noise of it.
    constant = std <= 1e-6 * mean.abs()
    return mean, torch.where(constant, torch.ones_like(std), std)


def _check(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor) -> None:
    for name, features, labels in (("training", train_features, train_labels), ("test", test_features, test_labels)):
        if features.ndim != 2 or len(features) == 0 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"The {name} features must be (N, D) with N > 0 and their labels (N,): "
                f"they are {tuple(features.shape)} and {tuple(labels.shape)}."
            )
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"Training features have {train_features.shape[1]} dimensions, test features {test_features.shape[1]}."
        )
