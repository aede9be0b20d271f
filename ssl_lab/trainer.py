"""``Trainer``: one step at a time, every rule changeable between two steps. No loop, no file, no thread.

The order inside a step is S's: forward with the current Wp, backward, SGD, symmetrise Wp if asked, EMA of
the target, update F with this batch, overwrite Wp in a direct mode.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from ssl_lab.augment import normalise, two_views
from ssl_lab.config import SET_MODES, Knobs, RunConfig
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.errors import ConfigError, NonFiniteLossError, SSLLabError
from ssl_lab.networks import build_network
from ssl_lab.optimiser import SGD
from ssl_lab.predictor import Predictor, correlation, directcopy, directpred, optimal
from ssl_lab.spectrum import Spectrum, spectrum


def stream_seed(seed: int, stream: str, index: int) -> int:
    """Seed of one random stream at one step: any step can be reached again without those before it."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def resolve_device(name: str) -> torch.device:
    """``auto`` as the first GPU or the CPU; any other name as torch takes it.

    Raises:
        ConfigError: torch does not know the name, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {name!r} cannot be used here: {reason}. Try auto or cpu.") from None
    return device


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Has torch use ``count`` CPU threads inside, or leaves it alone if None; costs microseconds."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class StepRecord:
    """What one step did."""

    step: int
    """Steps done, this one included."""
    epoch: float
    """Passes over the training images done."""
    losses: Tensor
    """(2,): the loss (from -2, views agree, to 2) and the weighted penalty on Wp's asymmetry, on the device."""

    @cached_property
    def loss(self) -> float:
        """-cos(q1, z2) - cos(q2, z1), averaged over the batch. On a GPU reading it waits for the step."""
        return float(self.losses[0])

    @cached_property
    def penalty(self) -> float:
        """Strength times 1/2 |Wp - Wp^T|_F^2; 0 unless symmetry is ``penalty``."""
        return float(self.losses[1])


class Trainer:
    """A run of BYOL, SimSiam, DirectPred or DirectCopy that is stepped from outside.

    Args:
        config: all that is fixed, and the knobs at step 0.
        dataset: the images; loaded by ``config.dataset`` if not given.

    Raises:
        ConfigError: the configuration does not fit the data or the machine.
        DataError: the data set cannot be had.
    """

    def __init__(self, config: RunConfig, dataset: Dataset | None = None) -> None:
        self.config = config
        self.lock = threading.RLock()
        """Held while a step or a change of rules is under way, so that another thread's ``set`` waits for its end."""
        self.driver = threading.Lock()
        """Held by the loop that steps this trainer: there can be only one."""
        self.bench: Any = None
        """The bench that shows this trainer, to be closed by the next one."""
        self.device = resolve_device(config.device)
        self.dataset = load_dataset(config) if dataset is None else dataset
        images = self.dataset.train.images
        if len(images) < config.batch_size:
            raise ConfigError(
                f"A batch of {config.batch_size} does not fit: {self.dataset.info.title} has only {len(images)} "
                "training images here. Take a smaller batch_size."
            )
        self.steps_per_epoch = len(images) // config.batch_size
        # The small encoder's operations are over before a second thread has come to help, and where a page's kernel
        # and a browser share the cores, waiting for that thread made a step a hundred times slower. One thread also
        # gives the same bits on every machine.
        self.threads = 1 if config.encoder == "small" else None
        # Resident on the device as uint8: the page and the loop never wait for a loader.
        self._images = images.to(self.device)
        self._recipe = self.dataset.info.recipe

        generator = torch.Generator().manual_seed(stream_seed(config.seed, "init", 0))
        info = self.dataset.info
        self.online = build_network(config, info.channels, info.image_size, generator)
        self.predictor = Predictor(config.projector_dim, config.predictor_hidden, config.knobs.predictor, generator)
        # S: the target starts as a copy of the online network.
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        for module in (self.online, self.predictor, self.target):
            module.to(self.device)
            module.train()
        self.correlation = torch.zeros(config.projector_dim, config.projector_dim, device=self.device)
        # E[z f^T] of the least-squares predictor, over the same steps as F so that a change of mode finds it there.
        self.cross = torch.zeros_like(self.correlation)
        self._has_correlation = False
        self._step = 0
        self._knobs = config.knobs
        self._augment_generator = torch.Generator(device=self.device)
        self._order: tuple[int, Tensor] | None = None
        self._optimiser = self._make_optimiser()
        self._followers: list[Tensor] = list(self.target.parameters())
        self._leaders: list[Tensor] = list(self.online.parameters())
        self._apply_rates()

    # ---------------------------------------------------------------- knobs

    @property
    def knobs(self) -> Knobs:
        """The rules that the next step follows."""
        return self._knobs

    @property
    def step_count(self) -> int:
        """Steps done."""
        return self._step

    @property
    def epoch(self) -> float:
        """Passes over the training images done."""
        return self._step / self.steps_per_epoch

    def set(self, **changes: Any) -> Knobs:
        """Turns knobs; they take effect at the next step, all of them or none.

        Changing ``predictor`` keeps Wp (see :class:`ssl_lab.predictor.Predictor`) and lets the predictor's
        momentum start at zero.

        Raises:
            KnobError: a name that is no knob or a value it cannot take; nothing was changed.
        """
        with self.lock:
            return self._turn(self._knobs.changed(changes))

    def _turn(self, knobs: Knobs) -> Knobs:
        if knobs.predictor != self._knobs.predictor:
            generator = torch.Generator().manual_seed(stream_seed(self.config.seed, "predictor", self._step))
            self.predictor.set_mode(knobs.predictor, generator)
            for group in self._optimiser[2:]:
                torch._foreach_zero_(group.velocity)
        self._knobs = knobs
        self._apply_rates()
        return knobs

    def _make_optimiser(self) -> list[SGD]:
        groups = []
        for module in (self.online, self.predictor):
            # S: L2 on all weights but biases; a BN shift is called bias too.
            named = list(module.named_parameters())
            for of_biases in (False, True):
                members = [p for n, p in named if n.endswith("bias") == of_biases]
                groups.append(SGD(members, self.config.momentum))
        return groups

    def _apply_rates(self) -> None:
        k = self._knobs
        weights, biases, predictor_weights, predictor_biases = self._optimiser
        weights.lr = biases.lr = k.lr
        weights.decay = k.weight_decay
        predictor_weights.lr = predictor_biases.lr = k.lr_predictor
        predictor_weights.decay = k.weight_decay_predictor

    # ----------------------------------------------------------------- step

    def _batch(self) -> Tensor:
        """Images (B, C, S, S) uint8 of the coming step: shuffled anew each epoch, the short last batch left out."""
        epoch, place = divmod(self._step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.config.seed, "order", epoch))
            order = torch.randperm(len(self._images), generator=generator)
            self._order = (epoch, order.to(self.device))
        size = self.config.batch_size
        return self._images[self._order[1][place * size : (place + 1) * size]]

    def step(self) -> StepRecord:
        """One batch, one update of every part.

        Raises:
            NonFiniteLossError: the loss or F is infinite or not a number (checked on the CPU only, where it costs
                nothing). The step was not applied: weights, F and the step count are as before.
        """
        with self.lock, cpu_threads(self.threads):
            return self._step_once()

    def _step_once(self) -> StepRecord:
        k = self._knobs
        self._augment_generator.manual_seed(stream_seed(self.config.seed, "views", self._step))
        view1, view2 = two_views(self._batch(), self._recipe, self._augment_generator, k.augmentation)

        # Two passes, not one of double size: BN statistics belong to a view.
        f1, f2 = self.online(view1), self.online(view2)
        q1, q2 = self.predictor(f1), self.predictor(f2)
        if k.stop_gradient:
            with torch.no_grad():
                z1, z2 = self.target(view1), self.target(view2)
        else:
            z1, z2 = f1, f2
        loss = -(nnf.cosine_similarity(q1, z2).mean() + nnf.cosine_similarity(q2, z1).mean())
        total, penalty = loss, torch.zeros_like(loss)
        if k.symmetry == "penalty" and k.predictor != "none":
            penalty = k.symmetry_strength * self.predictor.asymmetry_penalty()
            total = loss + penalty
        projections = torch.cat([f1, f2])
        batch = correlation(projections, centred=k.centred)
        cross = correlation(projections, torch.cat([z2, z1]), centred=k.centred)
        if self.device.type == "cpu":
            self._check_finite(float(total.detach()), float(batch.trace()), k)

        total.backward()  # type: ignore[no-untyped-call]
        for group in self._optimiser:
            group.step()
        with torch.no_grad():
            if k.symmetry == "hard":
                self.predictor.symmetrise()
            # lerp with weight 1 returns its end exactly: tau = 0 is SimSiam to the last bit.
            torch._foreach_lerp_(self._followers, self._leaders, 1.0 - k.ema)
            self._update_correlation(batch, cross, k)
            if k.predictor in SET_MODES and self._step % k.freq == 0:
                self._overwrite_predictor(k)
        self._step += 1
        return StepRecord(self._step, self.epoch, torch.stack([loss.detach(), penalty.detach()]))

    def _check_finite(self, loss: float, trace: float, k: Knobs) -> None:
        # The cosine forgets lengths: the projections can overflow in F long before the loss says anything.
        for name, value in (("loss", loss), ("trace of F", trace)):
            if not np.isfinite(value):
                raise NonFiniteLossError(
                    f"The {name} became {value} at step {self._step + 1}; the step was not applied. A learning rate "
                    f"that is too high is the usual reason (lr {k.lr:g}, predictor's {k.lr_predictor:g}): start again "
                    "with a lower one."
                )

    def _update_correlation(self, batch: Tensor, cross: Tensor, k: Knobs) -> None:
        for kept, new in ((self.correlation, batch), (self.cross, cross)):
            if self._has_correlation:
                kept.mul_(k.rho).add_(new, alpha=1.0 - k.rho)
            else:
                kept.copy_(new)
        self._has_correlation = True

    def _overwrite_predictor(self, k: Knobs) -> None:
        if k.predictor == "directpred":
            try:
                wp = directpred(self.correlation, k.eps)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise NonFiniteLossError(
                    f"F is not finite at step {self._step + 1}: the network has diverged. A learning rate that is too "
                    f"high is the usual reason (lr {k.lr:g}): start again with a lower one."
                ) from None
            self.predictor.set_matrix(wp)
        elif k.predictor == "optimal":
            self.predictor.set_matrix(optimal(self.correlation, self.cross))
        else:
            self.predictor.set_matrix(directcopy(self.correlation, k.eps, k.norm))

    # ---------------------------------------------------------- looking in

    def spectrum(self) -> Spectrum:
        """Eigenvalues of F and Wp and how they line up, in float64 on the CPU; changes nothing.

        In mode ``none`` the predictor is the identity, and so is the Wp shown.
        """
        with self.lock, torch.no_grad():
            f, wp = self.correlation.double().cpu().numpy(), self.predictor.matrix().double().cpu().numpy()
        return spectrum(f, wp)

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 512, layers: int | None = None) -> Tensor:
        """What a probe sees of uint8 ``images`` (N, C, S, S): (N, features) float32 on the device.

        The online network in eval mode (running BN statistics), no augmentation; changes nothing. ``layers`` of the
        projector are kept on top of the encoder; default ``config.probe_layers``.
        """
        kept = self.config.probe_layers if layers is None else layers
        self.online.eval()
        try:
            parts = [
                self.online.represent(normalise(part.to(self.device), self._recipe), kept)
                for part in torch.split(images, batch_size)
            ]
        finally:
            self.online.train()
        return torch.cat(parts).float()

    # --------------------------------------------------------------- state

    def fork(self) -> Trainer:
        """A second trainer in the same state (weights, optimiser, F, target, random streams), on the same images.

        With no knob turned, both step bit-equal on the CPU.
        """
        twin = Trainer(self.config, self.dataset)
        twin.load_state_dict(self.state_dict())
        return twin

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied."""
        tensors: dict[str, Tensor] = {"correlation": self.correlation, "cross": self.cross}
        for part in ("online", "target", "predictor"):
            module = getattr(self, part)
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        velocity = {
            id(p): v for group in self._optimiser for p, v in zip(group.parameters, group.velocity, strict=True)
        }
        for part in ("online", "predictor"):
            for name, parameter in getattr(self, part).named_parameters():
                tensors[f"momentum.{part}.{name}"] = velocity[id(parameter)]
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the config: ``tensors`` (copies) and ``counters``.

        There is no random state: every draw is seeded by (run seed, stream, step).
        """
        with self.lock:
            return {
                "tensors": {name: value.detach().clone() for name, value in self._tensors().items()},
                "counters": {
                    "step": self._step,
                    "has_correlation": self._has_correlation,
                    "holds_mlp": self.predictor.holds_mlp,
                    "knobs": self._knobs.model_dump(),
                },
            }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state from :meth:`state_dict`, all of it or nothing.

        Raises:
            SSLLabError: a tensor is missing, unknown or of another shape (named), or a counter is broken.
        """
        counters: Mapping[str, Any] = state["counters"]
        here = self._tensors()
        # Of a state that was saved before there was a least-squares predictor.
        tensors: Mapping[str, Tensor] = {"cross": torch.zeros_like(self.cross), **state["tensors"]}
        for name in sorted(set(here) - set(tensors)):
            raise SSLLabError(f"The saved state does not fit this run: it has no {name!r}.")
        for name, tensor in tensors.items():
            expected = here.get(name)
            if expected is None:
                raise SSLLabError(f"The saved state does not fit this run: {name!r} has no place in it.")
            if tuple(tensor.shape) != tuple(expected.shape):
                raise SSLLabError(
                    f"The saved state does not fit this run: {name!r} should be {tuple(expected.shape)} and is "
                    f"{tuple(tensor.shape)}."
                )
        knobs = Knobs().changed(counters["knobs"])
        step = int(counters["step"])
        with self.lock:
            self._take_over(here, tensors, counters, knobs, step)

    def _take_over(
        self,
        here: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        counters: Mapping[str, Any],
        knobs: Knobs,
        step: int,
    ) -> None:
        for name, tensor in here.items():
            tensor.copy_(tensors[name])
        self.predictor.mode, self.predictor.holds_mlp = knobs.predictor, bool(counters["holds_mlp"])
        self._knobs, self._step = knobs, step
        self._has_correlation = bool(counters["has_correlation"])
        self._apply_rates()
