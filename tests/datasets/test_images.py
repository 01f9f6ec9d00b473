"""Opening pictures with a class: each format, the scale they come in, and what is refused."""

import gzip
import importlib.util
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from recipes.core.errors import InputError
from recipes.core.loading import as_is, batches
from recipes.core.options import Options
from recipes.datasets import images as opener
from recipes.datasets.bundled import bundled
from recipes.datasets.images import ImageFiles, Images, open_images, read_idx
from recipes.datasets.plain import images_folders, images_idx
from recipes.vision import classification

REAL = os.environ.get("RECIPES_REAL_DATA")
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def picture(path: Path, size: tuple[int, int] = (12, 10), mode: str = "RGB", seed: int = 0) -> Path:
    """Saves a picture of noise, `size` as (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with 6 pictures of cats and 4 of dogs, val/ with 2 of each, all 12 wide and 10 high."""
    counts = {"train/cat": 6, "train/dog": 4, "val/cat": 2, "val/dog": 2}
    for start, (name, count) in enumerate(counts.items()):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png", seed=10 * start + i)
    return tmp_path


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    """A copy of the bundled digits."""
    return Path(shutil.copytree(bundled("digits"), tmp_path / "idx"))


def refused(data: Any, *words: str, **options: int) -> None:
    """The folder is refused with one line that holds these words."""
    with pytest.raises(InputError) as caught:
        open_images(data, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def everything(part: Images | ImageFiles) -> Tensor:
    return part.__getitems__(list(range(len(part))))[0]


def test_bundled_digits() -> None:
    train, test = open_images()
    assert isinstance(train, Images)
    assert (len(train), len(test), train.shape, test.shape) == (1437, 360, (1, 8, 8), (1, 8, 8))
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert train.classes == list("0123456789")
    assert train.labels.unique().tolist() == test.labels.unique().tolist() == list(range(10))
    assert (train.images.min(), train.images.max()) == (0, 255)


def test_digits_are_those_of_scikit_learn() -> None:
    """Every picture of the set is in one of the parts, once, with its label."""
    from sklearn.datasets import load_digits

    train, test = open_images(normalize=False)
    read = torch.cat([everything(train), everything(test)]).flatten(1)  # (1797, 64)
    truth = torch.tensor(load_digits().data / 16).float()
    distance, place = torch.cdist(truth, read).min(dim=1)
    assert distance.max() < 64**0.5 * 0.5 / 255 + 1e-5
    assert len(place.unique()) == len(truth) == len(read)
    labels = torch.cat([train.labels, test.labels])
    assert torch.equal(labels[place], torch.tensor(load_digits().target))
    assert torch.bincount(test.labels).min() >= 35


def test_maker_reproduces_the_bundled_bytes(tmp_path: Path) -> None:
    maker = bundled("digits").parent / "make_digits.py"
    spec = importlib.util.spec_from_file_location("make_digits", maker)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path / "digits")
    for name in IDX:
        assert (tmp_path / "digits" / name).read_bytes() == (bundled("digits") / name).read_bytes()


def test_train_part_has_mean_0_and_deviation_1_and_test_part_the_same_scale() -> None:
    train, test = open_images()
    pixels = train.images.double() / 255
    assert train.mean is not None
    assert train.std is not None
    torch.testing.assert_close(train.mean, pixels.mean().float().view(1))
    torch.testing.assert_close(train.std, pixels.std(correction=0).float().view(1))
    assert torch.equal(test.mean, train.mean)
    batch = everything(train)
    assert abs(batch.mean()) < 1e-5
    assert abs(batch.std() - 1) < 1e-3
    expected = (test.images[:7] / 255 - train.mean.view(-1, 1, 1)) / train.std.view(-1, 1, 1)
    torch.testing.assert_close(test.__getitems__(list(range(7)))[0], expected)


def test_statistics_are_of_each_channel(folder: Path) -> None:
    train, _ = open_images(folder)
    torch.testing.assert_close(train.mean, (train.images.double() / 255).mean((0, 2, 3)).float())
    assert everything(train).mean((0, 2, 3)).abs().max() < 1e-5


def test_without_normalizing_pictures_are_between_0_and_1() -> None:
    train, _ = open_images(normalize=False)
    assert train.mean is None
    assert train.std is None
    torch.testing.assert_close(everything(train), train.images / 255)


def test_one_picture_is_that_of_its_batch_and_leaves_the_set_as_it_was() -> None:
    train, _ = open_images()
    before = train.images.clone()
    images, labels = train.__getitems__([5, 2, 5])
    assert images.dtype == torch.float32
    assert images.shape == (3, 1, 8, 8)
    assert torch.equal(images[0], images[2])
    assert torch.equal(train[2][0], images[1])
    assert train[2][1] == labels[1]
    assert torch.equal(train[-1][0], train[len(train) - 1][0])
    assert torch.equal(train.images, before)
    assert sum(1 for _ in train) == len(train)  # type: ignore[misc, attr-defined]


def test_subset_keeps_the_scale() -> None:
    train, _ = open_images()
    few = train.subset([3, 1, 4])
    assert len(few) == 3
    assert torch.equal(few.labels, train.labels[[3, 1, 4]])
    assert torch.equal(few[0][0], train[3][0])
    assert torch.equal(train.subset(torch.tensor([1]))[0][0], train[1][0])


def test_batches_come_from_a_loader() -> None:
    train, _ = open_images()
    images, labels = next(iter(batches(train, Options(batch_size=64))))
    assert (images.shape, labels.shape) == ((64, 1, 8, 8), (64,))


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))],
)
def test_a_set_moves_to_a_device(device: str) -> None:
    for normalize in (True, False):
        train, _ = open_images(normalize=normalize)
        images, labels = train.to(device).__getitems__([1, 2])
        assert (images.device.type, labels.device.type) == (device, device)
        torch.testing.assert_close(images.cpu(), train.__getitems__([1, 2])[0])
        assert len(train.to(device).subset([0, 1])) == 2


@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw", "a/b/c"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_plain_or_packed_at_any_depth(idx: Path, tmp_path: Path, below: str, packed: bool) -> None:
    target = tmp_path / "root" / below
    target.mkdir(parents=True)
    for name in IDX:
        content = (idx / name).read_bytes()
        (target / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    train, test = open_images(tmp_path / "root")
    bundled_train, bundled_test = open_images()
    assert torch.equal(train.images, bundled_train.images)
    assert torch.equal(test.labels, bundled_test.labels)


def test_idx_files_with_a_dot_in_their_names(idx: Path) -> None:
    for name in IDX:
        (idx / name).rename(idx / name.replace("-idx", ".idx"))
    assert len(open_images(idx)[0]) == 1437


def test_fashion_mnist_has_its_class_names(idx: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(idx, tmp_path / "FashionMNIST" / "raw")
    assert open_images(raw)[0].classes == torchvision.datasets.FashionMNIST.classes
    assert open_images(raw.parent)[0].classes[0] == "T-shirt/top"
    project = shutil.copytree(idx, tmp_path / "my_fashion_project" / "data" / "digits")
    assert open_images(project)[0].classes[0] == "0"


def test_idx_pictures_are_resized() -> None:
    train, test = open_images(image_size=16)
    assert train.shape == test.shape == (1, 16, 16)
    wide = torch.zeros(2, 1, 4, 9, dtype=torch.uint8)
    wide[..., 4] = 200
    cut = opener.resized(wide, 4)
    assert cut.shape == (2, 1, 4, 4)
    assert cut.amax() == 200


def test_folders_with_train_and_val(folder: Path) -> None:
    train, test = open_images(folder)
    assert train.classes == ["cat", "dog"]
    assert (len(train), len(test), train.shape) == (10, 4, (3, 10, 12))
    assert train.labels.tolist() == [0] * 6 + [1] * 4
    assert test.labels.tolist() == [0, 0, 1, 1]
    saved = np.asarray(Image.open(folder / "val" / "dog" / "1.png"))
    assert np.array_equal(test.images[3].permute(1, 2, 0).numpy(), saved)


def test_class_folders_alone_are_split_by_class_and_seed(folder: Path) -> None:
    (train, test), (again, _), (other, _) = (open_images(folder / "train", seed=seed) for seed in (0, 0, 1))
    assert (len(train), len(test)) == (8, 2)
    assert test.labels.tolist() == [0, 1]
    assert torch.equal(train.images, again.images)
    assert not torch.equal(train.images, other.images)
    kept = {image.numpy().tobytes() for image in train.images}
    assert not kept & {image.numpy().tobytes() for image in test.images}


def test_a_test_folder_without_classes_is_passed_over(folder: Path) -> None:
    picture(folder / "test" / "1.png")
    assert [len(part) for part in open_images(folder)] == [10, 4]
    shutil.rmtree(folder / "val")
    assert [len(part) for part in open_images(folder)] == [8, 2]


def test_train_alone_is_split_and_may_also_be_the_name_of_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert [len(part) for part in open_images(folder)] == [8, 2]
    (folder / "train" / "cat").rename(folder / "train" / "train")
    assert open_images(folder / "train")[0].classes == ["dog", "train"]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "gif"])
def test_kinds_of_picture_files(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        for i in range(3):
            picture(tmp_path / name / f"{i}.{suffix}", seed=i)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "._0.jpg").write_bytes(b"what macOS leaves beside a file")
    train, test = open_images(tmp_path)
    assert (len(train), len(test), train.shape) == (4, 2, (3, 10, 12))


def test_grey_pictures_have_one_channel_unless_one_is_coloured(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        picture(path, mode="L")
    assert open_images(folder)[0].shape == (1, 10, 12)
    picture(folder / "val" / "dog" / "1.png")
    assert open_images(folder)[0].shape == (3, 10, 12)


def test_pictures_of_16_bits_keep_their_range(folder: Path) -> None:
    values = np.linspace(0, 65535, 120).astype(np.uint16).reshape(10, 12)
    for path in folder.rglob("*.png"):
        Image.fromarray(values).save(path)
    train, _ = open_images(folder)
    assert train.shape == (1, 10, 12)
    assert np.array_equal(train.images[0, 0].numpy(), (values >> 8).astype(np.uint8))


def test_photographs_are_turned_upright(folder: Path) -> None:
    path = folder / "train" / "cat" / "0.png"
    values = np.zeros((10, 12, 3), np.uint8)
    values[:5] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    Image.fromarray(values).save(path, exif=exif)
    assert open_images(folder)[0].images[0, :, 9].min() == 255


def test_sizes(folder: Path) -> None:
    picture(folder / "train" / "cat" / "0.png", size=(13, 10))
    assert open_images(folder)[0].shape == (3, 224, 224)
    assert open_images(folder, image_size=8)[0].shape == (3, 8, 8)
    for path in folder.rglob("*.png"):
        picture(path, size=(257, 20))
    assert open_images(folder)[0].shape == (3, 224, 224)


def test_the_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path: Path) -> None:
    values = np.zeros((40, 120, 3), np.uint8)
    values[:, 40:80] = (255, 128, 0)  # the centre
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / name / f"{i}.jpg", quality=95)
    train, _ = open_images(tmp_path, image_size=10)
    centre = train.images[0, :, 1:-1, 1:-1].float().mean((1, 2))
    torch.testing.assert_close(centre, torch.tensor([255.0, 128.0, 0.0]), atol=4, rtol=0)


def test_streaming_gives_what_memory_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = open_images(folder)
    monkeypatch.setattr(opener, "IN_MEMORY", 1000)
    streamed = open_images(folder)
    for expected, part in zip(held, streamed, strict=True):
        assert isinstance(part, ImageFiles)
        assert (part.shape, part.classes, len(part)) == (expected.shape, expected.classes, len(expected))
        assert torch.equal(part.mean, expected.mean)
        assert torch.equal(part.std, expected.std)
        assert torch.equal(everything(part), everything(expected))
        assert torch.equal(part[1][0], expected[1][0])
        assert torch.equal(everything(part.subset([2, 0])), everything(expected.subset([2, 0])))
    assert streamed[0].to("cpu") is streamed[0]


def test_streaming_by_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    train, _ = open_images(folder)
    loader = DataLoader(train, batch_size=4, num_workers=1, collate_fn=as_is)  # type: ignore[arg-type]
    assert torch.equal(torch.cat([images for images, _ in loader]), everything(train))


def test_a_worker_that_fails_or_is_killed_names_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    train, _ = open_images(folder)
    broken, whole = train.files[3], opener.decode

    def killed(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        if path == broken:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(path, shape)

    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(InputError) as failed:
        list(batches(train, Options(batch_size=1), workers=1))
    assert str(failed.value).startswith(f"{broken}: expected a whole picture")
    assert "\n" not in str(failed.value)
    monkeypatch.setattr(opener, "decode", killed)
    with pytest.raises(RuntimeError, match=rf"died while it was reading {re.escape(str(broken))} "):
        list(batches(train, Options(batch_size=1), workers=1))


def test_statistics_of_a_sample_depend_on_the_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    monkeypatch.setattr(opener, "SAMPLE", 3)
    means = [open_images(folder, seed=seed)[0].mean for seed in (0, 0, 1)]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


def test_a_streamed_picture_that_is_cut_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    train, _ = open_images(folder)
    path = folder / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cat.0\.png: expected a whole picture"):
        train[0]


def test_threads_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_images(folder)[0].images
    monkeypatch.setattr(opener, "WORTH_A_THREAD", 0)
    assert torch.equal(open_images(folder)[0].images, expected)
    path = folder / "train" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    refused(folder, str(path), "whole picture")


def test_no_such_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(picture(tmp_path / "one.png"), "one.png", "not a folder")
    refused(tmp_path, str(tmp_path), "IDX", "folder for each class")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        (IDX[0], lambda content: b"\x00\x00\x0d\x03" + content[4:], "starts with 00 00 08 03"),
        (IDX[0], lambda content: content[:9], "starts with 00 00 08 03"),
        (IDX[0], lambda content: content[:-5], "1437 x 8 x 8 bytes"),
        (IDX[2], lambda content: content + b"x", "360 x 8 x 8 bytes"),
        (IDX[1], lambda content: b"", "starts with 00 00 08 01"),
        (IDX[3], lambda content: content[:-1], "360 bytes"),
    ],
)
def test_spoilt_idx_files(idx: Path, name: str, spoil, words: str, packed: bool) -> None:
    content = spoil((idx / name).read_bytes())
    (idx / name).unlink()
    file = idx / (name + ".gz" * packed)
    file.write_bytes(gzip.compress(content) if packed else content)
    refused(idx, str(file), words)


@pytest.mark.parametrize("name", IDX)
def test_missing_idx_files(idx: Path, name: str) -> None:
    (idx / name).unlink()
    refused(idx, str(idx / name), "no such file")


def test_packed_files_that_are_cut_or_corrupt(idx: Path) -> None:
    packed = gzip.compress((idx / IDX[0]).read_bytes())
    (idx / IDX[0]).unlink()
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes(255 - value for value in packed[middle : middle + 40]) + packed[middle + 40 :]
    for content in (packed[:-100], packed[:5], flipped, b"not packed at all"):
        (idx / (IDX[0] + ".gz")).write_bytes(content)
        refused(idx, IDX[0] + ".gz", "gzip")


def test_idx_images_and_labels_of_different_counts(idx: Path) -> None:
    shutil.copy(idx / IDX[3], idx / IDX[1])
    refused(idx, "train", "360", "1437")


def test_idx_labels_out_of_range(idx: Path) -> None:
    content = bytearray((idx / IDX[3]).read_bytes())
    content[-1] = 11
    (idx / IDX[3]).write_bytes(bytes(content))
    refused(idx, IDX[3], "labels must be from 0 to 9", "11")


def test_idx_images_of_two_sizes(idx: Path) -> None:
    content = (idx / IDX[2]).read_bytes()
    (idx / IDX[2]).write_bytes(content[:8] + bytes([0, 0, 0, 4, 0, 0, 0, 16]) + content[16:])
    refused(idx, "differ in size")
    assert open_images(idx, image_size=8)[1].shape == (1, 8, 8)


def test_two_sets_of_idx_files(idx: Path) -> None:
    shutil.copytree(idx, idx.parent / "other")
    refused(idx.parent, "one set of IDX files", "idx", "other")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp"])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_pictures_that_are_cut(folder: Path, suffix: str, keep: float) -> None:
    path = picture(folder / "train" / "dog" / f"0.{suffix}", size=(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    refused(folder, str(path), "whole picture")


def test_pictures_that_are_corrupt(folder: Path) -> None:
    path = picture(folder / "val" / "dog" / "0.png", size=(64, 64))
    content = bytearray(path.read_bytes())
    content[2000:2050] = bytes(50)
    path.write_bytes(bytes(content))
    refused(folder, str(path), "whole picture")


def test_a_class_without_pictures(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()
    refused(folder, str(folder / "train" / "bird"), "found none")


def test_classes_that_do_not_match(folder: Path) -> None:
    picture(folder / "val" / "bird" / "0.png")
    refused(folder, str(folder / "val" / "bird"), "cat, dog")
    shutil.rmtree(folder / "val" / "bird")
    shutil.rmtree(folder / "train" / "dog")
    shutil.rmtree(folder / "val" / "dog")
    refused(folder, "two classes")


def test_nothing_to_test_on(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png")
    picture(tmp_path / "b" / "0.png")
    refused(tmp_path, "two or more pictures")


def test_options_out_of_range() -> None:
    refused(bundled("digits"), "image_size", image_size=0)


def test_torchvision_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opener, "CACHE", tmp_path / "cache")
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

    def colours(root: Path, train: bool, download: bool) -> SimpleNamespace:
        assert (root, download) == (tmp_path / "cache", True)
        return SimpleNamespace(data=noise, targets=[0, 1] * 3, classes=["plane", "car"])

    def house_numbers(root: Path, split: str, download: bool) -> SimpleNamespace:
        assert split in ("train", "test")
        return SimpleNamespace(data=noise.transpose(0, 3, 1, 2), labels=np.array([0, 1] * 3))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", colours)
    monkeypatch.setattr(torchvision.datasets, "SVHN", house_numbers)
    cifar, _ = open_images("torchvision:CIFAR10")
    svhn, _ = open_images("torchvision:SVHN", normalize=False)
    assert (cifar.classes, svhn.classes, cifar.shape) == (["plane", "car"], ["0", "1"], (3, 8, 8))
    assert torch.equal(cifar.images, svhn.images)
    assert np.array_equal(cifar.images[2, :, 3, 4].numpy(), noise[2, 3, 4])
    assert open_images("torchvision:CIFAR10", image_size=4)[1].shape == (3, 4, 4)


def test_torchvision_sets_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opener, "CACHE", tmp_path / "cache")
    refused("torchvision:CIFAR11", "CIFAR11", "CIFAR10,")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand a second line")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    refused("torchvision:CIFAR10", "torchvision:CIFAR10", "cannot be downloaded", "no route to host")


class Pictures(Dataset):
    """Noise in the form that is asked for, of one size unless `sizes` names more (width, height); two classes."""

    def __init__(
        self,
        form: Callable[[np.ndarray], Any] = Image.fromarray,
        count: int = 6,
        *,
        gray: bool = False,
        sizes: Sequence[tuple[int, int]] = ((12, 10),),
    ) -> None:
        self.form, self.count, self.gray, self.sizes = form, count, gray, sizes

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> np.ndarray:
        width, height = self.sizes[index % len(self.sizes)]
        shape = (height, width) if self.gray else (height, width, 3)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.form(self.pixels(index)), index % 2


def channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "PIL": Image.fromarray,
    "array": channels_first,
    "flipped array": lambda pixels: channels_first(pixels)[..., ::-1].copy()[..., ::-1],
    "tensor": lambda pixels: torch.from_numpy(channels_first(pixels).copy()),
    "float array": lambda pixels: channels_first(pixels) / 255,
    "float tensor": lambda pixels: torch.from_numpy(channels_first(pixels).copy()).float() / 255,
    "half tensor": lambda pixels: (torch.from_numpy(channels_first(pixels).copy()).float() / 255).half(),
}


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_pair_of_datasets_in_every_form(name: str, gray: bool) -> None:
    pair = Pictures(FORMS[name], 8, gray=gray), Pictures(FORMS[name], 4, gray=gray)
    train, test = open_images(pair)
    assert isinstance(train, Images)
    assert (len(train), len(test), train.shape, train.classes) == (8, 4, (1 if gray else 3, 10, 12), ["0", "1"])
    assert (train.labels.tolist(), train.labels.dtype) == ([0, 1] * 4, torch.int64)
    for i in range(8):
        expected = pair[0].pixels(i)
        found = train.images[i].permute(1, 2, 0).numpy()
        assert np.array_equal(found[:, :, 0] if gray else found, expected)
    assert everything(train).mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.equal(test.mean, train.mean)
    assert open_images(pair, normalize=False)[0].mean is None
    assert torch.equal(train.subset([3, 1])[0][0], train[3][0])


def test_a_pair_of_image_folders_is_the_folder(folder: Path) -> None:
    pair = [torchvision.datasets.ImageFolder(str(folder / part)) for part in ("train", "val")]
    for ours, theirs in zip(open_images(pair), open_images(folder), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert (ours.classes, ours.shape) == (theirs.classes, theirs.shape)
        assert torch.equal(ours.mean, theirs.mean)
    small = open_images(pair, image_size=5)[0]
    assert torch.equal(small.images, open_images(folder, image_size=5)[0].images)


def test_datasets_of_unequal_pictures() -> None:
    mixed = Pictures(sizes=[(12, 10), (30, 20)])
    assert open_images((mixed, mixed), image_size=8)[0].shape == (3, 8, 8)
    assert open_images((mixed, mixed))[0].shape == (3, 224, 224)
    train, test = open_images((Pictures(gray=True), Pictures()))
    assert train.shape == test.shape == (3, 10, 12)
    assert torch.equal(train.images[:, 0], train.images[:, 1])


def test_datasets_that_do_not_fit_or_change_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pictures(), Pictures(count=4)
    held = open_images(pair)
    monkeypatch.setattr(opener, "IN_MEMORY", 100)
    for part, expected in zip(open_images(pair), held, strict=True):
        assert isinstance(part, ImageFiles)
        assert part.workers == 2
        assert torch.equal(everything(part), everything(expected))
        assert torch.equal(everything(part.subset([2, 0])), everything(expected.subset([2, 0])))
    monkeypatch.undo()
    random = Pictures(lambda pixels: torch.rand(3, 10, 12))
    train, test = open_images((random, Pictures()))
    assert isinstance(train, ImageFiles)
    assert isinstance(test, Images)
    assert not torch.equal(train[0][0], train[0][0])


def test_batches_of_files_are_read_by_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pictures(), Pictures()
    assert batches(open_images(pair)[0], Options(batch_size=2)).num_workers == 0
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    for data in (folder, pair):
        loader = batches(open_images(data)[0], Options(batch_size=3))
        assert loader.num_workers == 2
        assert next(iter(loader))[0].shape == (3, 3, 10, 12)


def test_a_sample_that_breaks_in_a_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    changing = Pictures()
    train, _ = open_images((changing, changing))
    changing.sizes = [(0, 0)]
    changing.form = channels_first
    with pytest.raises(InputError, match=r"^data: train sample \d: expected a PIL picture") as error:
        list(batches(train, Options(batch_size=1)))
    assert "\n" not in str(error.value)


def test_sets_that_were_opened_are_taken_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_images(folder)
    again = open_images(opened)
    assert torch.equal(everything(again[0]), everything(opened[0]))
    assert open_images((opened[0].subset([0, 1, 6]), opened[1]), image_size=4)[0].images.shape == (3, 3, 4, 4)
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    files = open_images(open_images(folder), image_size=4)[0]
    assert files[0][0].shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda pixels: "picture.png", ["got 'picture.png'"]),
        (lambda pixels: None, ["got a NoneType"]),
        (lambda pixels: pixels, ["(10, 12, 3)", "1 or 3 channels"]),
        (lambda pixels: torch.zeros(4, 10, 12), ["(4, 10, 12)"]),
        (lambda pixels: torch.zeros(1, 3, 10, 12), ["(1, 3, 10, 12)"]),
        (lambda pixels: torch.zeros(3, 0, 12), ["(3, 0, 12)"]),
        (lambda pixels: torch.zeros(12), ["(12,)"]),
        (lambda pixels: torch.zeros(3, 10, 12, dtype=torch.int64), ["uint8 or float", "int64"]),
        (lambda pixels: np.zeros((10, 12), bool), ["uint8 or float", "bool"]),
        (lambda pixels: torch.full((3, 10, 12), float("nan")), ["floats from 0 to 1", "nan"]),
        (lambda pixels: channels_first(pixels) / 128 - 1.0, ["floats from 0 to 1", "Normalize"]),
        (lambda pixels: channels_first(pixels).astype(np.float32), ["floats from 0 to 1", "255"]),
    ],
)
def test_pictures_of_a_dataset_that_cannot_be_taken(form: Callable[[np.ndarray], Any], words: list[str]) -> None:
    refused((Pictures(), Pictures(form)), "data: test sample 0: expected ", *words)


def test_pairs_that_cannot_be_taken(folder: Path) -> None:
    refused((folder / "train", folder / "val"), "data: expected a path or a pair (train, test)", "train part")
    refused((Pictures(), Subset(Pictures(), [])), "the test part is empty")
    refused((Subset(Pictures(), [0, 2]), Pictures()), "data: expected at least two classes to train on, found 1")
    named = [torchvision.datasets.ImageFolder(str(folder / part)) for part in ("train", "val")]
    named[1].classes = ["dog", "cat"]
    refused(named, "the same classes", "cat, dog and dog, cat")
    picture(folder / "train" / "cat" / "0.png").write_bytes(b"no picture")
    refused([named[0], Pictures()], "data: train sample 0", "UnidentifiedImageError")


@pytest.mark.parametrize("image_size", [None, 24])
@pytest.mark.parametrize("layout", ["split", "classes alone"])
def test_the_opener_of_copies_gives_the_same(tmp_path: Path, layout: str, image_size: int | None) -> None:
    """Photos of unequal sizes, which JPEG's draft mode decodes at a half or a quarter; one is upside down."""
    for number in range(12):
        part = ("train", "val")[number // 8] if layout == "split" else ""
        path = picture(tmp_path / part / "ab"[number % 2] / f"{number}.jpg", (130 + 9 * number, 200), seed=number)
        if number == 3:
            exif = Image.Exif()
            exif[0x0112] = 3
            with Image.open(path) as image:
                image.save(path, exif=exif)
    picture(tmp_path / "train" / "a" / "._1.jpg") if layout == "split" else None
    for ours, theirs in zip(
        images_folders.open_images(str(tmp_path), image_size=image_size, seed=3),
        open_images(tmp_path, image_size=image_size, seed=3),
        strict=True,
    ):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.classes == theirs.classes
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.std, theirs.std)
        assert torch.equal(ours.__getitems__([0, 1])[0], theirs.__getitems__([0, 1])[0])


@pytest.mark.parametrize("image_size", [None, 5, 20])
def test_the_opener_of_copies_gives_the_same_digits(image_size: int | None) -> None:
    for ours, theirs in zip(
        images_idx.open_images(str(bundled("digits")), image_size=image_size),
        open_images(image_size=image_size),
        strict=True,
    ):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(everything(ours), everything(theirs))
        assert ours.shape == theirs.shape


@pytest.mark.parametrize(
    "names", [("train", "validation"), ("Training", "Testing"), ("TRAIN", "dev"), ("train", "Valid"), ("train", "eval")]
)
def test_names_of_parts(folder: Path, names: tuple[str, str]) -> None:
    """Training/ and Testing/ are no classes."""
    for old, new in zip(("train", "val"), names, strict=True):
        (folder / old).rename(folder / "moved")
        (folder / "moved").rename(folder / new)
    train, test = open_images(folder)
    assert (train.classes, len(train), len(test)) == (["cat", "dog"], 10, 4)


def test_parts_that_lack_the_train_part_or_are_there_twice(folder: Path) -> None:
    (folder / "train").rename(folder / "Testing")
    refused(folder, "has the parts test, val: expected train beside them")
    (folder / "Testing").rename(folder / "training")
    (folder / "val").rename(folder / "dev")
    shutil.copytree(folder / "dev", folder / "validation")
    refused(folder, "expected one val part")
    for part in ("Train", "test"):
        picture(folder / "heaps" / part / "0.png")
    refused(folder / "heaps", "Train: expected a folder for each class")
    picture(folder / "heaps" / "test" / "cat" / "0.png")
    refused(folder / "heaps", "Train: expected a folder for each class")


def test_what_is_no_picture_is_left_out_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.HEIC", "c.txt", ".DS_Store", "Thumbs.db"):
        (folder / "train" / "cat" / name).write_bytes(b"x")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        picture(folder / "train" / name / "0.png")
    for name in ("test/1.png", "loose.png", "train/loose.png", "val/loose.png"):
        picture(folder / name)
    assert len(open_images(folder)[0]) == 10
    told = [
        f"{folder}: 3 pictures outside of the class folders left out, 1 folders left out (test)",
        f"{folder}: 2 .heic files left out, 1 .txt files left out",
    ]
    assert capsys.readouterr().err.splitlines() == told


def test_a_train_part_without_a_test_part_is_split_and_that_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "val", folder / "test")
    assert [len(part) for part in open_images(folder)] == [10, 4]
    (folder / "test").rename(folder / "test1")
    (folder / "val").rename(folder / "blue")
    assert [len(part) for part in open_images(folder)] == [8, 2]
    split = "2 folders left out (blue, test1): no test or val with a folder for each class, so train is split"
    assert capsys.readouterr().err.splitlines() == [f"{folder}: 1 folders left out (val)", f"{folder}: {split}"]


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "ppm", "JPG"])
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        for i in (1, 2, 10):
            picture(tmp_path / name / f"{i}.{suffix}", seed=i, size=(i, 1))
    train, test = open_images(tmp_path, image_size=1)
    assert (len(train), len(test)) == (4, 2)


def test_numbered_files_are_in_their_order(tmp_path: Path) -> None:
    for i in range(12):
        for name in ("a", "b"):
            path = tmp_path / "train" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (1, 1), i).save(path)
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    assert open_images(tmp_path)[0].images.flatten().tolist() == [*range(12)] * 2


@pytest.mark.parametrize("size", [(1, 1), (3, 3)])
def test_small_pictures_and_one_of_each_class(tmp_path: Path, size: tuple[int, int]) -> None:
    for name in ("train/a", "train/b", "test/a"):
        picture(tmp_path / name / "0.png", size=size)
    train, test = open_images(tmp_path)
    assert train.shape == (3, *size)
    assert (len(train), len(test)) == (2, 1)
    assert everything(train).isfinite().all()


def test_pictures_that_are_too_small_for_a_network(tmp_path: Path) -> None:
    for name in ("a/0", "a/1", "b/0", "b/1"):
        picture(tmp_path / f"{name}.png", size=(1, 1))
    with pytest.raises(InputError, match="too small for this network: expected at least 8 pixels a side"):
        classification.run(data=tmp_path, epochs=1, batch_size=2)


def test_phone_photos_are_measured_upright(tmp_path: Path) -> None:
    """All are 12 wide and 20 high, though some are stored lying on a side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(4):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        upright = Image.new("RGB", (12, 20), (0, 0, 255))
        upright.paste((255, 0, 0), (0, 0, 12, 10))
        upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif) if i else upright.save(path)
    train, test = open_images(tmp_path)
    assert train.shape == (3, 20, 12)
    for part in (train, test):
        assert (part.images[:, 0, :10] == 255).all()
        assert (part.images[:, 2, 10:] == 255).all()


def emnist(folder: Path, kind: str, labels: Sequence[int]) -> None:
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        name = folder / f"emnist-{kind}-{part}"
        shape = len(labels).to_bytes(4, "big")
        images = bytes((0, 0, 8, 3)) + shape + bytes((0, 0, 0, 2, 0, 0, 0, 2)) + bytes(range(4)) * len(labels)
        Path(f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        Path(f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + shape + bytes(labels)))


def test_emnist(tmp_path: Path) -> None:
    home = tmp_path / "gzip"
    emnist(home, "letters", [1, 26, 3])
    train, test = open_images(home)
    assert (len(train.classes), train.classes[0], train.classes[25]) == (26, "A", "Z")
    assert train.labels.tolist() == test.labels.tolist() == [0, 25, 2]
    for kind, count in (("balanced", 47), ("bymerge", 47), ("byclass", 62), ("digits", 10), ("mnist", 10)):
        emnist(home, kind, [0, count - 1])
        classes = open_images(home / f"emnist-{kind}")[0].classes
        assert classes == torchvision.datasets.EMNIST.classes_split_dict.get(kind, list("0123456789"))
    refused(home, "expected one set of IDX files", "emnist-balanced")
    refused(home / "emnist-klingon", "no such folder")
    emnist(tmp_path / "other", "letters", [0, 1])
    refused(tmp_path / "other", "labels must be from 1 to 26, found 0 to 1")


def test_folders_beside_idx_files(idx: Path) -> None:
    """Kaggle's archive of MNIST has each file plain, and again in a folder of its name."""
    digits = open_images()[0]
    for name in IDX:
        (idx / name).rename(idx / name.replace("-idx", ".idx"))
        (idx / name).mkdir()
        shutil.copy(bundled("digits") / name, idx / name)
    assert torch.equal(open_images(idx)[0].images, digits.images)
    for name in IDX:
        (idx / name.replace("-idx", ".idx")).unlink()
    assert torch.equal(open_images(idx)[0].images, digits.images)


needs_real = pytest.mark.skipif(REAL is None, reason="RECIPES_REAL_DATA is not set")


@pytest.mark.real
@needs_real
def test_real_fashion_mnist() -> None:
    train, test = open_images(Path(str(REAL)) / "fashion_mnist")
    assert (len(train), len(test), train.shape) == (60_000, 10_000, (1, 28, 28))
    assert train.labels.bincount().tolist() == [6000] * 10
    assert train.classes[9] == "Ankle boot"
    torch.testing.assert_close(train.mean, torch.tensor([0.2860]), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std, torch.tensor([0.3530]), atol=1e-4, rtol=0)


@pytest.mark.real
@needs_real
def test_real_fashion_mnist_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(str(REAL)) / "fashion_mnist"
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(opener, "CACHE", tmp_path)
    for ours, theirs in zip(open_images(source), open_images("torchvision:FashionMNIST"), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.classes == theirs.classes
    raw = source / "FashionMNIST" / "raw"
    assert read_idx(raw / "t10k-labels-idx1-ubyte.gz", 1)[:3].tolist() == [9, 2, 1]


@pytest.mark.real
@needs_real
def test_real_cifar10_jpg(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(REAL)) / "cifar10_jpg"
    train, test = open_images(folder)
    assert (len(train), len(test), train.shape, len(train.classes)) == (6000, 2000, (3, 32, 32), 10)
    reference = torchvision.datasets.ImageFolder(str(folder / "train"))
    assert reference.classes == train.classes
    for i in (0, 777, 5999):
        expected, label = reference[i]
        assert np.array_equal(train.images[i].permute(1, 2, 0).numpy(), np.asarray(expected))
        assert train.labels[i] == label
    monkeypatch.setattr(opener, "IN_MEMORY", 0)
    streamed, _ = open_images(folder)
    assert isinstance(streamed, ImageFiles)
    assert train.mean is not None
    torch.testing.assert_close(streamed.mean, train.mean, atol=0.02, rtol=0)


@pytest.mark.real
@needs_real
def test_real_hymenoptera() -> None:
    train, test = open_images(Path(str(REAL)) / "hymenoptera_data")
    assert (len(train), len(test), train.shape) == (244, 153, (3, 224, 224))
    assert train.classes == ["ants", "bees"]
    assert train.labels.bincount().tolist() == [123, 121]
