"""Copying against a slow plain version, padding, the score, the bundled articles, and the controls."""

import gzip
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.bundled import bundled
from recipes.datasets.parallel import Pairs, open_pairs
from recipes.nlp import summarization
from recipes.nlp.articles import (
    EncodedArticles,
    best_plain,
    best_sentences,
    encode_articles,
    first_sentences,
    new_words_found,
    rouge,
)
from recipes.nlp.sentence_pairs import END, START, Language
from recipes.nlp.summarization import SummarizationOptions, Summarizer, greedy, mixture, pointing, summarize
from recipes.nlp.text_classification.encoding import PAD, UNKNOWN

CPU = torch.device("cpu")
MAKER = Path(__file__).parents[2] / "data" / "make_articles.py"
SIZE = 12
ARTICLE = torch.tensor([[5, SIZE, 6, SIZE + 1, 5]])  # two words that the vocabulary lacks


def build(**parts: bool) -> Summarizer:
    torch.manual_seed(0)
    return Summarizer(SIZE, width=16, layers=2, heads=2, **parts).eval()


def test_the_mixture_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    sources = torch.tensor([[4, 7, 4, 9, PAD], [8, 8, 10, 5, 4]])  # 8 words are known
    generated, gate = torch.rand(2, 3, 8).softmax(dim=2), torch.rand(2, 3, 1)
    shares = torch.rand(2, 3, 5).masked_fill((sources == PAD)[:, None], -torch.inf).softmax(dim=2)
    mixed = mixture(gate * generated, (1 - gate) * shares, sources)
    assert mixed.shape == (2, 3, 11)
    torch.testing.assert_close(mixed.sum(dim=2), torch.ones(2, 3))
    for text in range(2):
        for place in range(3):
            open_share = gate[text, place, 0].item()
            for word in range(11):
                expected = open_share * generated[text, place, word].item() if word < 8 else 0.0
                for where in range(5):
                    if sources[text, where] == word:
                        expected += (1 - open_share) * shares[text, place, where].item()
                assert mixed[text, place, word].item() == pytest.approx(expected, abs=1e-6)


def test_a_model_gives_probabilities() -> None:
    written = torch.tensor([[START, 7, SIZE + 1]])
    chances, copied = build()(ARTICLE, written)
    assert chances.shape == (1, 3, SIZE + 2)
    torch.testing.assert_close(chances.sum(dim=2), torch.ones(1, 3))
    assert (chances[:, :, SIZE:] > 0).all(), "words that no vocabulary has can be written"
    assert ((copied.sum(dim=2) > 0) & (copied.sum(dim=2) < 1)).all()


def test_with_copying_shut_off_only_the_vocabulary_is_left() -> None:
    model, plain = build(), build(copying=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.nn.init.constant_(model.gate.bias, 100)
    written = torch.tensor([[START, 7, 8]])
    chances, none = plain(ARTICLE, written)
    torch.testing.assert_close(chances, model(ARTICLE, written)[0], rtol=0, atol=1e-6)
    assert none.sum() == 0


def test_an_article_reads_alike_alone_and_padded() -> None:
    model = build()
    written, more = torch.tensor([[START, 7, SIZE]]), torch.tensor([[START, 4, 4, 4, 4]])
    longer = torch.tensor([[9, 8, 7, SIZE, 6, 5, 5, 5]])
    sources = torch.cat([F.pad(ARTICLE, (0, 3)), longer])
    together, _ = model(sources, torch.cat([F.pad(written, (0, 2)), more]))
    torch.testing.assert_close(together[:1, :3], model(ARTICLE, written)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together[1:, :, : SIZE + 1], model(longer, more)[0], rtol=0, atol=1e-5)
    alone, padded = greedy(model, ARTICLE, 9)[0], greedy(model, sources, 9)[0]
    assert torch.equal(padded[: len(alone)], alone)


def test_nothing_comes_from_later_words() -> None:
    first, second = (build()(ARTICLE, torch.tensor([[START, 7, 8, last]]))[0] for last in (4, 9))
    torch.testing.assert_close(first[:, :3], second[:, :3], rtol=0, atol=1e-6)
    assert (first[:, 3] - second[:, 3]).abs().max() > 1e-4


def test_only_neighbors_and_places_tell_unknown_words_apart() -> None:
    other = torch.tensor([[5, SIZE + 1, 6, SIZE, 5]])
    torch.testing.assert_close(build().encode(ARTICLE), build().encode(other))


@pytest.mark.parametrize("parts", [{}, {"copying": False}, {"neighbors": False}])
def test_every_parameter_gets_a_gradient(parts: dict[str, bool]) -> None:
    model = build(**parts)
    torch.manual_seed(1)
    chances, _ = model(torch.randint(1, 15, (4, 6)), torch.randint(1, 15, (4, 5)))
    chances[:, :, 7].log().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_words_that_the_vocabulary_lacks_are_numbered_within_their_article() -> None:
    language = Language(["the cat saw the dog"], 1)
    pairs = Pairs(["Zorro saw the Yeti, Zorro!"], ["the Yeti saw Zorro and Xena"], ("article", "summary"))
    dataset = encode_articles(pairs, language, max_words=50, max_summary=50)
    assert dataset.lacking == [["zorro", "yeti", ",", "!"]]
    size, number = len(language), language.number
    assert dataset.sources[0].tolist() == [size, number["saw"], number["the"], size + 1, size + 2, size, size + 3]
    written = [number["the"], size + 1, number["saw"], size, UNKNOWN, UNKNOWN]
    assert dataset.targets[0].tolist() == [START, *written, END]
    assert " ".join(dataset.words(0, dataset.targets[0])) == "the yeti saw zorro <unk> <unk>"


def test_rouge_of_known_pairs() -> None:
    assert rouge(["The cat sat."], ["the cat sat"]) == {"rouge_l": 1, "rouge_2": 1}
    assert rouge(["dog"], ["the cat sat"]) == {"rouge_l": 0, "rouge_2": 0}
    scores = rouge(["the cat sat on a mat"], ["the cat is on the mat"])  # the cat … on … mat; "the cat" alone is a pair
    assert scores == {"rouge_l": pytest.approx(4 / 6), "rouge_2": pytest.approx(1 / 5)}
    shorter = rouge(["the cat"], ["the cat sat down"])  # precision 1; recall 1/2 and 1/3
    assert shorter == {"rouge_l": pytest.approx(2 / 3), "rouge_2": pytest.approx(1 / 2)}
    assert rouge(["猫在睡觉"], ["猫在睡觉。"])["rouge_l"] == 1, "in any script"
    assert rouge(["the cat", "dog"], ["the cat", "cat"])["rouge_l"] == 0.5


def encode(pairs: list[tuple[str, str]], known: list[str], words: int = 50) -> EncodedArticles:
    part = Pairs([one for one, _ in pairs], [other for _, other in pairs], ("article", "summary"))
    return encode_articles(part, Language(known, 1), max_words=words, max_summary=words)


def test_baselines_and_new_words() -> None:
    pairs = [("It rained. Anna Zorn came! So what?", "Zorn came with Yell"), ("下雨了。他来了。", "他来了")]
    dataset = encode(pairs, ["it rained"])
    assert first_sentences(dataset) == ["It rained.", "下雨了。"]
    assert best_plain(dataset, dataset)["rouge_l"] == 1, "the nearest article is the same one"
    assert best_sentences(dataset) == ["Anna Zorn came!", "他来了。"]
    seen = encode([("Anna came", "with a 下雨 他来了")], ["a"])
    assert new_words_found(["zorn", ""], seen, dataset) == 0.5


def test_summaries_are_learned_and_shuffled_ones_are_not() -> None:
    """The name before "won" is asked for, of two that are new in every article."""
    names = [(f"n{number}", f"m{number}") for number in range(500)]
    pairs = [
        (f"{one} won and {other} lost" if number % 3 else f"{other} lost and {one} won", f"we hail {one}")
        for number, (one, other) in enumerate(names)
    ]
    known = ["won and lost we hail"]
    taught, held_out = encode(pairs[:400], known), encode(pairs[400:], known)
    summaries = [pairs[row][1] for row in torch.randperm(400, generator=torch.Generator().manual_seed(0)).tolist()]
    mixed_up = encode([(pair[0], other) for pair, other in zip(pairs, summaries, strict=False)], known)
    found = []
    for train_set in (taught, mixed_up):
        torch.manual_seed(0)
        model = Summarizer(len(held_out.language), width=32, layers=1, heads=2)
        options = SummarizationOptions(epochs=6, batch_size=20, device=CPU)
        summarization.train(model, train_set, options)
        found.append(new_words_found(summarize(model, held_out, CPU, 4), train_set, held_out))
        if train_set is taught:
            right, copied, others = pointing(model, held_out)
            assert right > 0.9
            assert copied > others
    assert found[0] > 0.9
    assert found[1] < 0.1


@pytest.mark.parametrize("options", [{"width": 20, "heads": 4}, {"max_summary": 0}, {"dropout": 1.0}])
def test_options_that_cannot_be(options: dict) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(options))}: expected"):
        summarization.run(device="cpu", **options)


def test_own_articles_in_half_precision(tmp_path: Path) -> None:
    rows = [f"Name{n} won. Name{n + 1} lost.\tname{n} beats name{n + 1}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["article\tsummary", *rows]) + "\n", "utf-8")
    result = summarization.run(
        data=str(tmp_path / "mine.tsv"), width=16, heads=2, epochs=1, batch_size=8, max_summary=5, min_freq=2,
        precision="bf16", device="cpu", out=str(tmp_path / "out"), claims=False,
    )  # fmt: skip
    assert 0 <= result.metrics["rouge_l"] <= 1
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


@pytest.mark.xdist_group("nlp.summarization")
def test_no_sentence_alone_is_a_summary(proved_run: Callable[[str], Result]) -> None:
    result = proved_run("nlp.summarization")
    (best,) = result.rows
    assert result.baseline["rouge_l"] <= best["rouge_l"] < 0.5


def test_a_trained_summarizer_is_used(tmp_path: Path) -> None:
    """A name that it never saw is numbered, copied and told, whatever it is batched with."""
    rows = [f"Name{n} won. Name{n + 1} lost.\tname{n} beats name{n + 1}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["article\tsummary", *rows]) + "\n", "utf-8")
    small = {"width": 16, "heads": 2, "epochs": 2, "batch_size": 8, "max_summary": 5, "min_freq": 2}
    result = summarization.run(data=str(tmp_path / "mine.tsv"), out=str(tmp_path / "out"), claims=False, **small)
    trained = recipes.trained(tmp_path / "out", device="cpu")
    together = trained(result.test_set.texts)
    alone = [answer for text in result.test_set.texts for answer in trained([text])]
    assert together == alone
    assert [answer["summary"] for answer in together] == summarize(result.model, result.test_set, CPU, 5)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_articles", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bundled_texts_are_made_again(maker: ModuleType, tmp_path: Path) -> None:
    maker.write(tmp_path)
    for part in ("train", "test"):
        made, kept = (folder / f"{part}.tsv.gz" for folder in (tmp_path, bundled("articles")))
        assert gzip.decompress(made.read_bytes()) == gzip.decompress(kept.read_bytes())


def test_new_in_the_test_part_are_names_numbers_and_sentences(maker: ModuleType) -> None:
    train_part, test_part = open_pairs(bundled("articles"))
    assert (len(train_part), len(test_part), train_part.languages) == (900, 150, ("article", "summary"))
    known = set(re.findall(r"\w+", " ".join(train_part.sources + train_part.targets).lower()))
    for article, summary in zip(test_part.sources, test_part.targets, strict=True):
        for word in re.findall(r"\w+", article):
            assert word.lower() in known or word[0].isupper() or word.isdigit()
        for word in re.findall(r"(?<!^)\b[A-Z0-9]\w*", summary):
            assert word in article, "names and numbers can be copied"
            assert not (word.isdigit() and word in known)
    frames = [set(re.findall(r"[^.]+", re.sub(r"\b[A-Z0-9]\w*", "", " ".join(part.sources)))) for part in
              (train_part, test_part)]  # fmt: skip
    assert not {frame for frame in frames[0] & frames[1] if len(frame.split()) > 3}
