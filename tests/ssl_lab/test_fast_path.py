"""What a GPU runs, on the CPU as far as it goes: captured steps, products for decompositions, no number read back.

A capture on the CPU keeps the step itself and calls it. What it would freeze is looked for by itself: every number of
the host that an operation is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ssl_lab import Trainer, presets
from ssl_lab.config import RunConfig
from ssl_lab.errors import ConfigError, SSLLabError
from ssl_lab.graphs import KEPT, StepGraphs
from ssl_lab.trainer import resolve_precision

Make = Callable[..., Trainer]

TURNS: list[dict[str, Any]] = [
    {}, {"lr": 0.02, "weight_decay": 1e-3}, {"ema": 0.9}, {"ema": 0.0}, {"ema": 0.5}, {"predictor": "directpred"},
    {"eps": 0.3, "rho": 0.7}, {"freq": 3}, {"predictor": "directcopy"}, {"norm": "spectral"},
    {"norm": "none", "freq": 1},
    {"predictor": "mlp", "lr_predictor": 0.05, "weight_decay_predictor": 1e-3},
    {"symmetry": "penalty"}, {"symmetry_strength": 0.2}, {"symmetry": "hard"}, {"predictor": "linear"},
    {"stop_gradient": False}, {"stop_gradient": True, "centred": True}, {"predictor": "none"},
    {"augmentation": 0.5}, {"predictor": "optimal"},
]  # fmt: skip


def as_on_a_gpu(trainer: Trainer, *, exact: bool) -> StepGraphs:
    trainer._graphs = StepGraphs(trainer.device)
    trainer._exact = exact
    return trainer._graphs


def test_captured_steps_are_plain_steps_to_the_bit_whatever_is_turned(make_trainer: Make) -> None:
    plain, captured = make_trainer("byol"), make_trainer("byol")
    graphs = as_on_a_gpu(captured, exact=True)
    for turn in TURNS:
        plain.set(**turn)
        captured.set(**turn)
        for _ in range(4):
            assert captured.step().losses.tolist() == plain.step().losses.tolist(), turn
    for name, tensor in plain.state_dict()["tensors"].items():
        assert torch.equal(captured.state_dict()["tensors"][name], tensor), name
    assert graphs.captures > 0


def test_a_rate_costs_no_capture_and_a_mode_costs_one(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    graphs = as_on_a_gpu(trainer, exact=False)

    def captures(**turn: Any) -> int:
        before = graphs.captures
        trainer.set(**turn)
        for _ in range(4):
            trainer.step()
        return graphs.captures - before

    captures()
    for rate in ({"lr": 0.1}, {"lr_predictor": 0.2, "weight_decay": 0.0}, {"ema": 0.9}, {"rho": 0.5}, {"eps": 0.4}):
        assert captures(**rate) == 0, rate
    assert captures(predictor="directpred") == 1
    assert captures(predictor="mlp") == 0, "it is kept"
    assert captures(predictor="directpred", eps=0.2) == 0
    # tau = 0 is another path: without a pass through the target. Its first step still has one.
    assert captures(ema=0.0) == 1
    assert captures(augmentation=0.3) == 0


def test_no_more_graphs_are_kept_than_may_be() -> None:
    graphs = StepGraphs(torch.device("cpu"))
    done: list[int] = []
    for _ in range(3):
        for key in range(KEPT + 5):
            graphs.run(key, lambda key=key: done.append(key))  # type: ignore[misc]
    assert done == list(range(KEPT + 5)) * 3, "each call does its work once"
    assert len(graphs._known) == KEPT


class Log(TorchDispatchMode):
    """Every operation with the shapes of its tensors and its numbers of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def plain(x: Any) -> Any:
            return tuple(x.shape) if isinstance(x, torch.Tensor) else x

        self.rows.append(f"{func} {tree_map(plain, args)} {tree_map(plain, kwargs or {})}")
        return func(*args, **(kwargs or {}))


def operations(trainer: Trainer, **turn: Any) -> list[str]:
    trainer.set(**turn)
    path = trainer.path()
    views = trainer._views.at(trainer._step, trainer.knobs.augmentation)
    with Log() as log:
        trainer._learn(views, path)
    return log.rows


RATES = {
    "lr": 0.07, "lr_predictor": 0.11, "weight_decay": 3e-3, "weight_decay_predictor": 5e-3, "ema": 0.123,
    "rho": 0.777, "eps": 0.345, "symmetry_strength": 2.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in presets() if name != "optimal"])
def test_a_step_holds_no_number_that_a_knob_sets_and_reads_none_back(name: str, make_trainer: Make) -> None:
    trainer = make_trainer(name)
    as_on_a_gpu(trainer, exact=False)
    for _ in range(5):
        trainer.step()
    # tau = 0 is a path of its own, and penalty's strength is read in its own mode only.
    rates = {k: v for k, v in RATES.items() if k != "ema" or trainer.knobs.ema != 0}
    before = operations(trainer)
    assert operations(trainer, **rates) == before
    forbidden = ("_local_scalar_dense", "linalg_eigh", "linalg_svd", "nonzero", "is_nonzero", "_linalg_check_errors")
    assert not [row for row in before if any(word in row for word in forbidden)]


def test_the_check_finds_a_number_that_is_frozen(make_trainer: Make) -> None:
    """It is no check if a rate of the host passed it."""
    trainer = make_trainer("byol")
    as_on_a_gpu(trainer, exact=False)
    for _ in range(3):
        trainer.step()
    update = trainer._update_target

    def frozen(path: Any) -> None:
        update(path)
        trainer._target_weights.flat.mul_(trainer.knobs.ema)

    trainer._update_target = frozen  # type: ignore[method-assign]
    assert operations(trainer) != operations(trainer, ema=0.5)


def test_directpred_by_products_trains_as_the_exact_rule(make_trainer: Make) -> None:
    exact, fast = make_trainer("directpred"), make_trainer("directpred")
    as_on_a_gpu(fast, exact=False)
    for _ in range(30):
        assert fast.step().loss == pytest.approx(exact.step().loss, abs=2e-3)
    torch.testing.assert_close(fast.predictor.matrix(), exact.predictor.matrix(), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_the_target_that_is_the_online_network_needs_no_pass(name: str, make_trainer: Make) -> None:
    """Bit by bit as with a pass of its own, through turns of the EMA rate to 0 and away from it."""
    fast, slow = make_trainer(name), make_trainer(name)
    passes = {"fast": 0, "slow": 0}
    for who, trainer in (("fast", fast), ("slow", slow)):
        trainer.target.register_forward_hook(lambda *_, who=who: passes.__setitem__(who, passes[who] + 1))
    for step in range(24):
        for trainer in (fast, slow):
            if step % 6 == 3:
                trainer.set(ema=0.0 if step % 12 == 3 else 0.9)
        slow._target_is_online = False
        assert fast.step().loss == slow.step().loss, step
    mine, theirs = fast.state_dict(), slow.state_dict()
    for key, tensor in theirs["tensors"].items():
        assert torch.equal(mine["tensors"][key], tensor), key
    assert passes["slow"] == 24
    assert passes["fast"] < 16


def test_a_state_says_whether_the_target_is_the_online_network(make_trainer: Make) -> None:
    trainer = make_trainer("simsiam")
    trainer.step()
    state = trainer.state_dict()
    assert state["counters"]["target_is_online"] is True
    twin = make_trainer("simsiam")
    twin.load_state_dict(state)
    assert twin.step().loss == trainer.step().loss
    # A state from before it was kept goes on with a pass of the target, which gives the same.
    old = {**state, "counters": {k: v for k, v in state["counters"].items() if k != "target_is_online"}}
    third = make_trainer("simsiam")
    third.load_state_dict(old)
    fourth = make_trainer("simsiam")
    fourth.load_state_dict(state)
    assert third.step().loss == fourth.step().loss


HAS_BF16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_bfloat16_is_for_products_alone(make_trainer: Make) -> None:
    half, full = (make_trainer("byol", precision=precision) for precision in ("bfloat16", "float32"))
    seen: list[torch.dtype] = []
    half.online.encoder.conv2.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    for _ in range(5):
        assert half.step().loss == pytest.approx(full.step().loss, abs=0.03)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in half.state_dict()["tensors"].values() if t.is_floating_point()} == {torch.float32}
    assert half.features(half.dataset.test.images[:4]).dtype == torch.float32


def test_bfloat16_where_there_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(precision="bfloat16")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="'precision' cannot be 'bfloat16'"):
        resolve_precision(config, torch.device("cpu"))
    assert resolve_precision(RunConfig(), torch.device("cpu")) == torch.float32


def test_runs_share_the_images_on_a_device(make_trainer: Make) -> None:
    data = make_trainer("byol").dataset
    meta = torch.device("meta")
    assert data.resident(meta) is data.resident(meta)
    assert data.resident(torch.device("cpu")) is data.train.images
    # A data set made of another one has copies of its own.
    assert dataclasses.replace(data).resident(meta) is not data.resident(meta)


def test_a_state_whose_features_are_in_another_order_is_refused(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    state = trainer.state_dict()
    state["counters"].pop("arithmetic")
    with pytest.raises(SSLLabError, match="earlier version"):
        make_trainer("byol").load_state_dict(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captured_steps_on_a_gpu(precision: str, make_trainer: Make) -> None:
    """Graphs against the same operations one by one, through every turn; cuDNN's order of sums may differ."""
    plain, captured = (make_trainer("byol", device="cuda", precision=precision) for _ in range(2))
    plain._graphs = None
    for turn in TURNS:
        plain.set(**turn)
        captured.set(**turn)
        for _ in range(4):
            assert captured.step().loss == pytest.approx(plain.step().loss, abs=0.05), turn
    assert captured._graphs is not None
    assert captured._graphs.captures > 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["byol", "simsiam", "directpred", "directcopy"])
def test_the_first_steps_on_a_gpu_are_those_on_the_cpu(name: str, make_trainer: Make) -> None:
    """On the same views: a GPU's generator draws others."""
    here, there = (make_trainer(name, device=device, precision="float32") for device in ("cpu", "cuda"))
    there.load_state_dict(here.state_dict())
    draw = here._views.at
    there._views.at = lambda step, strength: draw(step, strength).to("cuda")  # type: ignore[method-assign]
    for _ in range(6):
        assert there.step().loss == pytest.approx(here.step().loss, abs=1e-2)


def test_threads_are_the_cores_that_there_are_or_fewer_if_asked(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's quota takes threads away; a study that gives each of its workers one is not outvoted."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr("ssl_lab.trainer.usable_cores", lambda: 3)
        assert make_trainer("byol", encoder="resnet18").threads == 3
        assert torch.get_num_threads() == 3, "the probes and neighbours too"
        torch.set_num_threads(1)
        assert make_trainer("byol", encoder="resnet18").threads == 1
        assert make_trainer("byol").threads == 1
    finally:
        torch.set_num_threads(before)
