"""``Trainer``: one step at a time, every rule changeable between two steps. No loop, no file, no thread.

The order inside a step is S's: forward with the current Wp, backward, SGD, symmetrise Wp if asked, EMA of
the target, update F with this batch, overwrite Wp in a direct mode.

One step serves all devices. What makes it fast stands in modules of its own: both views in one batch
(:mod:`ssl_lab.networks`), views made for several steps at once (:mod:`ssl_lab.views`), weights in one piece
(:mod:`ssl_lab.weights`), and on a GPU the whole step as one graph (:mod:`ssl_lab.graphs`), for which every number that
a knob sets is a tensor of the device, and every rule that changes the operations is part of the graph's key.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lab.agreement import half_square, mean_cosine
from ssl_lab.augment import normalise
from ssl_lab.config import SET_MODES, Knobs, NormMode, PredictorMode, RunConfig, SymmetryMode
from ssl_lab.cores import usable_cores
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.diagnostics import decompose
from ssl_lab.errors import ConfigError, NonFiniteLossError, SSLLabError, shown
from ssl_lab.graphs import StepGraphs
from ssl_lab.kernels import fastest_kernels
from ssl_lab.memory import keep_freed_memory
from ssl_lab.networks import LinearEncoder, Network, build_network, over_ranks, stack_views, start_aligned
from ssl_lab.optimiser import sgd_step
from ssl_lab.predictor import Predictor, correlations, matrix_of
from ssl_lab.ranks import Ranks, share
from ssl_lab.seeds import stream_seed
from ssl_lab.spectrum import Spectrum
from ssl_lab.transfer import Transfer
from ssl_lab.views import SharedBlocks, ViewStream
from ssl_lab.weights import FlatWeights, Statistics

ARITHMETIC = 2
"""Goes up whenever the same steps come out with other bits than before; a record says which it was made with."""

CHECK_EVERY = 100
"""Steps between two looks whether the ranks of a run still hold the same weights."""

STEPS_QUEUED = 2
"""Most steps that the host may be ahead of a GPU: enough to keep it busy, too few for a knob to be late."""


def resolve_device(name: str) -> torch.device:
    """``auto`` as the first GPU or the CPU; any other name as torch takes it.

    Raises:
        ConfigError: torch does not know the name, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ValueError("a run is made on cpu, cuda or cuda:N")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {shown(name)} cannot be used here: {reason}. Try auto or cpu.") from None
    return device


def resolve_precision(config: RunConfig, device: torch.device) -> torch.dtype:
    """The number format of convolutions and the projector's products; everything else is float32, or float64 with them.

    Raises:
        ConfigError: bfloat16 was asked for where the processor has none.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported()
    else:
        has = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    wanted = config.precision
    if wanted == "float64":
        return torch.float64
    if wanted == "auto":
        # A CPU's bfloat16 gives other bits on every machine, so there it is for who asks.
        wanted = "bfloat16" if has and device.type == "cuda" else "float32"
    if wanted == "bfloat16" and not has:
        raise ConfigError(
            f"The setting 'precision' cannot be 'bfloat16': {device} has no such arithmetic. Take float32 or auto."
        )
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Has torch use ``count`` CPU threads inside; costs microseconds."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class StepPath:
    """The rules that decide which operations a step is made of: the key of its graph."""

    predictor: PredictorMode
    holds_mlp: bool
    trains_predictor: bool
    """Whether SGD changes Wp; not where each step sets it anew."""
    sets_predictor: bool
    """Whether this step overwrites Wp."""
    stop_gradient: bool
    target_is_online: bool
    """Whether the target's weights are the online network's, whose outputs are then the target's too."""
    copies: bool
    """Whether the target becomes a copy of the online network after the step (tau = 0)."""
    symmetry: SymmetryMode
    centred: bool
    norm: NormMode
    first: bool
    """Whether F begins with this step."""


class Rates:
    """The numbers that knobs set, as () tensors on the device, which a step reads where they lie.

    Args:
        numbers: (9,) where they lie; or (trainers, 9), and each of them is a (trainers,) tensor.
    """

    def __init__(self, numbers: Tensor) -> None:
        self.all = numbers
        (
            self.lr, self.decay, self.lr_predictor, self.decay_predictor, self.follow, self.rho, self.fresh, self.eps,
            self.strength,
        ) = numbers.unbind(-1)  # fmt: skip

    def take(self, k: Knobs) -> None:
        numbers = [
            k.lr, k.weight_decay, k.lr_predictor, k.weight_decay_predictor, 1.0 - k.ema, k.rho, 1.0 - k.rho, k.eps,
            k.symmetry_strength,
        ]  # fmt: skip
        self.all.copy_(torch.tensor(numbers, dtype=torch.float64))


@dataclass(frozen=True)
class StepRecord:
    """What one step did."""

    step: int
    """Steps done, this one included."""
    epoch: float
    """Passes over the training images done."""
    losses: Tensor
    """(2,): the loss (a cosine's goes from -2, views agree, to 2) and the weighted penalty on Wp's asymmetry, on the
    device."""

    @cached_property
    def loss(self) -> float:
        """-cos(q1, z2) - cos(q2, z1), or 1/4 (|q1 - z2|^2 + |q2 - z1|^2), averaged over the batch.

        On a GPU reading it waits for the step.
        """
        return float(self.losses[0])

    @cached_property
    def penalty(self) -> float:
        """Strength times 1/2 |Wp - Wp^T|_F^2; 0 unless symmetry is ``penalty``."""
        return float(self.losses[1])


class _Pair(nn.Module):
    """The trained networks as one module: prepared views to projections f and predictions q.

    Args:
        products: the number format of the online network's products, as a context.
        dtype: of f and all that comes after it: a bfloat16 has three digits, F and the EMA live from smaller
            differences.
    """

    def __init__(
        self, online: Network, predictor: Predictor, products: Callable[[], contextlib.AbstractContextManager[Any]],
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__()
        self.online, self.predictor = online, predictor
        self._products, self._dtype = products, dtype

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        with self._products():
            f = self.online(views).to(self._dtype)
        return f, self.predictor(f)


class Stepper(Protocol):
    """Steps trainers that share a device together, see :mod:`ssl_lab.together`."""

    def step(self, trainer: Trainer) -> StepRecord:
        """One step of ``trainer``, whose lock the calling thread holds; raises as :meth:`Trainer.step` does."""
        ...

    def leave(self, trainer: Trainer) -> None:
        """Lets ``trainer`` go on alone."""
        ...


class Trainer:
    """A run of BYOL, SimSiam, DirectPred or DirectCopy that is stepped from outside.

    Args:
        config: all that is fixed, and the knobs at step 0.
        dataset: the images; loaded by ``config.dataset`` if not given.
        ranks: the processes that step this run together, each with a trainer like this one and its share of every
            batch; they must be told to do the same, see :mod:`ssl_lab.distributed`. None for one process.

    Raises:
        ConfigError: the configuration does not fit the data, the machine or the ranks.
        DataError: the data set cannot be had.
    """

    def __init__(self, config: RunConfig, dataset: Dataset | None = None, ranks: Ranks | None = None) -> None:
        self.config = config
        self.ranks = ranks
        """The processes that step this run together; None for this one alone."""
        self.lock = threading.RLock()
        """Held while a step or a change of rules is under way, so that another thread's ``set`` waits for its end."""
        self.driver = threading.Lock()
        """Held by the loop that steps this trainer: there can be only one."""
        self.bench: Any = None
        """The bench that shows this trainer, to be closed by the next one."""
        self.company: Stepper | None = None
        """The trainers that it may make its steps with; None for a trainer that steps alone."""
        self.device = resolve_device(config.device) if ranks is None else ranks.device
        own = None if ranks is None else share(ranks, config.batch_size)
        self.dataset = load_dataset(config) if dataset is None else dataset
        images = self.dataset.train.images
        if len(images) < config.batch_size:
            raise ConfigError(
                f"A batch of {config.batch_size} does not fit: {self.dataset.info.title} has only {len(images)} "
                "training images here. Take a smaller batch_size."
            )
        # The small encoder's operations are over before a second thread has come to help, and where a page's kernel
        # and a browser share the cores, waiting for that thread made a step a hundred times slower. One thread also
        # gives the same bits on every machine.
        _keep_to_usable_cores()
        tiny = config.encoder != "resnet18"
        self.threads = 1 if tiny else torch.get_num_threads()
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = resolve_precision(config, self.device)
        """Number format of the encoder's and the projector's products."""
        self.dtype = torch.float64 if self.precision == torch.float64 else torch.float32
        """Number format of weights, F, Wp and all else."""
        self._recipe = self.dataset.info.recipe

        generator = torch.Generator().manual_seed(stream_seed(config.seed, "init", 0))
        info = self.dataset.info
        self.online = build_network(config, info.channels, info.image_size, generator)
        self.predictor = Predictor(config.projector_dim, config.predictor_hidden, config.knobs.predictor, generator)
        if config.start == "aligned":
            assert isinstance(self.online.encoder, LinearEncoder)
            start_aligned(self.online.encoder.linear.weight, self.predictor.linear.weight, generator)
        # P and S give the views to the networks one by one: BN statistics belong to a view.
        self.online.stack_views(2, together=tiny)
        stack_views(self.predictor, 2)
        # S: the target starts as a copy of the online network.
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        for module in (self.online, self.predictor, self.target):
            module.to(self.device, self.dtype)
            module.train()
            if ranks is not None:
                over_ranks(module, ranks)
        self._weights = FlatWeights(self.online)
        self._target_weights = FlatWeights(self.target)
        self._linear_weights = FlatWeights(self.predictor.linear)
        self._mlp_weights = FlatWeights(self.predictor.mlp)
        dim = config.projector_dim
        # F = E[f f^T] and, for the least-squares predictor, E[f z^T] over the same steps, so that a change of mode
        # finds it there.
        self._moments = torch.zeros(dim, 2 * dim, device=self.device, dtype=self.dtype)
        self.correlation = self._moments[:, :dim]
        """F (d, d)."""
        self.cross = self._moments[:, dim:].T
        """E[z f^T] (d, d)."""
        # Resident on the device as uint8: the page and the loop never wait for a loader.
        self._views = ViewStream(
            self.dataset.resident(self.device), self._recipe, self._prepared, config.seed, config.batch_size, own
        )
        self.steps_per_epoch = self._views.steps_per_epoch
        self._has_correlation = False
        self._target_is_online = True
        self._step = 0
        self._knobs = config.knobs
        self._rates = Rates(torch.zeros(9, device=self.device, dtype=self.dtype))
        self._rates.take(config.knobs)
        self._losses = torch.zeros(2, device=self.device, dtype=self.dtype)
        self._pair: nn.Module = _Pair(self.online, self.predictor, self.products, self.dtype)
        self._exact = self.device.type == "cpu"
        """Whether a step may read numbers back and decompose matrices, for which a GPU's host would have to wait."""
        # Not of several ranks: DistributedDataParallel sends gradients while others are still being made, from hooks of
        # the host, which a graph would not hold.
        self._graphs = StepGraphs(self.device) if self.device.type == "cuda" and ranks is None else None
        self._input: Tensor | None = None
        self._queued: deque[torch.cuda.Event] = deque()

    # ---------------------------------------------------------------- knobs

    @property
    def knobs(self) -> Knobs:
        """The rules that the next step follows."""
        return self._knobs

    @property
    def exact(self) -> bool:
        """Whether a step may read numbers back and decompose matrices, for which a GPU's host would have to wait."""
        return self._exact

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
        before = self._knobs
        if knobs.predictor != before.predictor:
            generator = torch.Generator().manual_seed(stream_seed(self.config.seed, "predictor", self._step))
            self.predictor.set_mode(knobs.predictor, generator)
            if self.ranks is not None:
                # Made by decompositions and products, whose last digits go by the processor.
                self.ranks.from_first(self._linear_weights.flat, self._mlp_weights.flat)
        if knobs.predictor != before.predictor or (_trains_predictor(knobs) and not _trains_predictor(before)):
            for weights in (self._linear_weights, self._mlp_weights):
                weights.velocity.zero_()
        self._knobs = knobs
        self._rates.take(knobs)
        return knobs

    # ----------------------------------------------------------------- step

    def step(self) -> StepRecord:
        """One batch, one update of every part.

        Raises:
            NonFiniteLossError: the loss or F is infinite or not a number (checked on the CPU only, where it costs
                nothing). The step was not applied: weights, F and the step count are as before.
        """
        with self.lock, cpu_threads(self.threads):
            return self.step_alone() if self.company is None else self.company.step(self)

    def step_alone(self) -> StepRecord:
        """:meth:`step` whatever company there is, for who holds :attr:`lock`."""
        path = self.path()
        views = self.views()
        # The least-squares predictor's solver cannot be captured.
        if self.ranks is not None:
            with fastest_kernels(self.device):
                self._learn(views, path)
        elif self._graphs is None or path.predictor == "optimal":
            self._learn(views, path)
        else:
            if self._input is None:
                self._input = torch.empty_like(views)
            fixed = self._input.copy_(views)
            with fastest_kernels(self.device):
                self._graphs.run(path, lambda: self._learn(fixed, path))
        record = self.stepped(self._losses.clone())
        if self.ranks is not None and self._step % CHECK_EVERY == 0:
            self.check_alike()
        self.hold_back()
        return record

    def stepped(self, losses: Tensor) -> StepRecord:
        """Counts a step that was made; ``losses`` (2,) are the record's, and its own."""
        self._has_correlation, self._target_is_online = True, self._knobs.ema == 0
        self._step += 1
        return StepRecord(self._step, self.epoch, losses)

    def views(self) -> Tensor:
        """(2B, ...) prepared views of the next step; not to be written to."""
        return self._views.at(self._step, self._knobs.augmentation)

    def share_views(self, blocks: SharedBlocks | None) -> None:
        """Has views taken from ``blocks``, and left there for others; None for views of its own. Changes no number."""
        with self.lock:
            # A stranger's file may call runs of two kinds a family.
            self._views.kind = self.config.model_dump_json(exclude={"knobs"})
            self._views.shared = blocks

    def views_key(self) -> Hashable:
        """Equal for two trainers of one shape only if the next step of both has the same views."""
        return self._views.source, self._step, self._knobs.augmentation

    def path(self) -> StepPath:
        """Which operations the next step is made of."""
        k = self._knobs
        return StepPath(
            predictor=k.predictor,
            holds_mlp=self.predictor.holds_mlp,
            trains_predictor=_trains_predictor(k),
            sets_predictor=k.predictor in SET_MODES and self._step % k.freq == 0,
            stop_gradient=k.stop_gradient,
            target_is_online=self._target_is_online,
            copies=k.ema == 0,
            symmetry=k.symmetry,
            centred=k.centred,
            norm=k.norm,
            first=not self._has_correlation,
        )

    def _learn(self, views: Tensor, path: StepPath) -> None:
        """The step proper: reads ``views`` and the rates, changes weights, moments, Wp, the target and the losses."""
        f, q = self._pair(views)
        if path.stop_gradient and not path.target_is_online:
            with torch.no_grad(), self.products():
                z = self.target(views).to(self.dtype)
        else:
            # S, tau = 0: the target's output is the online network's own.
            z = f.detach() if path.stop_gradient else f
        # The other view's target.
        z = torch.cat(z.chunk(2)[::-1])
        # Rows are images of both views, so that a mean over them is one over the two directions.
        loss = -2 * mean_cosine(q, z) if self.config.loss == "cosine" else half_square(q, z)
        total = loss
        self._losses[1].zero_()
        if path.symmetry == "penalty" and path.predictor != "none":
            penalty = self._rates.strength * self.predictor.asymmetry_penalty()
            total = loss + penalty
            self._losses[1].copy_(penalty.detach())
        self._losses[0].copy_(loss.detach())
        if self.ranks is None:
            moments = correlations(f, z, centred=path.centred)
        else:
            moments = self._over_ranks(correlations(f, z, centred=path.centred, mean=self.ranks.mean))
        if self._exact:
            self._check_finite(float(self._losses.sum()), float(moments.trace()), self._knobs)
        with torch.no_grad():
            if not path.first:
                moments = (self._moments * self._rates.rho).addcmul_(moments, self._rates.fresh)
            # Before anything is changed: of an F that cannot be decomposed nothing is to be seen in the weights.
            wp = self._predictor_of(moments, path).contiguous() if path.sets_predictor else None
            if wp is not None and self.ranks is not None:
                # Made on all of them, so that each sees an F that cannot be decomposed; but not every processor's
                # decomposition has the same last digits.
                self.ranks.from_first(wp)
        self._update_weights(total, path)
        with torch.no_grad():
            if path.symmetry == "hard" and path.trains_predictor:
                self.predictor.symmetrise()
            self._update_target(path)
            self._moments.copy_(moments)
            if wp is not None:
                self.predictor.set_matrix(wp)

    def _over_ranks(self, moments: Tensor) -> Tensor:
        """The moments (d, 2 d) and the loss shown, each as its mean over the ranks, in one collective."""
        assert self.ranks is not None
        packed = self.ranks.mean(torch.cat((moments.reshape(-1), self._losses[:1])))
        self._losses[0].copy_(packed[-1])
        return packed[:-1].view_as(moments)

    def _prepared(self, images: Tensor) -> Tensor:
        """What the networks take, made of float32 images (rows, C, S, S)."""
        return self.online.prepare(images).to(self.dtype)

    def products(self) -> contextlib.AbstractContextManager[Any]:
        """The number format of the networks' passes."""
        if self.precision != torch.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def _update_weights(self, total: Tensor, path: StepPath) -> None:
        rates, trained = self._rates, [(self._weights, self._rates.lr, self._rates.decay)]
        if path.trains_predictor:
            weights = self._mlp_weights if path.holds_mlp else self._linear_weights
            trained.append((weights, rates.lr_predictor, rates.decay_predictor))
        parameters = [p for weights, _, _ in trained for p in weights.parameters]
        if self.ranks is None:
            gradients = list(torch.autograd.grad(total, parameters))
        else:
            gradients = self._reduced_gradients(total, parameters)
        for weights, lr, decay in trained:
            own, gradients = gradients[: len(weights.parameters)], gradients[len(weights.parameters) :]
            sgd_step(weights, own, lr=lr, decay=decay, momentum=self.config.momentum)

    def _reduced_gradients(self, total: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Means of the gradients over the ranks, which DistributedDataParallel puts where only backward() does."""
        for parameter in self._pair.parameters():
            parameter.grad = None
        total.backward()  # type: ignore[no-untyped-call]
        return [p.grad for p in parameters if p.grad is not None]

    def _update_target(self, path: StepPath) -> None:
        if path.copies:
            self._target_weights.flat.copy_(self._weights.flat)
        else:
            self._target_weights.flat.lerp_(self._weights.flat, self._rates.follow)
        if path.stop_gradient and (path.copies or path.target_is_online):
            # Its running statistics are then what a pass of its own gives: the online network's.
            statistics = list(self.online.buffers())
            if statistics:  # a linear network has none
                torch._foreach_copy_(list(self.target.buffers()), statistics)

    def _predictor_of(self, moments: Tensor, path: StepPath) -> Tensor:
        """Wp (d, d) as the mode sets it from F and E[f z^T], both in ``moments`` (d, 2 d)."""
        try:
            return matrix_of(moments, self._rates.eps, path.predictor, path.norm, by_products=not self._exact)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise NonFiniteLossError(
                f"F cannot be decomposed at step {self._step + 1}: the network has diverged; the step was not applied. "
                f"A learning rate that is too high is the usual reason (lr {self._knobs.lr:g}): start again with a "
                "lower one."
            ) from None

    def _check_finite(self, loss: float, trace: float, k: Knobs) -> None:
        # The cosine forgets lengths: the projections can overflow in F long before the loss says anything.
        for name, value in (("loss", loss), ("trace of F", trace)):
            if not np.isfinite(value):
                raise NonFiniteLossError(
                    f"The {name} became {value} at step {self._step + 1}; the step was not applied. A learning rate "
                    f"that is too high is the usual reason (lr {k.lr:g}, predictor's {k.lr_predictor:g}): start again "
                    "with a lower one."
                )

    def reckon_in_full(self) -> None:
        """From now on every product is of float32, and launched operation by operation; for comparisons."""
        self.precision, self._graphs = torch.float32, None

    def hold_back(self) -> None:
        """Keeps the host from running far ahead of a GPU: a knob would be late by as many steps."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        self._queued.append(event)
        if len(self._queued) > STEPS_QUEUED:
            self._queued.popleft().synchronize()

    # ------------------------------------------------- where the state lies

    def blocks(self) -> dict[str, Tensor]:
        """All that a step reads and writes, in few pieces by name; what :meth:`move` takes."""
        groups = {"online": self._weights, "linear": self._linear_weights, "mlp": self._mlp_weights}
        return {
            **{name: weights.flat for name, weights in groups.items()},
            **{f"{name}_velocity": weights.velocity for name, weights in groups.items()},
            "target": self._target_weights.flat,
            **{f"{name}_statistics": found.flat().to(self.device) for name, found in self._statistics().items()},
            "moments": self._moments,
            "rates": self._rates.all,
            "losses": self._losses,
        }

    def move(self, blocks: Mapping[str, Tensor]) -> None:
        """Has the state lie in other memory from now on, which holds its values already; for who holds :attr:`lock`.

        Args:
            blocks: of the names and shapes of :meth:`blocks`, such as rows of tensors that hold several trainers.
        """
        groups = {"online": self._weights, "linear": self._linear_weights, "mlp": self._mlp_weights}
        for name, weights in groups.items():
            weights.move(blocks[name], blocks[f"{name}_velocity"])
        self._target_weights.move(blocks["target"])
        for name, found in self._statistics().items():
            found.move(blocks[f"{name}_statistics"])
        self._moments, self._losses = blocks["moments"], blocks["losses"]
        dim = len(self._moments)
        self.correlation, self.cross = self._moments[:, :dim], self._moments[:, dim:].T
        self._rates = Rates(blocks["rates"])
        # Graphs know the memory that they were captured with.
        if self._graphs is not None:
            self._graphs = StepGraphs(self.device)

    def _statistics(self) -> dict[str, Statistics]:
        return {
            "online": Statistics(self.online), "target": Statistics(self.target), "mlp": Statistics(self.predictor.mlp)
        }  # fmt: skip

    # ---------------------------------------------------------- looking in

    def spectrum(self) -> Spectrum:
        """Eigenvalues of F and Wp and how they line up, in float64 on the CPU; changes nothing.

        In mode ``none`` the predictor is the identity, and so is the Wp shown.
        """
        return decompose(self.matrices())

    def matrices(self) -> Transfer:
        """F and Wp, (d, d) float32, of this moment, on their way to the host; changes nothing."""
        with self.lock, torch.no_grad():
            return Transfer([self.correlation, self.predictor.matrix()])

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
                self.online.represent(self._prepared(normalise(part.to(self.device), self._recipe)), kept)
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
        with self.lock:
            return self.twin()

    def twin(self) -> Trainer:
        """:meth:`fork` for another thread than the one that holds :attr:`lock` and stands still."""
        twin = Trainer(self.config, self.dataset)
        twin.load_state_dict(self._state())
        return twin

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied."""
        tensors: dict[str, Tensor] = {"correlation": self.correlation, "cross": self.cross}
        for part in ("online", "target", "predictor"):
            module = getattr(self, part)
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        groups = (self._weights, self._linear_weights, self._mlp_weights)
        velocity = {id(p): v for weights in groups for p, v in weights.velocities()}
        for part in ("online", "predictor"):
            for name, parameter in getattr(self, part).named_parameters():
                tensors[f"momentum.{part}.{name}"] = velocity[id(parameter)]
        return tensors

    def _pieces(self) -> list[Tensor]:
        """All of :meth:`_tensors` in as few tensors as there are, each contiguous; not copied."""
        networks = (self._weights, self._target_weights, self._linear_weights, self._mlp_weights)
        pieces = [weights.flat for weights in networks]
        pieces += [weights.velocity for weights in networks if weights is not self._target_weights]
        for module in (self.online, self.target, self.predictor):
            pieces += list(module.buffers())
        return [*pieces, self._moments]

    def join_ranks(self) -> None:
        """Takes over rank 0's state, and has gradients reduced from now on; a collective, once before all steps."""
        assert self.ranks is not None
        self.follow_state()
        self._pair = _reduced(self._pair, self.ranks)
        self.check_alike()

    def check_alike(self) -> None:
        """Looks whether all ranks are in the same state, to the bit; a collective.

        Raises:
            DriftError: they are not.
        """
        if self.ranks is not None:
            self.ranks.check_alike(self._pieces(), self._step)

    @torch.no_grad()
    def follow_state(self, counters: Mapping[str, Any] | None = None) -> None:
        """Takes over rank 0's tensors, and its counters from :meth:`state_dict`; a collective."""
        assert self.ranks is not None
        self.ranks.from_first(*self._pieces())
        if counters is not None:
            checked = _checked_counters(counters)
            self._count_as(checked, Knobs().changed(checked["knobs"]))

    def counters(self) -> dict[str, Any]:
        """What of the state is no tensor."""
        return {
            "step": self._step,
            "has_correlation": self._has_correlation,
            "target_is_online": self._target_is_online,
            "arithmetic": ARITHMETIC,
            "holds_mlp": self.predictor.holds_mlp,
            "knobs": self._knobs.model_dump(),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the config: ``tensors`` (copies) and ``counters``.

        There is no random state: every draw is seeded by (run seed, stream, step).
        """
        with self.lock:
            return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "tensors": {name: value.detach().clone() for name, value in self._tensors().items()},
            "counters": self.counters(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state from :meth:`state_dict`, all of it or nothing.

        Raises:
            SSLLabError: a tensor is missing, unknown, or of another shape or kind (named), or a counter is broken.
        """
        counters = _checked_counters(state["counters"])
        if self.config.encoder == "small" and counters.get("arithmetic", 1) < 2:
            raise SSLLabError(
                "The saved state is of an earlier version of ssl-lab, whose small encoder had its features in another "
                "order: it cannot be gone on from. The run's record still shows all of it."
            )
        here = self._tensors()
        # Of a state that was saved before there was a least-squares predictor.
        tensors: Mapping[str, Tensor] = {"cross": torch.zeros_like(self.cross), **state["tensors"]}
        for name in sorted(set(here) - set(tensors)):
            raise SSLLabError(f"The saved state does not fit this run: it has no {name!r}.")
        for name, tensor in tensors.items():
            expected = here.get(name)
            if expected is None:
                raise SSLLabError(f"The saved state does not fit this run: {shown(name)} has no place in it.")
            if tuple(tensor.shape) != tuple(expected.shape) or tensor.dtype != expected.dtype:
                raise SSLLabError(
                    f"The saved state does not fit this run: {name!r} should be {tuple(expected.shape)} of "
                    f"{_kind(expected)} and is {tuple(tensor.shape)} of {_kind(tensor)}."
                )
        knobs = Knobs().changed(counters["knobs"])
        with self.lock:
            for name, tensor in here.items():
                tensor.copy_(tensors[name])
            self._count_as(counters, knobs)

    def _count_as(self, counters: Mapping[str, Any], knobs: Knobs) -> None:
        """Takes over counters that were checked."""
        self.predictor.mode, self.predictor.holds_mlp = knobs.predictor, counters["holds_mlp"]
        self._knobs, self._step = knobs, counters["step"]
        self._has_correlation = counters["has_correlation"]
        # Of a state from before this was kept: the target's own pass is right in any case.
        self._target_is_online = counters["target_is_online"]
        self._rates.take(knobs)


_COUNTERS: Mapping[str, tuple[type, Any]] = MappingProxyType(
    {
        "step": (int, None),
        "has_correlation": (bool, None),
        "holds_mlp": (bool, None),
        "knobs": (dict, None),
        # Of a state from before these were kept.
        "target_is_online": (bool, False),
        "arithmetic": (int, 1),
    }
)
"""What a state has to say besides its tensors: its kind, and what it is where nothing is said."""


def _checked_counters(said: Mapping[str, Any]) -> dict[str, Any]:
    """The counters of a saved state, each of its kind.

    Raises:
        SSLLabError: one is missing or something else; the message says what was expected and what was found.
    """
    counters = {name: said.get(name, usual) for name, (_, usual) in _COUNTERS.items()}
    for name, (kind, _) in _COUNTERS.items():
        value: Any = counters[name]
        right = isinstance(value, bool) if kind is bool else isinstance(value, kind) and not isinstance(value, bool)
        if not right or (isinstance(value, int) and not 0 <= value <= 2**53):
            words = {int: "a whole number from 0 on", bool: "true or false", dict: "the knobs and their values"}[kind]
            raise SSLLabError(f"The saved state is broken: its {name!r} should be {words} and is {shown(value)}.")
    return counters


def _reduced(pair: nn.Module, ranks: Ranks) -> nn.Module:
    """``pair``, whose gradients are means over the ranks after backward()."""
    from torch.nn.parallel import DistributedDataParallel

    # Which half of the predictor is used changes with the mode, hence find_unused_parameters. It also keeps the
    # parameters in the buckets that they begin in: where they are put in order anew after the first step, a run that
    # goes on from a checkpoint adds up in another order than one that was not cut.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DistributedDataParallel(
            pair, device_ids=[ranks.device] if ranks.device.type == "cuda" else None, process_group=ranks.numbers,
            broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True,
        )  # fmt: skip


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _keep_to_usable_cores() -> None:
    """Takes threads away from torch that a container has no cores for; whoever asked for fewer keeps them."""
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def _trains_predictor(k: Knobs) -> bool:
    """Whether SGD changes Wp: where every step sets it anew, nothing of it would be left."""
    return k.predictor != "none" and not (k.predictor in SET_MODES and k.freq == 1)
