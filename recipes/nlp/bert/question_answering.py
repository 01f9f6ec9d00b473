"""Question answering: where in the paragraph does the answer begin, and where does it end?

Question and paragraph are read together, so that through attention every word of the paragraph learns what is asked.
A linear layer gives each piece two logits, that the answer begins and that it ends there, and the span with the
highest sum is the answer. Training is two classifications, whose classes are the pieces of the paragraph.

In each paragraph here two persons, years, numbers or towns could be the answer: who founded the mill is not who runs
it. And often the question has other words: "Who founded the mill?" where it "was started by Lauro Calton". A vector
added to those words of the paragraph that the question has, too, spares attention the search for them (Chen, Fisch,
Weston, Bordes, 2017, "Reading Wikipedia to Answer Open-Domain Questions", https://arxiv.org/abs/1704.00051). A second
encoder has to do without: it learns more slowly, though it may end as well or better.

Names are new in each paragraph. So words that training showed hardly ever are read as [MASK], numbers as [UNK], and
what stands around them says what they are: a convolution shows each piece its neighbours. And since so few
paragraphs are soon known by heart, training reads each with its sentences in several orders.

Notes: 46
Paper: Rajpurkar, Zhang, Lopyrev, Liang (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
    https://arxiv.org/abs/1606.05250
Data: paragraphs on made-up places with questions, written for this library; yours as the JSON of SQuAD 1.1.
"""

import copy
import textwrap
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.questions import Questions, in_other_orders, open_questions
from recipes.nlp.bert.encoder import encoder_from, open_encoder, start_with_positions, with_a_fast_head, with_neighbours
from recipes.nlp.bert.spans import (
    PARAGRAPH,
    QUESTION,
    EncodedQuestions,
    answer_scores,
    asked_in_other_words,
    by_shared_words,
    encode_questions,
    exact_match,
    known_words,
    with_rivals,
)
from recipes.nlp.bert.using_pairs import QuestionAnswering
from recipes.nlp.text_classification.encoding import batches_by_length

NEVER = -1e4  # logit of what is no piece of the paragraph; finite, so that bf16 can have it


class SpanFinder(nn.Module):
    """A linear layer that gives each piece of the paragraph two logits: the answer begins, and it ends, there.

    Args:
        encoder: a model of `transformers`.
        pad: number of the piece that fills up.
        match: tell the words of the paragraph that the question has from the others.
        neighbours: show each piece two neighbours on either side before the encoder reads it.
    """

    def __init__(self, encoder: Any, pad: int, *, match: bool = True, neighbours: bool = True) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder, self.pad, self.match = encoder, pad, match
        self.places = nn.Embedding(3, width)
        nn.init.normal_(self.places.weight, std=0.3 if neighbours else 0.0)  # a pretrained encoder expects nothing
        self.neighbours = nn.Conv1d(width, width, 5, padding=2) if neighbours else None
        self.head = nn.Linear(width, 2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        ids, places = inputs  # both (batch, pieces)
        there, inside = ids != self.pad, places != QUESTION
        places = places if self.match else places.clamp(max=PARAGRAPH)
        vectors = self.encoder.get_input_embeddings()(ids) + self.places(places)  # (batch, pieces, width)
        if self.neighbours is not None:
            vectors = with_neighbours(vectors, there, self.neighbours)
        sides = {"token_type_ids": inside.long()} if getattr(self.encoder.config, "type_vocab_size", 0) > 1 else {}
        states = self.encoder(inputs_embeds=vectors, attention_mask=there.long(), **sides).last_hidden_state
        return self.head(states).masked_fill(~inside[:, :, None], NEVER)  # (batch, pieces, 2)


def train(
    model: SpanFinder,
    train_set: EncodedQuestions,
    test_set: EncodedQuestions,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    random_words: bool = True,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy of first and last piece; the loop's history follows the test part.

    The head and the places learn four times as fast as the rest, and so do words that start from random vectors.
    """
    fast = [*model.head.parameters(), *model.places.parameters()]
    fast += model.encoder.get_input_embeddings().parameters() if random_words else []
    loop = OldLoop(
        model,
        with_a_fast_head(model, fast, lr),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        name=name,
        **engine,
    )
    for inputs, spans in loop:
        logits = loop.model(inputs)  # (batch, pieces, 2): the pieces are the classes
        loss = F.cross_entropy(logits, spans, reduction="sum")  # spans: (batch, 2), first and last piece
        loop.step(loss / (spans >= 0).sum().clamp(min=1))  # answers that were cut off are left out
    return loop


def evaluate(model: SpanFinder, dataset: EncodedQuestions, device: torch.device) -> dict[str, float]:
    """F1 and exact match over the whole set, as SQuAD's script counts them."""
    return answer_scores(dataset.answered(predict(model, dataset, device, 64)), dataset.part)


def draw(part: Questions, answers: list[str], rows: list[dict[str, Any]], curves: list[list[float]]) -> Any:
    """The curves, all that was compared, and a paragraph or two with their questions and the answers given."""
    figure, axes = new_figure(2, 2, width=5.2, height=2.9)
    for label, curve in zip(("not told which words match", "told"), curves, strict=True):
        axes[0, 0].plot(range(1, len(curve) + 1), curve, marker=".", label=label)
    axes[0, 0].set(ylim=(0, 1.02), xlabel="epoch", title="F1 while learning, held-out questions")
    axes[0, 0].locator_params(axis="x", integer=True)
    axes[0, 0].legend(frameon=False, loc="lower right", fontsize=8)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    for shift, key, label in ((-0.2, "f1", "all"), (0.2, "f1_other_words", "asked in other words")):
        bars = axes[0, 1].barh(torch.arange(len(rows)) + shift, [row[key] for row in rows], height=0.38, label=label)
        axes[0, 1].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[0, 1].set_yticks(range(len(rows)), [textwrap.fill(row["model"], 18) for row in rows], fontsize=8)
    axes[0, 1].set(xlim=(0, 1.15), ylim=(len(rows) - 0.4, -1.2), title="F1")
    axes[0, 1].legend(frameon=False, ncols=2, loc="upper right", fontsize=8)
    axes[0, 1].spines[["top", "right"]].set_visible(False)
    grid = axes[1, 0].get_gridspec()
    for place in axes[1]:
        place.remove()
    words, line = figure.add_subplot(grid[1, :]), 0
    for context in list(dict.fromkeys(part.contexts))[:2]:
        told = textwrap.wrap(context, 140)[:3]
        words.text(0, line, "\n".join(told), fontsize=9, va="top")
        line += len(told)
        for index in [index for index, other in enumerate(part.contexts) if other == context][:4]:
            words.text(0.02, line, textwrap.shorten(part.questions[index], 80), fontsize=9, va="top")
            right = any(exact_match(answers[index], text) for text, _ in part.answers[index])
            colour = "tab:green" if right else "tab:red"
            words.text(0.5, line, textwrap.shorten(answers[index], 60), fontsize=9, va="top", color=colour)
            line += 1
        line += 1
    words.set(xlim=(0, 1), ylim=(max(line, 12), -0.5))
    words.axis("off")
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    weights: str | None = None,
    pieces: int = 1000,
    min_freq: int = 3,
    max_pieces: int = 256,
    orders: int = 4,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    epochs: int = 5,
    batch_size: int = 16,
    lr: float = 2e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains two span finders, with and without the match of words, and measures their answers.

    Args:
        data: folder or file of your questions; the bundled ones if not given.
        weights: pretrained (MiniLM), a folder or a hub name that transformers reads; random if not given.
        pieces: of words, which the tokenizer learns at most; pretrained weights have their own.
        min_freq: train texts in which a word must occur to be read; pretrained weights read all.
        max_pieces: of question and paragraph together that are read; the rest of a paragraph is left out.
        orders: of its sentences that each train paragraph is read in; 1 leaves them as they are.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        epochs: passes over the train questions in all their orders.
        batch_size: questions in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule; pretrained weights need less, such as 1e-4.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the questions, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    for option, value, least in (("max_pieces", max_pieces, 32), ("orders", orders, 1), ("min_freq", min_freq, 1)):
        if value < least:
            raise InputError(f"option {option}: expected a whole number of at least {least}, got {value}")
    train_part, test_part = open_questions(data, seed=seed)
    texts = [*train_part.questions, *dict.fromkeys(train_part.contexts)]
    scratch = weights is None
    others, rivals = asked_in_other_words(test_part), with_rivals(test_part)

    def measured(name: str, answers: list[str]) -> dict[str, Any]:
        some = answer_scores([answers[index] for index in others], test_part.subset(others))
        return {"model": name} | answer_scores(answers, test_part) | {"f1_other_words": some["f1"]}

    rows = [measured("most words in common", by_shared_words(train_part, test_part))]
    place = setup(device, seed)
    size = {"width": width, "layers": layers, "heads": heads, "longest": max_pieces}
    encoder, subwords = open_encoder(weights, texts, pieces=pieces, **size)
    if scratch:
        start_with_positions(encoder)
    known = known_words(texts, subwords, min_freq) if scratch else None
    train_set = encode_questions(in_other_orders(train_part, orders, seed), subwords, max_pieces, known)
    test_set = encode_questions(test_part, subwords, max_pieces, known)
    curves: list[list[float]] = []
    for match in (False, True):
        setup(device, seed)  # both start alike
        model = SpanFinder(copy.deepcopy(encoder), subwords.pad, match=match, neighbours=scratch).to(place)
        options: dict[str, Any] = {"device": place, "random_words": scratch, "seed": seed, **engine}
        options["name"] = "told" if match else "not told"
        loop = train(model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, **options)
        answers = test_set.answered(predict(model, test_set, place, 64))
        rows.append(measured("encoder" if match else "encoder, not told which words match", answers))
        curves.append([row["f1"] for row in loop.history])
        rows[-1]["f1_all_epochs"] = sum(curves[-1]) / len(curves[-1])
    base, blind, best = rows
    claims = [
        claim(
            "told which words match, it learns sooner: F1, the mean over the epochs, is higher by 0.05 or more",
            best["f1_all_epochs"],
            ">=",
            blind["f1_all_epochs"] + 0.05,
        )
    ]
    if len(others) >= 20:
        told = f"it knows other words for the same: of the {len(others)} questions that share none with the telling, "
        told += "it answers more than the baseline, by 0.1 or more (F1)"
        claims.append(claim(told, best["f1_other_words"], ">=", base["f1_other_words"] + 0.1))
    if len(rivals) >= 20:
        told = f"it finds the right answer where another is of the same kind ({len(rivals)} questions, exact match)"
        right = answer_scores([answers[index] for index in rivals], test_part.subset(rivals))["exact_match"]
        claims.append(claim(told, right, ">", 0.6))
    return Result(
        metrics={key: best[key] for key in ("f1", "exact_match")},
        baseline={key: base[key] for key in ("f1", "exact_match")},
        baseline_name="most words in common",
        bars={"f1": 0.7},
        claims=claims,
        rows=rows,
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
        draw=lambda: draw(test_part, answers, rows, curves),
    )


def build(options: Any, task: QuestionAnswering) -> SpanFinder:
    """The network of a trained model, from what its task remembers."""
    return SpanFinder(encoder_from(task.config), task.pad, neighbours=task.known is not None)


run.predicts(QuestionAnswering, build)


if __name__ == "__main__":
    main(run)
