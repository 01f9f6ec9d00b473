"""A plain recurrent network: a text read word by word.

At each word a small network makes a new state out of the word and of the state before; a second one reads
backwards. As every word changes the state, what stood far back fades, and so does its gradient: in texts of one
deciding word and n fillers, the run measures how far back the network learns to remember. So the last state is a
poor summary of a text, and the largest value that each number of the state takes on the way is a better one.
Padding never counts: where there is no word, the state stays as it is.

Notes: 85
Paper: Elman (1990), "Finding Structure in Time", https://doi.org/10.1207/s15516709cog1402_1; Bengio, Simard,
    Frasconi (1994), "Learning Long-Term Dependencies with Gradient Descent is Difficult",
    https://doi.org/10.1109/72.279181
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.nlp.text_classification.encoding import (
    PAD,
    EncodedTexts,
    batches_by_length,
    open_encoded,
    shuffled,
    word_vectors,
)
from recipes.nlp.text_classification.memory import accuracy_by_distance, draw_recurrent
from recipes.nlp.text_classification.scoring import evaluate, linear_svm


class RNN(nn.Module):
    """Reads vectors (batch, words, width) in their order; gives the state after each word, (batch, words, hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.from_word = nn.Linear(width, hidden)
        self.from_state = nn.Linear(hidden, hidden, bias=False)

    def forward(self, vectors: Tensor, inside: Tensor) -> Tensor:
        words = self.from_word(vectors)  # W x + b of all words at once: (batch, words, hidden)
        state, states = words.new_zeros(len(words), words.shape[2]), []
        padded = not inside.all()
        for word, there in zip(words.unbind(1), inside[:, :, None].unbind(1), strict=True):
            # h_t = tanh(W x_t + U h_{t-1} + b)
            new = torch.tanh(word + self.from_state(state))
            state = torch.where(there, new, state) if padded else new
            states.append(state)
        return torch.stack(states, dim=1)


def summary(states: Tensor, inside: Tensor, pool: str) -> Tensor:
    """One vector for each text, (batch, hidden), out of its states (batch, words, hidden): the last, or the maxima."""
    if pool == "last":
        return states[:, -1]
    return states.masked_fill(~inside[:, :, None], -torch.inf).amax(dim=1)


class TextRNN(nn.Module):
    """One network that reads forwards and one that reads backwards, a summary of their states, a linear layer.

    Args:
        vocabulary_size: words that are known, with padding.
        num_classes: of the last layer.
        width: numbers in a word's vector.
        hidden: numbers in a state.
        bidirectional: read backwards too.
        pool: "max" or "last", what stands for a text: each number's maximum over its states, or its last state.
        dropout: share of the summary's numbers that are dropped while training.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        *,
        width: int = 32,
        hidden: int = 32,
        bidirectional: bool = True,
        pool: str = "max",
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.embedding = word_vectors(vocabulary_size, width)
        self.forwards = RNN(width, hidden)
        self.backwards = RNN(width, hidden) if bidirectional else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden * (1 + bidirectional), num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        vectors, inside = self.embedding(ids), ids != PAD  # (batch, words, width), (batch, words)
        text = summary(self.forwards(vectors, inside), inside, self.pool)  # (batch, hidden)
        if self.backwards is not None:
            vectors, inside = vectors.flip(1), inside.flip(1)
            text = torch.cat([text, summary(self.backwards(vectors, inside), inside, self.pool)], dim=1)
        return self.head(self.dropout(text))  # (batch, num_classes)


def train(
    model: nn.Module,
    train_set: EncodedTexts,
    test_set: EncodedTexts,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    name: str = "model",
    **engine: Unpack[Engine],
) -> OldLoop:
    """Minimises the cross-entropy with AdamW; gives the loop, whose history follows the test part."""
    options: Engine = {"clip": 1.0, **engine}  # a gradient through many words may fade, but also explode
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: evaluate(model, test_set, device),
        name=name,
        **options,
    )
    for ids, labels in loop:
        loss = F.cross_entropy(loop.model(ids), labels)
        loop.step(loss)
    return loop


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    min_freq: int = 2,
    max_words: int = 256,
    width: int = 32,
    hidden: int = 32,
    bidirectional: bool = True,
    dropout: float = 0.3,
    epochs: int = 6,
    batch_size: int = 50,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a recurrent network, measures it on held-out texts, and measures how far back it remembers.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        min_freq: times a word must occur in the train texts to be known.
        max_words: words of a text that are read; the rest is left out.
        width: numbers in a word's vector.
        hidden: numbers in a state.
        bidirectional: read backwards too.
        dropout: share of the summary's numbers that are dropped while training.
        epochs: passes over the train texts.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the split of a single file.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if width < 1 or hidden < 1 or not 0 <= dropout < 1:
        raise InputError(
            "options width, hidden and dropout: expected at least 1, at least 1, and 0 to below 1, "
            f"got {width}, {hidden} and {dropout}"
        )
    place = setup(device, seed)
    train_set, test_set = open_encoded(
        data, text_column=text_column, label_column=label_column, min_freq=min_freq, max_words=max_words, seed=seed
    )
    svm = linear_svm(train_set, test_set, longest=2)
    size = {"width": width, "hidden": hidden}
    vocabulary_size, num_classes = len(train_set.vocabulary), len(train_set.classes)
    accuracy = {}
    for pool in ("last", "max"):
        torch.manual_seed(seed)
        model = TextRNN(
            vocabulary_size, num_classes, **size, bidirectional=bidirectional, pool=pool, dropout=dropout
        ).to(place)
        loop = train(
            model,
            train_set,
            test_set,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            device=place,
            seed=seed,
            name=pool,
            **engine,
        )
        metrics = evaluate(model, test_set, place)
        accuracy[pool] = metrics["accuracy"]
    in_disorder = evaluate(model, shuffled(test_set, seed=seed), place)["accuracy"]

    def reader(words: int) -> TextRNN:
        return TextRNN(words, 2, **size, bidirectional=False, pool="last", dropout=0)

    memory = accuracy_by_distance(reader, train, place, seed=seed, **engine)
    near, far = min(memory), max(memory)
    return Result(
        metrics=metrics,
        baseline=svm,
        baseline_name="linear SVM, words and pairs",
        bars={"accuracy": 0.9},
        claims=[
            claim("it beats a linear SVM on words and pairs", metrics["accuracy"], ">", svm["accuracy"]),
            claim(
                "it reads the order: accuracy that it loses when the words of the test texts are shuffled",
                metrics["accuracy"] - in_disorder,
                ">",
                0.2,
            ),
            claim("maxima over all states tell more than the last state", metrics["accuracy"], ">", accuracy["last"]),
            claim(f"it remembers one word over {near} others in its last state: accuracy", memory[near], ">", 0.95),
            claim(f"it forgets: over {far} others it is near guessing, 0.5", memory[far], "<", 0.6),
        ],
        rows=[
            {"words after the one that decides": n, "accuracy of the last state": share} for n, share in memory.items()
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw_recurrent(model, test_set, place, loop.history, {"plain RNN": memory}),
    )


if __name__ == "__main__":
    main(run)
