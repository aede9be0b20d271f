"""Encoders, projector and predictors: the parts of one siamese network.

ResNet-18 follows He et al. 2016 (arXiv 1512.03385) with the two stems that the papers use; projector and
two-layer predictor are the MLPs of P and S: ``Linear -> BN without scale and shift -> ReLU -> Linear``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from ssl_lab.config import RunConfig, StemName
from ssl_lab.ranks import Ranks, batch_norm


class _OfEachView:
    """Batch statistics that belong to a view, for batches in which ``views`` of them are stacked, one after the other.

    One launch of the layers before serves all views, and the numbers are those of a pass for each: S and P give the
    views to the network one by one.
    """

    views = 1
    """Views in a training batch; its rows are a multiple of it."""
    ranks: Ranks | None = None
    """Processes that share each view; None for all of it here."""
    widened = False
    """Whether what it normalises is made float32 for it, whatever its format: torch.func's rule for several networks at
    once takes nothing else. A batch norm reckons in float32 in any case."""

    def forward(self, x: Tensor) -> Tensor:
        if self.widened and x.dtype != torch.float32:
            return self._normalised(x.float()).to(x.dtype)
        return self._normalised(x)

    def _normalised(self, x: Tensor) -> Tensor:
        assert isinstance(self, nn.BatchNorm1d | nn.BatchNorm2d)
        if self.training and self.ranks is not None:
            return batch_norm(x, self.views, self, self.ranks)
        if not self.training or self.views == 1:
            return nnf.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum or 0.0,
                self.eps,
            )  # fmt: skip
        return torch.cat(
            [
                nnf.batch_norm(
                    part, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum or 0.0,
                    self.eps,
                )
                for part in x.chunk(self.views)
            ]
        )  # fmt: skip


class ViewNorm1d(_OfEachView, nn.BatchNorm1d):
    """BN of (rows, features), see :class:`_OfEachView`."""


class ViewNorm2d(_OfEachView, nn.BatchNorm2d):
    """BN of (rows, channels, height, width), see :class:`_OfEachView`."""


def stack_views(module: nn.Module, views: int) -> None:
    """Says how many views are stacked in the training batches that all of ``module`` is to see."""
    for part in module.modules():
        if isinstance(part, _OfEachView):
            part.views = views


def over_ranks(module: nn.Module, ranks: Ranks) -> None:
    """From now on the batch statistics of ``module`` in training are those of the images of all ranks."""
    for part in module.modules():
        if isinstance(part, _OfEachView):
            part.ranks = ranks


def widen_norms(module: nn.Module) -> None:
    """Has all batch norms of ``module`` normalise in float32, see :class:`_OfEachView`."""
    for part in module.modules():
        if isinstance(part, _OfEachView):
            part.widened = True


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; (B, C, H, W) -> (B, planes, H/stride, W/stride)."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = ViewNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = ViewNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != planes:
            self.downsample = nn.Sequential(nn.Conv2d(channels, planes, 1, stride, bias=False), ViewNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + shortcut)
        return out


class ResNet18(nn.Module):
    """ResNet-18 without its classifier: (B, C, H, W) -> (B, 8 * width); 512 features at width 64.

    Module names are torchvision's, so that weights can be carried over.

    Args:
        channels: channels of the images.
        width: channels of the first stage; the stages have width, 2, 4 and 8 times width.
        stem: ``small-image`` (3x3, stride 1, no pooling) or ``large-image`` (7x7, stride 2, max-pool).
    """

    def __init__(self, channels: int, width: int, stem: StemName) -> None:
        super().__init__()
        if stem == "small-image":
            self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.bn1 = ViewNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.layer4 = self._stage(4 * width, 8 * width, 2)
        self.features = 8 * width

    def prepare(self, images: Tensor) -> Tensor:
        """The images with the channels innermost, which is what fast convolutions read (both on CPUs and GPUs)."""
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def _stage(channels: int, planes: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(channels, planes, stride), BasicBlock(planes, planes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


class SmallEncoder(nn.Module):
    """Two 3x3 convolutions for tiny images: (B, C, S, S) -> (B, ceil(S / 2)^2 * width); 256 at 8x8, width 16.

    The map is flattened, not averaged: at 8x8 the place of a stroke is what tells digits apart. The stride comes
    first, which halves the time of a step on a CPU and costs no accuracy on the digits.
    """

    def __init__(self, channels: int, width: int, image_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.bn1 = ViewNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = ViewNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.side = math.ceil(image_size / 2)
        self.features = width * self.side**2

    def prepare(self, images: Tensor) -> Tensor:
        """Patches (B, places, C * 9) of images (B, C, S, S): all that the first convolution reads at each place.

        A convolution of one channel is mostly overhead; as a product of patches and weights it costs a third, and
        the online and the target network share the patches.
        """
        count, channels, size, _ = images.shape
        # One column of zeros, for what lies beyond the edges.
        pixels = nnf.pad(images.reshape(count, -1), (0, 1))
        return pixels.index_select(1, _patches(channels, size, images.device)).view(count, self.side**2, -1)

    def forward(self, x: Tensor) -> Tensor:
        # Narrow products are at the mercy of their layout: with the weights this way round, this one and the one of its
        # gradient take a third and an eighth of the time.
        weight = self.conv1.weight.flatten(1).t().contiguous()
        # (B, places, width) in memory is (B, width, side, side) with the channels innermost.
        x = (x.flatten(0, 1) @ weight).view(len(x), self.side, self.side, -1).permute(0, 3, 1, 2)
        x = self.relu(self.bn1(x))
        x = self.relu(self.bn2(self.conv2(x)))
        # As it lies in memory, place by place: any other order would have it copied, forth and back.
        return x.permute(0, 2, 3, 1).flatten(1)


class LinearEncoder(nn.Module):
    """P's linear network: (B, C * S * S) -> (B, outputs), ``W x`` without bias, the W of :mod:`ssl_lab.theory`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.features = outputs

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) as vectors x."""
        return images.reshape(len(images), -1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


SMALLEST_START, LARGEST_START = 0.02, 0.4
"""Range of the modes' first gains. It holds the edge of the basin of collapse of most settings that are worth a try:
.054 at the theory's test values."""
START_RATIO = 3.0
"""A mode starts at most this many times above or below the parabola s = p^2."""


@torch.no_grad()
def start_aligned(w: Tensor, wp: Tensor, generator: torch.Generator) -> None:
    """Overwrites W (d, n) and Wp (d, d) by ones that share their eigenbasis: ``F = W W^T`` and Wp are diagonal in it.

    The gains p_j lie evenly, on a logarithmic scale, between the two of ``SMALLEST_START`` and ``LARGEST_START``, and
    s_j at p_j^2 times a random factor from 1 / ``START_RATIO`` to it; with n < d the d - n smallest stay 0.
    """
    d, n = w.shape
    modes = min(d, n)
    left, right = (
        torch.linalg.qr(torch.randn(rows, modes, generator=generator, dtype=torch.float64))[0] for rows in (d, n)
    )
    p = torch.logspace(math.log10(LARGEST_START), math.log10(SMALLEST_START), modes, dtype=torch.float64)
    factor = START_RATIO ** (2 * torch.rand(modes, generator=generator, dtype=torch.float64) - 1)
    w.copy_((left * (p * factor.sqrt())) @ right.T)
    wp.copy_((left * p) @ left.T)


@lru_cache(maxsize=16)
def _patches(channels: int, size: int, device: torch.device) -> Tensor:
    """(places * C * 9,) int64: which of the C * S * S pixels, or the one after them, is where in the patches."""
    pixels = torch.arange(1, channels * size * size + 1).view(1, channels, size, size)
    around = nnf.unfold(pixels.double(), 3, padding=1, stride=2)[0].T.flatten().long() - 1
    return torch.where(around < 0, channels * size * size, around).to(device)


def mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """``layers`` linear maps with BN (no scale, no shift) and ReLU between: (B, inputs) -> (B, outputs); 0 for none."""
    if layers == 0:
        return nn.Sequential()
    parts: list[nn.Module] = []
    width = inputs
    for _ in range(layers - 1):
        parts += [nn.Linear(width, hidden), ViewNorm1d(hidden, affine=False), nn.ReLU(inplace=True)]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, outputs))


class Network(nn.Module):
    """Encoder and projector: prepared views to projections f (B, d). Online and target are of this kind."""

    def __init__(self, encoder: nn.Module, features: int, config: RunConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp(features, config.projector_hidden, config.projector_dim, config.projector_layers)
        self.features = features
        self.passes = 1
        """Passes through the encoder that a training batch is given in; see :meth:`stack_views`."""

    def stack_views(self, views: int, *, together: bool) -> None:
        """From now on training batches hold ``views`` views, one after the other; statistics belong to a view.

        Args:
            views: their number.
            together: whether the encoder takes them in one pass, or each in a pass of its own. One pass is for small
                networks, whose layers cost more to launch than to compute; large ones gain nothing by it, and their
                activations fall out of the caches.
        """
        stack_views(self, views)
        self.passes = 1 if together else views
        if not together:
            stack_views(self.encoder, 1)

    def prepare(self, images: Tensor) -> Tensor:
        """What :meth:`forward` and :meth:`represent` take, made of float images (B, C, S, S); rows stay rows.

        It holds what depends on the images alone, so that networks of one kind can share it.
        """
        prepared: Tensor = self.encoder.prepare(images)  # type: ignore[operator]
        return prepared

    def forward(self, prepared: Tensor) -> Tensor:
        if self.passes == 1:
            features = self.encoder(prepared)
        else:
            features = torch.cat([self.encoder(part) for part in prepared.chunk(self.passes)])
        out: Tensor = self.projector(features)
        return out

    def represent(self, prepared: Tensor, probe_layers: int) -> Tensor:
        """What a probe sees: the encoder's output (B, features), or some projector layers on top of it."""
        out: Tensor = self.encoder(prepared)
        # A kept layer is its linear map with the BN and ReLU behind it: three modules.
        for part in list(self.projector)[: 3 * probe_layers]:
            out = part(out)
        return out


_ENCODERS: dict[str, Callable[[RunConfig, int, int], nn.Module]] = {
    "resnet18": lambda config, channels, _: ResNet18(channels, config.width, config.stem),
    "small": lambda config, channels, size: SmallEncoder(channels, config.width, size),
    "linear": lambda config, channels, size: LinearEncoder(channels * size**2, config.projector_dim),
}


def build_network(config: RunConfig, channels: int, image_size: int, generator: torch.Generator) -> Network:
    """The online network of ``config`` with fresh weights drawn from ``generator`` (on the CPU, channels innermost)."""
    # Made on the meta device, so that the global random state is neither read nor moved.
    with torch.device("meta"):
        encoder = _ENCODERS[config.encoder](config, channels, image_size)
        features = int(encoder.features)  # type: ignore[arg-type]
        network = Network(encoder, features, config)
    network.to_empty(device="cpu")
    initialise(network, generator)
    return network.to(memory_format=torch.channels_last)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draws every weight from ``generator``: He et al. 2015 for convolutions, PyTorch's rule for linear maps."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_parameters()
