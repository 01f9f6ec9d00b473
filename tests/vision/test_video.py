"""Clips that a single frame does not betray, Inception held against its inflation, and controls that must fail."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images
from recipes.vision.video import (
    FRAMES,
    I3D,
    MOTIONS,
    OPPOSITE,
    SIDE,
    Clips,
    FrameClassifier,
    Inception,
    accuracy,
    difference_when_still,
    draw_clips,
    inception_stack,
    inflate,
    train,
)

CPU = torch.device("cpu")
NAME = "vision.video"


@pytest.fixture(scope="module")
def clips() -> tuple[Clips, Clips]:
    train_set, test_set = open_images(None)
    return draw_clips(train_set, 240, 0), draw_clips(test_set, 120, 1)


def test_clips_show_what_their_labels_say() -> None:
    """The centre of a blot, on the endless plane, moves as the motion says; that of turning ones stays."""
    blot = Images(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), ["blot"])
    made = draw_clips(blot, 120, 0)
    angles = torch.arange(SIDE) * 2 * torch.pi / SIDE
    wave = torch.polar(torch.ones(SIDE), angles)
    ink = made.frames[:, 0].clamp(min=0.3) - 0.3
    for axis, labels in (
        (2, (0, 1)),
        (3, (2, 3)),
    ):  # sums over rows tell where across it is
        phase = (ink.sum(dim=axis) * wave).sum(dim=2).angle()  # (clips, FRAMES)
        step = torch.remainder(phase.diff(dim=1) + torch.pi, 2 * torch.pi) - torch.pi
        mean = step.mean(dim=1) * SIDE / (2 * torch.pi)  # pixels
        assert (mean[made.labels == labels[0]] < -1).all()
        assert (mean[made.labels == labels[1]] > 1).all()
        others = ~torch.isin(made.labels, torch.tensor(labels))
        assert mean[others].abs().max() < 0.5


def test_turning_right_is_clockwise() -> None:
    """A bar from the middle to the right turns down."""
    pixels = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4:] = 255
    made = draw_clips(Images(pixels, torch.zeros(1, dtype=torch.long), ["bar"]), 60, 0)
    wave = torch.polar(torch.ones(SIDE), torch.arange(SIDE) * 2 * torch.pi / SIDE)
    ink = made.frames[:, 0].clamp(min=0.3) - 0.3
    places = torch.stack([(ink.sum(dim=axis) * wave).sum(dim=2).angle() for axis in (2, 3)], dim=2)
    steps = torch.remainder(places.diff(dim=1) + torch.pi, 2 * torch.pi) - torch.pi  # (clips, FRAMES - 1, 2)
    turns = steps[:, :-1, 0] * steps[:, 1:, 1] - steps[:, :-1, 1] * steps[:, 1:, 0]  # above 0: clockwise
    assert (turns.sum(dim=1)[made.labels == MOTIONS.index("turning right")] > 0).all()
    assert (turns.sum(dim=1)[made.labels == MOTIONS.index("turning left")] < 0).all()


def test_opposites() -> None:
    assert torch.equal(OPPOSITE[OPPOSITE], torch.arange(len(MOTIONS)))
    assert [MOTIONS[i] for i in OPPOSITE] == ["right", "left", "down", "up", "turning right", "turning left"]


def test_inflated_kernels_are_even_over_time_and_see_a_still_clip_alike(clips: tuple[Clips, Clips]) -> None:
    torch.manual_seed(0)
    flat, deep = inception_stack(2), inception_stack(3)
    with torch.no_grad():
        for value in [*flat.parameters(), *(b for b in flat.buffers() if b.is_floating_point())]:
            value.uniform_(0.2, 0.8)  # batch norm's running statistics are to be carried over too
    assert difference_when_still(flat, deep, clips[1], CPU) > 0.1
    inflate(flat, deep)
    wide, narrow = deep[0][0].weight, flat[0][0].weight
    assert wide.shape == (8, 1, 3, 3, 3)
    for moment in range(3):
        torch.testing.assert_close(wide[:, :, moment], narrow / 3)
    assert difference_when_still(flat, deep, clips[1], CPU) < 1e-4


@pytest.mark.parametrize("dimensions", [2, 3])
def test_inception_keeps_size_and_joins_four_branches(dimensions: int) -> None:
    block = Inception(dimensions, 5, 8)
    size = (6, 7, 9)[3 - dimensions :]
    assert block(torch.rand(2, 5, *size)).shape == (2, 32, *size)
    assert len(list(block.children())) == 4


@pytest.mark.parametrize("look", ["one frame", "any order", "in order", "inflated"])
def test_gradients_and_what_each_sees(look: str, clips: tuple[Clips, Clips]) -> None:
    torch.manual_seed(0)
    model = I3D() if look == "inflated" else FrameClassifier(look)
    frames, labels = clips[0].__getitems__(range(12))
    torch.nn.functional.cross_entropy(model(frames), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    with torch.no_grad():
        answer = model(frames)
        assert not torch.allclose(model(1 - frames), answer, atol=1e-4)
        other_order = model(frames[:, :, [4, 5, 6, 7, 0, 1, 2, 3]])
        others = frames.clone()
        others[:, :, [i for i in range(FRAMES) if i != FRAMES // 2]] = 0
        assert torch.allclose(model(others), answer) == (look == "one frame")
    assert torch.allclose(other_order, answer, atol=1e-5) == (look == "any order")


def test_shuffled_labels_teach_nothing(clips: tuple[Clips, Clips]) -> None:
    train_set, test_set = clips
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = I3D()
    settings = {"epochs": 3, "device": CPU, "precision": "auto"}
    train(model, Clips(train_set.frames, train_set.labels[order]), batch_size=24, lr=6e-3, seed=0, **settings)
    assert accuracy(model, test_set, CPU) < 0.35


def test_own_pictures(tmp_path: Path) -> None:
    for i in range(20):
        folder = tmp_path / ("sun" if i % 2 else "sea")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (30, 40), (10 * i, 200, 90)).save(folder / f"{i}.png")
    result = recipes.run(NAME, data=str(tmp_path), clips=48, epochs=1)
    assert len(result.claims) == 6
    assert result.figure().axes


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []
