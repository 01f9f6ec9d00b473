"""What speaks for a class, in a model whose weights are known."""

import torch

from recipes.nlp.text_classification.drawing import phrase_evidence, word_evidence
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary, phrases
from recipes.nlp.text_classification.task import MeanOfWords

CPU = torch.device("cpu")


def tiny(texts: list[str]) -> EncodedTexts:
    vocabulary = Vocabulary(texts, min_freq=1)
    ids = [vocabulary.encode(text) for text in texts]
    return EncodedTexts(texts, ids, torch.arange(len(texts)) % 2, ["bad", "good"], vocabulary)


def test_evidence_names_the_words_that_matter() -> None:
    dataset = tiny(["a fine film", "a poor film"])
    model = MeanOfWords(len(dataset.vocabulary), 2, embedding_size=1).eval()
    with torch.no_grad():
        model.embedding.weight.zero_()
        for word, value in (("fine", 3.0), ("poor", -3.0)):
            model.embedding.weight[dataset.vocabulary.number[word]] = value
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.head.bias.zero_()
    assert word_evidence(model, dataset, 1, CPU).tolist() == [0, -1, 0]
    names, evidence = phrase_evidence(model, dataset, CPU, length=1)
    assert dict(zip(names, evidence.tolist(), strict=True)) == {"a": 0, "film": 0, "fine": 3, "poor": -3}
    assert sorted(phrases(dataset, 2).texts) == ["a fine", "a poor", "fine film", "poor film"]
    assert phrase_evidence(model, dataset, CPU, length=4)[0] == []
