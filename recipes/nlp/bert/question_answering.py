"""Question answering: where in the paragraph does the answer begin, and where does it end?

Question and paragraph are read together, so that through attention every word of the paragraph learns what is asked.
A linear layer gives each piece two logits, that the answer begins and that it ends there, and the span with the
highest sum is the answer. Training is two classifications, whose classes are the pieces of the paragraph.

In each paragraph here two persons, years, numbers or towns could be the answer: who founded the mill is not who runs
it. And often the question has other words: "Who founded the mill?" where it "was started by Lauro Calton". A vector
added to those words of the paragraph that the question has, too, spares attention the search for them (Chen, Fisch,
Weston, Bordes, 2017, "Reading Wikipedia to Answer Open-Domain Questions", https://arxiv.org/abs/1704.00051). Without
it (match=False) the encoder learns more slowly.

Names are new in each paragraph. So rare words are read as [MASK], numbers as [UNK], and what stands around them says
what they are: a convolution shows each piece its neighbors. And since so few paragraphs are soon known by heart,
training reads each with its sentences in several orders. Masked-word pretraining on these texts, whose names would
have to be read, ends behind that; a real pretrained encoder (weights="pretrained") needs none of it.

Where some questions have no answer in their paragraph, as in SQuAD 2.0, [CLS] stands for "none": it is what they
teach, and a span has to score higher than [CLS] to be given.

Notes: 46
Paper: Rajpurkar, Zhang, Lopyrev, Liang (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
    https://arxiv.org/abs/1606.05250
Data: paragraphs on made-up places with questions, written for this library; yours as the JSON of SQuAD 1.1 or 2.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.frame import Claim, Loop, Options, Result, batches_by_length, main, option, predict, recipe
from recipes.datasets.questions import in_other_orders, open_questions
from recipes.nlp.bert.answer_drawing import draw
from recipes.nlp.bert.encoder import (
    begin,
    encoder_from,
    open_start,
    start_with_positions,
    with_a_fast_head,
    with_neighbors,
)
from recipes.nlp.bert.spans import (
    PARAGRAPH,
    QUESTION,
    EncodedQuestions,
    answer_scores,
    asked_in_other_words,
    encode_questions,
    known_words,
    plain_answers,
    with_rivals,
)
from recipes.nlp.bert.using_pairs import QuestionAnswering

NEVER = -1e4  # logit of what is no piece of the paragraph; finite, so that bf16 can have it


@dataclass(kw_only=True)
class AnswerOptions(Options):
    weights: str | None = option(None, "pretrained (MiniLM), or a folder or hub name that transformers reads")
    match: bool = option(True, "mark the words of the paragraph that the question has, too")
    pieces: int = option(1000, "of words, which a tokenizer learns at most", least=1)
    min_freq: int = option(3, "train texts in which a word must occur to be read, if weights are random", least=1)
    max_pieces: int = option(256, "of question and paragraph that are read at once; more are read in windows", least=32)
    orders: int = option(4, "of its sentences in which a train paragraph is read, if weights are random", least=1)
    width: int = option(64, "size of a piece's state, a multiple of the heads", least=1)
    layers: int = option(2, "of the encoder", least=1)
    heads: int = option(4, "of attention in each layer", least=1)
    dropout: float = option(0.0, "share of the encoder's numbers dropped in training", least=0, below=1)
    epochs: int = 10
    batch_size: int = 16
    lr: float = option(
        2e-3, "highest learning rate of the schedule; pretrained weights need less, such as 1e-4", above=0
    )


class SpanFinder(nn.Module):
    """Pieces, and what each stands in, to logits (batch, pieces, 2): the answer begins, and it ends, there.

    Args:
        encoder: a model of `transformers`.
        pad: number of the piece that fills up.
        match: tell the words of the paragraph that the question has from the others.
        neighbors: show each piece two neighbors on either side before the encoder reads it.
        none: [CLS] is an answer, too: that there is none.
    """

    def __init__(self, encoder: Any, pad: int, match: bool = True, neighbors: bool = True, none: bool = False) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder, self.pad, self.match, self.none = encoder, pad, match, none
        self.places = nn.Embedding(3, width)
        nn.init.normal_(self.places.weight, std=0.3 if neighbors else 0.0)  # a pretrained encoder expects nothing
        self.neighbors = nn.Conv1d(width, width, 5, padding=2) if neighbors else None
        self.head = nn.Linear(width, 2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        ids, places = inputs  # both (batch, pieces)
        real, inside = ids != self.pad, places != QUESTION
        places = places if self.match else places.clamp(max=PARAGRAPH)
        vectors = self.encoder.get_input_embeddings()(ids) + self.places(places)  # (batch, pieces, width)
        if self.neighbors is not None:
            vectors = with_neighbors(vectors, real, self.neighbors)
        sides = {"token_type_ids": inside.long()} if getattr(self.encoder.config, "type_vocab_size", 0) > 1 else {}
        states = self.encoder(inputs_embeds=vectors, attention_mask=real.long(), **sides).last_hidden_state
        answers = inside | (torch.arange(ids.shape[1], device=ids.device) == 0) if self.none else inside
        return self.head(states).masked_fill(~answers[:, :, None], NEVER)


def build(options: AnswerOptions, data: Any) -> SpanFinder:
    """The network for an encoder like this, with random weights."""
    encoder, random = encoder_from(data.config), data.known is not None
    for layer in encoder.modules():  # few passes over the texts: nothing is learned by heart
        if isinstance(layer, nn.Dropout):
            layer.p = options.dropout
    return SpanFinder(encoder, data.vocabulary.pad, match=options.match, neighbors=random, none=data.unanswered)


def train(model: SpanFinder, train_set: EncodedQuestions, test_set: EncodedQuestions, options: AnswerOptions) -> Loop:
    """Minimizes the cross-entropy of the answers' first and last pieces.

    The head and the places learn four times as fast as the rest, and so do words that start from random vectors.
    """
    fast = [*model.head.parameters(), *model.places.parameters()]
    fast += model.encoder.get_input_embeddings().parameters() if options.weights is None else []
    loop = Loop(
        model,
        with_a_fast_head(model, fast, options.lr),
        batches_by_length(train_set, options),
        options,
        evaluate=lambda: answer_scores(find(model, test_set, options.device), test_set.part),
    )
    for inputs, spans in loop:
        logits = loop.model(inputs)  # (batch, pieces, 2): the pieces are the classes
        loss = F.cross_entropy(logits, spans, reduction="sum")  # spans: (batch, 2), first and last piece
        loop.step(loss / (spans >= 0).sum().clamp(min=1))  # answers that were cut off are left out
    return loop


def find(model: SpanFinder, dataset: EncodedQuestions, device: Any) -> list[str]:
    """The answer to each question."""
    return dataset.answered(predict(model, dataset, device, 64))


@recipe(AnswerOptions)
def run(options: AnswerOptions) -> Result:
    """Trains a span finder and measures its answers to held-out questions as SQuAD's script does."""
    train_part, test_part = open_questions(options.data, seed=options.seed)
    texts = [*train_part.questions, *dict.fromkeys(train_part.contexts)]
    size: dict[str, Any] = {"width": options.width, "layers": options.layers, "heads": options.heads}
    start = open_start(options.weights, texts, pieces=options.pieces, longest=options.max_pieces, **size)
    known = known_words(texts, start.subwords, options.min_freq) if start.weights is None else None
    read, unanswered = (start.subwords, options.max_pieces, known, start.config), not all(train_part.answers)
    taught = in_other_orders(train_part, options.orders if start.weights is None else 1, options.seed)
    train_set = encode_questions(taught, *read, unanswered=unanswered, to_learn=True)
    test_set = encode_questions(test_part, *read, unanswered=unanswered)
    model = build(options, train_set)
    begin(model.encoder, start)
    if start.weights is None:
        start_with_positions(model.encoder)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=answer_scores(find(model, test_set, options.device), test_part),
        baseline=answer_scores(plain_answers(train_part, test_part), test_part),
        baseline_name="most words in common",
        bars={"f1": 0.7},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, blind = run(), run(match=False)
    part, device = full.test_set.part, next(full.model.parameters()).device
    answers = {full.baseline_name: plain_answers(full.train_set.part, part)}
    answers["words in common not marked"] = find(blind.model, blind.test_set, device)
    answers["this recipe"] = find(full.model, full.test_set, device)
    kinds = {"f1_other_words": asked_in_other_words(part), "f1_rivals": with_rivals(part)}
    full.rows = []
    for name, found in answers.items():
        full.rows.append({"model": name} | answer_scores(found, part))
        for kind, chosen in kinds.items():
            if len(chosen) >= 20:
                some = answer_scores([found[index] for index in chosen], part.subset(chosen))
                full.rows[-1][kind] = some["f1"]
    plain, _, best = full.rows
    sooner, later = (sum(row["f1"] for row in one.history) / len(one.history) for one in (full, blind))
    text = "told which words match, it learns sooner (F1, the mean over the epochs)"
    yield Claim(text, sooner, ">", later, margin=0.05)
    if "f1_other_words" in best:
        text = "it knows other words for the same: questions that share none with the answer's sentence (F1, "
        text += f"{len(kinds['f1_other_words'])} questions)"
        yield Claim(text, best["f1_other_words"], ">", plain["f1_other_words"], margin=0.1)
    if "f1_rivals" in best:
        text = (
            f"it finds the right one where another answer is of the same kind (F1, {len(kinds['f1_rivals'])} questions)"
        )
        yield Claim(text, best["f1_rivals"], ">", plain["f1_rivals"], margin=0.1)


@run.figure
def figure(result: Result) -> Any:
    return draw(result, find(result.model, result.test_set, next(result.model.parameters()).device))


run.predicts(QuestionAnswering, build)


if __name__ == "__main__":
    main(run)
