import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

import recipes
from recipes.audio.decoding import beam_search, edit_distance, greedy, word_error_rate
from recipes.audio.speech_recognition import (
    SpeechRecognitionOptions,
    SpeechTransformer,
    StringMaker,
    ctc_loss,
    recognize,
    strings_to_test,
    train,
)
from recipes.audio.templates import cut_at_pauses
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.speech import open_speech

CPU = torch.device("cpu")


def random_log_probs(seed: int, frames: int = 5, words: int = 2) -> Tensor:
    return (2 * torch.randn(frames, words + 1, generator=torch.Generator().manual_seed(seed))).log_softmax(dim=1)


def merged(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(entry for entry, _ in itertools.groupby(path) if entry)


def all_strings(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every string of words, over all strings of frames."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        found[merged(path)] += log_probs[range(len(path)), list(path)].sum().exp().item()
    return found


def test_loss_is_that_of_all_frames_strings_summed() -> None:
    for seed in range(5):
        log_probs = random_log_probs(seed)
        for words in ((1,), (1, 2), (2, 2)):
            expected = -torch.tensor(all_strings(log_probs)[words]).log() / len(words)
            torch.testing.assert_close(ctc_loss(log_probs[None], torch.tensor([words])), expected, rtol=1e-4, atol=1e-5)


def test_beam_search_finds_the_likeliest_string() -> None:
    missed = 0
    for seed in range(40):
        log_probs = random_log_probs(seed)
        strings = all_strings(log_probs)
        best = max(strings.values())
        assert strings[tuple(beam_search(log_probs, beam=50))] == pytest.approx(best)
        missed += strings[tuple(greedy(log_probs))] < best - 1e-9
    assert missed > 0, "greedy decoding does not always"


def test_greedy_merges_repeats_but_not_across_blanks() -> None:
    said = torch.tensor([0, 4, 4, 0, 9, 0, 9, 1, 1])
    log_probs = torch.eye(10)[said].clamp(min=1e-6).log()
    assert greedy(log_probs) == beam_search(log_probs) == [4, 9, 9, 1]


def test_edit_distance_equals_the_recursive_definition() -> None:
    @cache
    def slow(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        a, b = (
            tuple(torch.randint(3, (int(torch.randint(7, (), generator=generator)),), generator=generator).tolist())
            for _ in range(2)
        )
        assert edit_distance(a, b) == slow(a, b)
    assert word_error_rate([[1, 2, 3], [4]], [[1, 3], [4, 4]]) == 2 / 4


def test_strings_for_testing_are_never_trained_on() -> None:
    train_set, test_set = open_speech()
    maker = StringMaker(train_set, 10, pause=0.2)
    drawn = [maker.draw()[1] - 1 for _ in range(300)]
    assert {len(labels) for labels in drawn} == {1, 2, 3, 4, 5, 6}
    assert all(int(labels.sum()) % 5 for labels in drawn if len(labels) > 2)
    strings = strings_to_test(test_set, 0.2)
    assert all(sum(word - 1 for word in words) % 5 == 0 and 3 <= len(words) <= 6 for words in strings.said)
    assert torch.equal(strings.spectra, strings_to_test(test_set, 0.2).spectra)


def test_a_string_is_its_recordings_and_its_pauses() -> None:
    recordings, _ = open_speech()
    samples, words = StringMaker(recordings, 1, pause=0).draw(torch.Generator().manual_seed(1))
    recording = next(  # the one that it begins with
        row for row in range(len(recordings)) if torch.equal(samples[: recordings.lengths[row]], recordings.wave(row))
    )
    assert recordings.labels[recording] + 1 == words[0]


def test_cutting_finds_the_pieces() -> None:
    spectrum = torch.full((4, 60), -4.0)
    spectrum[:, 5:20] = 1
    spectrum[:, 30:33] = 1  # too short to be a word
    spectrum[:, 40:55] = 2
    spectrum[:, 45:47] = -4  # too short to be a pause
    assert [piece.shape[1] for piece in cut_at_pauses(spectrum)] == [15, 15]


def test_every_parameter_gets_a_gradient_and_answers_depend_on_sound_and_place() -> None:
    torch.manual_seed(0)
    model = SpeechTransformer(10)
    spectra = torch.randn(2, 32, 80)
    ctc_loss(model(spectra), torch.tensor([[1, 2], [3, 0]])).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    model.eval()
    answers = model(spectra)
    assert answers.shape == (2, 20, 11)
    torch.testing.assert_close(answers.exp().sum(dim=2), torch.ones(2, 20))
    assert (answers[0] - answers[1]).abs().max() > 0.01
    torch.testing.assert_close(model(spectra + 1), answers, rtol=1e-4, atol=1e-4)  # loudness says nothing
    assert (model(spectra.flip(2))[0].flip(0) - answers[0]).abs().max() > 0.01


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_speech()
    torch.manual_seed(0)
    wrong = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
    model = SpeechTransformer(10)
    train(model, wrong, SpeechRecognitionOptions(epochs=6, strings=250, batch_size=8, lr=3e-3, device=CPU))
    assert recognize(model, strings_to_test(test_set, 0.2), CPU)["word_error_rate"] > 0.7


@pytest.mark.xdist_group("audio.speech_recognition")
def test_it_listens(default_run: Callable[[str], Result]) -> None:
    """The trained network's answers are its own string's, and another string's are wrong."""
    model = default_run("audio.speech_recognition").model
    strings = strings_to_test(open_speech()[1], 0.2, seed=5)
    assert recognize(model, strings, CPU, 8)["word_error_rate"] < 0.2
    mixed_up = replace(strings, said=strings.said[1:] + strings.said[:1])
    assert recognize(model, mixed_up, CPU, 8)["word_error_rate"] > 0.6


def test_options_that_cannot_be_are_named() -> None:
    for option in ({"beam": -1}, {"strings": 0}, {"hidden": 30}):
        with pytest.raises(InputError, match=next(iter(option))):
            recipes.run("audio.speech_recognition", **option)
