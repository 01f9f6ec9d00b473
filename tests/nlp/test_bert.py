"""BERT: its tokenizer, its masking, its padding, and what learns nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.texts import Texts
from recipes.nlp import bert
from recipes.nlp.bert import MaskedLM, SubwordTexts, encode_texts, guess_words, mask_words, pretrain, train_subwords
from recipes.nlp.bert.capitals import UNTOLD, CasedTexts, Tagger, capitals_f1, find_capitals, teach_capitals
from recipes.nlp.bert.task import commonest_word, part_of

CPU = torch.device("cpu")
# Each noun has an adjective of its own, so a hidden word can be told from the other one.
PAIRS = {"sun": "hot", "ice": "cold", "night": "dark", "day": "bright", "road": "long", "nail": "short"}
TEXTS = [f"The {noun} is {adjective}, said {name}." for noun, adjective in PAIRS.items() for name in ("Ann", "Bob")]


def encoded(copies: int = 1) -> SubwordTexts:
    texts = TEXTS * copies
    subwords = train_subwords(TEXTS * 2, 300)
    return encode_texts(Texts(texts, torch.arange(len(texts)) % 2, ["a", "b"]), subwords, 64)


def build(dataset: SubwordTexts, width: int = 16) -> MaskedLM:
    torch.manual_seed(0)
    return MaskedLM(dataset.vocabulary, width=width, layers=2, heads=2, longest=64)


def test_subwords_are_learned_alike_every_time() -> None:
    first, second = (train_subwords(TEXTS * 2, 60) for _ in range(2))
    assert first.words == second.words
    assert first.words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(first.words) <= 60
    assert first.ordinary.tolist() == list(range(5, len(first.words)))


def test_subwords_cover_unseen_words_and_long_texts() -> None:
    subwords = train_subwords(TEXTS * 2, 300)
    names = [subwords.words[number] for number in subwords.encode("The Sunday §").tolist()]
    assert names[:3] == ["[CLS]", "the", "sun"]
    assert names[-2:] == ["[UNK]", "[SEP]"]
    assert all(name.startswith("##") for name in names[3:-2])
    cut = subwords.encode(" ".join(TEXTS), max_words=8)
    assert len(cut) == 8
    assert subwords.words[int(cut[-1])] == "[SEP]"
    assert subwords.tokenizer.decode(subwords.encode(TEXTS[0]), skip_special_tokens=True) == TEXTS[0].lower()


def test_masking_shares() -> None:
    dataset = encoded(copies=400)
    ids, _ = dataset.__getitems__(range(len(dataset)))
    torch.manual_seed(0)
    read, chosen = mask_words(ids, dataset.vocabulary, 0.15)
    ordinary = torch.isin(ids, dataset.vocabulary.ordinary)
    assert not (chosen & ~ordinary).any(), "beginnings, ends and padding are never chosen"
    assert torch.equal(read[~chosen], ids[~chosen])
    assert chosen[ordinary].double().mean().item() == pytest.approx(0.15, abs=0.01)
    hidden, same = read[chosen] == dataset.vocabulary.mask, read[chosen] == ids[chosen]
    by_chance = 0.1 / len(dataset.vocabulary.ordinary)  # another word may happen to be the same
    assert hidden.double().mean().item() == pytest.approx(0.8, abs=0.02)
    assert same.double().mean().item() == pytest.approx(0.1 + by_chance, abs=0.02)
    assert torch.isin(read[chosen & (read != dataset.vocabulary.mask)], dataset.vocabulary.ordinary).all()


def test_padding_changes_nothing() -> None:
    dataset = encoded()
    dataset.ids = [ids[: 4 + index] for index, ids in enumerate(dataset.ids[:5])]
    ids, _ = dataset.__getitems__(range(5))
    padded = F.pad(ids, (0, 20), value=dataset.vocabulary.pad)
    model = build(dataset).eval()
    tagger = Tagger(model.network.bert).eval()
    chosen = torch.zeros_like(padded, dtype=torch.bool)
    chosen[:, 2] = True
    logits, states = model(padded, chosen), tagger(padded)
    for row, alone in enumerate(dataset.ids):
        there = torch.arange(len(alone)) == 2
        torch.testing.assert_close(model(alone[None], there[None])[0], logits[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(tagger(alone[None])[0], states[row, : len(alone)], rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient_and_both_sides_matter() -> None:
    dataset = encoded()
    model = build(dataset)
    ids, _ = dataset.__getitems__(range(len(dataset)))
    torch.manual_seed(0)
    read, chosen = mask_words(ids, dataset.vocabulary, 0.5)
    F.cross_entropy(model(read, chosen), ids[chosen]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    hidden = torch.arange(ids.shape[1]) == 4
    model.eval()
    before = model(ids[:1], hidden[None])
    for place in (2, 6):
        changed = ids[:1].clone()
        changed[0, place] = dataset.vocabulary.mask
        assert not torch.allclose(model(changed, hidden[None]), before, atol=1e-4)


def test_guessing_equals_one_text_at_a_time() -> None:
    dataset = encoded()
    model = build(dataset).eval()
    ids, _ = dataset.__getitems__(range(len(dataset)))
    hidden = (torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.15) & torch.isin(
        ids, dataset.vocabulary.ordinary
    )
    hits, losses = [], []
    for row in range(len(dataset)):
        for place in hidden[row].nonzero().flatten().tolist():
            read = ids[row].masked_fill(hidden[row], dataset.vocabulary.mask)[None]
            logits = model(read, (torch.arange(ids.shape[1]) == place)[None])
            hits.append(float(logits.argmax() == ids[row, place]))
            losses.append(F.cross_entropy(logits, ids[row, place, None]).item())
    measured = guess_words(model, dataset, CPU)
    assert measured["accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert measured["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_texts_are_learned_and_shuffled_words_are_not() -> None:
    dataset = encoded(copies=20)
    generator = torch.Generator().manual_seed(0)
    words = torch.cat([ids[1:-1] for ids in dataset.ids])
    words = words[torch.randperm(len(words), generator=generator)]
    mixed, taken = part_of(dataset, torch.arange(len(dataset))), 0
    for index, ids in enumerate(dataset.ids):
        inside = words[taken : taken + len(ids) - 2]
        mixed.ids[index] = torch.cat([ids[:1], inside, ids[-1:]])
        taken += len(inside)
    accuracy = {}
    for name, train_set in {"true": dataset, "shuffled": mixed}.items():
        model = build(dataset, width=32)
        pretrain(model, train_set, dataset, share=0.3, epochs=12, batch_size=16, lr=5e-3, device=CPU)
        accuracy[name] = guess_words(model, dataset, CPU)["accuracy"]
    assert accuracy["true"] > 0.7
    assert accuracy["shuffled"] < commonest_word(dataset, dataset)["accuracy"] + 0.1


def test_capitals_stand_where_they_were_written() -> None:
    dataset = find_capitals(encoded())
    names = [dataset.vocabulary.words[number] for number in dataset.ids[0].tolist()]
    told = dict(zip(names, dataset.capitals[0].tolist(), strict=True))
    assert told["the"] == told["ann"] == 1
    assert told["sun"] == told["is"] == told["."] == 0
    assert told["[CLS]"] == told["[SEP]"] == UNTOLD
    cut = find_capitals(encode_texts(Texts([TEXTS[0]], torch.zeros(1).long(), ["a", "b"]), dataset.vocabulary, 5))
    assert len(cut.capitals[0]) == len(cut.ids[0]) == 5


def test_capitals_are_learned_and_shuffled_ones_are_not() -> None:
    dataset = find_capitals(encoded())
    generator = torch.Generator().manual_seed(0)
    shuffled = []
    for capitals in dataset.capitals:
        inside = capitals[1:-1]
        inside = inside[torch.randperm(len(inside), generator=generator)]
        shuffled.append(torch.cat([capitals[:1], inside, capitals[-1:]]))
    f1 = {}
    for name, told in {"true": dataset.capitals, "shuffled": shuffled}.items():
        taught = CasedTexts(dataset.texts, dataset.ids, dataset.labels, dataset.classes, dataset.vocabulary, told)
        tagger = teach_capitals(build(dataset).network.bert, taught, epochs=40, device=CPU)
        f1[name] = capitals_f1(tagger, dataset, CPU)
    assert f1["true"] > 0.9
    assert f1["shuffled"] < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20, "heads": 3}, "options width and heads"),
        ({"width": 9, "heads": 3}, "options width and heads"),
        ({"share": 1.0}, "options share and labelled"),
        ({"labelled": 0}, "option labelled"),
        ({"max_pieces": 2}, "option max_pieces"),
        ({"pieces": 0}, "option pieces"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bert.run(device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_without_capitals_in_half_precision(tmp_path: Path) -> None:
    rows = [f"{'好' if index % 2 else '坏'}，这家店第{index}次去了。\t{index % 2}" for index in range(60)]
    (tmp_path / "mine.tsv").write_text("\n".join(rows), "utf-8")
    out = tmp_path / "out"
    result = bert.run(data=str(tmp_path / "mine.tsv"), width=32, epochs=2, device="cpu", precision="bf16", out=str(out))
    assert result.rows == result.claims == []
    assert (out / "figure.png").stat().st_size > 10_000
    assert (out / "model.safetensors").stat().st_size > 10_000


@pytest.mark.xdist_group("nlp.bert")
def test_the_start_matters(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.bert")
    assert all(claim.holds for claim in result.claims)
    assert result.metrics["accuracy"] > 4 * result.baseline["accuracy"]
