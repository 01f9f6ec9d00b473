"""From texts to pieces of words: a WordPiece tokenizer trained on them, or a pretrained model's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core.errors import InputError
from recipes.datasets.texts import Texts
from recipes.nlp.text_classification.encoding import EncodedTexts, Vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MOST_PIECES = 1_000_000  # the trainer makes room for all at once


class Subwords(Vocabulary):
    """The pieces that a tokenizer of `transformers` knows; a piece that goes on with a word begins with ##.

    Attributes:
        words: the pieces.
        number: of each piece.
        pad: number that fills short texts up.
        mask: number that hides a piece, if the tokenizer has one.
        ordinary: (pieces,) numbers of those that stand for text, not for its beginning, end or gaps.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.number = {word: number for number, word in enumerate(self.words)}
        self.pad, self.mask = tokenizer.pad_token_id, tokenizer.mask_token_id
        special = set(tokenizer.all_special_ids)
        self.ordinary = torch.tensor([number for number in range(len(self.words)) if number not in special])

    def encode(self, text: str, max_words: int = 256) -> Tensor:
        """The numbers of the text's pieces between those of its beginning and end: (pieces,), `max_words` at most."""
        return torch.tensor(self.tokenizer(text, truncation=True, max_length=max_words)["input_ids"])


def train_subwords(texts: Sequence[str], size: int) -> Subwords:
    """Learns WordPiece: from single letters on, the pair of pieces that most often meets is joined into a new one.

    Args:
        texts: to learn from; they are read in lower case and without accents.
        size: pieces at most, letters and the five special ones among them; all letters find room whatever it is.

    Raises:
        InputError: the size is below 1, or more than any tokenizer has.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if not 1 <= size <= MOST_PIECES:
        raise InputError(f"option pieces: expected a whole number from 1 to {MOST_PIECES}, got {size}")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Pairs that meet equally often are joined in the order of their numbers, which the trainer would deal out anew
    # in every run; so each letter within a word gets its number before the training begins.
    normal = (tokenizer.normalizer.normalize_str(text) for text in texts)
    words = {word for text in normal for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    numbered = [*SPECIAL, *sorted({f"##{letter}" for word in words for letter in word[1:]})]
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=2, special_tokens=numbered, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    whole = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
    whole.normalizer, whole.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    whole.decoder = decoders.WordPiece()
    number = whole.get_vocab()
    whole.post_processor = processors.BertProcessing(("[SEP]", number["[SEP]"]), ("[CLS]", number["[CLS]"]))
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    return Subwords(PreTrainedTokenizerFast(tokenizer_object=whole, **names))


def tokenizer_json(subwords: Subwords) -> dict[str, Any]:
    """The tokenizer as JSON can hold it, which `subwords_from` reads."""
    content = json.loads(subwords.tokenizer.backend_tokenizer.to_str())
    special = {name: str(piece) for name, piece in subwords.tokenizer.special_tokens_map.items()}
    return {"tokenizer": json.dumps(content | {"padding": None, "truncation": None}), "special": special}


def subwords_from(content: dict[str, Any]) -> Subwords:
    """The pieces of a tokenizer that `tokenizer_json` wrote."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(content["tokenizer"])
    return Subwords(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **content["special"]))


@dataclass
class SubwordTexts(EncodedTexts):
    """Labeled texts as numbers of their pieces; asked for many at a time, it pads them to the longest.

    Attributes:
        config: of the encoder that reads them, see `encoder_from`.
        known: (pieces,), which of them are read as they are; None for all.
    """

    vocabulary: Subwords
    config: dict[str, Any] = field(default_factory=dict, kw_only=True)
    known: Tensor | None = field(default=None, kw_only=True)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self.ids[index] for index in indices]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        return ids, self.labels[list(indices)]  # (batch, pieces), (batch,)


def encode_texts(
    part: Texts, subwords: Subwords, max_pieces: int, config: dict[str, Any] | None = None
) -> SubwordTexts:
    """The texts as numbers.

    Args:
        part: labeled texts.
        subwords: what they are made of.
        max_pieces: of a text that are read, its beginning and end among them; the rest is left out.
        config: of the encoder that reads them, see `encoder_from`.
    """
    ids = [subwords.encode(text, max_pieces) for text in part.texts]
    return SubwordTexts(part.texts, ids, part.labels, part.classes, subwords, config=config or {})


def well_known(dataset: Any, min_freq: int) -> Tensor:
    """Which pieces (pieces,) occur `min_freq` times in the texts, or stand for no text."""
    words = dataset.vocabulary
    counts = torch.cat(list(dataset.ids)).bincount(minlength=len(words.words))
    return (counts >= min_freq) | ~torch.isin(torch.arange(len(counts)), words.ordinary)


def hide_rare(dataset: Any, known: Tensor) -> Any:
    """The texts with one [MASK] for each run of pieces that are not `known` (pieces,)."""
    ids = [known_alone(one, known, dataset.vocabulary.mask) for one in dataset.ids]
    return replace(dataset, ids=ids, known=known)


def known_alone(ids: Tensor, known: Tensor, mask: int) -> Tensor:
    """A text's pieces (pieces,), with one mask for each run of those that are not `known`."""
    ids = torch.where(known[ids], ids, mask)
    return ids[(ids != mask) | (ids.roll(1) != mask)]
