"""Opens pictures with a class: IDX files, folders of pictures, torchvision's sets, your own Datasets."""

import math
import os
import re
import string
import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.core.loading import Reading, holdout
from recipes.datasets.bundled import bundled
from recipes.datasets.own import PAIR_PARTS, class_names, described, numbered_labels, pair_of_datasets, sample_of
from recipes.datasets.pictures import as_mode, is_gray, opened_picture, read_picture, upright, upright_size
from recipes.datasets.reading import (
    PICTURE_SUFFIXES,
    by_split,
    file_content,
    files_in,
    folders_in,
    require_file,
    require_folder,
    split_named,
    tell_left_out,
    what_is,
)

IN_MEMORY = 2 * 2**30  # bytes of pictures, train and test together, that are held in memory
OWN_SIZE = 256  # pixels; equal pictures up to this size keep it
COMMON_SIZE = 224  # pixels; what others are brought to, the size most pretrained networks expect
SAMPLE = 2000  # pictures that the mean and deviation are estimated from when they do not fit in memory
LOOKED_AT_TWICE = 32  # pictures of a Dataset, to see whether its transforms are random
WORTH_A_THREAD = 8192  # bytes of a file; decoding less than that, threads only wait for each other
IDX_NAME = re.compile(r"(?P<set>[^.].*?|)-?(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
CACHE = Path("~/.cache/pytorch-recipes")
TORCHVISION = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN", "STL10")


class _Labelled:
    """What `Images` and `ImageFiles` share: fetching, and bringing uint8 to the scale a network wants."""

    labels: Tensor
    classes: list[str]
    mean: Tensor | None
    std: Tensor | None

    def __post_init__(self) -> None:
        # (x / 255 - mean) / std is x * scale + shift: computed once here, two passes over a batch there
        one, zero = torch.ones(1, device=self.labels.device), torch.zeros(1, device=self.labels.device)
        mean, std = (zero if self.mean is None else self.mean), (one if self.std is None else self.std)
        self._scale = (1 / (255 * std)).view(-1, 1, 1)  # (C, 1, 1)
        self._shift = (-mean / std).view(-1, 1, 1)

    def pixels(self, indices: Tensor) -> Tensor:
        """The pictures as they are stored: uint8 (B, C, H, W)."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One picture, float32 (C, H, W), and its class."""
        if not -len(self) <= index < len(self):  # an IndexError also ends a for loop over the set
            raise IndexError(f"picture {index} of {len(self)}")
        images, labels = self.__getitems__([index % len(self)])
        return images[0], int(labels[0])

    def __getitems__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """A batch: pictures, float32 (B, C, H, W), and their classes, int64 (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        # In place, after one conversion: twice as fast as addcmul, which broadcasts out of place.
        return self.pixels(index).float().mul_(self._scale).add_(self._shift), self.labels[index]


@dataclass
class Images(_Labelled):
    """Pictures with a class, held in memory.

    Attributes:
        images: uint8 (N, C, H, W), C = 1 (gray) or 3 (red, green, blue).
        labels: int64 (N,), indices into `classes`.
        classes: their names.
        mean, std: (C,) of the train part on the scale 0 to 1; None leaves pictures on that scale.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: list[str]
    mean: Tensor | None = None
    std: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def pixels(self, indices: Tensor) -> Tensor:
        return self.images.index_select(0, indices)

    def subset(self, indices: Sequence[int] | Tensor) -> Self:
        """These pictures alone, on the same scale."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: str | torch.device) -> Self:
        """The same set with its tensors on `device`, where batches are then made without copies."""
        mean, std = (None if value is None else value.to(device) for value in (self.mean, self.std))
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), mean=mean, std=std)


@dataclass
class ImageFiles(_Labelled):
    """Pictures with a class that do not fit in memory: like `Images`, but decoded when asked for.

    Meant to be fetched by the workers of a DataLoader; `workers` says by how many.

    Attributes:
        files: N paths, or samples of a Dataset.
        shape: (C, H, W) that every picture is brought to.
        labels, classes, mean, std: as in `Images`; mean and std are estimates.
    """

    workers: ClassVar[int] = 2

    files: "list[Path] | list[OwnSample]" = field(repr=False)
    shape: tuple[int, int, int]
    labels: Tensor = field(repr=False)
    classes: list[str]
    mean: Tensor | None = None
    std: Tensor | None = None
    reading: Reading = field(default_factory=Reading, repr=False)

    def pixels(self, indices: Tensor) -> Tensor:
        images = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices.tolist()):
            self.reading.note(index)
            images[row] = decode(self.files[index], self.shape)
        return torch.from_numpy(images)

    def subset(self, indices: Sequence[int] | Tensor) -> Self:
        """These pictures alone, on the same scale."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        files: Any = [self.files[i] for i in index.tolist()]
        return replace(self, files=files, labels=self.labels[index])

    def to(self, device: str | torch.device) -> Self:
        """Itself: files stay where they are."""
        return self


@dataclass(slots=True)
class OwnSample:
    """A picture of a Dataset, read when asked for."""

    dataset: Any
    number: int
    part: str  # train or test

    def __str__(self) -> str:
        return f"data: {self.part} sample {self.number}"

    def read(self) -> tuple[Image.Image, Any]:
        """The picture, gray or in color, and the label as the Dataset gives it."""
        picture, label = sample_of(self.dataset, self.number, self.part, "(image, label)")
        return as_picture(picture, str(self)), label


def open_images(
    data: Any = None, *, image_size: int | None = None, normalize: bool = True, seed: int = 0
) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    """Opens pictures with a class: the train and the test part.

    Args:
        data: None for the bundled digits; `torchvision:NAME` to download one of torchvision's sets; or a
            folder with IDX files (the MNIST family, plain or .gz, up to three levels below it; of EMNIST's sets
            in one folder, that which the last part of the path names: `gzip/emnist-letters`), with
            `train/CLASS/*.jpg` and `test/` or `val/` alike, or with the CLASS folders alone. Without a test
            part in class folders, one fifth of each class is held out. Or a pair of Datasets (train, test) of
            (image, label): a PIL picture, or a tensor or array (C, H, W) or (H, W), uint8 or float from 0 to 1;
            what their transforms draw at random is drawn anew each time. Or a pair that was opened before.
        image_size: side in pixels that pictures are brought to: the shorter side is scaled, the center is
            cut out. None keeps the size of pictures that are all equal and at most 256 pixels wide and
            high, and brings others to 224.
        normalize: bring every channel of the train part to mean 0 and deviation 1, and the test part by the
            same numbers; otherwise pictures are on the scale 0 to 1.
        seed: of what is held out, and of the sample that a mean is estimated from.

    Returns:
        Two `Images`, or two `ImageFiles` where the pictures would take more than 2 GiB or change at random.

    Raises:
        InputError: the folder, a file in it or a sample cannot be used, or the download fails.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}: expected at least 1 pixel")
    pair = pair_of_datasets(data)
    folder = Path("data") if pair else bundled("digits") if data is None else own_path(data)
    parts: tuple[Images | ImageFiles, Images | ImageFiles]
    if pair is not None:
        opened = all(isinstance(part, _Labelled) for part in pair)
        parts = _opened_before(pair, image_size) if opened else from_datasets(pair, image_size)
    elif str(data).startswith("torchvision:"):
        parts = _from_torchvision(str(data).removeprefix("torchvision:"), image_size)
    elif idx := _idx_files(folder):
        parts = _from_idx(folder, idx, image_size)
    else:
        require_folder(folder, "pictures with a class")
        parts = _from_folders(folder, image_size, seed)
    train, test = parts
    known, asked = (set(part.labels.unique().tolist()) for part in parts)
    if len(known) < 2:
        raise InputError(f"{folder}: expected at least two classes to train on, found {len(known)}")
    if not asked:
        raise InputError(f"{folder}: expected two or more pictures in a class, to test on some of them")
    if asked - known:
        names = ", ".join(str(dict(enumerate(train.classes)).get(i, i)) for i in sorted(asked - known))
        raise InputError(f"{folder}: expected the test part's classes in the train part, which lacks {names}")
    if normalize:
        mean, std = channel_statistics(train, seed)
        train, test = replace(train, mean=mean, std=std), replace(test, mean=mean, std=std)
    return train, test


def channel_statistics(part: Images | ImageFiles, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel on the scale 0 to 1, each (C,).

    They come from counts of the 256 values, so that they are exact however many pixels there are. Pictures
    in files are counted on a sample of `SAMPLE`, drawn with the seed.
    """
    order = torch.arange(len(part))
    if isinstance(part, ImageFiles):
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    counts = torch.zeros(part.shape[0], 256, dtype=torch.int64)
    for chunk in order.split(1000):
        for channel, values in enumerate(part.pixels(chunk).unbind(1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=256)
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    std = (share @ value.square() - mean.square()).clamp(min=0).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()  # a channel of one value must not divide by zero


def _idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """The IDX files at most three levels below `folder`, or of the set that its path ends with, by part and kind."""
    home, wanted = (folder, None) if what_is(folder) == "folder" else (folder.parent, folder.name)
    for depth in range(4):
        sets: dict[tuple[Path, str], dict[tuple[str, str], Path]] = {}
        for path in sorted(home.glob("*/" * depth + "*idx[13]-ubyte*")):  # the plain file before its .gz
            match = IDX_NAME.fullmatch(path.name)
            if match and wanted in (None, match["set"]) and not os.path.isdir(path):
                # Kaggle puts each file into a folder of its own name.
                twice = path.name.replace(".", "-") == path.parent.name.replace(".", "-")
                own = path.parent.parent if twice else path.parent
                key = match["part"].replace("test", "t10k"), match["kind"]
                sets.setdefault((own, match["set"]), {}).setdefault(key, path)
        names = [str(own / name) if name else str(own) for own, name in sets]
        if len(names) > 1:
            raise InputError(f"{folder}: expected one set of IDX files, found {names[0]} and {names[1]}")
        if sets or wanted:
            return next(iter(sets.values()), {})
    return {}


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of bytes, plain or .gz, as uint8 of so many dimensions.

    The file starts with two zeros, the type (8: bytes), the number of dimensions, and the big-endian size
    of each: http://yann.lecun.com/exdb/mnist/
    """
    content = file_content(path)
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(f"{path}: expected an IDX file, which starts with 00 00 08 {dimensions:02d}")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if math.prod(shape) != len(content) - start or 0 in shape:
        size = " x ".join(map(str, shape))
        raise InputError(f"{path}: expected {size} bytes after the header, found {len(content) - start}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def _from_idx(folder: Path, files: dict[tuple[str, str], Path], image_size: int | None) -> tuple[Images, Images]:
    def read(part: str, kind: str, dimensions: int) -> Tensor:
        if (part, kind) in files:
            return read_idx(files[part, kind], dimensions)
        there = next(iter(files.values()))
        begin = re.split("(train|t10k|test)-(images|labels)", there.name)[0]
        name = f"{begin}{part}-{kind}-idx{dimensions}-ubyte"
        raise InputError(f"{there.with_name(name)}: no such file, nor .gz: expected beside the other IDX files")

    parts = []
    for part in ("train", "t10k"):
        images, given = read(part, "images", 3), read(part, "labels", 1)
        classes, first = _idx_classes(files[part, "labels"])
        labels, where = given.long() - first, files[part, "labels"]
        if len(images) != len(labels):
            raise InputError(f"{where}: {len(images)} {part} images need as many labels, not {len(labels)}")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            wanted = f"from {first} to {first + len(classes) - 1}"
            raise InputError(f"{where}: labels must be {wanted}, found {int(given.min())} to {int(given.max())}")
        parts.append(Images(resized(images.unsqueeze(1), image_size), labels, classes))
    if parts[0].shape != parts[1].shape:
        raise InputError(f"{folder}: train and t10k images differ in size: expected an image_size for both")
    return parts[0], parts[1]


def _idx_classes(path: Path) -> tuple[list[str], int]:
    """The classes' names that go with a file of the MNIST family, and the label of the first."""
    kind = path.name.lower().split("-")[1] if path.name.lower().startswith("emnist-") else ""
    if kind == "letters":
        return list(CHARACTERS[10:36]), 1
    if kind in ("balanced", "bymerge", "byclass"):
        return list(CHARACTERS if kind == "byclass" else CHARACTERS[:36] + "abdefghnqrt"), 0
    # The two innermost folders alone, as in FashionMNIST/raw: a project's name further out says nothing.
    fashion = any("fashion" in name.lower() for name in path.resolve().parts[-3:-1])
    return list(FASHION if fashion else CHARACTERS[:10]), 0


def resized(images: Tensor, size: int | None) -> Tensor:
    """Pictures, uint8 (N, C, H, W), with the shorter side scaled to `size` and the center cut out."""
    height, width = images.shape[2:]
    if size is None or height == width == size:
        return images
    scaled = [max(size, round(side * size / min(height, width))) for side in (height, width)]
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    cut = []
    for chunk in images.split(1000):
        chunk = F.interpolate(chunk, scaled, mode="bilinear", antialias=True)
        cut.append(chunk[:, :, top : top + size, left : left + size])
    return torch.cat(cut)


def _class_folders(folder: Path) -> list[Path]:
    """In the order of torchvision's ImageFolder, which is not the natural one."""
    return sorted(folders_in(folder))


def split_folders(folder: Path) -> list[Path]:
    """The folders of the train and the test part (val, if there is no test), or the folder itself, to be split.

    A class may itself be called "train", but has no folders in it. What is left out is told in one line.
    """
    folders = folders_in(folder)
    named = by_split(path for path in folders if _class_folders(path))
    if named and "train" not in named and len(named) == len(folders):
        raise InputError(f"{folder}: has the parts {', '.join(named)}: expected train beside them")
    others = {split: path for path in folders if (split := split_named(path.name)) and split not in named}
    if "train" in others and (named or len(others) > 1):
        raise InputError(f"{others['train']}: expected a folder for each class in it")
    tested = named.get("test", named.get("val"))
    parts = [folder] if "train" not in named else [named["train"], *([tested] if tested else [])]
    unused = [path.name for path in folders if "train" in named and path not in parts]
    split = "" if tested else ": no test or val with a folder for each class, so train is split"
    loose = sum(len(files_in(path, PICTURE_SUFFIXES)) for path in {folder, *parts}) if folders else 0
    left_out = {f"folders left out ({', '.join(unused)}){split}": len(unused)}
    tell_left_out(folder, {"pictures outside of the class folders left out": loose} | left_out)
    return parts


def _from_folders(folder: Path, image_size: int | None, seed: int) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    train, *tests = split_folders(folder)
    classes = [path.name for path in _class_folders(train)]
    if not classes:
        raise InputError(f"{train}: expected IDX files (*-images-idx3-ubyte) or a folder for each class")
    files: list[Path] = []
    numbers: list[int] = []
    left_out: Counter[str] = Counter()
    for subfolder in (path for part in (train, *tests) for path in _class_folders(part)):
        if subfolder.name not in classes:
            raise InputError(f"{subfolder}: expected a class of the train part: {', '.join(classes)}")
        there = files_in(subfolder, deep=True)
        found = [path for path in there if path.suffix.lower() in PICTURE_SUFFIXES]
        if not found:
            raise InputError(f"{subfolder}: expected pictures ({' '.join(PICTURE_SUFFIXES)}), found none")
        left_out.update(path.suffix.lower() for path in there if path.suffix.lower() not in PICTURE_SUFFIXES)
        files += found
        numbers += [classes.index(subfolder.name)] * len(found)
    tell_left_out(folder, {f"{suffix or 'nameless'} files left out": count for suffix, count in left_out.items()})
    labels = torch.tensor(numbers)
    rows = holdout(labels, seed=seed)
    if tests:
        in_train = torch.tensor([path.is_relative_to(train) for path in files])
        rows = in_train.nonzero().flatten(), (~in_train).nonzero().flatten()
    shape = common_shape(files, image_size)
    fits = len(files) * math.prod(shape) <= IN_MEMORY

    def part(rows: Tensor) -> Images | ImageFiles:
        own = [files[i] for i in rows.tolist()]
        if fits:
            return Images(decode_all(own, shape), labels[rows], classes)
        return ImageFiles(own, shape, labels[rows], classes)

    return part(rows[0]), part(rows[1])


def common_shape(files: list[Path], image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W) that these pictures are brought to; reads no more headers than it takes to tell."""
    channels, sizes, own = 1, set(), image_size is None
    for path in files:
        with opened_picture(path) as (image, _):
            if not is_gray(image):
                channels = 3
            size = upright_size(image)
        sizes.add(size)
        own = own and len(sizes) == 1 and max(size) <= OWN_SIZE
        if channels == 3 and not own:
            break
    width, height = sizes.pop() if own else [image_size or COMMON_SIZE] * 2
    return channels, height, width


def decode(source: Path | OwnSample, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as uint8 (C, H, W), upright, scaled to cover H x W, and its center cut out."""
    channels, height, width = shape
    if isinstance(source, OwnSample):
        image = as_mode(source.read()[0], "L" if channels == 1 else "RGB")
    else:
        image = read_picture(source, "L" if channels == 1 else "RGB", least=(width, height))
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def as_picture(value: Any, where: str, *, turned: bool = True) -> Image.Image:
    """A picture that a Dataset gives, as Pillow has it: gray ("L") or in color ("RGB").

    Args:
        value: a PIL picture, or a tensor or array (C, H, W) or (H, W), uint8 or float from 0 to 1, C = 1 or 3.
        where: what an error names.
        turned: upright, as its EXIF says; otherwise as its pixels are stored.

    Raises:
        InputError: it is anything else, has no pixel, or floats outside 0 to 1.
    """
    wanted = f"{where}: expected a PIL picture, or a tensor or array (C, H, W) or (H, W) with 1 or 3 channels"
    if isinstance(value, Image.Image):
        try:
            value.load()
            return as_mode(upright(value) if turned else value, "L" if is_gray(value) else "RGB")
        except Exception as error:  # Pillow reads a file's pixels only now
            raise InputError(f"{wanted}, but it cannot be read ({str(error).partition(chr(10))[0]})") from error
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
    if not isinstance(value, np.ndarray):
        raise InputError(f"{wanted}, got {described(value)}")
    pixels = value if value.ndim == 3 else value[np.newaxis]
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.size == 0:
        raise InputError(f"{wanted}, got {described(value)}")
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not -1e-3 <= low <= high <= 1 + 1e-3:  # neither is NaN
            told = f"got {low:.3g} to {high:.3g}; leave out Normalize, since the recipe normalizes"
            raise InputError(f"{where}: expected floats from 0 to 1, {told}")
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"{where}: expected pixels that are uint8 or float, got {described(value)}")
    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def _opened_before(pair: tuple[Any, Any], image_size: int | None) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    """Sets that this module opened, in another size if one is asked for."""
    if image_size is None:
        return pair
    size = image_size
    first, second = (
        replace(part, images=resized(part.images, size))
        if isinstance(part, Images)
        else replace(part, shape=(part.shape[0], size, size))
        for part in pair
    )
    return first, second


def from_datasets(pair: tuple[Any, Any], image_size: int | None) -> tuple[Images | ImageFiles, Images | ImageFiles]:
    files = [
        [OwnSample(dataset, i, name) for i in range(len(dataset))]
        for name, dataset in zip(PAIR_PARTS, pair, strict=True)
    ]
    given: list[list[Any]] = [[], []]
    channels, sizes = 1, set()
    first_seen: list[list[np.ndarray]] = [[], []]  # pictures that are read again, to see whether they change
    for samples, labels, seen in zip(files, given, first_seen, strict=True):
        for sample in samples:
            picture, label = sample.read()
            labels.append(label)
            channels = 3 if picture.mode == "RGB" else channels
            sizes.add(picture.size)
            if len(seen) < LOOKED_AT_TWICE:
                seen.append(np.asarray(picture))
    numbers, classes = numbered_labels(given, class_names(pair))
    own = image_size is None and len(sizes) == 1 and max(next(iter(sizes))) <= OWN_SIZE
    width, height = next(iter(sizes)) if own else [image_size or COMMON_SIZE] * 2
    shape = channels, height, width
    fits = sum(map(len, files)) * math.prod(shape) <= IN_MEMORY
    parts: list[Images | ImageFiles] = []
    for samples, labels, seen in zip(files, numbers, first_seen, strict=True):
        again = (np.asarray(sample.read()[0]) for sample in samples)
        if fits and all(np.array_equal(one, other) for one, other in zip(seen, again, strict=False)):
            parts.append(Images(decode_all(samples, shape), torch.tensor(labels), classes))
        else:
            parts.append(ImageFiles(samples, shape, torch.tensor(labels), classes))
    return parts[0], parts[1]


def decode_all(files: list[Path] | list[OwnSample], shape: tuple[int, int, int]) -> Tensor:
    """Pictures as uint8 (N, C, H, W), by as many threads as there are cores where files are large."""
    images = np.empty((len(files), *shape), np.uint8)

    def place(row: int) -> None:
        images[row] = decode(files[row], shape)

    paths = [path for path in files[:20] if isinstance(path, Path)]  # a Dataset may not bear threads
    for path in paths:
        require_file(path)
    first = [path.stat().st_size for path in paths]
    if sum(first) > WORTH_A_THREAD * len(first):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(place, range(len(files))))  # list() raises what a thread raised
    else:
        for row in range(len(files)):
            place(row)
    return torch.from_numpy(images)


def _from_torchvision(name: str, image_size: int | None) -> tuple[Images, Images]:
    if name not in TORCHVISION:
        raise InputError(f"torchvision:{name}: expected one of {', '.join(TORCHVISION)}")
    import torchvision

    root = own_path(CACHE)
    parts = []
    for part in ("train", "test"):
        options = {"split": part} if name in ("SVHN", "STL10") else {"train": part == "train"}
        try:
            root.mkdir(parents=True, exist_ok=True)
            dataset = getattr(torchvision.datasets, name)(root, download=True, **options)
        except Exception as error:  # of the network, the disk, a checksum, an archive
            reason = str(error).partition("\n")[0]
            raise InputError(f"torchvision:{name}: cannot be downloaded to {root} ({reason})") from error
        images = torch.as_tensor(dataset.data)
        if images.ndim == 3:  # (N, H, W)
            images = images.unsqueeze(1)
        elif images.shape[3] == 3:  # (N, H, W, 3)
            images = images.permute(0, 3, 1, 2).contiguous()
        labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels).long()
        classes = list(getattr(dataset, "classes", None) or map(str, range(int(labels.max()) + 1)))
        parts.append(Images(resized(images, image_size), labels, classes))
    return parts[0], parts[1]
