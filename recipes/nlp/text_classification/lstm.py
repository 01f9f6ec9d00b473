"""LSTM: a recurrent network with gates that decide what to keep.

Beside the state that it shows, an LSTM carries a memory along, which a word changes only as far as gates allow: one
forgets, one lets new things in, one shows. With the forget gate open, the memory passes a word untouched, and so
does its gradient: in texts of one deciding word and n fillers, it remembers where a plain recurrent network has
long forgotten. The forget gates start open, or the memory would fade before training can teach them otherwise.

Notes: 85
Paper: Hochreiter, Schmidhuber (1997), "Long Short-Term Memory", https://doi.org/10.1162/neco.1997.9.8.1735;
    Gers, Schmidhuber, Cummins (2000), "Learning to Forget", https://doi.org/10.1162/089976600300015015
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.word_vectors import read_vectors, start_from
from recipes.nlp.text_classification.encoding import (
    PAD,
    EncodedTexts,
    batches_by_length,
    open_encoded,
    shuffled,
    word_vectors,
)
from recipes.nlp.text_classification.memory import accuracy_by_distance, draw_recurrent
from recipes.nlp.text_classification.rnn import TextRNN, summary
from recipes.nlp.text_classification.scoring import evaluate, linear_svm


class LSTM(nn.Module):
    """Reads vectors (batch, words, width) in their order; gives the state after each word, (batch, words, hidden).

    Args:
        width: numbers in a word's vector.
        hidden: numbers in the state, and as many in the memory.
        open_gates: what the forget gates' biases start from; at 1 a gate keeps 73 % of the memory, at 4 98 %.
    """

    def __init__(self, width: int, hidden: int, *, open_gates: float = 1.0) -> None:
        super().__init__()
        self.from_word = nn.Linear(width, 4 * hidden)
        self.from_state = nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():
            self.from_word.bias[hidden : 2 * hidden] = open_gates

    def forward(self, vectors: Tensor, inside: Tensor) -> Tensor:
        words = self.from_word(vectors)  # W x + b of all words at once: (batch, words, 4 * hidden)
        hidden = words.shape[2] // 4
        state = memory = words.new_zeros(len(words), hidden)
        states = []
        padded = not inside.all()
        for word, there in zip(words.unbind(1), inside[:, :, None].unbind(1), strict=True):
            # i, f, o = σ(W x_t + U h_{t-1} + b), and g = tanh(W x_t + U h_{t-1} + b), each with its own W, U and b
            gates, new = (word + self.from_state(state)).split([3 * hidden, hidden], dim=1)
            let_in, forget, show = gates.sigmoid().chunk(3, dim=1)
            # c_t = f c_{t-1} + i g
            kept = forget * memory + let_in * new.tanh()
            # h_t = o tanh(c_t)
            shown = show * kept.tanh()
            memory = torch.where(there, kept, memory) if padded else kept  # padding changes neither
            state = torch.where(there, shown, state) if padded else shown
            states.append(state)
        return torch.stack(states, dim=1)


class TextLSTM(nn.Module):
    """One network that reads forwards and one that reads backwards, a summary of their states, a linear layer.

    Args:
        vocabulary_size: words that are known, with padding.
        num_classes: of the last layer.
        width: numbers in a word's vector.
        hidden: numbers in a state.
        bidirectional: read backwards too.
        pool: "max" or "last", what stands for a text: each number's maximum over its states, or its last state.
        dropout: share of the summary's numbers that are dropped while training.
        open_gates: see `LSTM`.
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
        open_gates: float = 1.0,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.embedding = word_vectors(vocabulary_size, width)
        self.forwards = LSTM(width, hidden, open_gates=open_gates)
        self.backwards = LSTM(width, hidden, open_gates=open_gates) if bidirectional else None
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
    options: Engine = {"clip": 1.0, **engine}  # gates keep a gradient from fading, not from growing
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
    vectors: str | None = None,
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
    """Trains an LSTM, measures it on held-out texts, and measures how far back it and a plain network remember.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        vectors: text file of word vectors (GloVe's format) for its words to start from, the others at random.
        min_freq: times a word must occur in the train texts to be known.
        max_words: words of a text that are read; the rest is left out.
        width: numbers in a word's vector; as many as in the file, if one is given.
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
    known = train_set.vocabulary.words
    pretrained = read_vectors(vectors, known) if vectors is not None else None
    word_width = pretrained.table.shape[1] if pretrained is not None else width
    svm = linear_svm(train_set, test_set, longest=2)
    model = TextLSTM(
        len(known),
        len(train_set.classes),
        width=word_width,
        hidden=hidden,
        bidirectional=bidirectional,
        dropout=dropout,
    ).to(place)
    if pretrained is not None:
        start_from(model.embedding, known, pretrained)
    loop = train(
        model, train_set, test_set, epochs=epochs, batch_size=batch_size, lr=lr, device=place, seed=seed, **engine
    )
    metrics = evaluate(model, test_set, place)
    in_disorder = evaluate(model, shuffled(test_set, seed=seed), place)["accuracy"]
    alone: dict[str, Any] = {"width": width, "hidden": hidden, "bidirectional": False, "pool": "last", "dropout": 0.0}
    # Gates that start at 98 %: over 100 words a sixth of the memory gets through, and a gradient as large.
    readers: dict[str, Callable[[int], nn.Module]] = {
        "plain RNN": lambda words: TextRNN(words, 2, **alone),
        "LSTM": lambda words: TextLSTM(words, 2, **alone, open_gates=4.0),
    }
    memory = {
        name: accuracy_by_distance(reader, train, place, seed=seed, name=name, **engine)
        for name, reader in readers.items()
    }
    far = max(memory["LSTM"])
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
            claim(
                f"it remembers one word over {far} others in its last state: accuracy", memory["LSTM"][far], ">", 0.95
            ),
            claim("where a plain RNN has forgotten it and guesses", memory["plain RNN"][far], "<", 0.6),
        ],
        rows=[
            {"words after the one that decides": n} | {name: accuracy[n] for name, accuracy in memory.items()}
            for n in memory["LSTM"]
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw_recurrent(model, test_set, place, loop.history, memory),
    )


if __name__ == "__main__":
    main(run)
