"""Small runs that the tests of the engine share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ssl_lab import RunConfig, Trainer, preset
from ssl_lab.datasets import Dataset, load_dataset


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(preset("byol"))


@pytest.fixture
def make_trainer(digits: Dataset) -> Callable[..., Trainer]:
    """A trainer on the digits, small enough for a test to step at once."""

    def make(name: str = "directpred", **fields: Any) -> Trainer:
        return Trainer(small_config(name, **fields), digits)

    return make


def small_config(name: str = "directpred", **fields: Any) -> RunConfig:
    sizes = {"width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16, "batch_size": 32}
    return preset(name, **{**sizes, "device": "cpu", **fields})
