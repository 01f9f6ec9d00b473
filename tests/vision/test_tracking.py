"""The tracker: its cross-correlation and crops held against plain loops, and controls that must fail."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import recipes
from recipes.core.result import Result
from recipes.datasets.sequences import TRUTH, FrameSequence, open_sequences
from recipes.vision import tracking
from recipes.vision.following import match_pixels, overlaps, stay
from recipes.vision.tracking import Pairs, SiamFC, balanced_loss, crop, cross_correlation, track

CPU = torch.device("cpu")
NAME = "vision.tracking"


@pytest.fixture(scope="module")
def sequences() -> tuple[list[FrameSequence], list[FrameSequence]]:
    return open_sequences()


def test_cross_correlation_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    exemplars, searches = torch.randn(3, 4, 2, 3), torch.randn(3, 4, 5, 7)
    found = cross_correlation(exemplars, searches)
    assert found.shape == (3, 4, 5)
    for y in range(4):
        for x in range(5):
            piece = searches[:, :, y : y + 2, x : x + 3]
            torch.testing.assert_close(found[:, y, x], (piece * exemplars).sum(dim=(1, 2, 3)))


def test_what_moves_by_a_cell_moves_the_response_by_a_cell() -> None:
    torch.manual_seed(0)
    model = SiamFC().eval()
    picture, exemplar = torch.randn(1, 3, 72, 72), torch.randn(1, 3, 32, 32)
    step = tracking.STRIDE
    here, moved = picture[..., :64, :64], picture[..., step : 64 + step, 2 * step : 64 + 2 * step]
    with torch.no_grad():
        first, second = model(exemplar, here), model(exemplar, moved)
    torch.testing.assert_close(first[:, 1:, 2:], second[:, :-1, :-2], rtol=1e-4, atol=1e-5)


def test_crop_is_a_piece_of_the_frame_grey_beyond_it() -> None:
    frame = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = frame.float() / 127.5 - 1
    torch.testing.assert_close(crop(frame, torch.tensor([12.0, 10]), 8, 8), pixels[:, 6:14, 8:16])
    means = pixels[:, 6:14, 8:16].view(3, 4, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(crop(frame, torch.tensor([12.0, 10]), 8, 4), means)
    corner = crop(frame, torch.tensor([0.0, 0]), 8, 8)
    torch.testing.assert_close(corner[:, 4:, 4:], pixels[:, :4, :4])
    assert corner[:, :4].abs().max() < 1e-5
    assert corner[:, :, :4].abs().max() < 1e-5


def test_loss_wants_the_centre() -> None:
    right = torch.full((1, 17, 17), -9.0)
    right[:, 6:11, 6:11] = 9
    assert balanced_loss(right, radius=5.7) < 0.01
    assert balanced_loss(-right) > 5
    assert balanced_loss(torch.zeros(1, 17, 17)).item() == pytest.approx(np.log(2))


def test_pairs_come_from_one_sequence(sequences: tuple[list[FrameSequence], list[FrameSequence]]) -> None:
    pairs = Pairs(sequences[0][:3])
    assert len(pairs) == 3 * 7 * 6
    assert (pairs.pairs // 7).diff(dim=1).abs().max() == 0
    assert (pairs.pairs.diff(dim=1) != 0).all()
    exemplars, searches = pairs.__getitems__([0, 50, 100])
    assert exemplars.shape == (3, 3, 32, 32)
    assert searches.shape == (3, 3, 64, 64)


def test_gradients_reach_every_parameter(sequences: tuple[list[FrameSequence], list[FrameSequence]]) -> None:
    torch.manual_seed(0)
    model = SiamFC()
    balanced_loss(model(*Pairs(sequences[0][:2]).__getitems__(range(16)))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tracking_looks_at_the_first_box_alone_and_leaves_the_model(
    sequences: tuple[list[FrameSequence], list[FrameSequence]],
) -> None:
    torch.manual_seed(0)
    model, one = SiamFC(), sequences[1][0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = track(model, one, CPU)
    blind = FrameSequence(one.name, one.files, one.boxes.clone())
    blind.boxes[1:] = 0
    assert torch.equal(track(model, blind, CPU), found)
    assert torch.equal(found[0], one.boxes[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    elsewhere = FrameSequence(one.name, one.files, one.boxes + 9)
    assert not torch.equal(track(model, elsewhere, CPU)[1:] - 9, found[1:])


def test_objects_that_are_not_at_the_centre_teach_nothing(
    sequences: tuple[list[FrameSequence], list[FrameSequence]],
) -> None:
    """The loss says yes where the object is not, so the response has no reason to peak on it."""
    pairs, unseen, shares = Pairs(sequences[0]), Pairs(sequences[1]), []
    right = pairs.searches
    wrong = torch.stack([one.roll((12 - 24 * (i % 2), 12 - 24 * (i // 2 % 2)), (1, 2)) for i, one in enumerate(right)])
    for searches in (right, wrong):
        pairs.searches = searches
        torch.manual_seed(1)
        model = SiamFC()
        settings = {"epochs": 1, "device": CPU, "precision": "auto", "channels_last": True}
        tracking.train(model, pairs, batch_size=32, lr=4e-3, seed=0, **settings)
        shares.append(tracking.peaks_on_object(model, unseen, CPU))
    assert shares[0] > 0.6
    assert shares[1] < 0.6 * shares[0]


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
    (one,) = open_sequences(tmp_path)[1]
    assert torch.equal(match_pixels(one), one.boxes)
    assert overlaps([stay(one)], [one])[0].mean() < 0.2
    result = recipes.run(NAME, data=str(tmp_path), epochs=1, batch_size=64)
    assert len(result.claims) == 3
    assert result.figure().axes


@pytest.mark.xdist_group(NAME)
def test_claims_hold(default_run: Callable[[str], Result]) -> None:
    assert [claim.text for claim in default_run(NAME).claims if not claim.holds] == []


@pytest.mark.real
def test_basketball(real_data: Path) -> None:
    """Taught by digits alone, it follows a player better than who stays where he was."""
    result = recipes.run(NAME, data=str(real_data / "otb" / "Basketball"), device="cpu")
    follows = {row["follows"]: row["mean_overlap"] for row in result.rows}
    assert follows["this recipe"] > follows["standing still"]
