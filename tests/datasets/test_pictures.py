"""Reading picture files: every mode as red, green and blue, upright, from a closed list of formats."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recipes.core.errors import InputError, tell
from recipes.datasets import pictures
from recipes.datasets.pictures import as_mode, picture_size, read_picture

pytestmark = pytest.mark.filterwarnings("error")


def line_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def colored() -> Image.Image:
    """Red above left, green above right, blue below, 96 x 64."""
    picture = Image.new("RGB", (96, 64), "blue")
    picture.paste((255, 0, 0), (0, 0, 48, 32))
    picture.paste((0, 255, 0), (48, 0, 96, 32))
    return picture


def same(found: Image.Image, expected: Image.Image, off: int = 0) -> bool:
    one, other = (np.asarray(picture).astype(int) for picture in (found, expected))
    return one.shape == other.shape and bool((abs(one - other) <= off).mean() > 0.9)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    colored().save(path, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    assert picture_size(path) == (96, 64)
    assert same(read_picture(path), colored(), off=30)
    path.rename(path.with_suffix(".png"))  # the suffix says nothing
    assert same(read_picture(path.with_suffix(".png")), colored(), off=30)


def test_the_first_of_several_pictures(tmp_path: Path) -> None:
    """Phones write JPEGs with a second picture in them."""
    for name, options in (("a.jpg", {"format": "MPO", "quality": 95}), ("b.gif", {}), ("c.png", {}), ("d.tif", {})):
        colored().save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", (96, 64))], **options)
        assert same(read_picture(tmp_path / name), colored(), off=30), name


@pytest.mark.parametrize("suffix", ["eps", "pdf", "ico", "tga", "icns"])
def test_formats_that_are_never_tried(suffix: str, tmp_path: Path) -> None:
    """Pillow would call Ghostscript for PostScript."""
    path = tmp_path / f"a.{suffix}"
    colored().resize((32, 32)).save(path)
    path = path.rename(tmp_path / "a.png")
    assert "it is none of JPEG, PNG" in line_of(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(orientation: int, suffix: str, tmp_path: Path) -> None:
    """Pixels are stored so that turning them as EXIF says gives the picture."""
    undo: dict[int, Any] = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180}
    undo |= {4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90}
    undo |= {7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
    stored = colored().transpose(undo[orientation]) if orientation > 1 else colored()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    assert picture_size(path) == (96, 64)
    for least in (None, (48, 32), (96, 64)):
        picture = read_picture(path, least=least)
        assert same(picture.resize((96, 64)), colored(), off=60)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_exif_that_says_nothing(value: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    colored().save(tmp_path / "a.png", exif=exif)
    assert same(read_picture(tmp_path / "a.png"), colored())
    content = bytearray(exif.tobytes())
    content[10:] = b"\xff" * len(content[10:])
    colored().save(tmp_path / "b.jpg", exif=bytes(content), quality=95)
    assert same(read_picture(tmp_path / "b.jpg"), colored(), off=30)


def test_what_is_transparent_is_seen_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 2), (0, 0, 0, 0))  # black where nobody sees it
    picture.putpixel((1, 0), (255, 0, 0, 255))
    seen = as_mode(picture, "RGB")
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "YCbCr", "1", "PA"])
def test_modes(mode: str, tmp_path: Path) -> None:
    picture = colored().convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tif" if mode == "PA" else "a.png")
    if mode == "P":
        picture.info["transparency"] = bytes([255]) * 256
    picture.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    gray = mode in ("L", "LA", "1")
    expected = colored().convert("1" if mode == "1" else "L").convert("RGB") if gray else colored()
    assert same(read_picture(path), expected, off=30)
    assert same(read_picture(path, "L"), expected.convert("L"), off=30)


def test_values_of_more_than_8_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 600).reshape(20, 30)
    expected = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    for name, stored in (
        ("a.png", values.astype(np.uint16)),
        ("b.tif", values.astype(np.uint16)),
        ("c.tif", values.astype(np.int32)),
        ("d.tif", (values / 65535).astype(np.float32)),
        ("e.tif", (values / 257).astype(np.float32)),
    ):
        Image.fromarray(stored).save(tmp_path / name)
        assert same(read_picture(tmp_path / name, "L"), expected, off=1), name
        assert same(read_picture(tmp_path / name), expected.convert("RGB"), off=1), name
    (tmp_path / "f.pgm").write_bytes(b"P5 30 20 65535\n" + values.astype(">u2").tobytes())
    assert same(read_picture(tmp_path / "f.pgm", "L"), expected, off=1)


@pytest.mark.parametrize(("kind", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.int32, "tif")])
def test_fewer_bits_than_are_stored(
    kind: Any, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "tell", tell.__wrapped__)  # as in a process of its own
    path = tmp_path / f"a.{suffix}"
    values = np.arange(256).reshape(8, 32)
    for bits in (8, 10, 12, 16):
        Image.fromarray((values << (bits - 8)).astype(kind)).save(path)
        assert np.array_equal(np.asarray(read_picture(path, "L")), values), bits
        told = f"pictures of 16 or 32 bits with no value above {2**bits - 1} are taken as of {bits} bits\n"
        assert capsys.readouterr().err == told * (bits < 16)
    if kind == np.int32:
        Image.fromarray((values << 9).astype(kind)).save(path)
        assert "expected values up to 65535, found 130560" in line_of(path)


def test_masks_keep_their_values(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.uint8).reshape(20, 30) % 3
    picture = Image.fromarray(values)
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png", None)), values)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_too_many_pixels(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert "decompression bomb" in line_of(tmp_path / "a.png")
    with pytest.raises(InputError, match="decompression bomb"):
        picture_size(tmp_path / "a.png")
    (tmp_path / "a.ppm").write_bytes(b"P6 999999999 999999999 255\n")
    line_of(tmp_path / "a.ppm")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm"])
def test_pictures_that_are_cut(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    colored().save(path)
    content = path.read_bytes()
    for length in (0, 1, 10, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:length])
        line_of(path)


def test_every_flipped_bit_of_a_png_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    colored().resize((4, 3)).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        line_of(path)
