"""Named entities: how they are counted, how words become pieces and tags again, and what learns nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.tagged_words import TaggedWords, spans_of
from recipes.nlp.bert import named_entities, open_encoder
from recipes.nlp.bert.encoder import states_of
from recipes.nlp.bert.named_entities import WordTagger, evaluate, sequence_loss, train
from recipes.nlp.bert.tagging import (
    NO_TAG,
    TaggedPieces,
    encode_tags,
    entity_scores,
    legal_steps,
    likeliest_sequence,
    long_entities,
    looked_up,
    new_entities,
)

CPU = torch.device("cpu")
TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
NAMES = ["Harwick", "Benton Bay", "Calford", "Dorley"]
# The same names are people before "said" and places after "in".
ROWS = [([*name.split(), "said", "no"], "PER", 0) for name in NAMES]
ROWS += [(["It", "rained", "in", *name.split()], "LOC", 3) for name in NAMES]


def sentences() -> TaggedWords:
    words, tags = [], []
    for row, kind, start in ROWS * 4:
        length = len(row) - (2 if kind == "PER" else 3)
        words.append(row)
        tags.append(["O"] * len(row))
        tags[-1][start : start + length] = [f"B-{kind}", f"I-{kind}"][:length]
    return TaggedWords(words, tags, ["LOC", "PER"])


def build(part: TaggedWords) -> tuple[WordTagger, TaggedPieces]:
    torch.manual_seed(0)
    encoder, subwords = open_encoder(None, [" ".join(words) for words in part.words], width=16, heads=2, longest=32)
    dataset = encode_tags(part, subwords, 32)
    return WordTagger(encoder, subwords, len(dataset.names)), dataset


def test_entities_are_counted_as_seqeval_does() -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (
        [[TAGS[one] for one in row] for row in torch.randint(0, 5, (60, 9), generator=generator).tolist()]
        for _ in range(2)
    )
    mine = entity_scores(predicted, truth)
    assert mine["f1"] == pytest.approx(metrics.f1_score(truth, predicted))
    assert mine["precision"] == pytest.approx(metrics.precision_score(truth, predicted))
    assert mine["recall"] == pytest.approx(metrics.recall_score(truth, predicted))
    assert entity_scores(truth, truth)["f1"] == 1


def test_words_become_pieces_and_tags_again() -> None:
    part = sentences()
    _, dataset = build(part)
    perfect = [F.one_hot(tags.clamp(min=0), len(dataset.names)).float() for tags in dataset.tags]
    assert dataset.tagged(perfect) == part.tags
    for ids, owners, tags, words in zip(dataset.ids, dataset.owners, dataset.tags, part.words, strict=True):
        assert owners[owners >= 0].tolist() == list(range(len(words))), "each word has one first piece"
        assert ((tags == NO_TAG) == (owners < 0)).all()
        assert len(ids) >= len(words) + 2


def legal_sequences(length: int) -> list[tuple[int, ...]]:
    """All sequences of TAGS in which each I- goes on with an entity of its kind."""

    def goes_on(tag: str, before: str) -> bool:
        return tag[0] != "I" or (before != "O" and before[2:] == tag[2:])

    return [
        one
        for one in product(range(len(TAGS)), repeat=length)
        if all(goes_on(TAGS[tag], TAGS[before]) for before, tag in zip((0, *one), one, strict=False))
    ]


def test_the_loss_counts_every_legal_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, len(TAGS), generator=generator, requires_grad=True)
    # Between the words lie pieces without a tag, and the second sentence is shorter.
    tags = torch.tensor([[NO_TAG, 1, NO_TAG, 2, 0, 3], [NO_TAG, 0, 3, NO_TAG, NO_TAG, NO_TAG]])
    slow = torch.tensor(0.0)
    for scores, row in zip(logits, tags, strict=True):
        own, true = scores[row >= 0], row[row >= 0]
        places = torch.arange(len(true))
        every = torch.stack([own[places, torch.tensor(one)].sum() for one in legal_sequences(len(true))])
        slow = slow + every.logsumexp(dim=0) - own[places, true].sum()
    loss = sequence_loss(logits, tags, legal_steps(TAGS))
    torch.testing.assert_close(loss, slow / 6)
    (fast_gradient,), (slow_gradient,) = (torch.autograd.grad(one, logits) for one in (loss, slow / 6))
    torch.testing.assert_close(fast_gradient, slow_gradient)
    padded = F.pad(logits, (0, 0, 0, 3)), F.pad(tags, (0, 3), value=NO_TAG)
    torch.testing.assert_close(sequence_loss(*padded, legal_steps(TAGS)), loss)


def test_where_all_may_follow_all_it_is_the_loss_of_each_word() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, len(TAGS), generator=generator)
    tags = torch.randint(0, len(TAGS), (4, 7), generator=generator)
    tags[1, 3:] = tags[2, ::2] = tags[3] = NO_TAG
    plain = F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG)
    torch.testing.assert_close(sequence_loss(logits, tags, torch.zeros(len(TAGS), len(TAGS))), plain)


def test_the_likeliest_sequence_is_the_best_of_all_legal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (0, 1, 4):
        for _ in range(20):
            scores = torch.randn(length, len(TAGS), generator=generator)
            best = max(legal_sequences(length), key=lambda one: sum(scores[row, tag] for row, tag in enumerate(one)))
            assert likeliest_sequence(scores, legal_steps(TAGS)) == list(best)


def test_a_word_without_pieces_leaves_the_others_legal() -> None:
    _, whole = build(sentences())
    part = TaggedWords([["\u200b", "Bay", "said"]], [["B-LOC", "I-LOC", "O"]], ["LOC", "PER"])
    encoded = encode_tags(part, whole.vocabulary, 32)
    assert [encoded.names[tag] for tag in encoded.tags[0].tolist() if tag >= 0] == ["B-LOC", "O"]


def test_without_neighbours_the_encoder_reads_as_it_is() -> None:
    model, dataset = build(sentences())
    plain = WordTagger(model.encoder, dataset.vocabulary, len(dataset.names), neighbours=False).eval()
    ids, _ = dataset.__getitems__([0, 5])
    torch.testing.assert_close(plain(ids), plain.head(states_of(model.encoder, ids, ids != model.pad)))


def test_words_cut_off_are_no_entities() -> None:
    part = sentences()
    _, whole = build(part)
    cut = encode_tags(part, whole.vocabulary, 4)
    perfect = [F.one_hot(tags.clamp(min=0), len(cut.names)).float() for tags in cut.tags]
    assert [len(tags) for tags in cut.tagged(perfect)] == [len(words) for words in part.words]
    assert cut.tagged(perfect)[4][-1] == "O"


def test_padding_changes_nothing_and_neighbours_matter() -> None:
    model, dataset = build(sentences())
    model.eval()
    ids, _ = dataset.__getitems__([0])
    padded = F.pad(ids, (0, 6), value=model.pad)
    torch.testing.assert_close(model(padded)[:, : ids.shape[1]], model(ids), rtol=0, atol=1e-5)
    changed = ids.clone()
    changed[0, -2] = model.mask
    assert not torch.allclose(model(changed)[0, 1], model(ids)[0, 1], atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model, dataset = build(sentences())
    ids, tags = dataset.__getitems__(range(len(dataset)))
    sequence_loss(model(ids), tags, legal_steps(dataset.names)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tags_are_learned_and_shuffled_ones_are_not() -> None:
    f1 = {}
    for name in ("true", "shuffled"):
        part = sentences()
        model, dataset = build(part)
        taught = dataset
        if name == "shuffled":
            generator = torch.Generator().manual_seed(0)
            mixed = [[tags[one] for one in torch.randperm(len(tags), generator=generator)] for tags in part.tags]
            taught = encode_tags(replace(part, tags=mixed), dataset.vocabulary, 32)
        train(model, taught, dataset, epochs=50, batch_size=8, lr=5e-3, device=CPU)
        f1[name] = evaluate(model, dataset, CPU)["f1"]
    assert f1["true"] > 0.9
    assert f1["shuffled"] < 0.6


def test_words_looked_up() -> None:
    train_part = TaggedWords([["In", "Rome"], ["in", "Rome"]], [["O", "B-LOC"], ["O", "B-LOC"]], ["LOC"])
    test_part = TaggedWords([["Rome", "met", "Ann"], ["Bob", "in", "Rome"]], [["O"] * 3, ["O"] * 3], ["LOC"])
    assert looked_up(train_part, test_part, capitals=False) == [["B-LOC", "O", "O"], ["O", "O", "B-LOC"]]
    guessed = looked_up(train_part, test_part, capitals=True)
    assert [spans_of(tags) for tags in guessed] == [[(0, 1, "LOC"), (2, 3, "LOC")], [(2, 3, "LOC")]]


def test_new_entities_are_those_with_unseen_words() -> None:
    train_part = TaggedWords([["In", "Rome"]], [["O", "B-LOC"]], ["LOC"])
    part = TaggedWords([["Rome", "New", "Rome"]], [["B-LOC", "B-LOC", "I-LOC"]], ["LOC"])
    assert new_entities(train_part, part) == [["O", "B-LOC", "I-LOC"]]


def test_long_entities_are_those_of_two_words_or_more() -> None:
    part = TaggedWords([["Rome", "New", "York"]], [["B-LOC", "B-LOC", "I-LOC"]], ["LOC"])
    assert long_entities(part) == [["O", "B-LOC", "I-LOC"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_pieces": 2}, "option max_pieces"), ({"width": 9, "heads": 3}, "options width and heads")],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_entities.run(device="cpu", **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_characters_in_half_precision(tmp_path: Path) -> None:
    lines = ["张 B-NAME", "三 E-NAME", "在 O", "京 S-LOC", ""]
    (tmp_path / "mine.bmes").write_text("\n".join(lines * 20), "utf-8")
    out = tmp_path / "out"
    result = named_entities.run(
        data=str(tmp_path / "mine.bmes"), width=16, epochs=3, device="cpu", precision="bf16", out=str(out)
    )
    assert 0 <= result.metrics["f1"] <= 1
    assert (out / "figure.png").stat().st_size > 10_000
    assert (out / "model.safetensors").exists()


@pytest.mark.xdist_group("nlp.bert.named_entities")
def test_claims(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.bert.named_entities")
    assert all(claim.holds for claim in result.claims)
    assert result.metrics["f1"] > 2 * result.baseline["f1"]


@pytest.mark.real
def test_real_characters(real_data: Path, tmp_path: Path) -> None:
    for part in ("train", "dev"):
        (tmp_path / f"{part}.bmes").symlink_to(real_data / "resume_ner_zh" / f"{part}.char.bmes")
    result = named_entities.run(data=str(tmp_path), pieces=3000, epochs=2, device="cpu")
    assert result.metrics["f1"] > 0.85
    assert result.metrics["f1"] > result.rows[-2]["f1"] + 0.05, "long names do not fall into parts"
    assert result.baseline["f1"] < 0.5
