"""Opens short clips with a class: pictures that are made to move, or yours, a folder of frames for each clip.

A folder of clips has `train/CLASS/CLIP/*.jpg` and `test/` (or `val/`) alike, or the CLASS folders alone, of which one
fifth of the clips is held out. Frames are in natural order of their names. What else `recipes.datasets.images` opens,
the bundled digits among it, are single pictures, which are made to move.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.files import own_path
from recipes.core.loading import holdout
from recipes.datasets.images import decode_all, open_images, split_folders
from recipes.datasets.reading import PICTURE_SUFFIXES, by_split, files_in, folders_in, is_folder, tell_left_out

MOTIONS = ["left", "right", "up", "down", "turning left", "turning right"]


@dataclass
class Clips:
    """Short films with a class.

    Attributes:
        frames: uint8 (N, C, T, H, W).
        labels: int64 (N,), indices into `classes`.
        classes: their names.
    """

    frames: Tensor
    labels: Tensor
    classes: list[str]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a clip."""
        channels, count, height, width = self.frames.shape[1:]
        return channels, count, height, width

    def __len__(self) -> int:
        return len(self.frames)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clips on the scale 0 to 1, float32 (B, C, T, H, W), and their classes, (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return self.frames[index].float() / 255, self.labels[index]

    def subset(self, indices: Sequence[int] | Tensor) -> Self:
        """These clips alone."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, frames=self.frames[index], labels=self.labels[index])


def open_clips(
    data: Any = None, *, frames: int = 8, image_size: int = 16, count: int = 800, seed: int = 0
) -> tuple[Clips, Clips]:
    """The train and the test part.

    Args:
        data: folder of clips in the layout above, or what `open_images` takes.
        frames: of each clip, at equal distances; all of a clip that has no more are taken, some of them twice.
        image_size: side in pixels that frames are brought to.
        count: of train clips, if they are drawn from pictures; half as many are drawn from the test part.
        seed: of what is drawn or held out.

    Raises:
        InputError: naming the folder or file that cannot be used.
    """
    if isinstance(data, (str, Path)) and has_clips(own_path(data)):
        return read_clips(own_path(data), frames, image_size, seed)
    train, test = open_images(data, image_size=None if data is None else image_size, seed=seed)
    size = {"frames": frames, "side": image_size}
    return draw_clips(train, count, seed, **size), draw_clips(test, max(1, count // 2), seed + 1, **size)


def has_clips(root: Path) -> bool:
    """Whether a folder has frames where clips have them: in CLASS/CLIP, or train/CLASS/CLIP."""
    if not is_folder(root):
        return False
    kinds = folders_in(by_split(folders_in(root)).get("train", root))
    return any(files_in(clip, PICTURE_SUFFIXES) for kind in kinds for clip in folders_in(kind))


def read_clips(root: Path, frames: int, side: int, seed: int) -> tuple[Clips, Clips]:
    found: list[list[Path]] = []
    left_out: Counter[str] = Counter()
    for part in split_folders(root):
        found.append([])
        for kind in folders_in(part):
            found[-1] += (clips := folders_in(kind))
            left_out.update(f"{path.suffix.lower() or 'nameless'} files in no clip left out" for path in files_in(kind))
            left_out[f"class folders without a clip left out ({kind.name})"] += not clips
        if not found[-1]:
            raise InputError(f"{part}: expected clips, a folder of frames for each in the folder of its class")
    tell_left_out(root, left_out)
    classes = sorted({clip.parent.name for clip in found[0]})
    held_out = found[1] if len(found) > 1 else []
    for clip in held_out:
        if clip.parent.name not in classes:
            raise InputError(f"{clip.parent}: expected a class of the train part: {', '.join(classes)}")
    clips = found[0] + held_out
    labels = torch.tensor([classes.index(clip.parent.name) for clip in clips])
    if len(classes) < 2:
        raise InputError(f"{root}: expected at least two classes to train on, found {len(classes)}")
    whole = Clips(torch.stack([read_clip(clip, (3, frames, side, side)) for clip in clips]), labels, classes)
    if held_out:
        first = len(found[0])
        return whole.subset(range(first)), whole.subset(range(first, len(clips)))
    train, test = holdout(labels, seed=seed)
    if not len(test):
        raise InputError(f"{root}: expected two or more clips in a class, to test on some of them")
    return whole.subset(train), whole.subset(test)


def read_clip(folder: Path, shape: Sequence[int]) -> Tensor:
    """Frames of a folder, at equal distances, as uint8 (C, T, H, W).

    Raises:
        InputError: there are none, or one cannot be read.
    """
    channels, count, height, width = shape
    files = files_in(folder, PICTURE_SUFFIXES)
    if not files:
        raise InputError(f"{folder}: expected frames ({' '.join(PICTURE_SUFFIXES)}), found none")
    chosen = [files[int((index + 0.5) * len(files) / count)] for index in range(count)]
    return decode_all(chosen, (channels, height, width)).transpose(0, 1)


def draw_clips(pictures: Any, count: int, seed: int, *, frames: int = 8, side: int = 16) -> Clips:
    """Clips of a picture that moves over an endless plane, and of a darker one that moves in another way.

    What leaves on one side comes back on the other, so that position and angle are uniform in every frame of every
    motion, and a single frame tells nothing.

    Args:
        pictures: each clip takes two of them at random, in gray.
        count: of clips, as many of each motion, which is that of the brighter picture.
        seed: of all that is drawn.
        frames: of a clip.
        side: of a frame in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(MOTIONS)
    others = torch.randint(len(MOTIONS), (count,), generator=generator)
    bright, dark = (moving(pictures, motion, generator, frames, side) for motion in (labels, others))
    seen = torch.maximum(bright, 0.7 * dark)
    seen = (seen + 0.05 * torch.randn(seen.shape, generator=generator)).clamp(0, 1)
    return Clips((seen * 255).round().to(torch.uint8), labels, MOTIONS)


def moving(pictures: Any, motion: Tensor, generator: torch.Generator, frames: int, side: int) -> Tensor:
    """Pictures drawn at random, each with its motion (N,): (N, 1, frames, side, side) in 0 to 1."""
    count = len(motion)

    def uniform(least: float, most: float) -> Tensor:
        return least + (most - least) * torch.rand(count, 1, generator=generator)

    chosen = torch.randint(len(pictures), (count,), generator=generator)
    ink = pictures.pixels(chosen).float().mean(dim=1, keepdim=True) / 255  # (N, 1, height, width)
    time, speed = torch.arange(frames), uniform(1.5, 2.5) / frames  # the plane reaches from -1 to 1
    direction = torch.tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])[motion]
    x, y, turn = (time * speed * each[:, None] for each in direction.T)  # (N, frames)
    x, y, turn = x + uniform(-1, 1), y + uniform(-1, 1), turn * math.pi / 2 + uniform(0, 2 * math.pi)
    steps = (torch.arange(side) + 0.5) * 2 / side - 1
    across, down = ((steps - at[..., None] + 1) % 2 - 1 for at in (x, y))  # (N, frames, side), round the plane
    across, down = across[:, :, None, :], down[:, :, :, None]
    sine, cosine, size = (each[..., None, None] for each in (turn.sin(), turn.cos(), uniform(0.45, 0.65)))
    grid = torch.stack([cosine * across + sine * down, cosine * down - sine * across], dim=4) / size[..., None]
    return F.grid_sample(ink, grid.flatten(1, 2), align_corners=False).view(count, 1, frames, side, side)
