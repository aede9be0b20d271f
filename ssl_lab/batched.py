"""Several trainers of one shape, stepped as one: a step of K small networks as one step with K times the work in it.

A small network leaves most of a GPU idle: its operations are over before the next is launched, and K such runs one
after another launch K times as many. Here the states of the trainers are the rows of a few tensors, and torch.func's
``vmap`` of ``functional_call`` makes each operation of the networks one operation for all of them. Everything behind
the networks (losses, SGD, Wp, the EMA) works on the rows as they stand, with each trainer's own rates, (K,) tensors.

* **The trainers stay whole.** Their weights, momentum, running statistics, F and rates are views of the rows, so
  states, spectra, features and forks are had as always, a knob is turned in its row, and any of them may make a step
  alone at any time. Nothing is copied between them and the batch. (Those that step without some of the others, and are
  no neighbours in the stack, are gathered for the step and put back.)
* **Rules that make other operations** (mode of the predictor, symmetry, stop-gradient, norm, centred F, whether this
  step sets Wp) part the trainers into groups, each a batch of its own; rules that are numbers do not. tau = 0 is a
  number too: a target with a weight of 1 for the online network, and its running statistics.
* **Batch norm** changes its running statistics in place, which ``vmap`` does not let a network do to what it is given:
  each pass has copies, changes these, and hands them back as a result.
* **Views** that are the same for several (forks at one step, of one strength) are made once and are one input.
* **On a GPU** the step of a group is one CUDA graph, as a single trainer's is (:mod:`ssl_lab.graphs`): no number comes
  back to the host, and rates, rows and views are read where they lie. It is captured for each group of rules and number
  of trainers. Should a capture fail, :func:`worth_it` finds that on copies and the batch is launched operation by
  operation. The least-squares predictor's solver cannot be captured, as in a single trainer.

A trainer's numbers are those that it has alone but for the rounding of sums in another order: a step leads within 1e-5
of where it leads alone, and so do fifty steps of networks with a smooth nonlinearity (tests/ssl_lab/test_batched.py).
Over many steps of ReLUs a last digit decides now and then on which side of 0 an input lies; a trainer's path is then
apart as it is from its own if its weights are nudged by a last digit at every step (measured: up to 2e-2 of the largest
weight after fifty steps of the default, either way).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ssl_lab.agreement import half_square, mean_cosine
from ssl_lab.graphs import StepGraphs
from ssl_lab.kernels import fastest_kernels, full_digits
from ssl_lab.networks import widen_norms
from ssl_lab.optimiser import descend
from ssl_lab.predictor import correlations, matrix_of
from ssl_lab.trainer import Rates, StepPath, StepRecord, Trainer, cpu_threads
from ssl_lab.weights import FlatWeights, Statistics

log = logging.getLogger(__name__)

AGREEMENT = 1e-5
"""Most that a number of a trainer may differ from what it is alone, relative to the largest of its tensor; float32."""

MARGIN = 1.05
"""How many times as fast steps as one have to be."""

_PADDED = 64
"""Rows begin at a multiple of this many numbers: products of weights that lie askew are slow."""


class NotMadeError(RuntimeError):
    """A step could not be made together, and nothing was changed: each of the trainers can make it alone."""


def shape_of(trainer: Trainer) -> Hashable:
    """Equal for trainers that can be stepped as one: same networks, batch, loss and momentum on one device."""
    c = trainer.config
    return (
        c.encoder, c.stem, c.width, c.projector_layers, c.projector_hidden, c.projector_dim, c.predictor_hidden,
        c.batch_size, c.momentum, c.loss, tuple(trainer.dataset.train.images.shape[1:]), trainer.device,
        trainer.precision, trainer.exact, trainer.threads,
    )  # fmt: skip


class Batch:
    """Steps trainers of one shape as one.

    The caller sees to it that nobody else steps, turns or changes any of them meanwhile: :mod:`ssl_lab.together` does.

    Args:
        trainers: of one :func:`shape_of`, at a step boundary; from now on their states are rows of this batch, in this
            order.
        captured: whether a GPU may capture the step.

    Raises:
        ValueError: they are not of one shape.
    """

    def __init__(self, trainers: Sequence[Trainer], *, captured: bool = True) -> None:
        if len({shape_of(trainer) for trainer in trainers}) != 1:
            raise ValueError("trainers are stepped as one only if they are of one shape")
        first = trainers[0]
        self.trainers = tuple(trainers)
        self._row = {trainer: row for row, trainer in enumerate(trainers)}
        self._config, self._device, self._exact = first.config, first.device, first.exact
        # Never a trainer's own modules: while a call has other weights in them another thread may look.
        self._network, self._mlp = _template(first.online), _template(first.predictor.mlp)
        self._network_weights, self._network_statistics = FlatWeights(self._network), Statistics(self._network)
        self._mlp_weights, self._mlp_statistics = FlatWeights(self._mlp), Statistics(self._mlp)
        self._linear_weights = FlatWeights(_template(first.predictor.linear))
        blocks = [trainer.blocks() for trainer in trainers]
        self._stack = {name: _stacked([block[name] for block in blocks]) for name in blocks[0]}
        for row, trainer in enumerate(trainers):
            trainer.move({name: tensor[row] for name, tensor in self._stack.items()})
        self.graphs = StepGraphs(self._device) if captured and self._device.type == "cuda" else None
        """The steps that were captured; None if they are not."""
        self._inputs: dict[Hashable, Tensor] = {}
        self._places: dict[int, tuple[tuple[int, ...], Tensor]] = {}
        # Which targets have the online network's running statistics after the step, and how it stands on the device.
        self._alike = [False] * len(trainers)
        self._alike_here = torch.zeros(len(trainers), dtype=torch.bool, device=self._device)
        self._touched = False

    def step(self, members: Sequence[Trainer] | None = None) -> dict[Trainer, StepRecord | Exception]:
        """One step of each.

        Args:
            members: those of :attr:`trainers` that make one; None for all.

        Returns:
            What each of them did; a :class:`NotMadeError` if it can make the step alone; any other error if it broke
            off in the middle.
        """
        groups: dict[StepPath, list[int]] = {}
        for row in sorted(self._row[trainer] for trainer in members or self.trainers):
            groups.setdefault(_group(self.trainers[row].path()), []).append(row)
        done: dict[Trainer, StepRecord | Exception] = {}
        for path, rows in groups.items():
            trainers = [self.trainers[row] for row in rows]
            try:
                if len(rows) == 1:
                    raise NotMadeError("one is no batch")
                with cpu_threads(trainers[0].threads):
                    records = self._step(path, rows, trainers)
                done |= dict(zip(trainers, records, strict=True))
            except NotMadeError as error:
                done |= dict.fromkeys(trainers, error)
            except Exception as error:
                failure: Exception = error
                if not self._touched:
                    failure = NotMadeError(f"{type(error).__name__}: {error}")
                    failure.__cause__ = error
                done |= dict.fromkeys(trainers, failure)
        self.trainers[0].hold_back()
        return done

    def _step(self, path: StepPath, rows: list[int], trainers: list[Trainer]) -> list[StepRecord]:
        self._touched = False
        place = self._place(rows)
        own_pass = path.stop_gradient and not all(trainer.path().target_is_online for trainer in trainers)
        path = dataclasses.replace(path, target_is_online=not own_pass)
        self._note_alike(rows, trainers)
        views, shared = _views(trainers)
        if self.graphs is None or path.predictor == "optimal":
            self._learn(views, path, place, shared)
        else:
            if (key := (shared, views.shape)) not in self._inputs:
                self._inputs[key] = torch.empty_like(views)
            fixed = self._inputs[key].copy_(views)
            with fastest_kernels(self._device):
                self.graphs.run(
                    (path, place.key, shared), lambda: self._learn(fixed, path, place, shared)
                )  # fmt: skip
        losses = place.take(self._stack["losses"]).clone()
        return [trainer.stepped(row) for trainer, row in zip(trainers, losses.unbind(), strict=True)]

    def _place(self, rows: list[int]) -> _Place:
        if rows[-1] - rows[0] == len(rows) - 1:
            return _Place(slice(rows[0], rows[-1] + 1))
        # One tensor for each number of rows, which a graph reads where it lies.
        known, index = self._places.get(len(rows), ((), None))
        if index is None:
            index = torch.empty(len(rows), dtype=torch.long, device=self._device)
        if known != tuple(rows):
            index.copy_(torch.tensor(rows))
            self._places[len(rows)] = tuple(rows), index
        return _Place(index)

    def _note_alike(self, rows: list[int], trainers: list[Trainer]) -> None:
        before = list(self._alike)
        for row, trainer in zip(rows, trainers, strict=True):
            path = trainer.path()
            self._alike[row] = path.stop_gradient and (path.copies or path.target_is_online)
        if self._alike != before:
            self._alike_here.copy_(torch.tensor(self._alike))

    # ------------------------------------------------------- the step proper

    def _learn(self, views: Tensor, path: StepPath, place: _Place, shared: bool) -> None:
        """As a trainer's own, for all rows of ``place``: everything is known before anything is changed."""
        n = _Rows(self._stack, place)
        rates = Rates(n["rates"])
        head = n["mlp" if path.holds_mlp else "linear"]
        online, wp = n["online"].detach().requires_grad_(), head.detach().requires_grad_(path.trains_predictor)
        networks = (
            online, n["online_statistics"], n["target"], n["target_statistics"], wp, n["mlp_statistics"],
        )  # fmt: skip
        passes = vmap(partial(self._passes, path), in_dims=(0,) * len(networks) + (None if shared else 0,))
        f, z, q, online_statistics, target_statistics, mlp_statistics = passes(*networks, views)
        z = z.detach() if path.stop_gradient else z
        # The other view's target.
        z = torch.cat(z.chunk(2, dim=1)[::-1], 1)
        loss = -2 * mean_cosine(q, z) if self._config.loss == "cosine" else half_square(q, z)
        penalty = torch.zeros_like(loss)
        if path.symmetry == "penalty":
            matrices = vmap(partial(self._matrix, path.holds_mlp))(wp)
            penalty = rates.strength * (0.5 * (matrices - matrices.mT).square().sum((1, 2)))
        moments = vmap(partial(correlations, centred=path.centred))(f.detach(), z.detach())
        if self._exact:
            checked = torch.stack([(loss + penalty).detach(), moments.diagonal(dim1=1, dim2=2).sum(1)])
            if not bool(checked.isfinite().all()):
                raise NotMadeError("a loss or a trace of F is not finite")
        with torch.no_grad():
            if not path.first:
                moments = (n["moments"] * rates.rho[:, None, None]).addcmul_(moments, rates.fresh[:, None, None])
            matrix = None
            if path.sets_predictor:
                make = partial(matrix_of, mode=path.predictor, norm=path.norm, by_products=not self._exact)
                matrix = vmap(make)(moments, rates.eps)
        leaves = [online, wp] if path.trains_predictor else [online]
        gradients = torch.autograd.grad((loss + penalty).sum(), leaves)
        self._touched = True
        with torch.no_grad():
            self._descend(n, path, rates, gradients)
            if path.symmetry == "hard":
                self._symmetrise(head, path.holds_mlp)
            n["target"].lerp_(n["online"], rates.follow[:, None])
            if path.stop_gradient:
                alike = place.take(self._alike_here)[:, None]
                n["target_statistics"].copy_(torch.where(alike, online_statistics, target_statistics))
            n["online_statistics"].copy_(online_statistics)
            if path.holds_mlp:
                n["mlp_statistics"].copy_(mlp_statistics)
            n["moments"].copy_(moments)
            if matrix is not None:
                head.copy_(matrix.flatten(1))
            n["losses"].copy_(torch.stack([loss, penalty], 1))
            n.put_back()

    def _passes(
        self, path: StepPath, online: Tensor, online_statistics: Tensor, target: Tensor, target_statistics: Tensor,
        head: Tensor, mlp_statistics: Tensor, views: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Of one trainer: f, z and q (2B, d), and the running statistics after the passes."""
        first = self.trainers[0]
        network = partial(
            _passed, self._network, self._network_weights, self._network_statistics, products=first.precision
        )  # fmt: skip
        with first.products():
            f, online_statistics = network(online, online_statistics, views)
            f = z = f.float()
            if not path.target_is_online:
                z, target_statistics = network(target, target_statistics, views)
        q = f
        if path.predictor != "none" and path.holds_mlp:
            q, mlp_statistics = _passed(
                self._mlp, self._mlp_weights, self._mlp_statistics, head, mlp_statistics, f, torch.float32
            )
        elif path.predictor != "none":
            q = nn.functional.linear(f, self._matrix(False, head))
        return f, z.float(), q, online_statistics, target_statistics, mlp_statistics

    def _factors(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """W1 (..., hidden, d) and W2 (..., d, hidden) of flat weights (..., weights) of two layers; views."""
        # They have no decayed weights besides.
        first, last = (p for p in self._mlp_weights.parameters if p.ndim == 2)
        parts = torch.split(head[..., self._mlp_weights.decayed], [first.numel(), last.numel()], -1)
        return _as(parts[0], first.shape), _as(parts[1], last.shape)

    def _matrix(self, holds_mlp: bool, head: Tensor) -> Tensor:
        """Wp (d, d) of flat weights of a predictor."""
        if holds_mlp:
            first, last = self._factors(head)
            return last @ first
        return _as(head, (self._config.projector_dim,) * 2)

    def _symmetrise(self, head: Tensor, holds_mlp: bool) -> None:
        if holds_mlp:
            first, last = self._factors(head)
            first.copy_((first + last.mT) / 2)
            last.copy_(first.mT)
        else:
            weight = self._matrix(False, head)
            weight.copy_((weight + weight.mT) / 2)

    def _descend(self, n: Mapping[str, Tensor], path: StepPath, rates: Rates, gradients: Sequence[Tensor]) -> None:
        head, weights = ("mlp", self._mlp_weights) if path.holds_mlp else ("linear", self._linear_weights)
        trained = [("online", self._network_weights, rates.lr, rates.decay)]
        trained.append((head, weights, rates.lr_predictor, rates.decay_predictor))
        for gradient, (name, flat, lr, decay) in zip(gradients, trained, strict=False):
            descend(
                n[name], n[f"{name}_velocity"], gradient, flat.decayed, lr=lr[:, None], decay=decay[:, None],
                momentum=self._config.momentum,
            )  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Some rows of a stack: neighbours, which are a view of it, or any, which are copies."""

    rows: slice | Tensor

    @property
    def key(self) -> Hashable:
        """Equal only for places at which a graph finds its rows."""
        return (self.rows.start, self.rows.stop) if isinstance(self.rows, slice) else len(self.rows)

    def take(self, whole: Tensor) -> Tensor:
        return whole[self.rows] if isinstance(self.rows, slice) else whole.index_select(0, self.rows)


class _Rows(dict[str, Tensor]):
    """What a step needs of the stack, taken when it is asked for."""

    def __init__(self, stack: Mapping[str, Tensor], place: _Place) -> None:
        super().__init__()
        self._stack, self._place = stack, place

    def __missing__(self, name: str) -> Tensor:
        found = self[name] = self._place.take(self._stack[name])
        return found

    def put_back(self) -> None:
        """Writes into the stack what is no view of it."""
        rows = self._place.rows
        if isinstance(rows, Tensor):
            for name, tensor in self.items():
                self._stack[name].index_copy_(0, rows, tensor)


def _group(path: StepPath) -> StepPath:
    """The rules that decide which operations a step together is made of."""
    trained = path.predictor != "none"
    idle = not trained or (path.symmetry == "hard" and not path.trains_predictor)
    return dataclasses.replace(
        path,
        holds_mlp=path.holds_mlp and trained,
        symmetry="off" if idle else path.symmetry,
        norm=path.norm if path.predictor == "directcopy" else "none",
        # Numbers, in a batch.
        copies=False,
        target_is_online=False,
    )


def _as(flat: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., numbers) as (..., *shape), a view."""
    return flat.view(*flat.shape[:-1], *shape)


def _template(module: nn.Module) -> nn.Module:
    """A copy for the sake of its structure; what it is called with are the rows' numbers."""
    # Not on the meta device: its operations load torch's compiler, which takes seconds and much memory.
    found = copy.deepcopy(module)
    widen_norms(found)
    return found


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """(rows, ...) of ``rows``; each begins where memory is aligned."""
    size = rows[0].numel()
    room = rows[0].new_zeros(len(rows), -(-size // _PADDED) * _PADDED)
    whole = _as(room[:, :size], rows[0].shape) if size else room.new_zeros(len(rows), *rows[0].shape)
    return whole.copy_(torch.stack(list(rows)))


def _views(trainers: Sequence[Trainer]) -> tuple[Tensor, bool]:
    """The trainers' views: (2B, ...) and True if they are the same for all, else (trainers, 2B, ...)."""
    makers: dict[Hashable, Trainer] = {}
    for trainer in trainers:
        makers.setdefault(trainer.views_key(), trainer)
    made = {key: trainer.views() for key, trainer in makers.items()}
    if len(made) == 1:
        return made.popitem()[1], True
    return torch.stack([made[trainer.views_key()] for trainer in trainers]), False


def _passed(
    module: nn.Module, weights: FlatWeights, running: Statistics, flat: Tensor, before: Tensor, x: Tensor,
    products: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What ``module`` makes of ``x`` with the weights ``flat`` (weights,), and its running statistics after ``before``.

    Batch norm changes those in place; these are copies. ``products`` are the factors' format, which autocast alone does
    not see to here: ``vmap`` takes a convolution to pieces before autocast gets to see it.
    """
    moving = [piece.clone() for piece in running.pieces(before)]
    pieces = [piece.to(products) if piece.ndim > 1 else piece for piece in weights.pieces(flat)]
    numbers = dict(zip(weights.names, pieces, strict=True)) | dict(zip(running.names, moving, strict=True))
    out: Tensor = functional_call(module, numbers, (x.to(products),))
    return out, torch.cat(moving) if moving else before


# ---------------------------------------------------------------- is it worth it


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was measured on copies of some trainers, and what follows from it."""

    alone: Sequence[float]
    """Steps a second of all together, one trainer after another; each measurement. Empty if nothing was measured."""
    together: Sequence[float]
    """Steps a second of all together, stepped as one; empty if that failed."""
    apart: float
    """How far a step led a trainer from where it leads alone, see :func:`differences`; the worst trainer's worst."""
    captured: bool
    """Whether the batch's step is captured as a graph."""
    failure: str = ""
    """Why it cannot be done together; empty if it can."""

    @property
    def worth_it(self) -> bool:
        """Whether it is right, and faster by enough to have the trainers wait for one another."""
        return self.agrees and statistics.median(self.together) > MARGIN * statistics.median(self.alone)

    @property
    def agrees(self) -> bool:
        """Whether it could be done, and every trainer was what it is alone."""
        return not self.failure and self.apart <= AGREEMENT

    def __str__(self) -> str:
        if self.failure:
            return f"as one it failed: {self.failure}"
        alone = f"one after another {_rate(self.alone)}"
        graph = "captured" if self.captured else "not captured"
        verdict = "kept" if self.worth_it else "left"
        return f"{alone}, as one {_rate(self.together)} ({graph}), apart by {self.apart:.1e}: {verdict}"


def _rate(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} steps/s ({min(values):.0f} to {max(values):.0f}, n = {len(values)})"


def worth_it(trainers: Sequence[Trainer], *, steps: int = 16, rounds: int = 5, capture: bool = True) -> Verdict:
    """Measures both ways on copies of ``trainers``, in turn, after comparing their numbers.

    Numbers are compared after a step from one state, in full float32 (without TF32) whatever the trainers' precision:
    in fewer digits the order of a sum alone shows. Of three steps the middle one counts, since a ReLU whose input is 0
    to the last digit may take the other side, which then shows in the third digit of a gradient.

    Args:
        trainers: of one :func:`shape_of`, standing still; nothing about them is changed.
        steps: of each in a measurement.
        rounds: measurements.
        capture: whether a GPU may capture the steps as one; those one after another are captured in any case.
    """
    apart, failure = float("inf"), ""
    try:
        apart = _apart(trainers)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    captured = capture and trainers[0].device.type == "cuda"
    alone_ones = [trainer.twin() for trainer in trainers]
    batch = None if failure else _warm(trainers, captured)
    if batch is None and captured and not failure:
        captured = False
        batch = _warm(trainers, captured)

    def alone() -> None:
        for trainer in alone_ones:
            _alone(trainer)

    def together() -> None:
        assert batch is not None
        _made(batch)

    for _ in range(4):
        alone()
    found: dict[str, list[float]] = {"alone": [], "together": []}
    for turn in range(rounds):
        ways: list[tuple[str, Callable[[], None]]] = [("alone", alone), ("together", together)]
        for name, step in ways[:: -1 if turn % 2 else 1]:
            if name == "alone" or batch is not None:
                found[name].append(len(trainers) * steps / _seconds(step, steps, trainers[0].device))
    if batch is None and not failure:
        failure = "it could not be launched"
    return Verdict(
        alone=found["alone"], together=found["together"], apart=apart, captured=captured, failure=failure
    )  # fmt: skip


def _warm(trainers: Sequence[Trainer], captured: bool) -> Batch | None:
    """A batch of copies that has made its first steps, or None if it could not."""
    try:
        batch = Batch([trainer.twin() for trainer in trainers], captured=captured)
        for _ in range(4):
            _made(batch)
        _wait_for(trainers[0].device)
    except Exception:
        log.warning("A batch of %d could not be stepped%s", len(trainers), " as a graph" * captured, exc_info=True)
        return None
    return batch


def _made(batch: Batch) -> None:
    """One step of all; those that are a group of their own make it alone.

    Raises:
        Exception: why trainers of a group did not make it together.
    """
    counts: dict[StepPath, int] = {}
    for trainer in batch.trainers:
        path = _group(trainer.path())
        counts[path] = counts.get(path, 0) + 1
    lonely = {trainer for trainer in batch.trainers if counts[_group(trainer.path())] == 1}
    for trainer in lonely:
        _alone(trainer)
    others = [trainer for trainer in batch.trainers if trainer not in lonely]
    for outcome in (batch.step(others) if others else {}).values():
        if isinstance(outcome, Exception):
            raise outcome


def _alone(trainer: Trainer) -> None:
    with cpu_threads(trainer.threads):
        trainer.step_alone()


def _apart(trainers: Sequence[Trainer], steps: int = 3) -> float:
    """How far a step together leads from one alone, of the worst trainer; each step from one state."""
    alone, together = ([trainer.twin() for trainer in trainers] for _ in range(2))
    for trainer in (*alone, *together):
        trainer.reckon_in_full()
    batch = Batch(together, captured=False)
    found: dict[Trainer, list[float]] = {trainer: [] for trainer in together}
    with full_digits(trainers[0].device):
        for _ in range(steps):
            for trainer in alone:
                _alone(trainer)
            _made(batch)
            for a, b in zip(together, alone, strict=True):
                found[a].append(difference(a, b))
                a.load_state_dict(b.state_dict())
    return max(sorted(of_one)[steps // 2] for of_one in found.values())


def difference(trainer: Trainer, other: Trainer) -> float:
    """How far two trainers' states are apart: the worst of :func:`differences`."""
    return max(differences(trainer, other).values())


def differences(trainer: Trainer, other: Trainer) -> dict[str, float]:
    """By name of the tensor: the largest difference over the largest number of its layer in ``other``.

    Of its layer, since a bias that a batch norm takes out again has momentum of nothing but rounding. A NaN that the
    other does not have counts as infinite.
    """
    theirs, found = other.state_dict()["tensors"], {}
    largest: dict[str, float] = {}
    for name, tensor in theirs.items():
        largest[_layer(name)] = max(largest.get(_layer(name), 0.0), float(tensor.abs().max()))
    for name, mine in trainer.state_dict()["tensors"].items():
        apart = float((mine.double() - theirs[name].double()).abs().max())
        apart /= max(largest[_layer(name)], torch.finfo(torch.float32).tiny)
        found[name] = apart if apart == apart else float("inf")
    return found


def _layer(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return layer if kind in ("weight", "bias") else name


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(step: Callable[[], None], steps: int, device: torch.device) -> float:
    _wait_for(device)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    _wait_for(device)
    return time.perf_counter() - begun
