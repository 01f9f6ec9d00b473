"""From questions to batches of pieces and back to answers; SQuAD's two scores; a baseline that counts words."""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.datasets.questions import Questions, sentences_of
from recipes.nlp.bert.subwords import Subwords
from recipes.nlp.text_classification.encoding import SINGLE

SMALL_WORDS = "at by did do does for from had has have how in is it its many much of on that there this to was were "
SMALL_WORDS += "what when where which who whom whose why with"
QUESTION, PARAGRAPH, MATCH = 0, 1, 2  # what a piece stands in; the last is a word of the question in the paragraph


class Piece(NamedTuple):
    """A piece's number, the word it belongs to, and the places in the text of its first letter and last + 1."""

    number: int
    word: str
    start: int
    end: int


def read_pieces(text: str, subwords: Subwords, known: set[str] | None = None) -> list[Piece]:
    """The text in pieces. A word that is not `known` is one piece, [UNK] if it begins with a digit, else [MASK]."""
    told = subwords.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    bounds: dict[int, tuple[int, int]] = {}  # of each word
    for word, (start, end) in zip(told.word_ids(), told["offset_mapping"], strict=True):
        bounds[word] = (bounds.get(word, (start, end))[0], end)
    pieces = []
    for number, word, (start, end) in zip(told["input_ids"], told.word_ids(), told["offset_mapping"], strict=True):
        first, last = bounds[word]
        spelled = text[first:last].lower()
        if known is None or spelled in known:
            pieces.append(Piece(number, spelled, start, end))
        elif start == first:
            rare = subwords.tokenizer.unk_token_id if spelled[:1].isdigit() else subwords.mask
            pieces.append(Piece(rare, spelled, first, last))
    return pieces


def known_words(texts: Sequence[str], subwords: Subwords, min_freq: int) -> set[str]:
    """The words that stand in `min_freq` texts or more."""
    counts = Counter(word for text in texts for word in {piece.word for piece in read_pieces(text, subwords)})
    return {word for word, count in counts.items() if count >= min_freq}


@dataclass
class EncodedQuestions:
    """Questions with their paragraphs as numbers; asked for many at a time, it pads them to the longest.

    A paragraph that is too long to be read at once is read in N windows, each half over the one before.

    Attributes:
        ids: N tensors (pieces,): beginning, question, end, paragraph, end.
        places: N tensors (pieces,): QUESTION, PARAGRAPH or MATCH.
        spans: N tensors (2,), the first and the last piece of the answer; where it is not whole, both are 0, the place
            of [CLS], if some questions have no answer, and -100 otherwise.
        letters: for each window and piece the first letter and the last + 1 of the paragraph.
        owners: for each window the number of its question.
        pad: number that fills up.
        part: as it was read.
        vocabulary: of the pieces.
        known: words that are read as they are; None for all.
        config: of the encoder that reads them, see `encoder_from`.
        unanswered: whether there are questions without an answer.
    """

    ids: list[Tensor]
    places: list[Tensor]
    spans: list[Tensor]
    letters: list[list[tuple[int, int]]]
    owners: list[int]
    pad: int
    part: Questions
    vocabulary: Subwords
    known: set[str] | None
    config: dict[str, Any]
    unanswered: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        ids, places = ([side[index] for index in indices] for side in (self.ids, self.places))
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad)
        spans = torch.stack([self.spans[index] for index in indices])  # (batch, 2)
        return (padded, pad_sequence(places, batch_first=True)), spans  # both (batch, pieces)

    def all(self) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """All of them in one batch."""
        return self.__getitems__(range(len(self)))

    def answered(self, logits: Sequence[Tensor], longest: int = 30) -> list[str]:
        """The text of the best span of each question, of so many pieces at most, the best of all its windows."""
        return [best[0][0] for best in self.ranked(logits, 1, longest)]

    def ranked(self, logits: Sequence[Tensor], count: int, longest: int = 30) -> list[list[tuple[str, float]]]:
        """The texts of the best spans of each question, and what each is worth, best first.

        Where there are questions without an answer, a span is worth its logits less those of [CLS] in its window; a
        question whose spans are all worth less than nothing has the empty answer.

        Args:
            logits: (pieces or more, 2) of each window.
            count: texts for a question, at most.
            longest: pieces in a span.
        """
        found: list[dict[str, float]] = [{"": 0.0} if self.unanswered else {} for _ in range(len(self.part))]
        for owner, letters, scores in zip(self.owners, self.letters, logits, strict=True):
            start, end = scores[: len(letters)].float().unbind(dim=1)
            pairs = start[:, None] + end  # (first, last)
            if self.unanswered:
                pairs = pairs - pairs[0, 0]
            allowed = torch.ones_like(pairs).triu().tril(longest - 1).bool()  # no end before its start
            allowed[0] = False  # [CLS] is no answer
            best = pairs.masked_fill(~allowed, -1e9).flatten().topk(min(count, int(allowed.sum())))
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                first, last = divmod(place, len(letters))
                text = self.part.contexts[owner][letters[first][0] : letters[last][1]]
                found[owner][text] = max(value, found[owner].get(text, -math.inf))
        return [sorted(texts.items(), key=lambda pair: -pair[1])[:count] for texts in found]


def encode_questions(
    part: Questions,
    subwords: Subwords,
    max_pieces: int,
    known: set[str] | None,
    config: dict[str, Any] | None = None,
    *,
    unanswered: bool = False,
    to_learn: bool = False,
) -> EncodedQuestions:
    """The questions as pieces. A question that is too long is cut to a half; a long paragraph is read in windows.

    With `to_learn` windows that teach nothing are left out.
    """
    begin, end = subwords.tokenizer.cls_token_id, subwords.tokenizer.sep_token_id
    between = [end] * max(1, subwords.tokenizer.num_special_tokens_to_add(pair=True) - 2)  # RoBERTa has two
    encoded = EncodedQuestions([], [], [], [], [], subwords.pad, part, subwords, known, config or {}, unanswered)
    nowhere = [0, 0] if unanswered else [-100, -100]
    whole: dict[str, list[Piece]] = {}  # many questions share a paragraph
    for owner, (question, context, answers) in enumerate(zip(part.questions, part.contexts, part.answers, strict=True)):
        if context not in whole:
            whole = {context: read_pieces(context, subwords, known)}
        asked = read_pieces(question, subwords, known)[: max_pieces // 2]
        words, before = {piece.word for piece in asked}, [QUESTION] * (1 + len(asked) + len(between))
        text, start = answers[0] if answers else ("", 0)
        stop = start + len(text.rstrip())
        for told in windows(whole[context], max_pieces - len(before) - 1):
            numbers = [begin, *(piece.number for piece in asked), *between, *(piece.number for piece in told), end]
            places = [*before, *(MATCH if piece.word in words else PARAGRAPH for piece in told), QUESTION]
            covered = [index for index, piece in enumerate(told) if piece.start < stop and piece.end > start]
            there = bool(covered) and told[0].start <= start and told[-1].end >= stop
            span = [len(before) + covered[0], len(before) + covered[-1]] if there else nowhere
            if to_learn and span[0] < 0:
                continue
            encoded.ids.append(torch.tensor(numbers))
            encoded.places.append(torch.tensor(places))
            encoded.spans.append(torch.tensor(span))
            letters = ((piece.start, piece.end) for piece in told)
            encoded.letters.append([*((0, 0) for _ in before), *letters, (0, 0)])
            encoded.owners.append(owner)
    return encoded


def windows(pieces: list[Piece], longest: int) -> list[list[Piece]]:
    """The pieces in windows of `longest`, each of which begins at the middle of the one before."""
    last = max(len(pieces) - longest, 0)  # where the last window begins
    starts = [*range(0, last, max(1, longest // 2)), last]
    return [pieces[start : start + longest] for start in starts]


def normalized(answer: str) -> list[str]:
    """The words that count: in small letters, without punctuation and articles, as SQuAD's own script has it.

    What is written without spaces (Chinese, Japanese, Thai …) is counted by characters, as CMRC's script has it.
    """
    plain = "".join(letter for letter in answer.lower() if unicodedata.category(letter)[0] not in "PS")
    return re.sub(rf"([{SINGLE}])", r" \1 ", re.sub(r"\b(a|an|the)\b", " ", plain)).split()


def exact_match(answer: str, truth: str) -> float:
    return float(normalized(answer) == normalized(truth))


def word_f1(answer: str, truth: str) -> float:
    """The harmonic mean of the shares of words that both have."""
    said, true = normalized(answer), normalized(truth)
    shared = sum((Counter(said) & Counter(true)).values())
    return 2 * shared / (len(said) + len(true)) if said and true else float(said == true)


def answer_scores(answers: Sequence[str], part: Questions) -> dict[str, float]:
    """F1 and exact match, each against the answer that it fits best, the mean over all questions.

    Where a question has no answer, only the empty one is right, as in SQuAD 2.0; if there are such questions, the F1
    of the others is told as well, and the share of such for which none was given.
    """

    def mean(score: Callable[[str, str], float], kinds: Sequence[bool] = (True, False)) -> float:
        pairs = zip(answers, part.answers, strict=True)
        best = [max(score(answer, text) for text in texts_of(true)) for answer, true in pairs if bool(true) in kinds]
        return sum(best) / max(len(best), 1)

    scores = {"f1": mean(word_f1), "exact_match": mean(exact_match)}
    if not all(part.answers):
        scores |= {"f1_answered": mean(word_f1, [True]), "found_unanswered": mean(word_f1, [False])}
    return scores


def texts_of(answers: Sequence[tuple[str, int]]) -> list[str]:
    """The texts that are right; the empty one where there is no answer."""
    return [text for text, _ in answers] or [""]


def question_word(question: str) -> str:
    """What the question asks with: who, when, where, how many …; empty if with none of these."""
    found = re.search(r"\b(who|when|where|how many|how much|how|what|which|why)", question.lower())
    return found[0] if found else ""


def by_shared_words(train_part: Questions, part: Questions) -> list[str]:
    """The baseline's answers: where the words of the question stand, the first number or name.

    Of the paragraph's sentences it takes that whose words shared with the question are worth most (each the
    logarithm of sentences to those that have it, in the train part), and in it the first number if the question
    asks when or how many, else the first run of words with a capital. Such that train also writes small, or that
    the question holds, are no names. A sentence without any is given whole.
    """
    told = [sentence for context in dict.fromkeys(train_part.contexts) for _, sentence in sentences_of(context)]
    counts = Counter(word for sentence in told for word in set(normalized(sentence)))
    small = {word.strip(string.punctuation) for text in told for word in text.split() if word[:1].islower()}
    answers = []
    for question, context in zip(part.questions, part.contexts, strict=True):
        asked = set(normalized(question))

        def worth(sentence: str, asked: set[str] = asked) -> float:
            return sum(math.log((len(told) + 1) / (counts[word] + 1)) for word in asked & set(normalized(sentence)))

        best = max((sentence for _, sentence in sentences_of(context)), key=worth)
        number = question_word(question) in ("when", "how many", "how much")
        run: list[str] = []
        for word in best.split():
            plain = word.strip(string.punctuation)
            new = plain.lower() not in asked and plain.lower() not in small
            if plain[:1].isdigit() if number else plain[:1].isupper() and new:
                run.append(plain)
            elif run:
                break
        answers.append(" ".join(run) or best)
    return answers


def plain_answers(train_part: Questions, part: Questions) -> list[str]:
    """Those of `by_shared_words`, or none at all where that is more often right of the train part's questions."""
    if not all(train_part.answers):
        found, silent = by_shared_words(train_part, train_part), [""] * len(train_part)
        if answer_scores(silent, train_part)["f1"] > answer_scores(found, train_part)["f1"]:
            return [""] * len(part)
    return by_shared_words(train_part, part)


def asked_in_other_words(part: Questions) -> list[int]:
    """Numbers of the questions that share with the sentence of their answer nothing but small words and such words
    as other sentences of the paragraph have, too.
    """
    found, small = [], set(SMALL_WORDS.split())
    for index, (question, context) in enumerate(zip(part.questions, part.contexts, strict=True)):
        if not part.answers[index]:
            continue
        start = part.answers[index][0][1]
        sentences = sentences_of(context)
        owner = max(place for place, (begin, _) in enumerate(sentences) if begin <= start)
        elsewhere = {word for place, (_, text) in enumerate(sentences) if place != owner for word in normalized(text)}
        if not set(normalized(question)) & set(normalized(sentences[owner][1])) - elsewhere - small:
            found.append(index)
    return found


def with_rivals(part: Questions) -> list[int]:
    """Numbers of the questions whose paragraph has another one with the same question word and another answer."""
    answers: dict[tuple[str, str], set[str]] = {}
    keys = [(context, question_word(one)) for context, one in zip(part.contexts, part.questions, strict=True)]
    for key, true in zip(keys, part.answers, strict=True):
        answers.setdefault(key, set()).add(texts_of(true)[0])
    return [index for index, key in enumerate(keys) if key[1] and len(answers[key]) > 1]
