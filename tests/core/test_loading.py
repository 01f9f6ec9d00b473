"""Batches of samples of similar length."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.core import errors, loading, plain
from recipes.core.loading import ByLength, batches_by_length
from recipes.core.options import Options


class Sequences:
    """Sequences of ones, of 8 to 40."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = [torch.ones(int(length)) for length in torch.randint(8, 41, (count,), generator=generator)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return pad_sequence([self.ids[index] for index in indices], batch_first=True), torch.tensor(indices)


def test_batches_hold_samples_of_similar_length() -> None:
    loader = batches_by_length(Sequences(4000), Options(batch_size=50))
    assert len(loader) == 80

    def orders() -> list[list[int]]:
        epochs = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            epochs.append(list(loader.sampler))
        return epochs

    first, second = orders()
    assert first != second
    assert [first, second] == orders()
    assert sorted(first) == list(range(4000))
    batches = [ids for ids, _ in loader]
    padding = torch.cat([(ids == 0).flatten() for ids in batches]).double().mean()
    assert padding < 0.05
    widths = torch.tensor([ids.shape[1] for ids in batches], dtype=torch.double)
    assert widths[:40].mean() == pytest.approx(widths[40:].mean().item(), rel=0.15), "short and long ones are mixed"


def test_batches_by_length_resume_in_the_middle_of_a_pass() -> None:
    whole, resumed = (batches_by_length(Sequences(103), Options(batch_size=10, seed=3)) for _ in range(2))
    resumed.load_state_dict({"given": 4})  # type: ignore[attr-defined]
    expected, rest, next_pass = ([indices.tolist() for _, indices in one] for one in (whole, resumed, resumed))
    assert rest == expected[4:]
    assert next_pass == expected


def test_processes_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.randint(1, 40, (103,))
    whole = torch.tensor(list(ByLength(lengths, 10, seed=3))).view(-1, 10)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(loading, "rank_and_world", lambda rank=rank: (rank, 2))
        sampler = ByLength(lengths, 10, seed=3)
        assert (sampler.share, len(sampler)) == (5, 50)
        shares.append(torch.tensor(list(sampler)).view(-1, 5))
    assert torch.equal(torch.cat(shares, dim=1).sort(dim=1).values, whole.sort(dim=1).values)


@pytest.mark.parametrize("batch_size", [1, 10, 200])
def test_the_lean_order_by_length_is_the_same(batch_size: int) -> None:
    lengths = torch.randint(1, 40, (103,))
    mine, lean = (kind(lengths, batch_size, seed=3) for kind in (ByLength, plain.ByLength))
    for epoch in range(2):
        mine.set_epoch(epoch)
        lean.set_epoch(epoch)
        assert list(mine) == list(lean)
        assert len(mine) == len(lean)


@pytest.mark.parametrize(("batch_size", "share", "told"), [(8, 2, None), (10, 2, 8), (3, 1, 4), (100, 5, 20)])
def test_a_batch_that_does_not_divide_among_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch_size: int, share: int, told: int | None
) -> None:
    """Of 21 samples: what is taken is told, once."""
    monkeypatch.setattr(loading, "rank_and_world", lambda: (0, 4))
    errors.tell.cache_clear()
    assert [loading.share_of(batch_size, 21) for _ in range(2)] == [share, share]
    line = f"option batch_size: {told} samples a step are taken, {share} in each of 4 processes\n"
    assert capsys.readouterr().err == ("" if told is None else line)
