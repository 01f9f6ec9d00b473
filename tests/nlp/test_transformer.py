"""The sample that is mended step by step: what each step hides or shows, and that the honest loss cannot be fooled."""

from typing import Literal

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.nlp.sentence_pairs import END, START, EncodedPairs, Language
from recipes.nlp.transformer import STEPS, Transformer, TransformerOptions, build, loss_as_told, losses, write

Step = Literal["nothing", "shift", "mask", "positions", "padding"]
SOURCE, WRITTEN = torch.tensor([[START, 5, 6, END]]), torch.tensor([[START, 7, 8, 9]])


def made(step: Step) -> tuple[Transformer, TransformerOptions]:
    torch.manual_seed(0)
    options = TransformerOptions(mended=step, width=16, heads=2, device="cpu")
    return Transformer(12, 12, options).eval(), options


def pairs() -> EncodedPairs:
    words = ["abcdefgh"[one] for one in range(8)]
    language = Language([" ".join(words)], 1)
    sentences = [" ".join(words[start : start + 3 + start % 2]) for start in range(5)]
    ids = [language.encode(one, 10) for one in sentences]
    return EncodedPairs(ids, ids, (language, language), sentences)


@pytest.mark.parametrize("step", STEPS)
def test_the_mask_hides_what_comes_later(step: Step) -> None:
    model, _ = made(step)
    changed = WRITTEN.clone()
    changed[0, 3] = 4
    same = torch.allclose(model(SOURCE, WRITTEN)[:, :3], model(SOURCE, changed)[:, :3], atol=1e-5)
    assert same == (step in ("mask", "positions", "padding"))


@pytest.mark.parametrize("step", STEPS)
def test_positions_tell_the_order(step: Step) -> None:
    model, _ = made(step)
    turned = torch.tensor([[START, 6, 5, END]])
    same = torch.allclose(model(SOURCE, WRITTEN), model(turned, WRITTEN), atol=1e-5)
    assert same == (step in ("nothing", "shift", "mask"))


@pytest.mark.parametrize("step", STEPS)
def test_padding_is_read_until_it_is_masked(step: Step) -> None:
    model, _ = made(step)
    same = torch.allclose(model(SOURCE, WRITTEN), model(F.pad(SOURCE, (0, 3)), WRITTEN), atol=1e-5)
    assert same == (step == "padding")


def test_the_honest_loss_is_the_told_one_where_nothing_leaks() -> None:
    """A causal model's loss on all positions at once equals that of one prefix after the other."""
    model, options = made("padding")
    measured = losses(model, pairs(), options)
    words = sum(len(ids) - 1 for ids in pairs().targets)
    alone = 0.0
    for source, target in zip(pairs().sources, pairs().targets, strict=True):
        alone += (len(target) - 1) * loss_as_told(model, source[None], target[None], options).item()
    assert measured["loss"] == pytest.approx(alone / words, rel=1e-5)


def test_a_network_that_repeats_its_input_is_found_out() -> None:
    """Told that target is input, it is sure of each word that it is given, and knows none that it is not."""
    _, options = made("nothing")

    def repeats(sources: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return 30.0 * F.one_hot(given, 12).float()

    model = torch.nn.Module()
    model.forward = repeats  # type: ignore[assignment]
    measured = losses(model, pairs(), options)  # type: ignore[arg-type]
    assert measured["loss_as_told"] < 1e-6
    assert measured["loss"] > 20


def test_it_writes_up_to_the_end() -> None:
    model, _ = made("padding")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(F.one_hot(torch.tensor(END), 12).float())
    assert write(model, SOURCE)[0, :3].tolist() == [START, END, 0]


def test_width_is_a_multiple_of_the_heads() -> None:
    with pytest.raises(InputError, match="option width: expected an even multiple of 4 heads, got 20"):
        build(TransformerOptions(width=20), pairs())
