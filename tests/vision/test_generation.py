"""Pictures as words, what counts and networks make of them, and drawings."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.datasets.images import Images, open_images
from recipes.using import trained
from recipes.vision import generation
from recipes.vision.generation import Drawings, GenerationOptions, build, evaluate, nearest, run, train, whole
from recipes.vision.pixel_counts import contexts, counted

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sets() -> tuple[Drawings, Drawings]:
    train_set, test_set = (Drawings(part, 16) for part in open_images())
    return train_set, test_set


def few(count: int = 40, side: int = 4) -> Images:
    """Pictures of two classes: a row that is white, the first or the last."""
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, 0] = 255
    images[labels == 1, :, -1] = 255
    return Images(images, labels, ["top", "bottom"])


def test_a_picture_is_its_class_and_its_pixels(sets: tuple[Drawings, Drawings]) -> None:
    words, pixels = sets[0].__getitems__([3, 5])
    assert words.shape == pixels.shape == (2, 64)
    assert words[:, 0].tolist() == [16 + int(sets[0].labels[index]) for index in (3, 5)]
    assert torch.equal(words[:, 1:], pixels[:, :-1])
    stored = sets[0].dataset.pixels(torch.tensor([3, 5])).flatten(1).long()
    assert torch.equal(pixels, stored // 16)


def test_no_pixel_sees_itself_or_what_comes_later(sets: tuple[Drawings, Drawings]) -> None:
    torch.manual_seed(0)
    model = build(GenerationOptions(), sets[0]).eval()
    for block in model.blocks:  # which add nothing at first
        torch.nn.init.normal_(block.to_out.weight)
    words, _ = sets[0].__getitems__([0, 1])
    changed = words.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 16
    before, after = model(words), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_the_cache_gives_the_same_logits(sets: tuple[Drawings, Drawings]) -> None:
    torch.manual_seed(0)
    model = build(GenerationOptions(), sets[0]).eval()
    words, _ = sets[0].__getitems__([0, 1])
    cache: list[list[torch.Tensor]] = [[] for _ in model.blocks]
    steps = [model(words[:, : known + 1], cache)[:, -1] for known in range(words.shape[1])]
    torch.testing.assert_close(torch.stack(steps, dim=1), model(words), rtol=1e-4, atol=1e-5)


def test_bits_are_those_of_the_probabilities(sets: tuple[Drawings, Drawings]) -> None:
    model = build(GenerationOptions(), sets[1])
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    assert evaluate(model, sets[1], CPU)["bits_per_pixel"] == pytest.approx(4)  # 16 levels, all as likely


def test_what_follows_a_rule_is_learned_and_drawn(tmp_path: Path) -> None:
    pictures = few()
    options = {"width": 16, "layers": 1, "levels": 2, "epochs": 40, "batch_size": 8, "device": "cpu"}
    result = run(data=(pictures, pictures), out=str(tmp_path / "out"), claims=False, **options)
    assert result["bits_per_pixel"] < 0.05
    top, bottom = result.model.draw(torch.tensor([0, 1]), seed=3)
    assert top.tolist() == [[1] * 4] + [[0] * 4] * 3
    assert bottom.tolist() == [[0] * 4] * 3 + [[1] * 4]
    again = trained(tmp_path / "out", device="cpu")
    assert [one["levels"] for one in again(["bottom", "top"])] == [bottom.tolist(), top.tolist()]
    with pytest.raises(InputError, match="'left': expected a class, one of top, bottom"):
        again(["left"])


def test_shuffled_classes_are_no_help() -> None:
    pictures = few(200)
    wrong = Images(pictures.images, pictures.labels[torch.randperm(200, generator=torch.Generator().manual_seed(0))],
                   pictures.classes)  # fmt: skip
    options = GenerationOptions(width=16, layers=1, levels=2, epochs=15, batch_size=8)
    options.device = CPU
    torch.manual_seed(0)
    shuffled, truths = Drawings(wrong, 2), Drawings(pictures, 2)
    model = build(options, shuffled)
    train(model, shuffled, truths, options)
    assert evaluate(model, truths, CPU)["bits_per_pixel"] > 0.8 / 16  # the first pixel, a bit, stays a guess


def test_counts_weigh_what_shorter_chains_say(sets: tuple[Drawings, Drawings]) -> None:
    known, levels = contexts(sets[0])
    assert {len(one) for one in known.values()} == {len(levels)} == {64 * len(sets[0])}
    assert counted(sets[0], sets[1], [], 1) == pytest.approx(4)
    alone = counted(sets[0], sets[1], ["row", "column"], 1e-9)
    train_pixels, test_pixels = (part.pixels(torch.arange(len(part))) for part in sets)
    shares = F.one_hot(train_pixels, 16).double().mean(dim=0)  # (64, 16), by hand
    chances = shares[torch.arange(64), test_pixels]
    seen = chances > 0
    by_hand = -chances[seen].log2().sum()
    assert alone * test_pixels.numel() >= by_hand.item() - 1e-3
    assert math.isfinite(counted(sets[0], sets[1], ["row", "column", "class", "up", "left"], 15))


def test_the_nearest_picture_is_found(sets: tuple[Drawings, Drawings]) -> None:
    pixels = whole(sets[0])[7:8]
    result = type("Result", (), {"train_set": sets[0]})()
    found, off = nearest(result, pixels)
    assert torch.equal(found, pixels)
    assert off.item() == 0


def test_pictures_of_too_many_pixels_are_one_line() -> None:
    with pytest.raises(InputError, match="option image_size: expected pictures of at most 1024 pixels, got 40×40"):
        run(data=(few(side=40), few(side=40)), claims=False)
    with pytest.raises(InputError, match="option width: expected a multiple of 2 heads, got 7"):
        run(width=7, claims=False)
    assert generation.MOST_PIXELS == 1024
