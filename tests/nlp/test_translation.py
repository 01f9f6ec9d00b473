"""The translator: its masks, its positions, and beam search against trying all sentences."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.nlp import translation
from recipes.nlp.sentence_pairs import (
    END,
    START,
    EncodedPairs,
    Language,
    open_encoded_pairs,
    plain_scores,
    score,
    split_words,
    word_by_word,
)
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN
from recipes.nlp.translation import TranslationOptions, Translator, attention, beam_search, waves

CPU = torch.device("cpu")


def build(target_size: int = 11, positions: bool = True) -> Translator:
    torch.manual_seed(0)
    return Translator(12, target_size, width=16, layers=2, heads=2, positions=positions).eval()


def test_a_sentence_is_translated_alike_alone_and_padded() -> None:
    model = build()
    source, written = torch.tensor([[START, 5, 6, END]]), torch.tensor([[START, 7, 8]])
    longer, more = torch.tensor([[START, 9, 8, 7, 6, 5, END]]), torch.tensor([[START, 4, 4, 4, 4]])
    together = model(
        torch.cat([torch.nn.functional.pad(source, (0, 3)), longer]),
        torch.cat([torch.nn.functional.pad(written, (0, 2)), more]),
    )
    torch.testing.assert_close(together[:1, :3], model(source, written), rtol=0, atol=1e-5)
    torch.testing.assert_close(together[1:], model(longer, more), rtol=0, atol=1e-5)
    beams = [beam_search(model, torch.nn.functional.pad(source, (0, pad)), 1)[0][0, :7] for pad in (0, 3)]
    assert torch.equal(*beams)


def test_nothing_comes_from_later_words() -> None:
    model, source = build(), torch.tensor([[START, 5, 6, END]])
    first, second = (model(source, torch.tensor([[START, 7, 8, last]])) for last in (4, 9))
    torch.testing.assert_close(first[:, :3], second[:, :3], rtol=0, atol=1e-6)
    assert (first[:, 3] - second[:, 3]).abs().max() > 1e-3


def test_positions_tell_the_order_of_the_source() -> None:
    written = torch.tensor([[START, 7]])
    for positions in (True, False):
        model = build(positions=positions)
        answers = [model(torch.tensor([[START, *order, END]]), written) for order in ((5, 6), (6, 5))]
        assert torch.allclose(*answers, atol=1e-5) != positions


def test_waves_are_those_of_the_paper() -> None:
    table = waves(9, 8)
    for place, pair in itertools.product(range(9), range(4)):
        angle = place / 10_000 ** (2 * pair / 8)
        assert table[place, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
    model(torch.randint(1, 12, (4, 6)), torch.randint(1, 11, (4, 5))).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


class ByTable(Translator):
    """Knows the probabilities of the next word by heart: they depend on the last word alone."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__(5, len(table), width=4, layers=1, heads=1)
        self.table = table

    def encode(self, sources: torch.Tensor) -> torch.Tensor:
        return sources

    def decode(self, sources: torch.Tensor, written: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.table[written]


def test_a_wide_beam_finds_the_likeliest_of_all_sentences() -> None:
    source = torch.tensor([[START]])  # at most 11 words
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(7, 7, generator=generator) * 2
        table[:, END] += 2
        model = ByTable(table)
        chances = table.index_fill(1, torch.tensor([PAD, 1, START]), -torch.inf).log_softmax(dim=1)
        likeliest = max(
            sum(chances[one, other].item() for one, other in itertools.pairwise([START, *inner, END]))
            / (len(inner) + 1)
            for length in range(6)
            for inner in itertools.product((4, 5, 6), repeat=length)
        )
        found = [beam_search(model, source, beam)[1].item() for beam in (1, 60)]
        assert found[1] >= likeliest - 1e-5
        assert found[1] >= found[0] - 1e-6
        greedy, word = [], START
        while word != END and len(greedy) < 11:
            word = int(chances[word].argmax())
            greedy.append(word)
        assert beam_search(model, source, 1)[0][0, 1:].tolist() == greedy


def test_attention_is_shared_out_whole() -> None:
    written, shares = attention(build(), torch.tensor([START, 5, 6, 7, END]))
    assert shares.shape == (len(written), 5)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(written)))


def encode(pairs: list[tuple[str, str]]) -> EncodedPairs:
    languages = Language([one for one, _ in pairs], 1), Language([other for _, other in pairs], 1)
    sources, targets = ([languages[side].encode(pair[side], 60) for pair in pairs] for side in (0, 1))
    return EncodedPairs(sources, targets, languages, [other for _, other in pairs])


def test_translations_come_in_the_order_of_their_sources() -> None:
    dataset = encode([("a b c d e f", "u v w x y z"), ("a", "u"), ("c b a", "w v u"), ("f e", "z y")])
    torch.manual_seed(0)
    model = Translator(*map(len, dataset.languages), width=16, layers=2, heads=2).eval()
    together, mean = translation.translate(model, dataset, CPU, 2)
    alone = [beam_search(model, source[None], 2) for source in dataset.sources]
    assert together == [dataset.languages[1].decode(ids[0]) for ids, _ in alone]
    assert len(set(together)) > 1
    assert mean == pytest.approx(sum(means.item() for _, means in alone) / 4, abs=1e-5)


def test_word_by_word_pairs_what_stands_together() -> None:
    dataset = encode([("a b", "x y"), ("b c", "z y"), ("c a", "z x")])
    assert word_by_word(dataset, dataset) == ["x y", "y z", "z x"]


def test_the_baseline_is_the_better_of_two_plain_methods() -> None:
    dataset = encode([("a b c d e", "x y z u v"), ("c a", "z x")])
    assert plain_scores(dataset, dataset)["bleu"] == pytest.approx(100), "the nearest train sentence is the same one"
    assert score(word_by_word(dataset, dataset), dataset)["bleu"] < 100


def test_bleu_of_known_pairs() -> None:
    dataset = encode([("a", "The cat sat on the mat."), ("b", "It rains.")])
    assert score(["the cat sat on the mat .", "it rains ."], dataset) == {"bleu": pytest.approx(100), "exact_match": 1}
    shorter = score(["the cat sat on the mat", "it rains ."], dataset)  # nothing wrong, 9 words instead of 10
    assert shorter == {"bleu": pytest.approx(100 * math.exp(1 - 10 / 9)), "exact_match": 0.5}
    assert score(["dog", "dog"], dataset)["bleu"] == 0


def test_pairs_are_learned_and_shuffled_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 5, (600, 4), generator=generator).tolist()
    pairs = [(" ".join("abcde"[n] for n in row), " ".join("vwxyz"[n] for n in row[::-1])) for row in numbers]
    whole, bleu = encode(pairs), []
    for order in (torch.arange(500), torch.randperm(500, generator=generator)):
        taught = EncodedPairs(whole.sources[:500], [whole.targets[i] for i in order], whole.languages, [])
        held_out = EncodedPairs(whole.sources[500:], whole.targets[500:], whole.languages, whole.truths[500:])
        torch.manual_seed(0)
        model = Translator(*map(len, whole.languages), width=32, layers=1, heads=2)
        translation.train(model, taught, TranslationOptions(epochs=12, batch_size=25, lr=1e-2, device=CPU))
        translations, _ = translation.translate(model, held_out, CPU, 1)
        bleu.append(score(translations, held_out)["bleu"])
    assert bleu[0] > 80
    assert bleu[1] < 30


@pytest.mark.parametrize("options", [{"width": 20, "heads": 4}, {"beam": 0}, {"dropout": 1.0}])
def test_options_that_cannot_be(options: dict) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}: expected"):
        translation.run(device="cpu", **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_pairs_into_chinese(tmp_path: Path) -> None:
    names = {"cat": "猫", "dog": "狗", "bird": "鸟", "fish": "鱼"}
    things = {"eats": "吃", "sees": "看见", "likes": "喜欢"}
    rows = [f"the {a} {v} the {b}\t{names[a]}{things[v]}{names[b]}" for a in names for b in names for v in things]
    (tmp_path / "mine.tsv").write_text("\n".join(rows * 6) + "\n", "utf-8")
    data, out = str(tmp_path / "mine.tsv"), tmp_path / "out"
    result = translation.run(data=data, width=32, layers=1, epochs=8, batch_size=8, lr=1e-2, device="cpu", out=str(out))
    assert result.metrics["bleu"] > 60
    assert (out / "figure.png").stat().st_size > 10_000


@pytest.mark.xdist_group("nlp.translation")
def test_words_alone_do_not_make_a_translation(default_run: Callable[[str], Result]) -> None:
    assert default_run("nlp.translation").baseline["bleu"] < 20


def test_rare_words_fall_into_pieces() -> None:
    sentences = ["lower and lowest", "newer and newest , low and new"] * 5
    language = Language(sentences, 1, pieces=24)
    assert language.words == Language(sentences, 1, pieces=24).words
    assert len(language) <= 4 + 24
    for sentence in ("newest and lowest", "Lewd , wet rower"):  # none of the last three was in train
        ids = language.encode(sentence, 60)
        assert UNKNOWN not in ids
        assert language.decode(ids) == " ".join(split_words(sentence))
    assert language.encode("zebra low", 60)[:2].tolist() == [START, UNKNOWN]  # it has no z
    assert Language(sentences, 1).encode("newer lewd", 60)[2] == UNKNOWN


@pytest.mark.parametrize("pieces", [None, 30])
def test_a_trained_translator_is_used(tmp_path: Path, pieces: int | None) -> None:
    """A sentence is translated alike alone and beside longer ones, and as by the model in memory."""
    rows = [f"the {a} sees the {b}\tder {b} sieht den {a}" for a in "abcdefgh" for b in "ijklmnop"]
    (tmp_path / "mine.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    small: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "epochs": 2, "batch_size": 8, "pieces": pieces}
    data, out = str(tmp_path / "mine.tsv"), tmp_path / "out"
    result = translation.run(data=data, out=str(out), device="cpu", claims=False, **small)
    trained = recipes.trained(out, device="cpu")
    texts = ["the a sees the b", "the a sees the b sees the a sees the b sees the a", "zebra"]
    together = trained(texts)
    assert together == [answer for text in texts for answer in trained([text])]
    ids = trained.task.batch(texts)[0]
    written, _ = beam_search(result.model.eval(), ids, 4)
    languages = result.train_set.languages
    assert [one["translation"] for one in together] == [languages[1].decode(one) for one in written]


@pytest.mark.real
def test_real_pairs(real_data: Path) -> None:
    train_set, test_set = open_encoded_pairs(str(real_data / "multi30k"), limit=2000, min_freq=2)
    assert 0 < score(word_by_word(train_set, test_set), test_set)["bleu"] < 15
