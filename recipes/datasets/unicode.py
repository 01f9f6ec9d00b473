"""The text of a file, or one line that says where it is not UTF-8."""

from pathlib import Path

from recipes.core.errors import InputError


def utf8_text(content: bytes, path: Path, unit: str = "line") -> str:
    """The bytes of a file as text, without a mark of byte order.

    Args:
        content: of the file, unpacked.
        path: of the file, for the error.
        unit: what the file's lines are called there.

    Raises:
        InputError: the bytes are not UTF-8; names the file and the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, {unit} {number}: expected UTF-8 text; save the file as UTF-8") from None
