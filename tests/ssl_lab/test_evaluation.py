"""kNN against scikit-learn's, the probe against an independent solver, and that neither leaves a trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_lab import evaluation
from ssl_lab.errors import ConfigError, SSLLabError
from ssl_lab.evaluation import (
    AUTHORS_PROBE,
    SEED_PROBE,
    ProbeConfig,
    ProbeResult,
    extract_features,
    knn_accuracy,
    linear_probe,
)

Sets = tuple[Tensor, Tensor, Tensor, Tensor]


def clusters(seed: int = 0, noise: float = 2.0, classes: int = 5, dim: int = 8) -> Sets:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=g)
    labels = torch.arange(400) % classes
    features = centres[labels] + noise * torch.randn(400, dim, generator=g)
    return features[:300], labels[:300], features[300:], labels[300:]


@pytest.fixture(scope="module")
def digits() -> Sets:
    bunch = load_digits()
    x, y = torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)
    return x[:1000], y[:1000], x[1000:], y[1000:]


# ------------------------------------------------------------------ features


def test_features_are_those_of_each_image_in_order_and_without_gradient() -> None:
    images = torch.arange(10 * 3 * 2 * 2).reshape(10, 3, 2, 2).to(torch.uint8)
    layer = torch.nn.Linear(12, 4)
    seen: list[int] = []

    def encode(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return layer(batch.flatten(1)).double()

    found = extract_features(encode, images, lambda part: part.float() / 255, "cpu", batch_size=4)
    assert seen == [4, 4, 2]
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, layer(images.float().flatten(1) / 255).detach())
    with pytest.raises(ValueError, match="no images"):
        extract_features(encode, images[:0], lambda part: part, "cpu")


# ----------------------------------------------------------------------- kNN


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("weights", ["uniform", "exp"])
def test_knn_agrees_with_an_independent_one(k: int, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_NUMBERS_HELD", 300 * 7)
    train, y, test, z = clusters()

    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.1)

    other = KNeighborsClassifier(k, metric="cosine", weights="uniform" if weights == "uniform" else votes)
    expected = other.fit(train.numpy(), y.numpy()).score(test.numpy(), z.numpy())
    assert 0.3 < expected < 0.95
    assert knn_accuracy(train, y, test, z, k=k, weights=weights, num_classes=5) == expected


def test_temperature_tells_a_near_neighbour_from_many_far_ones() -> None:
    train = torch.tensor([[1.0, 0.0], [1.0, 0.8], [1.0, 0.8], [1.0, 0.8]])
    labels, test = torch.tensor([1, 0, 0, 0]), torch.tensor([[2.0, 0.0]])
    right = torch.tensor([1])
    assert knn_accuracy(train, labels, test, right, temperature=0.1, num_classes=2) == 1
    assert knn_accuracy(train, labels, test, right, temperature=10.0, num_classes=2) == 0
    assert knn_accuracy(train, labels, test, right, temperature=1e-6, num_classes=2) == 1
    assert knn_accuracy(train, labels, test, right, weights="uniform", num_classes=2) == 0


def test_knn_knows_nothing_of_scale_and_survives_what_is_not_finite() -> None:
    train, y, test, z = clusters()
    plain = knn_accuracy(train, y, test, z, num_classes=5)
    assert knn_accuracy(1e6 * train, y, 1e-6 * test, z, num_classes=5) == plain
    assert knn_accuracy(train, y, train, y, k=1, num_classes=5) == 1
    dead = torch.full_like(test, float("nan"))
    assert knn_accuracy(train, y, dead, z, num_classes=5) < 0.5
    assert knn_accuracy(torch.full_like(train, float("inf")), y, test, z, num_classes=5) < 0.5
    broken = train.clone()
    broken[0] = float("nan")
    assert abs(knn_accuracy(broken, y, test, z, num_classes=5) - plain) < 0.05


def test_knn_refuses_what_makes_no_sense() -> None:
    train, y, test, z = clusters()
    with pytest.raises(ValueError, match=r"test features .* \(100, 8\) and \(300,\)"):
        knn_accuracy(train, y, test, y, num_classes=5)
    with pytest.raises(ValueError, match="training features"):
        knn_accuracy(train[:0], y[:0], test, z, num_classes=5)
    with pytest.raises(ValueError, match="8 dimensions, test features 7"):
        knn_accuracy(train, y, test[:, 1:], z, num_classes=5)
    with pytest.raises(ValueError, match="must be positive"):
        knn_accuracy(train, y, test, z, k=0, num_classes=5)


# --------------------------------------------------------------------- probe


def test_the_decay_has_the_values_of_its_formula() -> None:
    assert SEED_PROBE.rate(0, 100) == pytest.approx(5e-2)
    assert SEED_PROBE.rate(50, 100) == pytest.approx(5e-4 + 0.25 * (5e-2 - 5e-4))
    assert SEED_PROBE.rate(90, 100) == pytest.approx(5e-4 + 0.01 * (5e-2 - 5e-4))
    assert SEED_PROBE.rate(100, 100) == pytest.approx(5e-4)
    assert {AUTHORS_PROBE.rate(step, 10) for step in range(10)} == {3e-4}
    assert (SEED_PROBE.epochs, SEED_PROBE.batch_size, SEED_PROBE.standardise) == (50, 128, False)
    assert (AUTHORS_PROBE.epochs, AUTHORS_PROBE.weight_decay, AUTHORS_PROBE.standardise) == (50, 1e-3, True)


def test_the_rate_decays_over_all_steps_and_the_last_part_batch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    rate = ProbeConfig.rate

    def spy(self: ProbeConfig, step: int, steps: int) -> float:
        asked.append((step, steps))
        return rate(self, step, steps)

    monkeypatch.setattr(ProbeConfig, "rate", spy)
    linear_probe(*clusters(), ProbeConfig(epochs=3), seed=0, num_classes=5)
    assert asked == [(i, 9) for i in range(9)]


def test_steps_are_those_of_adam_read_literally() -> None:
    """One batch an epoch, so that the order of the features does not matter; float64 beside the real thing."""
    train, y, test, z = clusters()
    made = [
        linear_probe(train, y, test, z, ProbeConfig(epochs=n, batch_size=300, weight_decay=0.1), seed=0, num_classes=5)
        for n in (1, 20)
    ]
    # The first weights are what one step of rate 0 leaves.
    still = ProbeConfig(epochs=1, lr=0.0, final_lr=0.0)
    start = linear_probe(train, y, test, z, still, seed=0, num_classes=5)
    assert start.weight.abs().max() <= 8**-0.5
    np.testing.assert_array_equal(start.bias, 0)
    x = np.hstack([train.double().numpy(), np.ones((300, 1))])
    hot = np.eye(5)[y.numpy()]
    for result, epochs in zip(made, (1, 20), strict=True):
        w = np.hstack([start.weight.double().numpy(), np.zeros((5, 1))])
        m = v = np.zeros_like(w)
        for t in range(1, epochs + 1):
            e = np.exp(x @ w.T)
            g = (e / e.sum(1, keepdims=True) - hot).T @ x / 300 + 0.1 * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            lr = (5e-2 - 5e-4) * (1 - (t - 1) / epochs) ** 2 + 5e-4
            w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(result.weight, w[:, :-1], atol=1e-4)
        np.testing.assert_allclose(result.bias, w[:, -1], atol=1e-4)


def test_the_seed_s_probe_is_near_an_independent_solver(digits: Sets) -> None:
    train, y, test, z = digits
    solver = LogisticRegression(C=100.0, max_iter=3000).fit(train.numpy(), y.numpy())
    expected = solver.score(test.numpy(), z.numpy())
    result = linear_probe(*digits, SEED_PROBE, seed=0, num_classes=10)
    assert result.accuracy_last == pytest.approx(expected, abs=0.02)
    np.testing.assert_array_equal(result.mean, 0)
    np.testing.assert_array_equal(result.std, 1)
    assert float((result.predict(test) == z).float().mean()) == pytest.approx(result.accuracy_last)
    agreeing = np.mean(solver.predict(test.numpy()) == result.predict(test).numpy())
    assert agreeing > 0.95


def test_the_authors_probe_standardises_and_is_near_an_independent_solver(digits: Sets) -> None:
    train, y, test, z = digits
    # Their rate is made for the 20,000 steps of CIFAR-10; here are 400.
    config = replace(AUTHORS_PROBE, lr=1e-2, final_lr=1e-2)
    result = linear_probe(*digits, config, seed=0, num_classes=10)
    torch.testing.assert_close(result.mean, train.mean(0))
    moving = train.std(0) > 0
    torch.testing.assert_close(result.std[moving], train.std(0, correction=0)[moving])
    np.testing.assert_array_equal(result.std[~moving], 1)
    scaled = [((part - result.mean) / result.std).numpy() for part in (train, test)]
    # The same loss: C is 1 / (features * weight decay).
    expected = LogisticRegression(C=1.0, max_iter=3000).fit(scaled[0], y.numpy()).score(scaled[1], z.numpy())
    assert result.accuracy_last == pytest.approx(expected, abs=0.02)


def test_a_feature_constant_but_for_rounding_is_not_blown_up() -> None:
    train, y, test, z = clusters()
    train, test = train.clone(), test.clone()
    train[:, 0], test[:, 0] = 1000.0, 1000.0
    train[0, 0] += 1e-4
    result = linear_probe(train, y, test, z, ProbeConfig(epochs=1, standardise=True), seed=0, num_classes=5)
    assert result.std[0] == 1


def test_last_and_best_are_told_apart() -> None:
    train, y, test, z = clusters(seed=3, noise=3.0)
    # A rate that is too large makes the accuracy jump about.
    wild = ProbeConfig(epochs=12, lr=1.0, final_lr=1.0, batch_size=16)
    done: list[tuple[int, int]] = []
    result = linear_probe(
        train, y, test, z, wild, seed=1, num_classes=5, on_epoch=lambda epoch, epochs: done.append((epoch, epochs))
    )
    assert done == [(epoch, 12) for epoch in range(1, 13)]
    assert len(result.accuracies) == 12
    assert result.accuracy_last == result.accuracies[-1]
    assert result.accuracy_best == max(result.accuracies) > result.accuracy_last
    assert result.accuracies.index(result.accuracy_best) == result.best_epoch - 1
    assert float((result.predict(test) == z).double().mean()) == pytest.approx(result.accuracy_last)


@pytest.mark.parametrize("config", [SEED_PROBE, AUTHORS_PROBE])
def test_the_same_seed_gives_the_same_bits_and_the_global_generator_is_not_touched(config: ProbeConfig) -> None:
    config = replace(config, epochs=10)
    data = clusters()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = linear_probe(*data, config, seed=7, num_classes=5)
    torch.rand(3, generator=torch.Generator().manual_seed(1))
    two = linear_probe(*data, config, seed=7, num_classes=5)
    other = linear_probe(*data, config, seed=8, num_classes=5)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    assert one.accuracies == two.accuracies
    assert not torch.equal(one.weight, other.weight)


def test_features_are_not_changed_and_may_come_from_inference_mode() -> None:
    with torch.inference_mode():
        data = tuple(part.clone() for part in clusters())
    before = data[0].clone()
    result = linear_probe(*data, ProbeConfig(epochs=2), seed=0, num_classes=5)
    assert torch.equal(before, data[0])
    assert not result.weight.requires_grad


def test_a_state_comes_back_as_it_was() -> None:
    train, y, test, z = clusters()
    result = linear_probe(train, y, test, z, ProbeConfig(epochs=4, standardise=True), seed=0, num_classes=5)
    back = ProbeResult.from_state(result.state())
    assert torch.equal(back.logits(test), result.logits(test))
    assert back.accuracies == result.accuracies
    assert (back.accuracy_last, back.accuracy_best) == (result.accuracy_last, result.accuracy_best)
    assert back.best_epoch == result.best_epoch
    state = result.state()
    del state["std"]
    with pytest.raises(SSLLabError, match="lacks std; it holds weight, bias, mean, accuracies"):
        ProbeResult.from_state(state)


def test_the_probe_refuses_what_makes_no_sense() -> None:
    train, y, test, z = clusters()
    broken = train.clone()
    broken[3, 1] = float("inf")
    with pytest.raises(SSLLabError, match="not all finite"):
        linear_probe(broken, y, test, z, SEED_PROBE, seed=0, num_classes=5)
    with pytest.raises(ValueError, match="training features"):
        linear_probe(train, y[1:], test, z, SEED_PROBE, seed=0, num_classes=5)
    with pytest.raises(ConfigError, match="epochs cannot be 0"):
        ProbeConfig(epochs=0)
    with pytest.raises(ConfigError, match="lr cannot be nan"):
        ProbeConfig(lr=float("nan"))
