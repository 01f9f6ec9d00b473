"""Inception held against its inflation, what each look sees, key frames, and controls that must fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.clips import Clips, open_clips
from recipes.vision import video
from recipes.vision.clips import evaluate, flow_classifier, optical_flow
from recipes.vision.video import (
    I3D,
    FrameClassifier,
    Inception,
    VideoOptions,
    build,
    difference_when_still,
    inception_stack,
    inflate,
    key_frames,
    train,
)

NAME = "vision.video"


@pytest.fixture(scope="module")
def parts() -> tuple[Clips, Clips]:
    return open_clips(count=240)


def model_of(parts: tuple[Clips, Clips], **changed: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(VideoOptions(**changed), parts[0])


def test_inflated_kernels_are_even_over_time_and_see_a_still_clip_alike(parts: tuple[Clips, Clips]) -> None:
    torch.manual_seed(0)
    flat, deep = inception_stack(2, 1, 8), inception_stack(3, 1, 8)
    with torch.no_grad():
        for value in [*flat.parameters(), *(b for b in flat.buffers() if b.is_floating_point())]:
            value.uniform_(0.2, 0.8)  # batch norm's running statistics are to be carried over too
    inflate(flat, deep)
    wide, narrow = deep[0][0].weight, flat[0][0].weight
    assert wide.shape == (8, 1, 3, 3, 3)
    for moment in range(3):
        torch.testing.assert_close(wide[:, :, moment], narrow / 3)
    result = Result({}, {}, train_set=parts[0], test_set=parts[1], options={"width": 8})
    assert difference_when_still(flat.eval(), result) < 1e-4
    frame, others = parts[1].__getitems__(range(4))[0][:, :, :1], parts[1].__getitems__(range(4, 8))[0]
    moved = torch.cat([frame.expand(-1, -1, 4, -1, -1), others], dim=2)
    before = flat(frame[:, :, 0])
    assert ((deep.eval()(moved)[:, :, 4] - before).abs().max() / before.abs().max()) > 0.01, "not of moving ones"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_inception_keeps_size_and_joins_four_branches(dimensions: int) -> None:
    block = Inception(dimensions, 5, 8)
    size = (6, 7, 9)[3 - dimensions :]
    assert block(torch.rand(2, 5, *size)).shape == (2, 32, *size)
    assert len(list(block.children())) == 4


@pytest.mark.parametrize(
    ("look", "shared"),
    [("one frame", True), ("any order", True), ("in order", True), ("in order", False), ("inflated", True)],
)
def test_gradients_and_what_each_sees(look: str, shared: bool, parts: tuple[Clips, Clips]) -> None:
    model = model_of(parts, look=look, shared=shared)
    clips, labels = parts[0].__getitems__(range(12))
    torch.nn.functional.cross_entropy(model(clips), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    with torch.no_grad():
        answer = model(clips)
        assert not torch.allclose(model(1 - clips), answer, atol=1e-4)
        other_order = model(clips[:, :, [4, 5, 6, 7, 0, 1, 2, 3]])
        others = clips.clone()
        others[:, :, [i for i in range(8) if i != 4]] = 0
        assert torch.allclose(model(others), answer, atol=1e-6) == (look == "one frame")
    assert torch.allclose(other_order, answer, atol=1e-5) == (look == "any order")


def test_sharing_divides_the_parameters_of_the_features_by_the_frames(parts: tuple[Clips, Clips]) -> None:
    sizes = []
    for shared in (True, False):
        model = model_of(parts, look="in order", shared=shared)
        assert isinstance(model, FrameClassifier)
        sizes.append(sum(one.numel() for one in model.features.parameters()))
    assert sizes[1] == 8 * sizes[0]


def test_a_shared_network_gives_what_equal_ones_give(parts: tuple[Clips, Clips]) -> None:
    one, many = (model_of(parts, look="in order", shared=shared).eval() for shared in (True, False))
    weights = one.state_dict()
    named = {key: key.replace(f"features.{key.split('.')[1]}.", "features.0.") for key in many.state_dict()}
    many.load_state_dict({key: weights[name if key.startswith("features") else key] for key, name in named.items()})
    clips = parts[0].__getitems__(range(6))[0]
    torch.testing.assert_close(one(clips), many(clips), rtol=1e-4, atol=1e-5)


def test_key_frames_are_one_of_each_cluster() -> None:
    shot = torch.repeat_interleave(torch.arange(4), torch.tensor([9, 2, 2, 3]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        centers = torch.randn(4, 8, generator=generator)
        features = centers[shot] + 0.05 * torch.randn(16, 8, generator=generator)
        assert shot[key_frames(features, 4)].tolist() == [0, 1, 2, 3]


def test_optical_flow_knows_a_single_moving_blot() -> None:
    angle = torch.arange(16) * 2 * torch.pi / 16
    across = [(1 + torch.cos(angle - 2 * torch.pi * time / 16)) / 2 for time in range(8)]  # a pixel a frame
    hill = ((1 + torch.cos(angle)) / 2)[:, None]
    frames = (torch.stack([hill * one for one in across])[None, None] * 255).to(torch.uint8)
    flow = optical_flow(Clips(frames, torch.zeros(1, dtype=torch.long), ["a"]))[0]
    assert flow[0].item() == pytest.approx(-1, abs=0.1)
    assert flow[1:].abs().max() < 0.05


def test_shuffled_labels_teach_nothing(parts: tuple[Clips, Clips]) -> None:
    train_set, test_set = parts
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    shuffled = Clips(train_set.frames, train_set.labels[order], train_set.classes)
    model = model_of(parts)
    train(model, shuffled, test_set, VideoOptions(epochs=3, device="cpu"))
    assert evaluate(model, test_set, torch.device("cpu"))["accuracy"] < 0.35
    assert flow_classifier(shuffled, test_set)["accuracy"] < 0.4


def test_own_clips_and_pictures(tmp_path: Path) -> None:
    for kind in ("dawn", "dusk"):
        for number in range(10):
            clip = tmp_path / "clips" / kind / f"{number}"
            clip.mkdir(parents=True)
            for time in range(6):
                level = 40 * (time if kind == "dawn" else 5 - time) + number
                Image.new("RGB", (24, 20), (level, level, 90)).save(clip / f"{time}.png")
    result = recipes.run(NAME, data=str(tmp_path / "clips"), epochs=15, batch_size=8, device="cpu", claims=False)
    assert result["accuracy"] == 1
    assert result.figure().axes
    with torch.inference_mode():
        answers = result.task.predict(result.model.eval(), [result.task.load(clip)], torch.device("cpu"))
    assert answers[0]["class"] == "dusk"
    for number in range(20):
        folder = tmp_path / "pictures" / ("sun" if number % 2 else "sea")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 40), (10 * number, 200, 90)).save(folder / f"{number}.png")
    moved = recipes.run(NAME, data=str(tmp_path / "pictures"), clips=48, epochs=1, device="cpu", claims=False)
    assert moved.train_set.classes == video.MOTIONS


@pytest.mark.xdist_group(NAME)
def test_what_the_claims_compare(proved_run: Callable[[str], Result]) -> None:
    result = proved_run(NAME)
    assert isinstance(result.model, I3D)
    assert [row["looks at"] for row in result.rows] == [
        "inflated",
        "one frame",
        "any order",
        "in order",
        "in order, not shared",
    ]
