"""The ranks of a run: processes that step it together, each with its share of every batch, and what they exchange.

What rank 0 tells the others goes through torch.distributed's store, in which a word can be waited for as long as a run
stands paused; the numbers of a step go through a group of torch.distributed (nccl between GPUs, gloo between CPUs).
That a rank is gone shows there by its closed connection, and whoever started the ranks, as torchrun, ends them all.

All ranks hold the same weights, F, Wp and target, bit by bit: each number that is made from all images is reduced over
the ranks before anything depends on it.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ssl_lab.errors import ConfigError, SSLLabError

LONGEST_PAUSE = timedelta(days=365)
"""A run may stand paused for this long before the waiting ranks give up."""
LONGEST_COLLECTIVE = timedelta(minutes=3)
"""A rank that is this late within a step, though its process lives, ends the job."""
CONNECTS = 3
"""Tries to connect the ranks, of which gloo gives up too soon on a very busy machine."""
WORDS_KEPT = 1_000
"""Words of rank 0 that stay in the store; none of the others is as many steps behind."""


class LostRankError(SSLLabError):
    """Another rank of the run is gone, and what it was to add with it."""


class DriftError(SSLLabError):
    """The ranks' weights are not the same any more."""


def joined() -> bool:
    """Whether this process was started as one of several ranks, as torchrun starts them."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


@dataclass(frozen=True)
class _Peer:
    """What is known of a rank."""

    host: str
    pid: int
    error: str = ""
    """Why it cannot take part; empty if it can."""
    about: str = ""
    """What has to be the same on all ranks."""


class Ranks:
    """This process's place among the ranks, and the collectives of a run.

    Made from the environment that torchrun gives: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        """0 is the one that writes the record and that people talk to."""
        self.world = int(os.environ["WORLD_SIZE"])
        """Number of ranks."""
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self.local_world = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        self.device = torch.device("cpu")
        self.backend = "gloo"
        """Of the group that the numbers go through."""
        self.numbers: dist.ProcessGroup | None = None
        """The group that the numbers of a step go through; None before :meth:`settle`."""
        self.waits_since: float | None = None
        """Since when this rank waits for a word of rank 0; None while it does something."""
        store = next(rendezvous("env://", self.rank, self.world))[0]
        token = self._met(store)
        self._store = PrefixStore(token, store)
        # One client waits while the group uses the other.
        waiting = store.clone()
        waiting.set_timeout(LONGEST_PAUSE)
        self._words = PrefixStore(token, waiting)
        self._told = self._asked = self._connects = 0
        self._peers: list[_Peer] = []
        self.agree()

    def _met(self, store: Store) -> str:
        """A word that the ranks of this start have in common, and with no earlier start.

        torchrun's store outlives the ranks, and holds what those before them have left: where gloo's earlier addresses
        are taken for the present ones, ranks that were started again wait for each other for ever. So each rank says
        hello with a word of its own, and is welcome when rank 0 answers that very word.
        """
        own = uuid.uuid4().hex
        if self.rank > 0:
            store.set(f"hello/{self.rank}", own)
            token = bytes(store.get(f"welcome/{own}")).decode()
            store.set(f"{token}/here/{self.rank}", "")
            return token
        welcome: set[str] = set()
        missing = set(range(1, self.world))
        while missing:
            for rank in sorted(missing):
                if store.check([f"{own}/here/{rank}"]):
                    missing.discard(rank)
                elif store.check([f"hello/{rank}"]):
                    # Perhaps of an earlier start: then another one comes.
                    word = bytes(store.get(f"hello/{rank}")).decode()
                    if word not in welcome:
                        welcome.add(word)
                        store.set(f"welcome/{word}", own)
            time.sleep(0.02)
        return own

    def _gathered(self, mine: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each rank says, in their order; waits for all of them."""
        self._asked += 1
        key = f"asked/{self._asked}"
        with self._said():
            self._words.set(f"{key}/{self.rank}", json.dumps(dict(mine)))
            return [dict(json.loads(self._words.get(f"{key}/{rank}"))) for rank in range(self.world)]

    # ------------------------------------------------------------ beginning and end

    def settle(self, device: str) -> torch.device:
        """The device of this rank for a config's ``device``; makes the group for its numbers. A collective.

        Raises:
            ConfigError: on any rank there is no such device, or not one for each rank.
        """
        error = ""
        kind = device
        if device == "auto":
            kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda":
            there = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if there < self.local_world:
                error = (
                    f"{self.local_world} ranks need as many GPUs on a machine, and here are {there}. Start fewer, or "
                    "give --device cpu."
                )
        elif kind != "cpu":
            error = f"With several ranks the device is auto, cuda or cpu, each rank having its own, and not {device!r}."
        self.agree(error, about=f"device {kind}")
        if kind == "cuda":
            self.device, self.backend = torch.device("cuda", self.local_rank), "nccl"
            torch.cuda.set_device(self.device)
        else:
            self.device, self.backend = torch.device("cpu"), "gloo"
        if self.numbers is None:
            self._connect()
        return self.device

    def _connect(self) -> None:
        """Makes the group; all ranks, or all of them once more.

        Raises:
            ConfigError: they cannot reach each other.
        """
        while True:
            self._connects += 1
            failed = ""
            try:
                dist.init_process_group(
                    self.backend, store=PrefixStore(f"numbers/{self._connects}", self._store), rank=self.rank,
                    world_size=self.world, timeout=LONGEST_COLLECTIVE,
                    device_id=self.device if self.device.type == "cuda" else None,
                )  # fmt: skip
            except RuntimeError as error:
                failed = (str(error).splitlines() or [""])[0][:200]
            failures = [said["failed"] for said in self._gathered({"failed": failed})]
            if not any(failures):
                break
            self._leave()
            if self._connects >= CONNECTS:
                raise ConfigError(f"The ranks cannot reach each other: {next(filter(None, failures))}")
        group = dist.group.WORLD
        assert group is not None
        self.numbers = group

    def _leave(self) -> None:
        with suppress(RuntimeError, ValueError, AssertionError):
            dist.destroy_process_group()

    def agree(self, error: str = "", about: str = "") -> None:
        """Tells all ranks whether this one can go on, and learns it of them. A collective.

        Args:
            error: why it cannot; empty if it can.
            about: words that have to be the same on all ranks, such as versions.

        Raises:
            ConfigError: some rank cannot, or ``about`` differs; on all ranks alike.
        """
        mine = _Peer(socket.gethostname(), os.getpid(), error, about)
        self._peers = [_Peer(**found) for found in self._gathered(asdict(mine))]
        for rank, peer in enumerate(self._peers):
            if peer.error:
                # What all of them say is no matter of one of them.
                everywhere = all(other.error for other in self._peers)
                raise ConfigError(peer.error if everywhere else f"Rank {rank} on {peer.host}: {peer.error}")
        for rank, peer in enumerate(self._peers):
            if peer.about != self._peers[0].about:
                raise ConfigError(
                    f"The ranks do not fit together: rank 0 on {self._peers[0].host} has {self._peers[0].about}, and "
                    f"rank {rank} on {peer.host} has {peer.about}."
                )

    def close(self) -> None:
        """Leaves the groups."""
        self._leave()
        # Who has what the store lies in must be the last to go.
        with suppress(RuntimeError):
            if self.rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
                for rank in range(1, self.world):
                    self._words.wait([f"left/{rank}"], timedelta(seconds=10))
            self._words.set(f"left/{self.rank}", "")

    # ------------------------------------------------------------ what the first rank tells the others

    def tell(self, what: int, payload: Mapping[str, Any] | None = None) -> None:
        """Rank 0 to all others, which :meth:`hear` it: a number, and a payload (what JSON holds) if there is one.

        Raises:
            LostRankError: the store is gone.
        """
        self._told += 1
        with self._said():
            self._words.set(f"told/{self._told}", json.dumps([what, payload and dict(payload)]))
            if self._told > WORDS_KEPT:
                self._words.delete_key(f"told/{self._told - WORDS_KEPT}")

    def hear(self) -> tuple[int, dict[str, Any]]:
        """What rank 0 tells next, however long that takes.

        Raises:
            LostRankError: the store is gone.
        """
        self._told += 1
        self.waits_since = time.monotonic()
        with self._said():
            what, payload = json.loads(self._words.get(f"told/{self._told}"))
        self.waits_since = None
        return int(what), dict(payload or {})

    def is_told(self, what: int) -> bool:
        """Whether rank 0 has told this one next, without waiting for a word of it."""
        key = f"told/{self._told + 1}"
        with suppress(RuntimeError):
            return self._store.check([key]) and json.loads(self._store.get(key))[0] == what
        return False

    # ------------------------------------------------------------ numbers of a step

    def mean(self, x: Tensor) -> Tensor:
        """``x``, contiguous, overwritten by its mean over the ranks; the same bits on all of them."""
        with self._said():
            dist.all_reduce(x, group=self.numbers)
        return x.div_(self.world)

    def from_first(self, *tensors: Tensor) -> None:
        """Overwrites tensors, contiguous, by those of rank 0."""
        with self._said():
            for x in tensors:
                dist.broadcast(x, 0, group=self.numbers)

    def gathered(self, x: Tensor) -> Tensor:
        """(ranks, ...): ``x`` of every rank."""
        parts = [torch.empty_like(x) for _ in range(self.world)]
        with self._said():
            dist.all_gather(parts, x, group=self.numbers)
        return torch.stack(parts)

    def check_alike(self, tensors: Iterable[Tensor], step: int) -> None:
        """Compares the ranks' weights by a digest: eight bytes a tensor, exact sums of their bits.

        Raises:
            DriftError: they are not the same; on all ranks alike.
        """
        digest = torch.stack([_bits(x) for x in tensors])
        all_of_them = self.gathered(digest)
        drifted = (all_of_them != all_of_them[0]).any(1).nonzero().flatten().tolist()
        if drifted:
            peer = self._peers[drifted[0]]
            raise DriftError(
                f"The weights of rank {drifted[0]} on {peer.host} are no longer those of rank 0 at step {step:,}: a "
                "machine has counted wrong, or the ranks do not run the same program. The run goes on from its last "
                "checkpoint; leave that machine out if it happens again."
            )

    def _said(self) -> _Said:
        return _Said(self)

    def lost(self) -> str:
        """In words, which ranks are gone, as far as this machine can tell."""
        here = socket.gethostname()
        gone = [
            f"rank {rank} of {self.world} (process {peer.pid})"
            for rank, peer in enumerate(self._peers)
            if rank != self.rank and peer.host == here and not _lives(peer.pid)
        ]
        if gone:
            return ", ".join(gone) + (" is" if len(gone) == 1 else " are")
        others = sorted({peer.host for peer in self._peers} - {here})
        where = f" (the others run on {', '.join(others)} too)" if others else ""
        return f"another of the {self.world} ranks{where} is"


class _Said:
    """Turns what a collective raises into words for the person."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        # torch's own errors of a group (dist.DistError, DistNetworkError) are RuntimeErrors; gloo's is a plain one.
        if isinstance(error, RuntimeError) and not isinstance(error, SSLLabError | torch.OutOfMemoryError):
            raise lost(self._ranks, error) from error


def lost(ranks: Ranks, error: BaseException) -> LostRankError:
    """The error that is raised for one of a collective."""
    # A process that was killed is gone a moment after its connection is.
    for _ in range(20):
        words = ranks.lost()
        if words.startswith("rank"):
            break
        time.sleep(0.05)
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    done, most = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    if done < most:
        what = "All are started again and go on from the last checkpoint"
    else:
        what = "The same command with --resume goes on from the last checkpoint, and with --max-restarts N by itself"
    return LostRankError(
        f"The run cannot go on without all its ranks: {words} gone ({reason}). Nothing that is on record is lost. "
        f"{what}."
    )


def is_of_a_collective(error: BaseException) -> bool:
    """Whether an error comes from a group that lost a rank, wherever in a step it was raised."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(w in words for w in ("gloo", "nccl", "connection", "processgroup"))
    )


def _bits(x: Tensor) -> Tensor:
    """() int64: the sum of a contiguous tensor's numbers read as whole ones, exact whatever the order."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.detach().reshape(-1).view(whole).sum(dtype=torch.int64)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # One that has ended and was not asked for yet still has its number.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except ProcessLookupError:
        return False
    except (OSError, IndexError):
        return True


# ---------------------------------------------------------------- batch statistics


class _Normalised(torch.autograd.Function):
    """(x - mean) / std of each view and channel over the images of all ranks, and its gradient.

    One collective forth and one back for all views of a layer. The ranks' means and variances are put together as
    Chan, Golub & LeVeque 1979 have it, which loses no digits where a mean is large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x: (views, rows, channels, places) -> the same; and mean and variance (views, channels)."""
        var, mean = torch.var_mean(x, (1, 3), correction=0)
        means, variances = ranks.gathered(torch.stack((mean, var))).unbind(1)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        inverse = (var + eps).rsqrt()
        y = (x - mean[:, None, :, None]) * inverse[:, None, :, None]
        # And not y, which the ReLU behind it writes over.
        ctx.save_for_backward(x, mean, inverse)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """dx = (dy - mean(dy) - y mean(dy y)) / std, the means over the images of all ranks."""
        x, mean, inverse = ctx.saved_tensors
        dy = gradients[0]
        y = (x - mean[:, None, :, None]) * inverse[:, None, :, None]
        sums = ctx.ranks.mean(torch.stack((dy.mean((1, 3)), (dy * y).mean((1, 3)))))
        a, b = (part[:, None, :, None] for part in sums.unbind(0))
        return (dy - a - y * b) * inverse[:, None, :, None], None, None


def batch_norm(x: Tensor, views: int, norm: nn.BatchNorm1d | nn.BatchNorm2d, ranks: Ranks) -> Tensor:
    """BN in training of ``views`` stacked views, each over the images of all ranks; updates running statistics.

    Args:
        x: (views * rows, channels) or (views * rows, channels, height, width); as many rows on each rank.
        views: stacked one after the other.
        norm: scale, shift, momentum and running statistics.
        ranks: whose images count.
    """
    if x.is_cuda:
        return (
            torch.cat([_fused(part, norm, ranks) for part in x.chunk(views)]) if views > 1 else _fused(x, norm, ranks)
        )
    # A bfloat16 has three digits, of which a mean over thousands would lose all.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    shape = (views, len(x) // views, x.shape[1], -1)
    normalised: tuple[Tensor, Tensor, Tensor] = _Normalised.apply(wide.reshape(shape), ranks, norm.eps)
    y, mean, var = normalised[0].reshape(x.shape), *normalised[1:]
    if norm.affine:
        each = (1, -1) + (1,) * (x.ndim - 2)
        y = y * norm.weight.view(each) + norm.bias.view(each)
    if norm.running_mean is not None and norm.running_var is not None:
        count = x.numel() // (views * x.shape[1]) * ranks.world
        momentum = norm.momentum or 0.0
        with torch.no_grad():
            for view in range(views):
                norm.running_mean.lerp_(mean[view].to(norm.running_mean), momentum)
                norm.running_var.lerp_(var[view].to(norm.running_var) * (count / max(1, count - 1)), momentum)
    return y.to(x.dtype)


def _fused(x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, ranks: Ranks) -> Tensor:
    """torch.nn.SyncBatchNorm of one view: what that module calls, which has kernels for GPUs alone."""
    from torch.nn.modules._functions import SyncBatchNorm

    out: Tensor = SyncBatchNorm.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, norm.momentum or 0.0, ranks.numbers,
        ranks.world,
    )  # fmt: skip
    return out


def share(ranks: Ranks, size: int) -> slice:
    """Which of a batch's ``size`` images are this rank's: as many on each, none twice.

    Raises:
        ConfigError: they cannot be shared evenly.
    """
    if size % ranks.world or size < 2 * ranks.world:
        below = size // ranks.world * ranks.world
        near = [n for n in (below, below + ranks.world) if n >= 2 * ranks.world] or [2 * ranks.world]
        raise ConfigError(
            f"A batch of {size} images cannot be shared evenly by {ranks.world} ranks, at least two for each: "
            f"batch_size counts the images of all ranks together. Take {' or '.join(map(str, near))}, or fewer ranks."
        )
    own = size // ranks.world
    return slice(ranks.rank * own, (ranks.rank + 1) * own)


def chosen(pieces: int, size: int, own: slice) -> list[int]:
    """Rows of ``own`` in each of ``pieces`` batches of ``size`` rows that are stacked."""
    return [piece * size + row for piece in range(pieces) for row in range(own.start, own.stop)]
