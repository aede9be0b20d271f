"""The ceiling: the same encoder trained with the labels of the same images, so that what the data allows is known."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ssl_lab.augment import augment, normalise
from ssl_lab.datasets import Dataset
from ssl_lab.networks import Network, build_network
from ssl_lab.optimiser import sgd_step
from ssl_lab.reproduce.progress import SUPERVISED
from ssl_lab.reproduce.rows import Job
from ssl_lab.seeds import stream_seed
from ssl_lab.trainer import resolve_device
from ssl_lab.weights import FlatWeights

LR, MOMENTUM, DECAY = 0.05, 0.9, 5e-4


def supervised(job: Job, folder: Path, data: Dataset, stop: threading.Event) -> str:
    """Trains with cross-entropy, SGD and a cosine rate on crops and flips; gives "" or why it could not be had.

    It is short and not resumed: what is cut begins anew.
    """
    config = job.config
    begun = time.perf_counter()
    device = resolve_device(config.device)
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "init", 0))
    network = build_network(config, data.info.channels, data.info.image_size, generator)
    labelled = data.labelled
    # Crops that keep most of an image: what helps with labels is milder than what is learned from views.
    recipe = replace(data.info.recipe, crop_scale=(0.5, 1.0), jitter_probability=0.0, grey=0.0, blur_taps=0)
    images, labels = labelled.images.to(device), labelled.labels.to(device)
    network.to(device).train()
    head = nn.Linear(network.features, len(data.classes)).to(device)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * head.in_features**-0.5)
        head.bias.zero_()
    weights = FlatWeights(network.encoder, head)
    decay = torch.tensor(DECAY, device=device)
    steps_per_epoch = max(1, len(images) // config.batch_size)
    epochs = config.epochs or 1
    steps = epochs * steps_per_epoch
    views = torch.Generator(device=device)
    for step in range(steps):
        if stop.is_set():
            return ""
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0:
            shuffled = torch.Generator().manual_seed(stream_seed(config.seed, "order", epoch))
            order = torch.randperm(len(images), generator=shuffled).to(device)
        rows = order[place * config.batch_size : (place + 1) * config.batch_size]
        views.manual_seed(stream_seed(config.seed, "views", step))
        view = augment(images[rows], recipe, views)
        loss = functional.cross_entropy(head(network.represent(network.prepare(view), 0)), labels[rows])
        lr = torch.tensor(LR * 0.5 * (1 + math.cos(math.pi * step / steps)), device=device)
        gradients = torch.autograd.grad(loss, weights.parameters)
        sgd_step(weights, gradients, lr=lr, decay=decay, momentum=MOMENTUM)
    accuracy = _accuracy(network, head, data, device)
    _keep(
        folder / job.name / SUPERVISED,
        {"accuracy": accuracy, "epochs": epochs, "seconds": time.perf_counter() - begun, "config": config.model_dump()},
    )
    return ""


@torch.no_grad()
def _accuracy(network: Network, head: nn.Linear, data: Dataset, device: torch.device) -> float:
    network.eval()
    right = 0
    for images, labels in zip(torch.split(data.test.images, 512), torch.split(data.test.labels, 512), strict=True):
        out = head(network.represent(network.prepare(normalise(images.to(device), data.info.recipe)), 0))
        right += int((out.argmax(1).cpu() == labels).sum())
    return right / len(data.test.labels)


def _keep(path: Path, what: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(what))
    os.replace(temporary, path)
