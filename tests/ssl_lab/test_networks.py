"""Networks against torchvision's ResNet-18 and against their own description."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ssl_lab import preset
from ssl_lab.networks import ResNet18, SmallEncoder, ViewNorm1d, ViewNorm2d, build_network, initialise, mlp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_large_image_resnet_is_torchvisions() -> None:
    ours, theirs = ResNet18(3, 64, "large-image"), resnet18(weights=None)
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=generator())
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images))


def test_small_image_stem_keeps_the_size() -> None:
    network = ResNet18(3, 8, "small-image")
    images = torch.rand(2, 3, 32, 32, generator=generator())
    assert network.conv1(images).shape == (2, 8, 32, 32)
    assert isinstance(network.maxpool, nn.Identity)
    assert network(images).shape == (2, 64)
    assert ResNet18(3, 64, "small-image").features == 512
    # 11.17 M parameters without the classifier, as known of CIFAR's ResNet-18.
    assert sum(p.numel() for p in ResNet18(3, 64, "small-image").parameters()) == 11_168_832


def test_mlp_is_linear_bn_relu_linear() -> None:
    part = mlp(5, 7, 3, 2)
    assert [type(m) for m in part] == [nn.Linear, ViewNorm1d, nn.ReLU, nn.Linear]
    assert part[1].affine is False
    assert [type(m) for m in mlp(5, 7, 3, 3)].count(nn.Linear) == 3


@pytest.mark.parametrize(
    ("config", "channels", "size", "features"),
    [
        (preset("byol"), 1, 8, 256),
        (preset("byol", encoder="resnet18", width=4, projector_dim=16, predictor_hidden=32), 3, 32, 32),
        (preset("byol", encoder="resnet18", stem="large-image", width=4, projector_dim=16), 3, 96, 32),
    ],
)
def test_build_network(config, channels, size, features) -> None:  # type: ignore[no-untyped-def]
    before = torch.get_rng_state()
    a, b = (build_network(config, channels, size, generator(3)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for left, right in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    images = a.prepare(torch.rand(4, channels, size, size, generator=generator()))
    assert a(images).shape == (4, config.projector_dim)
    assert a.represent(images, 0).shape == (4, features)
    assert all(torch.isfinite(value).all() for value in a.state_dict().values())


def test_probe_may_keep_projector_layers() -> None:
    config = preset("directpred-deeper", probe_layers=1)
    network = build_network(config, 1, 8, generator()).eval()
    images = network.prepare(torch.rand(4, 1, 8, 8, generator=generator()))
    kept = network.projector[:3](network.encoder(images))
    torch.testing.assert_close(network.represent(images, 1), kept)
    assert (kept >= 0).all()


@pytest.mark.parametrize("size", [7, 8])
def test_the_small_encoder_is_two_convolutions(size: int) -> None:
    """Its first one is done as a product with patches."""
    encoder = SmallEncoder(3, 5, size)
    initialise(encoder, generator())
    images = torch.rand(4, 3, size, size, generator=generator(1))
    plain = encoder.relu(encoder.bn1(encoder.conv1(images)))
    plain = encoder.relu(encoder.bn2(encoder.conv2(plain))).permute(0, 2, 3, 1).flatten(1)
    found = encoder(encoder.prepare(images))
    assert found.shape == (4, encoder.features)
    torch.testing.assert_close(found, plain)
    (theirs,) = torch.autograd.grad(plain.square().sum(), encoder.conv1.weight)
    (ours,) = torch.autograd.grad(found.square().sum(), encoder.conv1.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [ViewNorm1d(5), ViewNorm1d(5, affine=False), ViewNorm2d(5)])
def test_bn_of_stacked_views_is_a_pass_for_each(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    plain = (nn.BatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.BatchNorm1d)(5, affine=norm.affine)
    shape = (6, 5, 3, 3) if isinstance(norm, nn.BatchNorm2d) else (6, 5)
    norm.views = 2  # type: ignore[assignment]
    for step in range(3):
        x = torch.randn(shape, generator=generator(step)) * 3 + torch.arange(6.0).view(6, *[1] * (len(shape) - 1))
        torch.testing.assert_close(norm(x), torch.cat([plain(x[:3]), plain(x[3:])]), rtol=0, atol=0)
    assert torch.equal(norm.running_mean, plain.running_mean)  # type: ignore[arg-type]
    assert torch.equal(norm.running_var, plain.running_var)  # type: ignore[arg-type]
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("encoder", ["small", "resnet18"])
def test_views_in_one_pass_are_views_in_two(encoder: str) -> None:
    config = preset("byol", encoder=encoder, width=4, projector_dim=16, predictor_hidden=32)
    together, apart = (build_network(config, 1, 8, generator(3)) for _ in range(2))
    together.stack_views(2, together=True)
    apart.stack_views(2, together=False)
    views = together.prepare(torch.randn(12, 1, 8, 8, generator=generator()))
    torch.testing.assert_close(together(views), apart(views), rtol=1e-4, atol=1e-5)
    for (name, a), b in zip(together.named_buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
