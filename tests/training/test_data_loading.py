"""Samples, orders and batches, against the plain way of doing each."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from recipes.core.errors import InputError
from recipes.datasets.images import ImageFiles, Images
from recipes.training.data_loading import (
    Balanced,
    DataLoadingOptions,
    InkedPixels,
    PointNet,
    Shuffled,
    Sorted,
    evaluate,
    pad,
    train,
)

CPU = torch.device("cpu")


def dataset(count: int = 40) -> InkedPixels:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    images *= torch.rand(count, 1, 6, 6, generator=generator) > 0.5
    return InkedPixels(Images(images, torch.arange(count) % 4, list("abcd")))


def test_a_sample_says_where_the_ink_is() -> None:
    image = torch.zeros(1, 1, 3, 5, dtype=torch.uint8)
    image[0, 0, 2, 1], image[0, 0, 0, 4] = 51, 255
    sample, label = InkedPixels(Images(image, torch.tensor([1]), ["a", "b"]))[0]
    torch.testing.assert_close(sample, torch.tensor([[0, 1, 1], [1, 0.25, 0.2]]))
    assert label == 1


def test_a_picture_without_ink_is_answered() -> None:
    samples, model = dataset(), PointNet(4, width=32).eval()
    samples.pictures.images[0] = 0
    alone, together = (model(pad(samples.__getitems__(rows))[0])[0] for rows in ([0], [0, 1, 2]))
    torch.testing.assert_close(alone, together)
    assert alone.isfinite().all()


def test_files_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    held = dataset(2)
    for index, image in enumerate(held.pictures.images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{index}.png")
    files = [tmp_path / f"{index}.png" for index in range(2)]
    samples = InkedPixels(ImageFiles(files, (1, 6, 6), held.labels, list("abcd")))
    assert torch.equal(samples[1][0], held[1][0])
    files[0].unlink()
    with pytest.raises(InputError, match=r"0\.png"):
        samples[0]


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    samples = dataset()
    samples.pictures.images[3] = 0  # a picture without ink has no pixels
    order = [5, 3, 3, 39, 0]
    for (mine, label), (theirs, other) in zip(
        samples.__getitems__(order), map(samples.__getitem__, order), strict=True
    ):
        assert torch.equal(mine, theirs)
        assert label == other


def test_moved_samples_keep_their_ink_and_differ_every_time() -> None:
    still, samples = dataset(), dataset()
    samples.moved = 0.05
    torch.manual_seed(0)
    (first, _), (second, _), (origin, _) = samples[0], samples[0], still[0]
    assert torch.equal(first[:, 2], origin[:, 2])
    assert not torch.equal(first, second)
    assert 0 < (first - origin).abs().max() < 0.5


def test_padding_is_masked() -> None:
    samples = dataset().__getitems__(range(8))
    (pixels, real), labels = pad(samples)
    assert real.sum(dim=1).tolist() == [len(sample) for sample, _ in samples]
    assert all(torch.equal(pixels[i][real[i]], sample) for i, (sample, _) in enumerate(samples))
    assert not pixels[~real].any()
    assert labels.tolist() == [label for _, label in samples]


def test_a_sample_is_answered_alike_alone_and_padded() -> None:
    torch.manual_seed(0)
    model, samples = PointNet(4, width=32).eval(), dataset().__getitems__(range(8))
    together = model(pad(samples)[0])
    for row, sample in enumerate(samples):
        torch.testing.assert_close(model(pad([sample])[0])[0], together[row], atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])


def test_orders() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    plain = Shuffled(labels, seed=3)
    first = list(plain)
    assert sorted(first) == list(range(100))
    assert list(Shuffled(labels, seed=3)) == first
    assert list(Shuffled(labels, seed=4)) != first
    plain.set_epoch(1)
    assert list(plain) != first
    assert labels[list(Sorted(labels.flip(0), seed=3))].tolist() != labels.tolist()
    assert labels.flip(0)[list(Sorted(labels.flip(0), seed=3))].tolist() == labels.tolist()
    drawn = torch.cat([labels[list(Balanced(labels, seed))] for seed in range(20)])
    assert abs(drawn.double().mean() - 0.5) < 0.05


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_batches(workers: int) -> None:
    samples = dataset()
    loader = DataLoader(samples, 8, sampler=Shuffled(samples.labels, 0), collate_fn=pad, num_workers=workers)
    (pixels, _), labels = next(iter(loader))
    (expected, _), truth = pad(samples.__getitems__(list(Shuffled(samples.labels, 0))[:8]))
    assert torch.equal(pixels, expected)
    assert torch.equal(labels, truth)


def test_every_parameter_learns_and_shuffled_labels_teach_nothing() -> None:
    samples = dataset(200)
    torch.manual_seed(0)
    model = PointNet(4, width=32)
    before = [parameter.clone() for parameter in model.parameters()]
    train(model, samples, DataLoadingOptions(batch_size=20, epochs=2, device=CPU))
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    unseen = dataset(400)  # labels have nothing to do with the pictures
    assert evaluate(model, unseen, torch.tensor([3]), CPU)["accuracy"] < 0.4
