"""BERT: its tokenizer, its masking, its padding, and what learns nothing."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM

import recipes
from recipes.core.errors import InputError
from recipes.datasets.texts import Texts
from recipes.nlp import bert
from recipes.nlp.bert import BertOptions, MaskedLM, SubwordTexts, encode_texts, guess_words, mask_words, train
from recipes.nlp.bert.capitals import (
    TRAINING,
    UNLABELED,
    CasedTexts,
    Tagger,
    capitals_f1,
    find_capitals,
    teach_capitals,
)
from recipes.nlp.bert.encoder import Start, begin, small_bert
from recipes.nlp.bert.subwords import train_subwords
from recipes.nlp.bert.task import build as network
from recipes.nlp.bert.task import hidden_words, neighbor_table
from tests.nlp.bert.others import KINDS, write_model

CPU = torch.device("cpu")
# Each noun has an adjective of its own, so a hidden word can be told from the other one.
PAIRS = {"sun": "hot", "ice": "cold", "night": "dark", "day": "bright", "road": "long", "nail": "short"}
TEXTS = [f"The {noun} is {adjective}, said {name}." for noun, adjective in PAIRS.items() for name in ("Ann", "Bob")]


def encoded(copies: int = 1, width: int = 16) -> SubwordTexts:
    texts = TEXTS * copies
    subwords = train_subwords(TEXTS * 2, 300)
    config = small_bert(len(subwords.words), subwords.pad, width=width, layers=2, heads=2, longest=64)
    return encode_texts(Texts(texts, torch.arange(len(texts)) % 2, ["a", "b"]), subwords, 64, config)


def build(dataset: SubwordTexts) -> MaskedLM:
    torch.manual_seed(0)
    model = network(BertOptions(), dataset)
    begin(model.network, Start(dataset.vocabulary, dataset.config, None))
    return model


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
    dataset = encoded(copies=20, width=32)
    generator = torch.Generator().manual_seed(0)
    words = torch.cat([ids[1:-1] for ids in dataset.ids])
    words = words[torch.randperm(len(words), generator=generator)]
    mixed, taken = dataset.subset(range(len(dataset))), 0
    for index, ids in enumerate(dataset.ids):
        inside = words[taken : taken + len(ids) - 2]
        mixed.ids[index] = torch.cat([ids[:1], inside, ids[-1:]])  # type: ignore[index]
        taken += len(inside)
    accuracy = {}
    for name, train_set in {"true": dataset, "shuffled": mixed}.items():
        model = build(dataset)
        train(model, train_set, dataset, BertOptions(epochs=12, batch_size=16, device=CPU))
        accuracy[name] = guess_words(model, dataset, CPU)["accuracy"]
    assert accuracy["true"] > 0.7
    assert accuracy["shuffled"] < 0.5


def test_the_table_knows_what_stands_between_two_neighbors() -> None:
    dataset = encoded(copies=20)
    found = neighbor_table(dataset, dataset)["accuracy"]
    hits = count = 0
    for start in range(0, len(dataset), 100):
        ids, hidden = hidden_words(dataset, start)
        count += int(hidden.sum())
        hits += int((ids[hidden] == ids[hidden].mode().values).sum())
    assert 1 > found > hits / count + 0.2, (
        "better than the commonest word, and not perfect: nouns depend on what follows"
    )
    unknown = encode_texts(Texts(["zebra quartz"], torch.zeros(1).long(), ["a", "b"]), dataset.vocabulary, 64)
    assert 0 <= neighbor_table(dataset, unknown)["accuracy"] <= 1, "neighbors that were never seen"


def test_capitals_stand_where_they_were_written() -> None:
    dataset = find_capitals(encoded())
    names = [dataset.vocabulary.words[number] for number in dataset.ids[0].tolist()]
    told = dict(zip(names, dataset.capitals[0].tolist(), strict=True))
    assert told["the"] == told["ann"] == 1
    assert told["sun"] == told["is"] == told["."] == 0
    assert told["[CLS]"] == told["[SEP]"] == UNLABELED
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
        options = BertOptions(**TRAINING | {"device": CPU})  # type: ignore[arg-type]
        tagger = teach_capitals(build(dataset).network.bert, taught, options)
        f1[name] = capitals_f1(tagger, dataset, CPU)
    assert f1["true"] > 0.9
    assert f1["shuffled"] < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20, "heads": 3}, "options width and heads"),
        ({"width": 9, "heads": 3}, "options width and heads"),
        ({"share": 1.0}, "option share"),
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
    assert result.rows == []
    assert len(result.claims) == 1
    assert (out / "figure.png").stat().st_size > 10_000
    answer = recipes.trained(out, device="cpu")(["好，这家___第1次去了。"])[0]
    assert len(answer["gaps"]) == 1


def test_gaps_are_filled_without_the_training_data(tmp_path: Path) -> None:
    options = {"width": 16, "steps": 5, "device": "cpu", "claims": False}
    result = bert.run(out=str(tmp_path / "out"), **options)  # type: ignore[arg-type]
    trained = recipes.trained(tmp_path / "out", device="cpu")
    text = "The ___ was cold, and the [MASK] was warm."
    gaps = trained([text])[0]["gaps"]
    subwords = result.train_set.vocabulary
    ids = subwords.encode(text.replace("___", "[MASK]"))[None]
    with torch.inference_mode():
        shares = result.model.eval()(ids, ids == subwords.mask).softmax(dim=1)
    assert len(gaps) == len(shares) == 2
    for gap, share in zip(gaps, shares, strict=True):
        assert [one["probability"] for one in gap] == pytest.approx(share.topk(5).values.tolist(), rel=1e-4)
        assert gap[0]["word"] == subwords.words[int(share.argmax())]
    with pytest.raises(InputError, match="expected a gap to fill"):
        trained(["No gap here."])


@pytest.mark.parametrize("kind", KINDS)
def test_pretraining_goes_on_from_models_of_others(kind: str, tmp_path: Path) -> None:
    subwords = train_subwords(TEXTS * 2, 300)
    theirs = write_model(AutoModelForMaskedLM, kind, subwords, tmp_path / "theirs")
    lines = ["text\tlabel", *(f"{text}\t{index % 2}" for index, text in enumerate(TEXTS * 3))]
    (tmp_path / "mine.tsv").write_text("\n".join(lines))
    options = {"data": str(tmp_path / "mine.tsv"), "weights": str(tmp_path / "theirs"), "max_pieces": 32}
    result = bert.run(**options, epochs=1, lr=1e-9, device="cpu", claims=False, out=str(tmp_path / "out"))  # type: ignore[arg-type]
    ids, _ = result.test_set.__getitems__(range(3))
    with torch.inference_mode():
        mask = (ids != subwords.pad).long()
        expected = theirs.eval()(ids, attention_mask=mask).logits[mask.bool()]
        torch.testing.assert_close(result.model.eval()(ids, mask.bool()), expected, rtol=0, atol=1e-4)
    assert len(recipes.trained(tmp_path / "out", device="cpu")(["The sun is ___."])[0]["gaps"]) == 1
