"""How every opener reads a picture file: from a closed list of formats, upright, in any mode."""

import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from recipes.core.errors import InputError, tell
from recipes.datasets.reading import opened_file

# Formats that Pillow may try, whatever the suffix: never PostScript, for which it would start Ghostscript.
PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
GRAY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}  # Pillow's
TURNS = {  # EXIF's orientation, and what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = [TURNS[number] for number in (5, 6, 7, 8)]
ONE_THREAD = threading.Lock()  # Python's list of warnings to ignore is one for all threads


@contextmanager
def without_warnings() -> Iterator[None]:
    """What Pillow says about odd headers would be more lines beside the one that an error has."""
    with ONE_THREAD, warnings.catch_warnings(action="ignore"):
        yield


@contextmanager
def opened_picture(path: Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """A picture whose header alone was read, as it is stored, and its file; pixels must be loaded before this ends.

    Raises:
        InputError: it cannot be opened, is in none of `PICTURE_FORMATS`, is damaged, or has too many pixels.
    """
    with opened_file(path) as file:
        try:
            with without_warnings():
                image = Image.open(file, formats=PICTURE_FORMATS)
            with image:
                yield image, file
        except InputError:
            raise
        except Exception as error:  # Pillow's readers raise errors of a dozen kinds on damaged files
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = f"it is none of {', '.join(PICTURE_FORMATS)}"
            raise InputError(f"{path}: expected a whole picture, but it cannot be read ({reason})") from None


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What its EXIF says must be done to see the picture upright; Pillow itself turns TIFF. Ask before loading it."""
    if "exif" not in image.info:
        return None
    try:
        with without_warnings():
            return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of damaged EXIF: the pixels may be whole
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture when it is seen upright."""
    turn, (width, height) = turn_of(image), image.size
    return (height, width) if turn in SIDEWAYS else (width, height)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file, seen upright, from its header."""
    with opened_picture(path) as (image, _):
        return upright_size(image)


def upright(image: Image.Image) -> Image.Image:
    """The whole picture as it is meant to be seen, in the mode that it is stored in."""
    turn = turn_of(image)
    image.load()
    return image if turn is None else image.transpose(turn)


def require_whole_png(file: BinaryIO) -> None:
    """Raises ValueError unless all checksums are right up to the end, at which decoding alone does not look."""
    size, kind = os.fstat(file.fileno()).st_size, b""
    file.seek(8)
    while kind != b"IEND":
        length = int.from_bytes(file.read(4), "big") + 4
        body = file.read(min(length, size))
        if len(body) < length or zlib.crc32(body) != int.from_bytes(file.read(4), "big"):
            raise ValueError("it is cut, or a checksum is wrong")
        kind = body[:4]


def read_picture(path: Path, mode: str | None = "RGB", *, least: tuple[int, int] | None = None) -> Image.Image:
    """A picture file, whole and upright.

    Args:
        path: of the file.
        mode: "RGB", "L" (gray), or None for the values that it stores, such as a mask's.
        least: width and height that are enough; a JPEG is decoded at 1/2, 1/4 or 1/8 where that is no smaller.
    """
    with opened_picture(path) as (image, file):
        if least is not None:
            image.draft(None, least[::-1] if turn_of(image) in SIDEWAYS else least)
        whole = upright(image)
        if image.format == "PNG":
            require_whole_png(file)
        return whole if mode is None else as_mode(whole, mode)


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture of any mode as "RGB" or "L": floats from 0 to 1 as shares of white, whole numbers by their top 8 bits.

    Files hold 8, 10 or 12 bits in 16, and any in 32: the highest value tells how many a picture has.

    Raises:
        ValueError: a value does not fit in 16 bits.
    """
    if image.mode.startswith("I"):  # Pillow would clip to 255
        values = np.asarray(image).clip(min=0)
        bits = next((bits for bits in (8, 10, 12, 16) if values.max() < 2**bits), None)
        if bits is None:
            raise ValueError(f"expected values up to {2**16 - 1}, found {values.max()}")
        if bits < 16:
            with ONE_THREAD:
                tell(f"pictures of 16 or 32 bits with no value above {2**bits - 1} are taken as of {bits} bits")
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        image = Image.fromarray((values * (255 if values.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if image.mode == mode:
        return image
    if image.has_transparency_data:  # on white, as viewers show it
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    return image.convert(mode)


def is_gray(image: Image.Image) -> bool:
    """Whether an opened picture has no color."""
    return image.mode in GRAY_MODES
