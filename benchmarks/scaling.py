"""Scaling on paper: what a step on many GPUs says to the others, and what a class needs. Arithmetic, not measurement.

``python -m benchmarks.scaling`` prints the tables of ``docs/scaling.md``. What goes in is of three kinds, and each
number says which: counted (from the networks themselves), measured (in ``benchmarks/RESULTS.md``), assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

FLOAT = 4
"""Bytes of a number on the wire: gradients, statistics and F are float32."""

VIEWS = 2
"""Of an image in a step."""

BUCKET = 25 * 2**20
"""Bytes of gradients that DistributedDataParallel sends at once; its default."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What of a network counts here."""

    name: str
    flop: float
    """Of one forward pass of one image; counted."""
    parameters: int
    """Of encoder, projector and predictor; counted."""
    channels: int
    """Of all batch norms of encoder and projector together; counted."""
    norms: tuple[int, int]
    """Batch norms of encoder and projector; counted."""
    dim: int
    """Of the projections, d: F and Wp are (d, d)."""

    @property
    def image_flop(self) -> float:
        """FLOP of one image in a step: each view online there and back (as much as three) and through the target."""
        return VIEWS * (3 + 1) * self.flop


@dataclass(frozen=True, kw_only=True)
class Link:
    """What joins the GPUs."""

    name: str
    gpus: int
    bandwidth: float
    """Bytes a second of a ring all-reduce as each GPU sees it ("bus bandwidth"); assumed."""
    latency: float
    """Seconds of a collective of a few kilobytes; assumed."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one rank puts on the wire in a step: bytes handed to the collectives, and how many there are."""

    gradients: int
    gathered: int
    """Statistics of batch norm, forward: each rank gets those of every other."""
    reduced: int
    """Their gradients, back."""
    predictor: int
    collectives: int
    """Small ones, each of which is waited for."""

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.gradients + self.gathered + self.reduced + self.predictor


LINKS = (
    Link(name="one", gpus=1, bandwidth=float("inf"), latency=0.0),
    Link(name="one machine, NVSwitch", gpus=8, bandwidth=300e9, latency=20e-6),
    Link(name="eight machines, 400 Gb/s a GPU", gpus=64, bandwidth=100e9, latency=60e-6),
)
"""The machines of the tables; all assumed."""

SPEEDS = (100e12, 200e12)
"""FLOP a second that a GPU makes of a network's: an eighth and a quarter of the 790 TFLOP/s that an H200 was measured
to make of large products; assumed."""


@lru_cache(maxsize=4)
def model(name: str, hidden: int = 4096, dim: int = 256) -> Model:
    """ResNet-18 or ResNet-50 at 224 x 224 with BYOL's projector and a linear predictor, counted."""
    import torch
    import torchvision
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.utils.flop_counter import FlopCounterMode

    # Shapes are enough to count.
    with torch.device("meta"):
        encoder = getattr(torchvision.models, name)()
        features = encoder.fc.in_features
        encoder.fc = nn.Identity()
        # Batch norm without weights of its own, as everywhere in the project.
        projector = nn.Sequential(
            nn.Linear(features, hidden), nn.BatchNorm1d(hidden, affine=False), nn.ReLU(), nn.Linear(hidden, dim)
        )
        predictor = nn.Linear(dim, dim, bias=False)
        network = nn.Sequential(encoder, projector).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 224, 224))
    norms = [[m.num_features for m in part.modules() if isinstance(m, _BatchNorm)] for part in (encoder, projector)]
    return Model(
        name=name,
        flop=float(counter.get_total_flops()),
        parameters=sum(p.numel() for part in (network, predictor) for p in part.parameters()),
        channels=sum(sum(part) for part in norms),
        norms=(len(norms[0]), len(norms[1])),
        dim=dim,
    )


def traffic(m: Model, *, on_gpu: bool = True) -> Traffic:
    """What a step of DirectPred with EMA hands to the collectives.

    Args:
        m: the network.
        on_gpu: torch's rule for many GPUs takes the projector's norms view by view; ours for CPUs both at once.
    """
    encoder, projector = m.norms
    met = VIEWS * encoder + (VIEWS if on_gpu else 1) * projector
    # A mean and a deviation of each channel and view; back go two sums.
    once = FLOAT * 2 * VIEWS * m.channels
    return Traffic(
        gradients=FLOAT * m.parameters,
        # Of the online network and of the target.
        gathered=2 * once,
        reduced=once,
        # F with E[z f^T] and the loss in one; Wp.
        predictor=FLOAT * (2 * m.dim**2 + 1 + m.dim**2),
        collectives=3 * met + 2,
    )


def on_the_wire(t: Traffic, gpus: int) -> float:
    """Bytes that a GPU sends in a step: what is summed goes round a ring twice, what is gathered goes to everybody."""
    return ring(gpus) * (t.gradients + t.reduced + t.predictor) + (gpus - 1) * t.gathered


def ring(gpus: int) -> float:
    """How many times its own bytes a GPU sends in an all-reduce."""
    return 2 * (gpus - 1) / gpus


def seconds(m: Model, link: Link, images: float, speed: float) -> float:
    """Of a step with ``images`` images a GPU: computing, and what of the talking is not hidden behind it."""
    compute = images * m.image_flop / speed
    if link.gpus == 1:
        return compute
    t, share = traffic(m), ring(link.gpus)
    # Buckets travel while other gradients are computed, which is half of the step: two of the worth of four passes.
    hidden, whole = compute / 2, share * t.gradients / link.bandwidth
    last = share * min(BUCKET, t.gradients) / link.bandwidth
    gradients = max(whole - hidden, last)
    small = on_the_wire(t, link.gpus) - share * t.gradients
    rest = t.collectives * link.latency + small / link.bandwidth
    return compute + gradients + rest


def efficiency(m: Model, link: Link, images: float, speed: float, *, of_whole: bool = False) -> float:
    """Speed over that of as many GPUs that need not talk.

    Args:
        m: the network.
        link: the machines.
        images: images a step on each GPU; with ``of_whole`` on all of them together.
        speed: FLOP a second of a GPU.
        of_whole: whether the batch stays the same however many share it (strong scaling).
    """
    each = images / link.gpus if of_whole else images
    return (each * m.image_flop / speed) / seconds(m, link, each, speed)


# ------------------------------------------------------------------ a class


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one student's part takes; measured on two cores, see ``benchmarks/RESULTS.md`` and ``docs/hub.md``."""

    server: float
    """Bytes of the student's own server under JupyterHub, with its share of shared pages."""
    kernel: float
    """Bytes of the kernel of an open page."""
    engine: float
    """Bytes of an engine process with one run."""
    watching: float
    """Cores that a page takes which draws a moving run."""
    step: float
    """Seconds of a core that a step of the digits takes."""


NEEDS = Needs(server=162e6, kernel=66e6, engine=390e6, watching=0.05, step=1 / 308)

ENGINE_RATE = 300
"""Steps a second of one engine process, all its runs together: its steps share one interpreter; measured."""

ONE_ENGINE = 300
"""Most students of a class that one engine is worth a thought for."""

CORE_HOUR, GIGABYTE_HOUR = 0.035, 0.0045
"""US dollars; general-purpose machines on demand at the large clouds; assumed."""


@dataclass(frozen=True, kw_only=True)
class Class:
    """What a class takes while all of it works."""

    way: str
    students: int
    memory: float
    cores: float

    @property
    def dollars(self) -> float:
        """For an hour."""
        return self.cores * CORE_HOUR + self.memory / 1e9 * GIGABYTE_HOUR


def follow(students: int, n: Needs = NEEDS) -> Class:
    """Everybody follows the instructor's run, each with a server of their own: pictures only."""
    return Class(
        way="following, JupyterHub",
        students=students,
        memory=students * (n.server + n.kernel) + n.engine,
        cores=students * n.watching + 1,
    )


def work(students: int, rate: float, n: Needs = NEEDS) -> Class:
    """Everybody has a run of their own, at ``rate`` steps a second, in an engine of their own."""
    return Class(
        way=f"own runs at {rate:g} steps/s, JupyterHub",
        students=students,
        memory=students * (n.server + n.kernel + n.engine),
        cores=students * (n.watching + rate * n.step),
    )


def share(students: int, n: Needs = NEEDS) -> Class:
    """Everybody has a run of their own in the one engine of ``ssl-lab app``."""
    return Class(
        way=f"own runs at {ENGINE_RATE / students:.3g} steps/s, one `ssl-lab app`",
        students=students,
        memory=students * n.kernel + n.engine,
        cores=students * n.watching + 1,
    )


# ------------------------------------------------------------------ tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


MODELS = ("resnet18", "resnet50")
TITLES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}


def talk_table() -> Iterator[str]:
    """What a step says."""
    rows = []
    for name in MODELS:
        m = model(name)
        t = traffic(m)
        rows.append(
            [
                TITLES[name],
                f"{m.parameters / 1e6:.1f} M",
                f"{t.gradients / 1e6:.1f} MB",
                f"{sum(m.norms)} with {m.channels:,} channels",
                f"{(t.gathered + t.reduced) / 1e6:.2f} MB",
                f"{t.predictor / 1e6:.2f} MB",
                f"{t.collectives}",
            ]
        )
    head = [
        "network", "weights", "gradients", "batch norms", "their statistics", "F, E[z f^T] and Wp", "small collectives",
    ]  # fmt: skip
    return table(head, rows)


def efficiency_table() -> Iterator[str]:
    """Efficiency at 1, 8 and 64 GPUs."""
    rows = []
    for name in MODELS:
        for speed in SPEEDS:
            m = model(name)
            for batch, of_whole in ((64, False), (256, False), (4096, True)):
                what = f"{batch:,} in all" if of_whole else f"{batch} a GPU"
                values = [efficiency(m, link, batch, speed, of_whole=of_whole) for link in LINKS]
                per_gpu = speed / m.image_flop
                rows.append(
                    [
                        TITLES[name],
                        f"{per_gpu:,.0f} images/s",
                        what,
                        *(f"{100 * value:.0f} %" for value in values),
                        f"{values[-1] * per_gpu * LINKS[-1].gpus:,.0f} images/s",
                    ]
                )
    head = [
        "network",
        "one GPU alone",
        "batch",
        *(f"{link.gpus} GPU{'s' * (link.gpus > 1)}" for link in LINKS),
        "64 make",
    ]
    return table(head, rows)


def class_table() -> Iterator[str]:
    """What classes of 30, 300 and 3,000 take."""
    rows = [
        [f"{c.students:,}", c.way, f"{c.memory / 1e9:,.0f} GB", f"{c.cores:,.0f}", f"{c.dollars:,.2f} $"]
        for students in (30, 300, 3000)
        for c in (*([share(students)] if students <= ONE_ENGINE else []), follow(students), work(students, 30))
    ]
    return table(["students", "how", "memory", "cores", "an hour"], rows)


def main() -> None:
    """Prints the tables."""
    for lines in (talk_table(), efficiency_table(), class_table()):
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()
