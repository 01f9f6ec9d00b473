"""The same batches by any number of workers, errors that say where, and times that add up."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.async_loading import SlowStore, build_model, make_loader, train, waits
from recipes.training.scoring import evaluate

CPU = torch.device("cpu")


def pictures(count: int = 48) -> Images:
    images = torch.randint(256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(images, torch.arange(count) % 4, list("abcd"))


def epoch(workers: int, number: int = 0, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = make_loader(SlowStore(pictures(), 0.0), 8, workers, seed=seed)
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return [(images, labels) for images, labels, _ in loader]


def order(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([images for images, _ in batches])


def test_the_order_is_the_same_for_every_number_of_workers() -> None:
    expected = epoch(0)
    for workers in (1, 3):
        for (images, labels), (others, truth) in zip(epoch(workers), expected, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, truth)
    assert torch.equal(order(epoch(0)), order(expected))
    assert not torch.equal(order(epoch(0, number=1)), order(expected))
    assert not torch.equal(order(epoch(0, seed=1)), order(expected))


def test_batches_are_the_data_sets_own_and_say_who_read_them_when() -> None:
    data = pictures()
    loader = make_loader(SlowStore(data, 0.002), 8, 2)
    everything, _ = data.__getitems__(range(48))
    readers, ends, seen = [], [], []
    for images, labels, (reader, began, ended) in loader:
        rows = [int((everything == image).all(dim=(1, 2, 3)).nonzero()) for image in images]
        assert data.labels[rows].tolist() == labels.tolist()
        assert ended - began >= 8 * 0.002
        readers.append(reader)
        ends.append(ended)
        seen += rows
    assert sorted(seen) == list(range(48))
    assert readers == [1, 2, 1, 2, 1, 2], "workers take turns"
    assert ends[0::2] == sorted(ends[0::2])
    (_, _, (reader, _, _)), *_ = make_loader(SlowStore(data, 0.0), 8, 0)
    assert reader == 0


class Seeds(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int, float]:
        return torch.tensor([torch.initial_seed(), torch.randint(10**9, ())]), index, 0.0


def test_workers_draw_different_numbers_that_repeat_with_the_seed() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [images[0].tolist() for images, _, _ in make_loader(Seeds(), 2, 2, seed=seed)]

    first = drawn(3)
    assert first == drawn(3)
    assert first != drawn(4)
    assert len({seed for seed, _ in first}) == 2, "a seed each"
    assert len({number for _, number in first}) == 4


def test_the_number_of_workers_changes_no_weight() -> None:
    weights = []
    for workers in (0, 2):
        torch.manual_seed(0)
        model = build_model(1, 4)
        _, _, steps = train(
            model, make_loader(SlowStore(pictures(), 0.0), 8, workers), compute=0, lr=1e-2, epochs=2, device=CPU
        )
        assert [step.epoch for step in steps] == [0] * 6 + [1] * 6
        weights.append(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    torch.manual_seed(0)
    assert all(not torch.equal(old, new) for old, new in zip(build_model(1, 4).parameters(), weights[0], strict=True))


def files(folder: Path) -> ImageFiles:
    paths = [folder / f"{number}.png" for number in range(16)]
    for path in paths:
        Image.new("L", (8, 8), 100).save(path)
    return ImageFiles(paths, (1, 8, 8), torch.arange(16) % 2, ["a", "b"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_that_fails_names_the_file(workers: int, tmp_path: Path) -> None:
    data = files(tmp_path)
    (tmp_path / "11.png").write_bytes(b"no picture")
    store = SlowStore(data, 0.0)
    with pytest.raises(InputError) as caught:
        list(make_loader(store, 4, workers))
    assert str(caught.value).startswith(f"{tmp_path / '11.png'}: expected a whole picture")
    assert "\n" not in str(caught.value)


class Deadly(SlowStore):
    def __getitem__(self, index: int) -> tuple[Tensor, int, float]:
        sample = super().__getitem__(index)
        if index == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


def test_a_worker_that_is_killed_names_the_file(tmp_path: Path) -> None:
    store = Deadly(files(tmp_path), 0.0)
    with pytest.raises(RuntimeError, match=r"worker .* was reading .*11\.png \("):
        list(make_loader(store, 4, 1))


def test_waits_are_counted_by_batch_and_epoch() -> None:
    loader = make_loader(SlowStore(pictures(), 0.002), 8, 0)
    waited = waits(loader, epochs=2)
    assert [len(one) for one in waited] == [6, 6]
    assert min(map(min, waited)) >= 8 * 0.002


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_images()
    assert isinstance(train_set, Images)
    torch.manual_seed(0)
    wrong = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
    model = build_model(1, 10)
    train(model, make_loader(SlowStore(wrong, 0.0), 64, 0), compute=0, lr=5e-3, epochs=3, device=CPU)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


@pytest.mark.xdist_group("training.async_loading")
def test_times_add_up(default_run: Callable[[str], Result]) -> None:
    """No speed is asserted: only what waiting on purpose makes certain, and that all rows learned the same."""
    result = default_run("training.async_loading")
    assert [row["workers"] for row in result.rows] == [0, 1, 2, 4]
    assert result.rows[0]["step_ms"] >= 64 * 1.5 + 30
    assert all(row["step_ms"] >= 29 for row in result.rows)
    assert len({row["loss"] for row in result.rows}) == 1
    assert result.claims[2].holds


def test_options_that_cannot_be_are_named() -> None:
    for option in ({"workers": 0}, {"wait": -1.0}, {"compute": -1.0}, {"batch_size": 1000}):
        with pytest.raises(InputError, match=next(iter(option))):
            recipes.run("training.async_loading", **option)
