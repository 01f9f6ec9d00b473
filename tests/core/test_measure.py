import time

import pytest
import torch
from torch import nn

from recipes.core.measure import interleaved, macs, parameter_count, ratio


def test_macs_and_parameters_by_formula() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert parameter_count(model) == 3 * 8 * 9 + 8 * 16 * 5 + 5
    assert macs(model, torch.zeros(2, 3, 4, 4)) == 2 * (3 * 8 * 9 * 16 + 8 * 16 * 5)


def test_macs_of_what_torch_computes_in_one_call() -> None:
    """A Transformer layer in evaluation mode and an LSTM, which a counter of calls sees as nothing."""
    width, hidden, words = 8, 16, 5
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval()
    products = words * width * (3 * width + width + 2 * hidden) + 2 * words * words * width
    assert macs(layer, torch.zeros(3, words, width)) == 3 * products
    assert macs(nn.LSTM(width, hidden, batch_first=True), torch.zeros(3, words, width)) == (
        3 * words * 4 * hidden * (width + hidden)
    )
    assert torch.backends.mha.get_fastpath_enabled()


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert parameter_count(model) == 16


def test_interleaved_rounds_measure_processor_time() -> None:
    calls: list[str] = []

    def work(name: str, count: int) -> None:
        calls.append(name)
        time.sleep(0.001)  # which takes no processor time
        sum(range(count))

    threads = torch.get_num_threads()
    seconds = interleaved({"a": lambda: work("a", 40_000), "b": lambda: work("b", 400_000)}, rounds=5, warmup=1)
    assert calls == ["a", "b"] * 6
    assert [len(times) for times in seconds.values()] == [5, 5]
    assert torch.get_num_threads() == threads
    low, middle, high = ratio(seconds["b"], seconds["a"])
    assert low <= middle <= high


def test_ratio() -> None:
    assert ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])[1] == pytest.approx(2.0)
