"""BERT: a Transformer encoder that learns from plain text by guessing hidden words.

Some words of a text are hidden, and the network has to say what they were; it may look to both sides. Any
text will do for that, no one has to label it. Of the words chosen, 80 % become [MASK], 10 % another word and
10 % stay as they are: a word that can be seen may be wrong as well, so every word has to be understood.

To guess the word in "everything ___ it felt surprisingly irritating" one must look at its neighbours and at the
grammar. A network that has learned to do so needs fewer labels for something else: here it learns from 20 texts
where the capitals were in texts of small letters, and beats one that starts from nothing. What it knows is the
language of the texts it has read: where sentences are built otherwise, it finds far fewer.

Notes: 46
Paper: Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
Data: short English reviews written for this library; yours as CSV, TSV or JSON lines, or hf:NAME.
"""

import copy
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.loading import holdout
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.core.task import whole_weights
from recipes.datasets.texts import open_texts
from recipes.nlp.bert.capitals import capitals_f1, find_capitals, teach_capitals
from recipes.nlp.bert.drawing import draw
from recipes.nlp.bert.subwords import Subwords, SubwordTexts, encode_texts, train_subwords
from recipes.nlp.text_classification.encoding import batches_by_length


class MaskedLM(nn.Module):
    """BERT with its head for guessing words: a layer, then products with the words' own vectors.

    Args:
        subwords: the pieces of words that it knows.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        longest: pieces of a text at most.
    """

    def __init__(
        self, subwords: Subwords, *, width: int = 64, layers: int = 2, heads: int = 4, longest: int = 128
    ) -> None:
        from transformers import BertConfig, BertForMaskedLM

        super().__init__()
        config = BertConfig(
            vocab_size=len(subwords.words),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=longest,
            pad_token_id=subwords.pad,
            hidden_dropout_prob=0.0,  # few passes over the texts: nothing is learned by heart
            attention_probs_dropout_prob=0.0,
            initializer_range=width**-0.5,  # BERT's own 0.02 suits its width of 768
        )
        self.pad, self.network = subwords.pad, BertForMaskedLM(config)
        # Positions are learned; waves to start from make neighbours alike, and attention finds them sooner.
        angles = torch.arange(longest)[:, None] * 1000 ** -torch.linspace(0, 1, width // 2)
        with torch.no_grad():
            positions = self.network.bert.embeddings.position_embeddings.weight  # (longest, width)
            positions.copy_(0.2 * torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1))

    def forward(self, ids: Tensor, chosen: Tensor) -> Tensor:
        states = self.network.bert(ids, attention_mask=(ids != self.pad).long()).last_hidden_state
        return self.network.cls(states[chosen])  # (pieces chosen, pieces known)


def mask_words(ids: Tensor, subwords: Subwords, share: float) -> tuple[Tensor, Tensor]:
    """Chooses pieces to be guessed, and hides most of them.

    Args:
        ids: (batch, pieces).
        subwords: what they are numbers of.
        share: of the pieces that are chosen; beginnings, ends and padding never are.

    Returns:
        The pieces to read, and which were chosen, both (batch, pieces).
    """
    ordinary = subwords.ordinary.to(ids.device)
    chosen = (torch.rand(ids.shape, device=ids.device) < share) & torch.isin(ids, ordinary)
    lot = torch.rand(ids.shape, device=ids.device)
    others = ordinary[torch.randint(len(ordinary), ids.shape, device=ids.device)]
    read = torch.where(chosen & (lot < 0.8), subwords.mask, ids)
    return torch.where(chosen & (lot >= 0.9), others, read), chosen


def pretrain(
    model: MaskedLM,
    train_set: SubwordTexts,
    test_set: SubwordTexts,
    *,
    share: float,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int = 0,
    **engine: Unpack[Engine],
) -> OldLoop:
    """Teaches the model to guess hidden words; the loop's history follows the test part."""
    loop = OldLoop(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, fused=True),
        batches_by_length(train_set, batch_size, seed=seed),
        epochs=epochs,
        device=device,
        schedule=one_cycle,
        evaluate=lambda: guess_words(model, test_set, device),
        name="pretrained",
        **engine,
    )
    for ids, _ in loop:
        read, chosen = mask_words(ids, train_set.vocabulary, share)  # anew each time a text is read
        logits = loop.model(read, chosen)
        loss = F.cross_entropy(logits, ids[chosen], reduction="sum") / chosen.sum().clamp(min=1)
        loop.step(loss)
    return loop


def hidden_words(dataset: SubwordTexts, start: int, size: int = 100) -> tuple[Tensor, Tensor]:
    """Some texts (size, pieces), and which of their pieces to hide to test a model: 15 %, the same ones always."""
    ids, _ = dataset.__getitems__(range(start, min(start + size, len(dataset))))
    lots = torch.rand(ids.shape, generator=torch.Generator().manual_seed(start))
    return ids, (lots < 0.15) & torch.isin(ids, dataset.vocabulary.ordinary)


@torch.inference_mode()
def guess_words(model: MaskedLM, dataset: SubwordTexts, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) of the guesses, each hidden word being a [MASK]."""
    model.eval()
    hits, loss, count = 0, 0.0, 0
    for start in range(0, len(dataset), 100):
        ids, hidden = hidden_words(dataset, start)
        targets = ids[hidden].to(device)
        logits = model(ids.masked_fill(hidden, dataset.vocabulary.mask).to(device), hidden.to(device))
        hits += int((logits.argmax(dim=1) == targets).sum())
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    return {"accuracy": hits / max(count, 1), "loss": loss / max(count, 1)}


def commonest_word(train_set: SubwordTexts, test_set: SubwordTexts) -> dict[str, float]:
    """The guess that looks at nothing: how often each piece stands in the train texts."""
    words = torch.cat(list(train_set.ids))
    counts = 1.0 + words[torch.isin(words, train_set.vocabulary.ordinary)].bincount(
        minlength=len(train_set.vocabulary.words)
    )
    parts = [hidden_words(test_set, start) for start in range(0, len(test_set), 100)]
    targets = torch.cat([ids[hidden] for ids, hidden in parts])
    loss = -(counts / counts.sum()).log()[targets].mean().item()
    return {"accuracy": (targets == counts.argmax()).double().mean().item(), "loss": loss}


def part_of(whole: SubwordTexts, indices: Tensor) -> SubwordTexts:
    """Those texts alone."""
    chosen = indices.tolist()
    texts, ids = [whole.texts[index] for index in chosen], [whole.ids[index] for index in chosen]
    return replace(whole, texts=texts, ids=ids, labels=whole.labels[indices])


@old_recipe
def run(
    *,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    pieces: int = 2000,
    max_pieces: int = 128,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    share: float = 0.3,
    labelled: int = 20,
    epochs: int = 5,
    batch_size: int = 16,
    lr: float = 4e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a tokenizer and a small BERT on four fifths of the train texts; the last fifth tells what it learned.

    Args:
        data: folder or file of your texts, or hf:NAME; the bundled reviews if not given.
        text_column: name of the column of texts, if it is not a usual one.
        label_column: name of the column of labels, if it is not a usual one.
        encoding: of the files of texts, such as latin-1.
        pieces: of words, which the tokenizer learns at most.
        max_pieces: of a text that are read, its beginning and end among them; the rest is left out.
        width: numbers in a piece's vector.
        layers: of the encoder.
        heads: of attention in each layer.
        share: of the pieces that are to be guessed (0.15 in the paper; few texts teach more with more).
        labelled: texts that tell where capitals stand.
        epochs: passes over the texts while guessing words.
        batch_size: texts in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the texts, and of the draw that holds a fifth out.
        out: folder for result.json, figure.png and model.safetensors.
    """
    if min(width, layers, heads) < 1 or width % 2 or width % heads:
        raise InputError(f"options width and heads: expected an even width that heads divides, got {width} and {heads}")
    if not 0 < share < 1 or labelled < 1:
        raise InputError(f"options share and labelled: expected 0 to 1 and at least 1, got {share} and {labelled}")
    place = setup(device, seed)
    columns = {"text_column": text_column, "label_column": label_column}
    train_part, test_part = open_texts(data, **columns, encoding=encoding, seed=seed)
    learned, held = holdout(train_part.labels, 0.2, seed)
    subwords = train_subwords([train_part.texts[index] for index in learned.tolist()], pieces)
    whole = encode_texts(train_part, subwords, max_pieces)
    train_set, held_out = part_of(whole, learned), part_of(whole, held)
    test_set = encode_texts(test_part, subwords, max_pieces)

    model = MaskedLM(subwords, width=width, layers=layers, heads=heads, longest=max_pieces).to(place)
    random_start = copy.deepcopy(model.network.bert)
    loop = pretrain(
        model,
        train_set,
        held_out,
        share=share,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=place,
        seed=seed,
        **engine,
    )
    metrics, baseline = guess_words(model, held_out, place), commonest_word(train_set, held_out)

    pretrained_start = copy.deepcopy(random_start)
    pretrained_start.load_state_dict(whole_weights(model.network.bert))
    generator = torch.Generator().manual_seed(seed)
    few = find_capitals(part_of(train_set, torch.randperm(len(train_set), generator=generator)[:labelled]))
    parts = find_capitals(held_out), find_capitals(test_set)
    rows: list[dict[str, Any]] = []
    claims = []
    if any((capitals == 1).any() for capitals in few.capitals):  # not in every script
        for start, encoder in {"pretrained": pretrained_start, "random": random_start}.items():
            tagger = teach_capitals(encoder, few, epochs=12 * epochs, device=place, seed=seed)
            held_f1, test_f1 = (capitals_f1(tagger, part, place) for part in parts)
            rows.append({"start": start, "texts": len(few), "capitals_f1": held_f1, "capitals_f1_test": test_f1})
        claims.append(
            claim(
                f"the start matters: taught by {len(few)} texts where capitals stand, the pretrained encoder finds "
                "more of them in held-out texts than one from random weights (F1)",
                rows[0]["capitals_f1"],
                ">",
                rows[1]["capitals_f1"],
            )
        )
        if data is None:
            claims.append(
                claim(
                    "what it knows is the language it has read: in the test part, where frames and names are others, "
                    "it finds fewer",
                    rows[0]["capitals_f1_test"],
                    "<",
                    rows[0]["capitals_f1"],
                )
            )
    return Result(
        metrics=metrics,
        baseline=baseline,
        baseline_name="commonest word",
        bars={"accuracy": 0.45},
        claims=claims,
        rows=rows,
        history=loop.history,
        model=model,
        draw=lambda: draw(model, held_out, place, loop.history, baseline, rows),
    )


if __name__ == "__main__":
    main(run)
