"""The tracker: its cross-correlation, crops and loss held against plain ways, and controls that must fail."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.sequences import TRUTH, FrameSequence, open_sequences
from recipes.vision.tracking.following import STRIDE, crops, follow, match_pixels, overlaps, scores, stay
from recipes.vision.tracking.pairs import Pairs, alike, cut
from recipes.vision.tracking.task import (
    Siamese,
    cross_correlation,
    localization_loss,
)

CPU = torch.device("cpu")
NAME = "vision.tracking"
Parts = tuple[list[FrameSequence], list[FrameSequence]]


@pytest.fixture(scope="module")
def sequences() -> Parts:
    return open_sequences()


def test_cross_correlation_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    exemplars, searches = torch.randn(3, 4, 2, 3), torch.randn(3, 4, 5, 7)
    found = cross_correlation(exemplars, searches)
    assert found.shape == (3, 4, 4, 5)
    for y in range(4):
        for x in range(5):
            piece = searches[:, :, y : y + 2, x : x + 3]
            torch.testing.assert_close(found[:, :, y, x], (piece * exemplars).sum(dim=(2, 3)))


def test_what_moves_by_a_cell_moves_the_response_by_a_cell() -> None:
    torch.manual_seed(0)
    model = Siamese().eval()
    picture, exemplar = torch.randn(1, 3, 72, 72), torch.randn(1, 3, 32, 32)
    here, moved = picture[..., :64, :64], picture[..., STRIDE : 64 + STRIDE, 2 * STRIDE : 64 + 2 * STRIDE]
    with torch.no_grad():
        (first, _), (second, _) = model(exemplar, here), model(exemplar, moved)
    torch.testing.assert_close(first[:, 1:, 2:], second[:, :-1, :-2], rtol=1e-4, atol=1e-5)


def test_a_crop_is_a_piece_of_the_picture_gray_beyond_it() -> None:
    frame = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = frame.float() / 127.5 - 1

    def crop(x: float, y: float, side: float, size: int) -> torch.Tensor:
        return crops(frame, torch.tensor([[x, y]]), torch.tensor([side]), size)[0]

    torch.testing.assert_close(crop(12, 10, 8, 8), pixels[0, :, 6:14, 8:16])
    means = pixels[0, :, 6:14, 8:16].view(3, 4, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(crop(12, 10, 8, 4), means)
    corner = crop(0, 0, 8, 8)
    torch.testing.assert_close(corner[:, 4:, 4:], pixels[0, :, :4, :4])
    assert corner[:, :4].abs().max() < 1e-5
    assert corner[:, :, :4].abs().max() < 1e-5


def test_loss_wants_the_response_and_the_box_where_the_object_is() -> None:
    shifts, anchors, sizes = torch.tensor([[4.0, -2]]), torch.tensor([[16.0, 12]]), torch.tensor([[20.0, 12]])
    steps = STRIDE * (torch.arange(17) - 8.0)
    away = torch.hypot(steps - shifts[0, 0], steps[:, None] - shifts[0, 1])
    right = torch.where(away <= 2.5, 20.0, -20.0)[None]
    moves = torch.stack(
        [(shifts[0, 0] - steps).expand(17, 17) / 16, (shifts[0, 1] - steps)[:, None].expand(17, 17) / 12]
    )
    codes = torch.cat([moves, (sizes / anchors).log().view(2, 1, 1).expand(2, 17, 17)])[None]
    assert localization_loss(right, codes, shifts, anchors, sizes) < 1e-6
    assert localization_loss(-right, codes, shifts, anchors, sizes) > 10
    assert localization_loss(right, codes + 1, shifts, anchors, sizes) > 1


def test_pairs_come_from_one_sequence_and_keep_the_object_in_the_middle(sequences: Parts) -> None:
    pairs = Pairs(sequences[0][:3])
    assert len(pairs) == 3 * 4 * 3
    assert (pairs.pairs // 4).diff(dim=1).abs().max() == 0
    assert (pairs.pairs.diff(dim=1) != 0).all()
    first, second, anchors, sizes = pairs.__getitems__([0, 15, 30])
    exemplars, searches = cut(first, second, torch.zeros(3, 2), torch.ones(3))
    assert exemplars.shape == (3, 3, 32, 32)
    assert searches.shape == (3, 3, 64, 64)
    assert anchors.shape == sizes.shape == (3, 2)
    shifted = cut(first, second, torch.tensor([[6.0, 0]]).expand(3, -1), torch.ones(3))[1]
    torch.testing.assert_close(shifted[..., 6:], searches[..., :-6], rtol=0, atol=1e-3)


def test_both_frames_are_changed_alike() -> None:
    torch.manual_seed(0)
    picture, sizes = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), torch.tensor([[3.0, 5], [2, 7]])
    for _ in range(8):
        first, second, changed = alike(picture, picture, sizes)
        assert torch.equal(first, second)
        assert torch.equal(changed.sort(dim=1).values, sizes.sort(dim=1).values)


def test_gradients_reach_every_parameter(sequences: Parts) -> None:
    torch.manual_seed(0)
    model = Siamese()
    torch.nn.init.normal_(model.head[-1].weight)  # zeros at the start would let nothing through to the layers before
    first, second, anchors, sizes = Pairs(sequences[0][:2]).__getitems__(range(16))
    shifts = torch.zeros(16, 2)
    response, codes = model(*cut(first, second, shifts, torch.ones(16)))
    localization_loss(response, codes, shifts, anchors, sizes).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_objects_that_are_not_where_the_loss_says_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(response: torch.Tensor, codes: torch.Tensor, shifts: torch.Tensor, *sizes: torch.Tensor) -> torch.Tensor:
        return localization_loss(response, codes, shifts.roll(1, 0), *sizes)

    right = recipes.run(NAME, steps=150, claims=False, device="cpu")
    monkeypatch.setattr("recipes.vision.tracking.task.localization_loss", wrong)
    mixed_up = recipes.run(NAME, steps=150, claims=False, device="cpu")
    assert right.history[-1]["found"] > 0.6
    assert mixed_up.history[-1]["found"] < 0.45
    assert mixed_up.missed_bars()


def test_scores_are_those_of_their_definitions() -> None:
    true = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 8, 8]])
    found = torch.tensor([[9.0, 9, 10, 10], [0, 0, 8, 8], [0, 0, 8, 2]])  # the first is given, and left out
    one = FrameSequence("one", torch.zeros(3, 3, 9, 9, dtype=torch.uint8), true)
    assert scores([found], [one]) == {"mean_overlap": 0.625, "success_50": 0.5, "precision": 0.5}


def test_following_looks_at_the_first_box_alone_and_leaves_the_model(sequences: Parts) -> None:
    torch.manual_seed(0)
    model, one = Siamese(), sequences[1][0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = follow(model, one, CPU)
    blind = FrameSequence(one.name, one.files, one.boxes.clone())
    blind.boxes[1:] = 0
    assert torch.equal(follow(model, blind, CPU), found)
    assert torch.equal(found[0], one.boxes[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    elsewhere = FrameSequence(one.name, one.files, one.boxes + 9)
    assert not torch.equal(follow(model, elsewhere, CPU)[1:] - 9, found[1:])


def test_template_matching_finds_an_object_that_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    rng, lines = np.random.default_rng(0), []
    background, thing = rng.integers(0, 120, (60, 80, 3)), rng.integers(0, 255, (12, 10, 3))
    for i in range(6):
        picture, (left, top) = background.copy(), (10 + 6 * i, 30 - 4 * i)
        picture[top : top + 12, left : left + 10] = thing
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "img" / f"{i}.png")
        lines.append(f"{left + 1}\t{top + 1}\t10\t12\n")
    (tmp_path / TRUTH).write_text("".join(lines))
    (one,) = open_sequences(str(tmp_path))[1]
    assert torch.equal(match_pixels(one), one.boxes)
    assert overlaps([stay(one)], [one])[0].mean() < 0.2
    result = recipes.run(NAME, data=str(tmp_path), steps=4, out=str(tmp_path / "out"), device="cpu")
    assert len(result.claims) == 3
    (answer,) = recipes.trained(tmp_path / "out", device="cpu")([str(tmp_path)])
    torch.testing.assert_close(answer["boxes"], follow(result.model, one, CPU), rtol=0, atol=1e-4)


@pytest.mark.real
def test_basketball(real_data: Path) -> None:
    """Having learned from digits and cards alone, it follows a player better than template matching does."""
    result = recipes.run(NAME, data=str(real_data / "otb" / "Basketball"), device="cpu", claims=False)
    assert result["mean_overlap"] > result.baseline["mean_overlap"] > 0.4


@pytest.mark.xdist_group(NAME)
def test_training_pays(proved_run: Callable[[str], Result]) -> None:
    follows = {row["follows"]: row["mean_overlap"] for row in proved_run(NAME).rows}
    assert follows["this recipe"] > follows["random weights"] + 0.1
    assert follows["this recipe"] > follows["random weights, undamped"] + 0.1
