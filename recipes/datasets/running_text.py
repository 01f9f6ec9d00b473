"""Opens running text, the language reference that every Python carries or your own files, and cuts it into windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recipes.core.errors import InputError
from recipes.datasets.unicode import utf8_text


def open_running_text(data: str | Path | None = None, *, held_out: float = 0.1) -> tuple[str, str]:
    """Opens running text and cuts it in two by position: what comes first to train on, the end to test on.

    Neighbouring sentences tell much of each other, so a random draw of them would be no fair test.

    Args:
        data: a text file in UTF-8, or a folder whose files *.txt, also in folders below it, are joined in the
            order of their names. Default: `pydoc_data.topics` of Python's standard library.
        held_out: share of the characters at the end that is for testing.

    Raises:
        InputError: nothing there, a file that is not UTF-8, or too little text; it names the file.
    """
    if data is None:
        source, text = "pydoc_data.topics", python_reference()
    else:
        path = Path(data).expanduser()
        source = str(path)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*.txt") if file.is_file())
            if not files:
                raise InputError(f"{path}: expected a folder with files *.txt, found none")
        elif path.is_file():
            files = [path]
        else:
            raise InputError(f"{path}: no such file or folder")
        text = "\n\n".join(read_text(file) for file in files)
    cut = len(text) - int(len(text) * held_out)
    if not 0 < cut < len(text):
        raise InputError(f"{source}: {len(text)} characters, expected enough for a train and a test part")
    return text[:cut], text[cut:]


def read_text(path: Path) -> str:
    """The file's characters, lines ended by a newline alone."""
    text = utf8_text(path.read_bytes(), path).replace("\r\n", "\n").strip("\n")
    if not text.strip():
        raise InputError(f"{path}: the file is empty; expected text")
    return text


def python_reference() -> str:
    """The reference of the Python language, topic by topic; a paragraph that several topics share comes once.

    Otherwise the end of the text would hold paragraphs that its beginning had already shown.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError("pydoc_data is missing from this Python; name a text file with data=PATH") from None
    return "\n\n".join(different(part for name in sorted(topics) for part in topics[name].split("\n\n")))


def different(paragraphs: Iterable[str]) -> list[str]:
    """The paragraphs in their order, without empty ones and without any that came before."""
    return list(dict.fromkeys(stripped for part in paragraphs if (stripped := part.strip("\n"))))


@dataclass
class Windows:
    """A text cut into windows, each with its target: the characters `shift` places on.

    Attributes:
        ids: numbers of the text's characters, (characters,).
        context: characters in a window.
        shift: 1 for a target that is the next character.
        jitter: start a window anywhere from its own place to the next one's, so that no two passes are alike.
    """

    ids: Tensor
    context: int
    shift: int = 1
    jitter: bool = False

    def __len__(self) -> int:
        return (len(self.ids) - self.shift) // self.context

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        starts = torch.tensor(indices) * self.context
        if self.jitter:
            starts += torch.randint(self.context, starts.shape)
            starts.clamp_(max=len(self.ids) - self.shift - self.context)
        places = starts[:, None] + torch.arange(self.context)  # (batch, context)
        return self.ids[places], self.ids[places + self.shift]
