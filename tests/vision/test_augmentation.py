import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import open_images
from recipes.datasets.loading import few_of_each
from recipes.vision import augmentation
from recipes.vision.augmentation import AUGMENTATIONS, CONDITIONS, AugmentationOptions, train
from recipes.vision.classification.task import SmallCNN
from recipes.vision.transforms import (
    COLORS,
    MOVES,
    about_center,
    beta,
    crop,
    cutmix,
    flip,
    hue,
    mixup,
    pad,
    rand_augment,
    rotate,
    saturation,
    translate,
    warp,
    warp_boxes,
    warp_masks,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangle_masks(count: int, height: int, width: int) -> tuple[list[Tensor], Tensor]:
    """Random rectangles, as boxes and as masks, some of them at the picture's border."""
    generator = seeded()
    sides = torch.rand(count, 2, generator=generator) * 40 + 8
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=1).round()
    boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = 7
    return list(boxes.split(1)), masks


def tight_box(mask: Tensor) -> Tensor:
    y, x = mask.nonzero(as_tuple=True)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


@pytest.mark.parametrize(
    ("move", "amount"),
    list(zip(MOVES, (1.0, 60.0, 1.0, 0.3, 0.5, 0.5), strict=True)),
    ids=[move.__name__ for move in MOVES],
)
def test_boxes_stay_tight_about_masks_and_pictures_move_with_them(move: Callable[..., Tensor], amount: float) -> None:
    """By pixels, at eight times the resolution: a thin tip of a turned rectangle may miss all whole pixels."""
    boxes, masks = rectangle_masks(60, 64, 96)
    pictures = (masks > 0).float().unsqueeze(1)
    matrices = move(pictures, seeded(1), amount)
    fine = warp_masks(masks, torch.diag(torch.tensor([8.0, 8.0, 1.0])) @ matrices, (8 * 64, 8 * 96))
    moved, kept = warp_boxes(boxes, matrices, (64, 96))
    assert sum(map(len, moved)) > 40
    assert set(fine.unique().tolist()) == {0, 7}
    for mask, box, keep in zip(fine, moved, kept, strict=True):
        if keep.any():
            torch.testing.assert_close(box[0], tight_box(mask) / 8, rtol=0, atol=0.5)
        else:
            y, x = mask.nonzero(as_tuple=True)
            assert not len(x) or min(int(x.max() - x.min()), int(y.max() - y.min())) < 12
    seen = warp(pictures, matrices).squeeze(1)
    agree = (seen > 0.5) == (warp_masks(masks, matrices) > 0)
    assert agree.float().mean() > 0.995


def test_composed_matrices_move_once_what_they_would_move_in_turn() -> None:
    _, masks = rectangle_masks(8, 64, 64)
    first, second = flip(masks.unsqueeze(1), seeded(), 1.0), translate(masks.unsqueeze(1), seeded())
    second = second.round()  # whole pixels, so that sampling twice loses nothing
    in_turn = warp_masks(warp_masks(masks, first), second)
    assert torch.equal(warp_masks(masks, second @ first), in_turn)


def test_turning_moves_clockwise_about_the_center() -> None:
    picture = torch.zeros(1, 1, 5, 5)
    picture[0, 0, 0, 2] = 1  # at the top
    angle = torch.tensor([math.pi / 2])
    turned = warp(picture, about_center(picture, angle.cos(), -angle.sin(), angle.sin(), angle.cos()))
    assert turned[0, 0].argmax() == 2 * 5 + 4  # at the right


def test_flip_equals_torch_and_nothing_changes_without_amount() -> None:
    pictures = torch.rand(4, 3, 9, 12, generator=seeded())
    torch.testing.assert_close(warp(pictures, flip(pictures, seeded(), 1.0)), pictures.flip(3))
    for move in MOVES:
        torch.testing.assert_close(warp(pictures, move(pictures, seeded(), 0.0)), pictures)
    for color in COLORS:
        torch.testing.assert_close(color(pictures, seeded(), 0.0), pictures)


def test_crop_keeps_the_window_filled_and_pad_loses_nothing() -> None:
    pictures = torch.ones(50, 1, 20, 30)
    assert warp(pictures, crop(pictures, seeded()))[:, :, 1:-1, 1:-1].min() > 0.99
    boxes, _ = warp_boxes([torch.tensor([[0.0, 0.0, 30.0, 20.0]])] * 50, pad(pictures, seeded(), 0.6), (20, 30))
    assert all((box[0, 2:] - box[0, :2] >= torch.tensor([0.39 * 30, 0.39 * 20])).all() for box in boxes)
    areas = torch.stack([(box[0, 2:] - box[0, :2]).prod() for box in boxes])
    shrunk = pad(pictures, seeded(), 0.6)[:, 0, 0]
    torch.testing.assert_close(areas, shrunk.square() * 600, rtol=1e-3, atol=1e-2)  # wholly inside


def test_a_box_that_leaves_the_picture_is_left_out_and_pictures_may_have_none() -> None:
    away = torch.eye(3).repeat(3, 1, 1)
    away[0, 0, 2] = 100
    boxes = [torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.zeros(0, 4), torch.tensor([[2.0, 3.0, 8.0, 9.0]] * 2)]
    moved, kept = warp_boxes(boxes, away, (32, 32))
    assert [len(each) for each in moved] == [0, 0, 2]
    assert [each.tolist() for each in kept] == [[False], [], [True, True]]
    torch.testing.assert_close(moved[2], boxes[2])


def test_masks_take_no_new_values_and_are_filled_with_void() -> None:
    masks = torch.randint(0, 5, (4, 16, 16), generator=seeded())
    moved = warp_masks(masks, rotate(masks.unsqueeze(1), seeded(), 45), fill=255)
    assert moved.dtype == masks.dtype
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    assert (moved == 255).any()


@pytest.mark.parametrize("transform", [*MOVES, *COLORS], ids=lambda transform: transform.__name__)
def test_transforms_are_pure_and_repeat_with_the_generator(transform: Callable[..., Tensor]) -> None:
    pictures = torch.rand(6, 3, 16, 16, generator=seeded())
    before = pictures.clone()
    one, same, other = (transform(pictures, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(pictures, before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    if transform in COLORS:
        assert one.shape == pictures.shape
        assert one.min() >= 0
        assert one.max() <= 1
        assert transform(pictures[:, :1], seeded()).shape == (6, 1, 16, 16)


def test_hue_turns_colors_and_leaves_grays() -> None:
    pictures = torch.full((20, 3, 2, 2), 0.4)
    torch.testing.assert_close(hue(pictures, seeded(), 0.5), pictures)
    pictures[:, 0] = 0.6
    turned = hue(pictures, seeded(), 0.5)
    torch.testing.assert_close(turned.mean(dim=1), pictures.mean(dim=1))
    assert (turned.argmax(dim=1) != 0).any()
    torch.testing.assert_close(saturation(pictures[:, :1], seeded()), pictures[:, :1])


def test_rand_augment_gives_the_matrices_it_moved_by() -> None:
    _, masks = rectangle_masks(40, 64, 64)
    pictures = (masks > 0).float().unsqueeze(1)
    changed, matrices = rand_augment(pictures, seeded(), operations=3, strength=0.3)
    moved = warp_masks(masks, matrices)
    assert not torch.equal(changed, warp(pictures, matrices)), "colors change too"
    assert not torch.equal(matrices, torch.eye(3).expand_as(matrices))
    overlap = torch.stack([c[m > 0].mean() for c, m in zip(changed.squeeze(1), moved, strict=True) if (m > 0).any()])
    assert overlap.median() > 0.6


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_shares_the_targets_as_it_shares_the_pixels(mix: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Pictures of one color each, 0 and 1: the mean of the mixed picture is the share of the second class."""
    classes = torch.arange(400) % 2
    pictures = classes.float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    mixed, targets = mix(pictures, torch.eye(2)[classes], seeded(), 1.0)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets[:, 1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(400))
    assert 0.05 < ((targets[:, 0] > 0.2) & (targets[:, 0] < 0.8)).float().mean() < 0.9
    assert torch.equal(pictures.unique(), torch.tensor([0.0, 1.0]))


def test_beta_is_symmetric_and_follows_alpha() -> None:
    for alpha in (0.2, 4.0):
        shares, _ = beta(torch.zeros(5000, 1, 1, 1), alpha, seeded())
        assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
        assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_few_of_each_draws_as_many_of_each_class() -> None:
    labels = torch.arange(100) % 7
    chosen = few_of_each(labels, 3, seed=0)
    assert torch.bincount(labels[chosen]).tolist() == [3] * 7
    assert not torch.equal(chosen, few_of_each(labels, 3, seed=1))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shuffled_labels_fail_the_bar(name: str) -> None:
    torch.manual_seed(0)
    parts = open_images(normalize=False)
    few = parts[0].subset(few_of_each(parts[0].labels, 10, seed=0))
    few.labels = few.labels[torch.randperm(len(few))]
    network = SmallCNN(1, 10)
    train(network, few, AugmentationOptions(augmentation=name, epochs=10, device="cpu"))  # type: ignore[arg-type]
    scores = augmentation.evaluate(lambda images: augmentation.answers(network, images), parts[1])
    assert scores["accuracy"] < 0.4


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_shape_and_shares(name: str) -> None:
    images, targets = torch.rand(8, 3, 16, 12), torch.eye(8)
    changed, shares = AUGMENTATIONS[name](images, targets)
    assert changed.shape == images.shape
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
    assert torch.equal(changed, images) == (name == "none")


def test_conditions_repeat_and_light_falls_off_to_one_side() -> None:
    images = torch.full((40, 1, 8, 10), 0.5)
    for name, change in CONDITIONS.items():
        once, again = (change(images, seeded()) for _ in range(2))
        assert torch.equal(once, again), name
    lit = augmentation.lit(images, seeded())
    assert 5 < int((lit[:, 0, 0, 0] < 0.06).sum()) < 35
    torch.testing.assert_close(lit[:, 0, 0, 0] + lit[:, 0, 0, -1], torch.full((40,), 0.55))


@pytest.mark.xdist_group("vision.augmentation")
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("vision.augmentation")
    assert [next(iter(row.values())) for row in result.rows] == list(AUGMENTATIONS)
    assert {*CONDITIONS, "printed_accuracy"} <= set(result.rows[0])


def test_printed_digits_are_recognized_by_a_network_that_knows_them_all() -> None:
    result = augmentation.run(samples=100, epochs=20, claims=False, device="cpu")
    scores = augmentation.printed_accuracy(result)
    assert 0.3 < scores["printed_accuracy"] < 1


def test_own_color_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name, color in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", (16, 12), color).save(tmp_path / name / f"{number}.png")
    result = augmentation.run(data=str(tmp_path), samples=4, epochs=10, batch_size=4, device="cpu", claims=False)
    assert result.metrics["accuracy"] == 1
    assert result.figure().axes


def test_impossible_options_are_named() -> None:
    with pytest.raises(InputError, match="option samples: expected"):
        augmentation.run(samples=0)
    with pytest.raises(InputError, match="option augmentation"):
        augmentation.run(augmentation="turned")  # type: ignore[arg-type]
