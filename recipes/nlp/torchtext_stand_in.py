"""torchtext 0.18 beside a torch that its compiled half was not built for.

The last torchtext carries a compiled half for torch 2.3. With any later torch, `import torchtext` fails with an
undefined symbol. The other half is Python and still works: all it lacks then is the class behind its `Vocab`, which
is a list and a dictionary. `load_torchtext` puts one written in Python in its place where the real one cannot load.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from recipes.core.errors import InputError


class PlainVocab:
    """Tokens and their numbers, with the answers and the errors of torchtext's compiled `Vocab`.

    Args:
        tokens: in the order of their numbers.
        default_index: number of all tokens that are not among them; without it, asking for one is an error.

    Raises:
        RuntimeError: a token comes twice.
    """

    def __init__(self, tokens: Iterable[str], default_index: int | None = None) -> None:
        self.itos_: list[str] = []
        self.stoi: dict[str, int] = {}
        self.default_index_ = default_index
        for token in tokens:
            if text(token) in self.stoi:
                raise RuntimeError(f"Duplicate token found in tokens list: {token}")
            self.append_token(token)

    def __len__(self) -> int:
        return len(self.itos_)

    def __contains__(self, token: str) -> bool:
        return text(token) in self.stoi

    def __getitem__(self, token: str) -> int:
        if text(token) in self.stoi:
            return self.stoi[token]
        if self.default_index_ is None:
            raise RuntimeError(f"Token {token} not found and default index is not set")
        return self.default_index_

    def lookup_indices(self, tokens: list[str]) -> list[int]:
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        self.check(index, len(self) - 1)
        return self.itos_[index]

    def lookup_tokens(self, indices: list[int]) -> list[str]:
        for position, index in enumerate(indices):
            self.check(index, len(self) - 1, f" at position {position}")
        return [self.itos_[index] for index in indices]

    def append_token(self, token: str) -> None:
        if text(token) in self.stoi:
            raise RuntimeError(f"Token {token} already exists in the Vocab with index: {self.stoi[token]}")
        self.stoi[token] = len(self.itos_)
        self.itos_.append(token)

    def insert_token(self, token: str, index: int) -> None:
        self.check(index, len(self))
        if text(token) in self.stoi:
            raise RuntimeError(f"Token {token} not found in Vocab")  # its words for one that is there already
        self.itos_.insert(index, token)
        self.stoi = {one: number for number, one in enumerate(self.itos_)}

    def set_default_index(self, index: int | None) -> None:
        self.default_index_ = index

    def get_default_index(self) -> int | None:
        return self.default_index_

    def get_stoi(self) -> dict[str, int]:
        return dict(self.stoi)

    def get_itos(self) -> list[str]:
        return list(self.itos_)

    def check(self, index: int, last: int, where: str = "") -> None:
        if not 0 <= index <= last:
            raise RuntimeError(f"Specified index {index}{where} is out of bounds for vocab of size {len(self)}")


def text(token: Any) -> str:
    """The token itself, if it is a string."""
    if not isinstance(token, str):
        raise TypeError(f"expected a token of type str, got {type(token).__name__}")
    return token


class OnlyCompiled:
    """Stands for what only the compiled half has: its name can be imported, and using it says why not."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("this part of torchtext is compiled for torch 2.3 and has no stand-in")


def only_compiled(name: str) -> type[OnlyCompiled]:
    """What any other name in the compiled half gives."""
    if name.startswith("__"):
        raise AttributeError(name)
    return OnlyCompiled


def missing_for_torchtext() -> str:
    """What is missing to import torchtext and how to install it, in one line; or an empty text."""
    missing = [name for name in ("torchtext", "requests") if importlib.util.find_spec(name) is None]
    return f'{" and ".join(missing)} not installed: pip install "pytorch-recipes[torchtext]"' if missing else ""


def load_torchtext() -> ModuleType:
    """torchtext with its compiled half where that loads, else with `PlainVocab` in its place.

    Raises:
        InputError: torchtext, or requests, which it imports, is not installed.
    """
    if lacking := missing_for_torchtext():
        raise InputError(lacking)
    try:
        torchtext = importlib.import_module("torchtext")
    except (OSError, ImportError):  # the undefined symbol, or no file for this system
        sys.modules["torchtext._extension"] = ModuleType("torchtext._extension")  # which would load it
        compiled = ModuleType("torchtext._torchtext")
        compiled.__dict__.update(Vocab=PlainVocab, __getattr__=only_compiled)
        sys.modules["torchtext._torchtext"] = compiled
        torchtext = importlib.import_module("torchtext")
    torchtext.disable_torchtext_deprecation_warning()
    return torchtext
