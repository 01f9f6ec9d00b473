"""The same batches by any number of workers, errors that say where, and counts of who reads what."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import recipes
from recipes.core.errors import InputError
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.async_loading import (
    AsyncLoadingOptions,
    SlowStore,
    Stream,
    build,
    in_tens,
    make_loader,
    measured,
    readers,
    train,
)
from recipes.training.scoring import evaluate

CPU = torch.device("cpu")


def options(**given: Any) -> AsyncLoadingOptions:
    return AsyncLoadingOptions(**{"device": "cpu", "batch_size": 8, "compute": 0.0} | given)


def pictures(count: int = 48) -> Images:
    images = torch.randint(256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(images, torch.arange(count) % 4, list("abcd"))


def epoch(workers: int, number: int = 0, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = make_loader(SlowStore(pictures(), 0.0), options(workers=workers, seed=seed))
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
    everything, _ = data.__getitems__(range(48))
    who, ends, seen = [], [], []
    for images, labels, reading in make_loader(SlowStore(data, 2.0), options(workers=2)):
        rows = [int((everything == image).all(dim=(1, 2, 3)).nonzero()) for image in images]
        assert data.labels[rows].tolist() == labels.tolist()
        reader, began, ended = reading.tolist()
        assert ended - began >= 8 * 2_000_000
        who.append(reader)
        ends.append(ended)
        seen += rows
    assert sorted(seen) == list(range(48))
    assert who == [who[0], who[1]] * 3, "workers take turns"
    assert len({*who, os.getpid()}) == 3
    assert ends[0::2] == sorted(ends[0::2])
    assert readers(make_loader(SlowStore(data, 0.0), options(workers=0))) == {os.getpid()}


class Seeds(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return torch.tensor([torch.initial_seed(), torch.randint(10**9, ())]), index, 0


def test_workers_draw_different_numbers_that_repeat_with_the_seed() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [rows[0].tolist() for rows, _, _ in make_loader(Seeds(), options(workers=2, batch_size=2, seed=seed))]

    first = drawn(3)
    assert first == drawn(3)
    assert first != drawn(4)
    assert len({seed for seed, _ in first}) == 2, "a seed each"
    assert len({number for _, number in first}) == 4


def test_the_number_of_workers_changes_no_weight() -> None:
    weights = []
    for workers in (0, 2):
        torch.manual_seed(0)
        given = options(workers=workers, epochs=2)
        model = build(given, pictures())
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        _, steps = train(model, make_loader(SlowStore(pictures(), 0.0), given), given)
        assert len(steps) == 12
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], start)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_that_fails_names_the_file(workers: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(16)]
    for path in paths:
        Image.new("L", (8, 8), 100).save(path)
    (tmp_path / "11.png").write_bytes(b"no picture")
    store = SlowStore(ImageFiles(paths, (1, 8, 8), torch.arange(16) % 2, ["a", "b"]), 0.0)
    with pytest.raises(InputError) as caught:
        list(make_loader(store, options(workers=workers, batch_size=4)))
    assert str(caught.value).startswith(f"{tmp_path / '11.png'}: expected a whole picture")
    assert "\n" not in str(caught.value)


def test_shares_and_times_of_steps_made_by_hand() -> None:
    """Two workers, in ms: each batch is read while the one before is used, but the first."""
    millisecond = 1_000_000
    steps = [[7, 0, 10, 10, 20], [8, 11, 18, 20, 30], [7, 19, 29, 30, 40], [8, 31, 45, 45, 55]]
    row = measured([[one, *(time * millisecond for time in times)] for one, *times in steps], 2)
    assert row["overlapping"] == 0.75
    assert row["ready when asked for"] == pytest.approx(2 / 3)
    assert (row["load ms"], row["compute ms"], row["ideal ms"]) == (10, 10, 10)
    assert row["step ms"] == pytest.approx(12.5)
    assert measured([[7, 0, 5, 5, 8]], 0)["ideal ms"] == pytest.approx(8e-6)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_range_100_comes_in_order_and_is_asked_for_ahead(workers: int) -> None:
    assert in_tens(workers) == (list(range(100)), 2 * workers)


def test_a_stream_comes_once_from_each_worker_unless_shared() -> None:
    whole, shared = (torch.cat([*DataLoader(Stream(one), 10, num_workers=2)]) for one in (False, True))
    assert whole.bincount().tolist() == [2] * 100
    assert shared.bincount().tolist() == [1] * 100


def test_persistent_workers_are_started_once() -> None:
    store = SlowStore(pictures(), 0.0)
    assert len(readers(make_loader(store, options(workers=2)))) == 2
    assert len(readers(make_loader(store, options(workers=2, persistent=False)))) == 6


def test_shuffled_labels_cannot_be_learned() -> None:
    train_set, test_set = open_images()
    assert isinstance(train_set, Images)
    torch.manual_seed(0)
    wrong = replace(train_set, labels=train_set.labels[torch.randperm(len(train_set))])
    given = options(workers=0, batch_size=64, epochs=3)
    model = build(given, train_set)
    train(model, make_loader(SlowStore(wrong, 0.0), given), given)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


@pytest.mark.parametrize(
    "given", [{"workers": -1}, {"workers": 65}, {"prefetch": 0}, {"wait": -1.0}, {"compute": -1.0}]
)
def test_options_that_cannot_be_are_named(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(given))}"):
        recipes.run("training.async_loading", **given)
