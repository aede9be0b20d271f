"""Augmented views of a batch on its own device, every parameter drawn per image.

torchvision's v2 transforms draw one set of parameters for a whole batch, so they cannot augment a batch for
self-supervised learning; its per-image transforms are far too slow one image at a time. This module draws
the same distributions for all images at once (:func:`draw_parameters`) and carries them out on the batch
(:func:`apply`), in the order crop, flip, colour jitter, greyscale, blur, normalise; noise comes last. All of it is
a pure function of the images, the recipe, the strength and the state of the generator: the global random state is
neither read nor changed. Nothing waits for a GPU: no value comes back to the host.

Source of the pipeline: the CIFAR-10 and STL-10 recipes of Tian, Chen & Ganguli 2021, arXiv 2102.06810; the
distributions and the formulas of each operation are torchvision's.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.config import Recipe

CROP_TRIES = 10
"""Boxes that torchvision's RandomResizedCrop tries before it falls back to a centre crop."""
MIN_CROP_AREA = 0.02
"""A strength above 1 shrinks the smallest crop no further than this share of the image."""
GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Red, green and blue of a grey pixel, torchvision's rgb_to_grayscale (ITU-R 601-2)."""

# Columns of ViewParameters.factors and .place; torchvision's ColorJitter numbers its operations the same way.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Rows of uniform numbers that an image takes besides the two of each crop try. All are drawn whatever the recipe and
# the strength, so that turning one part off leaves the others' random numbers as they were.
_TOP, _LEFT, _FLIP, _JITTER, _FACTORS, _PLACE, _GREY, _SIGMA, _ROWS = 0, 1, 2, 3, 4, 8, 9, 10, 11
# A crop try more than torchvision's: its row is overwritten with the fallback, which always fits.
_CANDIDATES = CROP_TRIES + 1


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """What is done to each of B images. All tensors are on the generator's device."""

    crop: Tensor
    """(B, 4) int64: top i, left j, height h and width w of the crop, in pixels of the image."""
    flip: Tensor
    """(B,) bool: mirrored left to right."""
    jitter: Tensor
    """(B,) bool: whether the colours are jittered at all."""
    factors: Tensor
    """(B, 4) float32: brightness, contrast and saturation factors (1 leaves the image as it is), and the hue's
    shift in turns (0 leaves it)."""
    place: Tensor
    """(B, 4) int64: at which place, 0 to 3, the brightness, the contrast, the saturation and the hue is changed;
    its argsort is the order of the operations."""
    grey: Tensor
    """(B,) bool: turned grey."""
    sigma: Tensor
    """(B,) float32: standard deviation of the blur in pixels; 0 for none."""

    def chosen(self, rows: Tensor) -> ViewParameters:
        """What is done to some of the images, (n,) int64."""
        return ViewParameters(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def augment(
    images: Tensor, recipe: Recipe, generator: torch.Generator, strength: float = 1.0, *, of: int | None = None,
    rows: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One augmented, normalised view of each image.

    Args:
        images: (B, C, H, W) uint8 of 1 or 3 channels.
        recipe: the augmentation at strength 1.
        generator: source of every random number, on the images' device; it moves on by one draw and one more for
            noise, unless the strength is 0.
        strength: in [0, 2], see :func:`draw_parameters`; 0 is exactly :func:`normalise`.
        of: images of the whole batch, for all of which random numbers are drawn; default these.
        rows: (B,) int64, which of the whole batch these are; each then gets what it would get within the whole.

    Returns:
        (B, C, H, W) float32.

    Raises:
        TypeError: the images are not uint8.
        ValueError: the strength is out of range.
    """
    if strength == 0:
        return normalise(images, recipe)
    if recipe.only_noise:
        return _with_noise(normalise(images, recipe), recipe, generator, strength, of, rows)
    _, _, height, width = images.shape
    count = len(images) if of is None else of
    params = draw_parameters(count, height, width, recipe, generator, strength)
    views = apply(images, params if rows is None else params.chosen(rows), recipe)
    return _with_noise(views, recipe, generator, strength, of, rows) if recipe.noise else views


def normalise(images: Tensor, recipe: Recipe) -> Tensor:
    """The images without augmentation: (B, C, H, W) uint8 -> float32, ``(pixel / 255 - mean) / std``.

    Raises:
        TypeError: the images are not uint8.
    """
    return _standardise(_to_float(images), recipe)


def draw_parameters(
    count: int, height: int, width: int, recipe: Recipe, generator: torch.Generator, strength: float = 1.0
) -> ViewParameters:
    """Parameters for ``count`` images of ``height`` x ``width`` pixels, each image its own.

    ``strength`` a: 1 is the recipe and 0 leaves images as they are. The smallest crop area is 1 - (1 - low) a,
    not below 0.02 unless the recipe's is; the range of the log ratio and the flip's probability go with
    min(a, 1), the jitter's ranges, the probabilities of jitter and grey, and the width of the range of the
    blur's sigma go with a, within what each can be.

    Raises:
        ValueError: the strength is not in [0, 2].
    """
    _check_strength(strength)
    uniform = torch.rand((2 * _CANDIDATES + _ROWS, count), generator=generator, device=generator.device)
    tries, rows = uniform[: 2 * _CANDIDATES], uniform[2 * _CANDIDATES :]
    low, high = recipe.blur_sigma
    sigma = rows[_SIGMA] * ((high - low) * strength) + low if strength and recipe.blur_taps else rows[_SIGMA] * 0
    # A float32 uniform is at most 1 - 2^-24, and 24 of it still below 24.
    place = _permutations(generator.device)[(rows[_PLACE] * 24).long()]
    return ViewParameters(
        crop=_draw_crops(tries, rows[_TOP], rows[_LEFT], height, width, recipe, strength),
        flip=rows[_FLIP] < recipe.flip * min(strength, 1.0),
        jitter=rows[_JITTER] < recipe.jitter_probability * strength,
        factors=_draw_factors(rows[_FACTORS : _FACTORS + 4], recipe, strength),
        place=place,
        grey=rows[_GREY] < recipe.grey * strength,
        sigma=sigma,
    )


def apply(images: Tensor, params: ViewParameters, recipe: Recipe) -> Tensor:
    """Carries out ``params`` on (B, C, H, W) uint8 images; returns (B, C, H, W) float32, normalised.

    Of the recipe only what holds for all images is used: which jitter operations there are at all, whether
    there is grey or blur, and the normalisation.

    Raises:
        TypeError: the images are not uint8.
    """
    x = _crop_and_flip(_to_float(images), params)
    if recipe.jitter_probability > 0:
        x = _jitter(x, params, recipe)
    if recipe.grey > 0 and x.shape[1] == 3:
        x = torch.where(params.grey[:, None, None, None], _luminance(x), x)
    if recipe.blur_taps > 0:
        x = _blur(x, params.sigma, recipe.blur_taps)
    return _standardise(x, recipe)


def _with_noise(
    x: Tensor, recipe: Recipe, generator: torch.Generator, strength: float, of: int | None, rows: Tensor | None
) -> Tensor:
    """``x`` with Gaussian noise of variance ``strength`` times the recipe's, in place.

    Raises:
        ValueError: the strength is not in [0, 2].
    """
    _check_strength(strength)
    count = len(x) if of is None else of
    noise = torch.randn((count, *x.shape[1:]), generator=generator, device=x.device)
    noise = noise if rows is None else noise[rows]
    return x.add_(noise, alpha=math.sqrt(recipe.noise * strength))


# ---------------------------------------------------------------- drawing


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 2:
        raise ValueError(f"The strength of the augmentation cannot be {strength!r}: it takes a number from 0 to 2.")


def _draw_crops(
    tries: Tensor, top: Tensor, left: Tensor, height: int, width: int, recipe: Recipe, strength: float
) -> Tensor:
    """Boxes (B, 4) as torchvision's RandomResizedCrop draws them, from uniforms (22, B), (B,) and (B,)."""
    if strength == 0:
        return _constant((0, 0, height, width), tries.device).expand(len(top), 4)
    # The floor does not lift a recipe that asks for less.
    small, large = (max(1 - (1 - x) * strength, min(x, MIN_CROP_AREA)) for x in recipe.crop_scale)
    thin, wide = (math.log(x) * min(strength, 1.0) for x in recipe.crop_ratio)

    side = (tries[:_CANDIDATES] * ((large - small) * height * width)).add_(small * height * width).sqrt_()
    stretch = (tries[_CANDIDATES:] * ((wide - thin) / 2)).add_(thin / 2).exp_()
    w, h = (side * stretch).round_(), side.div_(stretch).round_()
    fallback = _fallback(height, width, math.exp(thin), math.exp(wide))
    h[CROP_TRIES].fill_(fallback[0])
    w[CROP_TRIES].fill_(fallback[1])
    fits = (w <= width) & (h <= height) & (torch.minimum(w, h) > 0)
    # The first that fits, as if they had been drawn one after the other.
    first = torch.where(fits, _counting(_CANDIDATES, fits.device), CROP_TRIES).amin(0, keepdim=True).long()
    h, w = h.gather(0, first)[0], w.gather(0, first)[0]
    rest_h, rest_w = height - h, width - w
    # Rounding can lift u (rest + 1) to rest + 1 itself, hence the minimum.
    i = torch.minimum((top * (rest_h + 1)).floor_(), rest_h)
    j = torch.minimum((left * (rest_w + 1)).floor_(), rest_w)
    if fallback != (height, width):
        found = first[0] < CROP_TRIES
        i = torch.where(found, i, (rest_h / 2).floor_())
        j = torch.where(found, j, (rest_w / 2).floor_())
    return torch.stack((i, j, h, w)).long().t()


def _fallback(height: int, width: int, thin: float, wide: float) -> tuple[int, int]:
    """Height and width of torchvision's centre crop for an image in which no try fitted."""
    ratio = width / height
    if ratio < thin:
        return round(width / thin), width
    if ratio > wide:
        return height, round(height * wide)
    return height, width


def _draw_factors(uniform: Tensor, recipe: Recipe, strength: float) -> Tensor:
    """Jitter factors (B, 4) from uniforms (4, B), in torchvision's ranges."""
    columns = []
    for op, share in enumerate(recipe.jitter):
        x = share * strength
        low, high = (-min(x, 0.5), min(x, 0.5)) if op == HUE else (max(0.0, 1 - x), 1 + x)
        columns.append(torch.full_like(uniform[op], low) if low == high else (uniform[op] * (high - low)).add_(low))
    return torch.stack(columns).t()


# ---------------------------------------------------------------- carrying out


def _crop_and_flip(x: Tensor, params: ViewParameters) -> Tensor:
    """Each crop brought to the full size, bilinearly, and mirrored where asked.

    A crop is never larger than the output, so there is nothing to antialias. A sample outside the crop's
    outermost pixel centres takes the value there, as if the crop had been cut out first.
    """
    count, _, height, width = x.shape
    i, j, h, w = params.crop.float()[:, :, None].unbind(1)
    # A mirrored crop is walked from its far end.
    mirrored = params.flip[:, None]
    grid = torch.empty((count, height, width, 2), device=x.device)
    grid[..., 0] = _positions(torch.where(mirrored, j + w, j), torch.where(mirrored, -w, w), w, width)[:, None, :]
    grid[..., 1] = _positions(i, h, h, height)[:, :, None]
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _positions(start: Tensor, step: Tensor, length: Tensor, size: int) -> Tensor:
    """(B, size): where ``size`` pixels across each crop are sampled, -1 to 1 across the image, from (B, 1) pixels."""
    margin = 0.5 / length
    share = torch.clamp(_centres(size, start.device), margin, 1 - margin)
    return torch.addcmul(start * (2 / size) - 1, step, share, value=2 / size)


def _jitter(x: Tensor, params: ViewParameters, recipe: Recipe) -> Tensor:
    """Brightness, contrast, saturation and hue in each image's own order.

    Brightness, contrast and saturation are one formula, ``r x + (1 - r) d`` with d black, the mean grey or the
    grey pixel, so one pass does whichever of them it is an image's turn for. Hue is far dearer: it is done
    once for all images, and the n blends have n turns before it and n after, of which an image uses n.
    """
    colour = x.shape[1] == 3
    ops = [op for op in (BRIGHTNESS, CONTRAST, SATURATION) if recipe.jitter[op] > 0 and (colour or op != SATURATION)]
    hue = colour and recipe.jitter[HUE] > 0
    n = len(ops)
    if n:
        mine = _columns(params.place, ops)
        turn = (mine[:, :, None] > mine[:, None, :]).sum(2)
        if hue:
            turn += n * (mine > params.place[:, HUE:])
        turns = 2 * n if hue else n
        excess = (_columns(params.factors, ops) - 1) * params.jitter[:, None]
        # (B, turns, n): r - 1 of operation k in its turn, 0 in the others.
        table = (turn[:, None, :] == _counting(turns, x.device)) * excess[:, None, :]
        ratio = table.sum(2).add_(1)[:, :, None, None, None]
        to_mean = -table[:, :, ops.index(CONTRAST), None, None, None] if CONTRAST in ops else None
        to_grey = -table[:, :, ops.index(SATURATION), None, None, None] if SATURATION in ops else None
        for t in range(turns):
            if hue and t == n:
                x = _shift_hue(x, params)
            x = _blend(
                x,
                ratio[:, t],
                None if to_mean is None else to_mean[:, t],
                None if to_grey is None else to_grey[:, t],
            )
    elif hue:
        x = _shift_hue(x, params)
    return x


def _columns(table: Tensor, ops: list[int]) -> Tensor:
    """The columns of some of brightness, contrast and saturation; a view where they are neighbours."""
    if ops == [BRIGHTNESS, SATURATION]:
        return table[:, BRIGHTNESS : SATURATION + 1 : SATURATION]
    return table[:, ops[0] : ops[-1] + 1]


def _blend(x: Tensor, ratio: Tensor, to_mean: Tensor | None, to_grey: Tensor | None) -> Tensor:
    """``clamp(ratio x + to_mean mean(grey) + to_grey grey, 0, 1)``, in place; factors (B, 1, 1, 1)."""
    if to_mean is None and to_grey is None:
        return x.mul_(ratio).clamp_(0, 1)
    grey = _luminance(x)
    target = grey * to_grey if to_grey is not None else None
    if to_mean is not None:
        mean = grey.mean((1, 2, 3), keepdim=True).mul_(to_mean)
        target = mean if target is None else target.add_(mean)
    assert target is not None
    return x.mul_(ratio).add_(target).clamp_(0, 1)


def _luminance(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W): the grey image; a grey image is its own."""
    if x.shape[1] != 3:
        return x
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def _shift_hue(x: Tensor, params: ViewParameters) -> Tensor:
    """Turns the hue of each pixel in HSV by its image's factor; value and saturation stay."""
    shift = (params.factors[:, HUE] * params.jitter).mul_(6)[:, None, None, None]
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    top = x.amax(1, keepdim=True)
    bottom = x.amin(1, keepdim=True)
    chroma = top - bottom
    # Hue in sixths of a turn, times chroma.
    h = torch.where(
        top == red,
        green - blue,
        torch.where(top == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4)),
    )
    # A grey pixel has no hue; any number does, since it is multiplied by a chroma of 0 in the end.
    h = h.div_(chroma.clamp(min=torch.finfo(x.dtype).tiny)).add_(shift).remainder_(6)
    # A channel is at the top within one sixth of its own hue (0, 2, 4), and at the bottom from two sixths on;
    # ||h - own| - 3| is 3 less the distance around the circle.
    share = (h - _channel((0.0, 2.0, 4.0), x.device)).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return share.mul_(chroma).add_(bottom)


def _blur(x: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Gaussian blur of ``taps`` pixels with reflected edges, a sigma for each image.

    The blur along an axis is a product with a band matrix that has the reflection in it, made for each image.
    """
    count, channels, height, width = x.shape
    offsets = torch.arange(taps, device=x.device) - (taps - 1) / 2
    # A sigma of 0 is a single spike: exp(-5000) is 0.
    kernel = (offsets / sigma.clamp(min=0.01)[:, None]).square_().mul_(-0.5).exp_()
    kernel = kernel / kernel.sum(1, keepdim=True)
    # Half precision would show as noise in flat areas.
    with torch.autocast(x.device.type, enabled=False):
        across = (kernel @ _reflected_shifts(taps, width, x.device)).view(count, width, width)
        down = (kernel @ _reflected_shifts(taps, height, x.device)).view(count, 1, height, height)
        x = torch.bmm(x.reshape(count, channels * height, width), across.transpose(1, 2))
        return down @ x.view(count, channels, height, width)


def _to_float(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8:
        raise TypeError(f"The images to augment must be uint8, 0 to 255; these are {images.dtype}.")
    return images.float().div_(255)


def _standardise(x: Tensor, recipe: Recipe) -> Tensor:
    if recipe.mean is not None:
        x = x.sub_(_channel(recipe.mean, x.device))
    if recipe.std is not None:
        x = x.div_(_channel(recipe.std, x.device))
    return x


# ---------------------------------------------------------------- constants
# Kept on the device: sending even one number to a GPU makes the host wait for it.


@lru_cache(maxsize=64)
def _constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


@lru_cache(maxsize=64)
def _channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(1, C, 1, 1) float32."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


@lru_cache(maxsize=64)
def _centres(size: int, device: torch.device) -> Tensor:
    """(size,) float32: the pixels' centres as shares of the whole width."""
    return ((torch.arange(size, dtype=torch.float64) + 0.5) / size).float().to(device)


@lru_cache(maxsize=64)
def _counting(size: int, device: torch.device) -> Tensor:
    """(size, 1): 0, 1, 2 ... in int32, of which the CPU finds a minimum 15 times sooner than of int64."""
    return torch.arange(size, dtype=torch.int32, device=device)[:, None]


@lru_cache(maxsize=16)
def _permutations(device: torch.device) -> Tensor:
    """(24, 4) int64: every order of the four jitter operations."""
    return torch.tensor(list(itertools.permutations(range(4))), device=device)


@lru_cache(maxsize=16)
def _reflected_shifts(taps: int, size: int, device: torch.device) -> Tensor:
    """(taps, size * size) float32: for each tap the matrix that fetches its pixel, reflected at the edges."""
    source = torch.arange(size) + torch.arange(taps)[:, None] - taps // 2
    period = max(2 * (size - 1), 1)
    folded = source.remainder(period)
    folded = torch.where(folded < size, folded, period - folded)
    return F.one_hot(folded, size).float().flatten(1).to(device)
