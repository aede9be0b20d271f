"""The batched augmentation against torchvision's per-image transforms with the very same parameters."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from ssl_lab.augment import ViewParameters, apply, augment, draw_parameters, normalise
from ssl_lab.config import CIFAR10, DATASETS, DIGITS, FASHION_MNIST, STL10, DatasetInfo, Recipe

PLAIN = Recipe(flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), jitter_probability=0.0, grey=0.0)
FULL = Recipe(
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_probability=0.8,
    grey=0.3,
    blur_taps=5,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.4),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    size = (count, channels, height, width or height)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=seeded(seed))


def one_by_one(images: Tensor, params: ViewParameters, recipe: Recipe) -> Tensor:
    """What torchvision makes of each image on its own."""
    out = []
    for n, image in enumerate(images):
        x = image.float() / 255
        i, j, h, w = params.crop[n].tolist()
        x = TF.resized_crop(x, i, j, h, w, list(x.shape[1:]), antialias=True)
        if params.flip[n]:
            x = TF.hflip(x)
        if params.jitter[n]:
            brightness, contrast, saturation, hue = params.factors[n].tolist()
            for op in params.place[n].argsort().tolist():
                if op == 0:
                    x = TF.adjust_brightness(x, brightness)
                elif op == 1:
                    x = TF.adjust_contrast(x, contrast)
                elif op == 2:
                    x = TF.adjust_saturation(x, saturation)
                else:
                    x = TF.adjust_hue(x, hue)
        if params.grey[n] and len(x) == 3:
            x = TF.rgb_to_grayscale(x, num_output_channels=3)
        sigma = params.sigma[n].item()
        if recipe.blur_taps and sigma > 0:
            x = TF.gaussian_blur(x, [recipe.blur_taps] * 2, [sigma] * 2)
        if recipe.mean is not None:
            x = TF.normalize(x, list(recipe.mean), list(recipe.std or ()))
        out.append(x)
    return torch.stack(out)


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_every_recipe_agrees_with_torchvision(info: DatasetInfo, strength: float) -> None:
    count = 6 if info.image_size > 64 else 32
    images = noise(count, info.channels, info.image_size)
    params = draw_parameters(count, info.image_size, info.image_size, info.recipe, seeded(1), strength)
    got = apply(images, params, info.recipe)
    # Positions are float32 shares of the image, so their error in pixels goes with its size.
    atol = 1e-5 * max(1.0, info.image_size / 32) / min(info.recipe.std or (1.0,))
    torch.testing.assert_close(got, one_by_one(images, params, info.recipe), rtol=0, atol=atol)


@pytest.mark.parametrize("active", [(0,), (1,), (2,), (3,), (0, 2), (1, 2), (0, 3), (1, 2, 3), (0, 1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_agrees_with_torchvision_for_every_set_of_operations(active: tuple[int, ...], channels: int) -> None:
    strengths = [0.7, 0.6, 0.5, 0.2]
    b, c, s, h = (strengths[op] if op in active else 0.0 for op in range(4))
    recipe = dataclasses.replace(FULL, jitter=(b, c, s, h), mean=None, std=None, blur_taps=0)
    images = noise(48, channels, 7, 9)
    params = draw_parameters(48, 7, 9, recipe, seeded(2))
    assert params.jitter.any()
    assert not params.jitter.all()
    torch.testing.assert_close(apply(images, params, recipe), one_by_one(images, params, recipe), rtol=0, atol=1e-5)


def test_flat_images_keep_their_grey_under_a_turn_of_hue() -> None:
    # Hue is undefined there: nothing may become NaN.
    recipe = dataclasses.replace(PLAIN, jitter=(0.0, 0.0, 0.0, 0.5), jitter_probability=1.0)
    images = torch.arange(0, 256, 5, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    out = augment(images, recipe, seeded(0))
    torch.testing.assert_close(out, images.float() / 255, rtol=0, atol=1e-6)


def test_a_crop_agrees_with_pillow() -> None:
    ramp = np.add.outer(np.arange(32), 2 * np.arange(32)).astype(np.float32)
    smooth = np.stack([ramp * 2, 255 - ramp * 2, 127 + 100 * np.sin(ramp / 5)]).clip(0, 255).astype(np.uint8)
    images = torch.from_numpy(smooth).expand(32, 3, 32, 32)
    params = draw_parameters(32, 32, 32, PLAIN, seeded(3))
    got = apply(images, params, PLAIN)
    picture = Image.fromarray(smooth.transpose(1, 2, 0))
    for n, (i, j, h, w) in enumerate(params.crop.tolist()):
        want = picture.crop((j, i, j + w, i + h)).resize((32, 32), Image.Resampling.BILINEAR)
        error = np.abs(got[n].numpy().transpose(1, 2, 0) - np.asarray(want, dtype=np.float32) / 255).max()
        # Pillow rounds to whole pixel values after each of its two passes.
        assert error < 1.6 / 255


def test_a_crop_takes_nothing_from_outside_itself() -> None:
    images = torch.full((64, 1, 16, 16), 255, dtype=torch.uint8)
    params = draw_parameters(64, 16, 16, dataclasses.replace(PLAIN, flip=0.5), seeded(4))
    for n, (i, j, h, w) in enumerate(params.crop.tolist()):
        images[n, :, i : i + h, j : j + w] = 0
    assert apply(images, params, PLAIN).max() < 1e-5


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, (0.08, 1.0)), (8, 8, (0.4, 1.0)), (12, 40, (0.3, 1.0)), (40, 8, (0.9, 1.0))]
)
def test_crops_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    # The last two are wide and tall enough for the fallback to the centre to be common.
    count = 4000
    ratio = (3 / 4, 4 / 3)
    recipe = dataclasses.replace(PLAIN, crop_scale=scale, crop_ratio=ratio)
    ours = draw_parameters(count, height, width, recipe, seeded(5)).crop.double()
    blank = torch.zeros(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        boxes = [RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(count)]
    theirs = torch.tensor(boxes, dtype=torch.float64)

    def features(boxes: Tensor) -> Tensor:
        i, j, h, w = boxes.unbind(1)
        area, stretch = h * w, (w / h).log()
        columns = [i, j, h, w, area, area**2, stretch, stretch**2, i == 0, j == 0, i + h == height, j + w == width]
        return torch.stack([column.double() for column in columns], dim=1)

    a, b = features(ours), features(theirs)
    error = ((a.var(0) + b.var(0)) / count).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 4 * error + 1e-12).all()
    i, j, h, w = ours.unbind(1)
    assert torch.stack((i, j, h - 1, w - 1)).min() >= 0
    assert (i + h).max() <= height
    assert (j + w).max() <= width


def test_parameters_have_the_recipes_ranges_and_frequencies() -> None:
    count = 8000
    params = draw_parameters(count, 32, 32, STL10.recipe, seeded(7))
    for flags, p in ((params.flip, 0.5), (params.jitter, 0.8), (params.grey, 0.2)):
        assert abs(flags.double().mean().item() - p) < 4 * (p * (1 - p) / count) ** 0.5
    ranges = [(0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2), (0.1, 2.0)]
    for values, (low, high) in zip([*params.factors.unbind(1), params.sigma], ranges, strict=True):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high + 1e-6
        assert abs(values.double().mean().item() - (low + high) / 2) < 4 * (high - low) / (12 * count) ** 0.5
    orders = Counter(map(tuple, params.place.argsort(1).tolist()))
    assert len(orders) == 24
    assert all(abs(times - count / 24) < 4.5 * (count / 24) ** 0.5 for times in orders.values())


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_strength_scales_every_range(strength: float) -> None:
    count = 4000
    params = draw_parameters(count, 96, 96, STL10.recipe, seeded(8), strength)
    area = (params.crop[:, 2] * params.crop[:, 3]).double() / 96**2
    ratio = (params.crop[:, 3] / params.crop[:, 2]).log().abs()
    factors, sigma = params.factors, params.sigma
    frequencies = [flags.double().mean().item() for flags in (params.flip, params.jitter, params.grey)]
    if strength == 0:
        assert (params.crop == torch.tensor([0, 0, 96, 96])).all()
        assert frequencies == [0, 0, 0]
        assert (factors == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()
        assert (sigma == 0).all()
    elif strength == 0.5:
        assert abs(area.min().item() - (1 - 0.92 * 0.5)) < 0.02
        assert ratio.max() < 0.5 * np.log(4 / 3) + 0.03
        assert frequencies == pytest.approx([0.25, 0.4, 0.1], abs=0.03)
        assert factors.amin(0).tolist() == pytest.approx([0.6, 0.6, 0.6, -0.1], abs=0.01)
        assert factors.amax(0).tolist() == pytest.approx([1.4, 1.4, 1.4, 0.1], abs=0.01)
        assert sigma.max().item() == pytest.approx(0.1 + 1.9 * 0.5, abs=0.01)
    else:
        assert 0.019 < area.min() < 0.03
        assert 0.25 < ratio.max() < np.log(4 / 3) + 0.1
        assert frequencies == pytest.approx([0.5, 1.0, 0.4], abs=0.03)
        assert factors.amin(0).tolist() == pytest.approx([0.0, 0.0, 0.0, -0.4], abs=0.01)
        assert factors.amax(0).tolist() == pytest.approx([2.6, 2.6, 2.6, 0.4], abs=0.01)
        assert sigma.max().item() == pytest.approx(0.1 + 1.9 * 2, abs=0.01)


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_strength_0_shows_the_image_itself(info: DatasetInfo) -> None:
    images = noise(4, info.channels, info.image_size)
    want = normalise(images, info.recipe)
    assert torch.equal(augment(images, info.recipe, seeded(0), 0.0), want)
    # The parameters of strength 0 do nothing either.
    params = draw_parameters(4, info.image_size, info.image_size, info.recipe, seeded(0), 0.0)
    torch.testing.assert_close(apply(images, params, info.recipe), want, rtol=0, atol=2e-5)


def test_strength_2_turns_the_hue_by_half_a_turn_at_most() -> None:
    recipe = dataclasses.replace(FULL, jitter=(0.0, 0.0, 0.0, 0.4))
    assert draw_parameters(1000, 8, 8, recipe, seeded(0), 2.0).factors[:, 3].abs().max() <= 0.5


def test_normalise_is_the_plain_formula() -> None:
    images = noise(3, 3, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CIFAR10.recipe.mean, CIFAR10.recipe.std))
    torch.testing.assert_close(normalise(images, CIFAR10.recipe), (images / 255 - mean) / std)
    assert torch.equal(normalise(images, PLAIN), images / 255)


def test_every_image_has_parameters_of_its_own() -> None:
    params = draw_parameters(256, 32, 32, STL10.recipe, seeded(9))
    assert len(set(map(tuple, params.crop.tolist()))) > 200
    assert all(len(set(column.tolist())) > 250 for column in (*params.factors.unbind(1), params.sigma))


@pytest.mark.parametrize("info", [DIGITS, FASHION_MNIST, CIFAR10], ids=lambda info: info.name)
def test_two_views_of_an_image_differ_and_so_do_its_neighbours(info: DatasetInfo) -> None:
    image = noise(1, info.channels, info.image_size).expand(6, -1, -1, -1)
    views = augment(torch.cat((image, image)), info.recipe, seeded(10))
    assert views.shape == (12, info.channels, info.image_size, info.image_size)
    assert views.dtype == torch.float32
    distance = torch.cdist(views.flatten(1), views.flatten(1))
    assert (distance + 1e6 * torch.eye(12)).min() > 1e-3


def test_no_strength_is_no_augmentation() -> None:
    images = noise(8, 3, 16)
    assert torch.equal(augment(images, FULL, seeded(10), 0.0), normalise(images, FULL))


def test_same_seed_same_bits_and_nothing_else_is_touched() -> None:
    images = noise(8, 3, 16)
    before = images.clone()
    state = torch.get_rng_state()
    first, second, other = (augment(images, FULL, seeded(seed), 1.3) for seed in (11, 11, 12))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


def test_what_one_part_draws_does_not_depend_on_the_others() -> None:
    full = draw_parameters(32, 32, 32, FULL, seeded(13))
    plain = draw_parameters(32, 32, 32, PLAIN, seeded(13))
    assert torch.equal(full.crop, plain.crop)


def test_a_batch_of_one_and_an_empty_batch() -> None:
    assert augment(noise(1, 3, 8), FULL, seeded(0)).shape == (1, 3, 8, 8)
    assert augment(noise(0, 3, 8), FULL, seeded(0)).shape == (0, 3, 8, 8)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="uint8"):
        normalise(torch.rand(1, 1, 8, 8), DIGITS.recipe)
    with pytest.raises(ValueError, match="from 0 to 2"):
        augment(noise(1, 1, 8), DIGITS.recipe, seeded(0), 2.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_a_gpu_does_the_same_and_the_host_never_waits(info: DatasetInfo) -> None:
    images = noise(32, info.channels, info.image_size)
    params = draw_parameters(32, info.image_size, info.image_size, info.recipe, seeded(14))
    moved = ViewParameters(**{f.name: getattr(params, f.name).cuda() for f in dataclasses.fields(params)})
    got = apply(images.cuda(), moved, info.recipe).cpu()
    torch.testing.assert_close(got, apply(images, params, info.recipe), rtol=0, atol=1e-4)
    on_gpu, generator = images.cuda(), torch.Generator("cuda").manual_seed(0)
    augment(on_gpu, info.recipe, generator)  # the constants go to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(on_gpu, info.recipe, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
