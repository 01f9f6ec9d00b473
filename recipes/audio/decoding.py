"""From a recognizer's probabilities to words, and how far those are from what was said."""

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

BLANK = 0  # class k is word number k + 1


def greedy(log_probs: Tensor) -> list[int]:
    """The likeliest entry of each frame (frames, words + 1), repeats merged and blanks dropped."""
    merged = log_probs.argmax(dim=1).unique_consecutive()
    return merged[merged != BLANK].tolist()


def beam_search(log_probs: Tensor, beam: int = 8, unlikely: float = 1e-4) -> list[int]:
    """The likeliest words, found by keeping `beam` beginnings, each the sum of all frames' strings that stand for it.

    A beginning has two probabilities, since a repeated word counts anew only after a blank: that its frames
    end in a blank, and that they end in its last word. Entries below `unlikely` are passed over.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    for frame in log_probs.exp().tolist():
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for words, (blank_last, word_last) in beams.items():
            grown[words][0] += (blank_last + word_last) * frame[BLANK]
            if words:
                grown[words][1] += word_last * frame[words[-1]]
            for word, probability in enumerate(frame):
                if word == BLANK or probability < unlikely:
                    continue
                repeated = bool(words) and word == words[-1]
                grown[*words, word][1] += (blank_last if repeated else blank_last + word_last) * probability
        best = sorted(grown.items(), key=lambda entry: sum(entry[1]), reverse=True)[:beam]
        total = sum(sum(pair) for _, pair in best)  # held at 1, lest hundreds of factors come to zero
        beams = {words: (blank / total, word / total) for words, (blank, word) in best}
    return list(max(beams.items(), key=lambda entry: sum(entry[1]))[0])


def edit_distance(said: Sequence[int], heard: Sequence[int]) -> int:
    """The fewest words to insert, drop or exchange that make one string into the other."""
    row = list(range(len(heard) + 1))  # from none of `said` to each beginning of `heard`
    for i, word in enumerate(said, start=1):
        above, row = row, [i]
        for j, other in enumerate(heard, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def word_error_rate(said: Sequence[Sequence[int]], heard: Sequence[Sequence[int]]) -> float:
    """Edit distances summed over all strings, as a share of the words said."""
    return sum(map(edit_distance, said, heard)) / sum(map(len, said))


def rates(said: Sequence[list[int]], heard: Sequence[list[int]]) -> dict[str, float]:
    """The word error rate, and the share of strings without an error."""
    exact = sum(map(list.__eq__, said, heard)) / len(said)
    return {"word_error_rate": word_error_rate(said, heard), "exact_match": exact}
