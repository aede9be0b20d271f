"""The step against a plain, slow one; knobs, forks, states, and the collapse that knobs bring about."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_lab import Trainer, preset, presets
from ssl_lab.augment import augment
from ssl_lab.errors import ConfigError, KnobError, NonFiniteLossError, SSLLabError
from ssl_lab.networks import stack_views
from ssl_lab.seeds import stream_seed
from tests.ssl_lab.conftest import small_config

Make = Callable[..., Trainer]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]))


class PlainRun:
    """REFERENCE.md section 1 written down slowly: a loop for each update, numpy for F and Wp."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.online = copy.deepcopy(trainer.online)
        self.target = copy.deepcopy(trainer.target)
        self.predictor = copy.deepcopy(trainer.predictor)
        for network in (self.online, self.target):
            network.stack_views(1, together=True)
        stack_views(self.predictor, 1)
        self.momentum: dict[str, Tensor] = {}
        self.f: np.ndarray | None = None
        self.c: np.ndarray | None = None
        self.step_index = 0

    def batch(self, step: int) -> Tensor:
        config = self.trainer.config
        images = self.trainer.dataset.train.images
        epoch, place = divmod(step, len(images) // config.batch_size)
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "order", epoch))
        order = torch.randperm(len(images), generator=generator).tolist()
        rows = order[place * config.batch_size : (place + 1) * config.batch_size]
        return torch.stack([images[row] for row in rows])

    def views(self) -> tuple[Tensor, Tensor]:
        """Of the whole block, of which those of one step are taken."""
        k, config, ahead = self.trainer.knobs, self.trainer.config, self.trainer._views.ahead
        number, place = divmod(self.step_index, ahead)
        generator = torch.Generator().manual_seed(stream_seed(config.seed, "views", number))
        images = [self.batch(number * ahead + i) for i in range(ahead) for _ in range(2)]
        made = augment(torch.cat(images), self.trainer.dataset.info.recipe, generator, k.augmentation)
        first, second = made.split(config.batch_size)[2 * place : 2 * place + 2]
        return self.online.prepare(first), self.online.prepare(second)

    def step(self) -> float:
        k, config = self.trainer.knobs, self.trainer.config
        v1, v2 = self.views()
        f1, f2 = self.online(v1), self.online(v2)
        q1, q2 = self.predictor(f1), self.predictor(f2)
        z1, z2 = (self.target(v1).detach(), self.target(v2).detach()) if k.stop_gradient else (f1, f2)

        def cos(q: Tensor, z: Tensor) -> Tensor:
            return (q * z).sum(1).div(q.norm(dim=1) * z.norm(dim=1)).mean()

        loss = -cos(q1, z2) - cos(q2, z1)
        if config.loss == "euclidean":
            loss = sum(((q - z) ** 2).sum() / (2 * len(q)) for q, z in ((q1, z2), (q2, z1))) / 2
        total = loss
        if k.symmetry == "penalty" and k.predictor != "none":
            wp = self.predictor.matrix()
            total = loss + k.symmetry_strength * 0.5 * ((wp - wp.T) ** 2).sum()
        for module, lr, decay in (
            (self.online, k.lr, k.weight_decay), (self.predictor, k.lr_predictor, k.weight_decay_predictor),
        ):  # fmt: skip
            named = [(n, p) for n, p in module.named_parameters()]
            grads = torch.autograd.grad(total, [p for _, p in named], retain_graph=True, allow_unused=True)
            for (name, p), grad in zip(named, grads, strict=True):
                if grad is None:
                    continue
                key = f"{module is self.online}.{name}"
                g = grad + (0.0 if name.endswith("bias") else decay) * p.detach()
                self.momentum[key] = config.momentum * self.momentum[key] + g if key in self.momentum else g
                with torch.no_grad():
                    p.sub_(lr * self.momentum[key])
        with torch.no_grad():
            if k.symmetry == "hard" and k.predictor != "none":
                if k.predictor == "mlp":
                    w1, w2 = self.predictor.mlp[0].weight, self.predictor.mlp[-1].weight
                    w1.copy_((w1 + w2.T) / 2)
                    w2.copy_(w1.T)
                else:
                    w = self.predictor.linear.weight
                    w.copy_((w + w.T) / 2)
            for a, w in zip(self.target.parameters(), self.online.parameters(), strict=True):
                a.copy_(a + (1 - k.ema) * (w - a))
            rows, others = torch.cat([f1, f2]).double().numpy(), torch.cat([z2, z1]).double().numpy()
            if k.centred:
                rows, others = rows - rows.mean(0), others - others.mean(0)
            batch, cross = rows.T @ rows / len(rows), others.T @ rows / len(rows)
            self.f = batch if self.f is None else k.rho * self.f + (1 - k.rho) * batch
            self.c = cross if self.c is None else k.rho * self.c + (1 - k.rho) * cross
            if k.predictor in ("directpred", "directcopy", "optimal") and self.step_index % k.freq == 0:
                self.predictor.linear.weight.copy_(torch.from_numpy(self.rule(self.f)).float())
        self.step_index += 1
        return float(loss.detach())

    def rule(self, f: np.ndarray) -> np.ndarray:
        k = self.trainer.knobs
        if k.predictor == "optimal":
            assert self.c is not None
            return self.c @ np.linalg.inv(f + 1e-3 * np.trace(f) / len(f) * np.eye(len(f)))
        if k.predictor == "directcopy":
            return f / np.linalg.norm(f) + k.eps * np.eye(len(f))
        s, u = np.linalg.eigh(f)
        s = np.maximum(s, 0)
        return u @ np.diag(np.maximum(np.sqrt(s / s.max()) + k.eps, 1e-4)) @ u.T


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_steps_as_written_down(name: str, make_trainer: Make) -> None:
    trainer = make_trainer(name)
    plain = PlainRun(trainer)
    for _ in range(6):
        expected = plain.step()
        assert trainer.step().loss == pytest.approx(expected, abs=2e-4)
    for ours, theirs in (
        (trainer.online, plain.online), (trainer.target, plain.target), (trainer.predictor, plain.predictor),
    ):  # fmt: skip
        for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3, msg=lambda m, key=key: f"{key}: {m}")
    assert plain.f is not None
    np.testing.assert_allclose(trainer.correlation.numpy(), plain.f, rtol=2e-2, atol=2e-3)


def test_the_penalty_is_part_of_what_is_descended(make_trainer: Make) -> None:
    trainer = make_trainer("byol-one-layer")
    trainer.set(symmetry="penalty", symmetry_strength=3.0)
    plain = PlainRun(trainer)
    for _ in range(4):
        record = trainer.step()
        plain.step()
    assert record.penalty > 0
    torch.testing.assert_close(trainer.predictor.linear.weight, plain.predictor.linear.weight, atol=1e-4, rtol=1e-3)
    before = trainer.spectrum().asymmetry
    for _ in range(40):
        trainer.step()
    assert trainer.spectrum().asymmetry < 0.3 * before


def test_bn_statistics_belong_to_a_view(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    trainer.set(augmentation=2.0)
    trainer.step()
    seen: list[Tensor] = []
    bn = trainer.target.projector[1]
    assert isinstance(bn, nn.BatchNorm1d)
    bn.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    trainer.step()
    (both,) = seen
    for view in both.chunk(2):
        assert view.shape[0] == trainer.config.batch_size
        torch.testing.assert_close(view.mean(0), torch.zeros(view.shape[1]), atol=1e-5, rtol=0)


def test_tau_zero_copies_the_online_network_to_the_bit(make_trainer: Make) -> None:
    trainer = make_trainer("simsiam")
    for _ in range(3):
        trainer.step()
        for a, w in zip(trainer.target.parameters(), trainer.online.parameters(), strict=True):
            assert torch.equal(a, w)


def test_freq_sets_wp_at_every_freq_th_step(make_trainer: Make) -> None:
    trainer = make_trainer("directpred-freq5")
    symmetric = []
    for _ in range(11):
        trainer.step()
        wp = trainer.predictor.matrix().detach()
        symmetric.append(bool((wp - wp.T).abs().max() < 1e-6))
    assert [i for i, s in enumerate(symmetric) if s] == [0, 5, 10]


def test_epochs_see_every_image_once_in_another_order(make_trainer: Make) -> None:
    trainer = make_trainer("byol", batch_size=479)  # three batches an epoch, nothing left over
    assert trainer.steps_per_epoch == 3
    orders = []
    for epoch in range(2):
        rows = []
        for place in range(3):
            rows.append(trainer.dataset.train.images[trainer._views.rows(epoch * 3 + place)])
        orders.append(torch.cat(rows))
    everything = trainer.dataset.train.images.flatten(1).int().sum(1).sort().values
    for order in orders:
        assert torch.equal(order.flatten(1).int().sum(1).sort().values, everything)
    assert not torch.equal(orders[0], orders[1])


def test_set_is_all_or_nothing(make_trainer: Make) -> None:
    trainer = make_trainer("directpred")
    trainer.step()
    twin = trainer.fork()
    with pytest.raises(KnobError, match="'ema'"):
        trainer.set(predictor="mlp", lr=0.5, ema=2.0)
    assert trainer.knobs == twin.knobs
    for _ in range(3):
        assert trainer.step().loss == twin.step().loss


def test_set_takes_effect_at_the_next_step(make_trainer: Make) -> None:
    trainer = make_trainer("directpred")
    trainer.step()
    frozen = [p.detach().clone() for p in trainer.online.parameters()]
    trainer.set(lr=0.0)
    trainer.step()
    for before, now in zip(frozen, trainer.online.parameters(), strict=True):
        assert torch.equal(before, now)
    trainer.set(lr=0.03, ema=1.0)
    target = [p.detach().clone() for p in trainer.target.parameters()]
    trainer.step()
    for before, now in zip(target, trainer.target.parameters(), strict=True):
        assert torch.equal(before, now)


def test_momentum_of_replaced_weights_starts_at_zero(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    for _ in range(3):
        trainer.step()

    def moving(part: str) -> bool:
        tensors = trainer.state_dict()["tensors"]
        return any(value.any() for key, value in tensors.items() if key.startswith(f"momentum.{part}"))

    assert moving("predictor.mlp")
    trainer.set(predictor="linear")
    assert not moving("predictor")
    assert moving("online")


@pytest.mark.parametrize("name", list(presets()))
def test_a_fork_steps_bit_equal(name: str, make_trainer: Make) -> None:
    trainer = make_trainer(name)
    for _ in range(3):
        trainer.step()
    twin = trainer.fork()
    # Past the end of an epoch (44 steps), and with knobs turned on both sides.
    for step in range(50):
        if step == 20:
            for one in (trainer, twin):
                one.set(predictor="mlp", symmetry="hard", ema=0.5)
        assert trainer.step().loss == twin.step().loss
    for key, value in trainer.state_dict()["tensors"].items():
        assert torch.equal(value, twin.state_dict()["tensors"][key]), key
    ours, theirs = trainer.spectrum(), twin.spectrum()
    assert np.array_equal(ours.alignment, theirs.alignment)


def test_a_fork_goes_its_own_way(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    trainer.step()
    twin = trainer.fork()
    for _ in range(3):
        twin.step()
    assert trainer.step_count == 1
    untouched = trainer.fork()
    assert trainer.step().loss == untouched.step().loss


def test_looking_changes_nothing(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    twin = trainer.fork()
    global_state = torch.get_rng_state()
    for _ in range(5):
        trainer.spectrum()
        trainer.features(trainer.dataset.test.images)
        trainer.state_dict()
        assert trainer.step().loss == twin.step().loss
    assert torch.equal(global_state, torch.get_rng_state())


def test_a_state_of_another_shape_is_refused_whole(make_trainer: Make) -> None:
    trainer, other = make_trainer("byol"), make_trainer("byol", projector_dim=4)
    trainer.step()
    before = trainer.state_dict()["tensors"]
    with pytest.raises(SSLLabError, match=r"should be .* and is"):
        trainer.load_state_dict(other.state_dict())
    broken = trainer.state_dict()
    del broken["tensors"]["target.projector.0.weight"]
    with pytest.raises(SSLLabError, match=r"target\.projector\.0\.weight"):
        trainer.load_state_dict(broken)
    strange = trainer.state_dict()
    strange["tensors"]["online.extra"] = torch.zeros(1)
    with pytest.raises(SSLLabError, match=r"online\.extra"):
        trainer.load_state_dict(strange)
    for key, value in trainer.state_dict()["tensors"].items():
        assert torch.equal(value, before[key])


def test_a_loss_that_is_not_finite_is_not_applied(make_trainer: Make) -> None:
    trainer = make_trainer("byol")
    trainer.step()
    with torch.no_grad():
        trainer.online.projector[-1].weight.fill_(float("inf"))
    before = {k: v for k, v in trainer.state_dict()["tensors"].items() if "running" not in k and "batches" not in k}
    with pytest.raises(NonFiniteLossError, match="step 2"):
        trainer.step()
    assert trainer.step_count == 1
    after = trainer.state_dict()["tensors"]
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


def test_projections_that_overflow_are_noticed_though_the_loss_is_finite(make_trainer: Make) -> None:
    trainer = make_trainer("byol-one-layer")
    trainer.step()
    with torch.no_grad():
        trainer.online.projector[-1].weight.mul_(1e22)
    with pytest.raises(NonFiniteLossError, match="trace of F became inf at step 2"):
        trainer.step()
    assert trainer.step_count == 1
    assert torch.isfinite(trainer.correlation).all()


def test_a_batch_larger_than_the_set_is_refused(digits) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="2000"):
        Trainer(small_config(batch_size=2000), digits)
    with pytest.raises(ConfigError, match="'warp'"):
        Trainer(small_config(device="warp"), digits)


def test_without_a_predictor_it_collapses_and_directpred_brings_it_back() -> None:
    trainer = Trainer(preset("directpred", dataset="digits", seed=0, device="cpu", knobs={"ema": 0.99, "lr": 0.03}))

    def after(steps: int) -> float:
        for _ in range(steps):
            trainer.step()
        return trainer.spectrum().effective_rank

    healthy = after(300)
    trainer.set(predictor="none")
    collapsed = after(300)
    trainer.set(predictor="directpred")
    back = after(300)
    assert collapsed <= healthy / 2, (healthy, collapsed, back)
    assert back >= 2 * collapsed, (healthy, collapsed, back)


def test_the_trainer_needs_no_jupyter() -> None:
    code = (
        "import sys, ssl_lab.trainer, ssl_lab.loop, ssl_lab.engine, ssl_lab.cli;"
        "found = [m for m in sys.modules if m.split('.')[0] in "
        "('IPython', 'ipykernel', 'ipywidgets', 'jupyter_client', 'traitlets', 'bqplot', 'voila', 'anywidget', 'lab')];"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_packages_does_not_import_torch() -> None:
    modules = "ssl_lab, ssl_lab.config, ssl_lab.store, ssl_lab.desk, ssl_lab.spectrum, ssl_lab.theory, lab"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_names_are_there() -> None:
    import ssl_lab

    for name in ssl_lab.__all__:
        value: Any = getattr(ssl_lab, name)
        assert callable(value)
    with pytest.raises(AttributeError, match="Trainr"):
        _ = ssl_lab.Trainr


@pytest.mark.parametrize("name", ["directpred", "optimal", "directcopy"])
def test_a_predictor_that_cannot_be_set_leaves_no_trace_of_the_step(
    name: str, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(name)
    trainer.step()
    before = trainer.state_dict()

    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(f"ssl_lab.predictor.{name}", fail)
    with pytest.raises(NonFiniteLossError, match="cannot be decomposed at step 2"):
        trainer.step()
    after = trainer.state_dict()
    assert after["counters"] == before["counters"]
    # The running statistics of the networks' BN have seen the batch.
    for part, tensor in before["tensors"].items():
        if "running" not in part and "batches" not in part:
            assert torch.equal(tensor, after["tensors"][part]), part
