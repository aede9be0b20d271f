"""Random images that stand for CIFAR-10 where nothing may be downloaded: a step costs the same on them."""

from __future__ import annotations

import torch

from ssl_lab.config import DATASETS
from ssl_lab.datasets import Dataset, Split


def random_cifar(train: int, test: int) -> Dataset:
    """A data set of random uint8 images (N, 3, 32, 32) and labels of ten classes, in memory."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % 10)

    whole = split(train)
    return Dataset(info=DATASETS["cifar10"], train=whole, labelled=whole, test=split(test), classes=tuple("0123456789"))
