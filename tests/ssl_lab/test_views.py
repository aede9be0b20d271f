"""The stream of views: blocks are made of (seed, step) alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_lab.augment import normalise
from ssl_lab.config import CIFAR10
from ssl_lab.views import LONGEST, SharedBlocks, ViewStream, steps_ahead

IMAGES = torch.randint(0, 256, (70, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
BATCH = 16  # four steps an epoch, six images left out


def stream(seed: int = 0, batch_size: int = BATCH) -> ViewStream:
    return ViewStream(IMAGES, CIFAR10.recipe, torch.Tensor.contiguous, seed, batch_size)


def test_blocks_are_longer_where_images_are_smaller() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert steps_ahead(2 * 128 * 64, cpu) == LONGEST
    assert steps_ahead(2 * 128 * 3 * 32 * 32, cpu) == 1
    assert steps_ahead(2 * 128 * 3 * 32 * 32, gpu) == LONGEST
    assert steps_ahead(2 * 512 * 3 * 96 * 96, gpu) == 1
    assert steps_ahead(3 << 15, cpu) == 1
    assert steps_ahead(1 << 15, cpu) == 4


def test_any_step_is_reached_without_those_before_it() -> None:
    one_by_one = stream()
    assert one_by_one.ahead == LONGEST
    seen = [one_by_one.at(step, 1.0).clone() for step in range(20)]
    for step in (19, 3, 8, 7, 0):
        assert torch.equal(stream().at(step, 1.0), seen[step])
    assert not torch.equal(stream(seed=1).at(0, 1.0), seen[0])


def test_a_turn_of_the_strength_holds_from_its_step_on_and_no_longer() -> None:
    plain, turned = stream(), stream()
    assert torch.equal(turned.at(2, 1.0), plain.at(2, 1.0))
    stronger = turned.at(3, 2.0).clone()
    assert not torch.equal(stronger, plain.at(3, 1.0))
    assert torch.equal(turned.at(4, 1.0), plain.at(4, 1.0))
    assert torch.equal(stream().at(3, 2.0), stronger)


def test_streams_that_share_show_what_they_would_alone_and_make_it_once() -> None:
    blocks, made = SharedBlocks(most=2), []

    def counted(images: Tensor) -> Tensor:
        made.append(len(images))
        return images.contiguous()

    many = [ViewStream(IMAGES, CIFAR10.recipe, counted, 0, BATCH) for _ in range(3)]
    for one in many:
        one.shared = blocks
    other = ViewStream(IMAGES, CIFAR10.recipe, lambda images: images.contiguous() * 2, 0, BATCH)
    other.shared, other.kind = blocks, "prepared otherwise"
    alone = stream()
    for step in range(2 * LONGEST):
        for one in many:
            assert torch.equal(one.at(step, 1.0), alone.at(step, 1.0))
        assert torch.equal(other.at(step, 1.0), alone.at(step, 1.0) * 2)
    assert len(made) == 2
    assert torch.equal(many[0].at(0, 2.0), stream().at(0, 2.0))
    assert torch.equal(many[1].at(1, 1.0), alone.at(1, 1.0))
    assert len(made) == 4


def test_both_views_are_of_the_rows_in_their_order() -> None:
    views = stream()
    for step in (0, 3, 4, 9):
        rows: Tensor = views.rows(step)
        expected = normalise(IMAGES[rows], CIFAR10.recipe)
        first, second = views.at(step, 0.0).chunk(2)
        assert torch.equal(first, expected)
        assert torch.equal(second, expected)


def test_an_epoch_shows_every_image_once_also_where_a_block_crosses_its_end() -> None:
    views = stream()
    for epoch in range(3):
        rows = torch.cat([views.rows(step) for step in range(4 * epoch, 4 * epoch + 4)])
        assert len(rows.unique()) == 4 * BATCH


@pytest.mark.parametrize("batch_size", [16, 24])
def test_images_of_a_block_differ_and_so_do_the_views(batch_size: int) -> None:
    views = stream(batch_size=batch_size)
    first, second = views.at(0, 1.0).chunk(2)
    assert not torch.equal(first, second)
    assert not torch.equal(views.at(0, 1.0), views.at(1, 1.0))
