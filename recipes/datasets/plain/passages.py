"""Running text by topic: the bundled reference of Python, or a folder with a text file a topic."""

import re
from pathlib import Path

import torch

from recipes.datasets.bundled import bundled
from recipes.datasets.plain.texts_csv import Texts


def word_count(text: str) -> int:
    """Words between spaces; each character of Chinese and Japanese is one."""
    return len(re.sub("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]", " x ", text).split())


def open_labeled_passages(
    data: str | None = None, *, most: int = 8, words: int = 10, seed: int = 0
) -> tuple[Texts, Texts, list[str]]:
    """Passages of the largest topics, two thirds to train on and a third to test on; and all but those of test."""
    folder = Path(data) if data else bundled("python_reference")
    whole = {path.stem: path.read_text("utf-8") for path in folder.glob("*.txt")}
    seen: set[str] = set()  # a passage that comes several times stands where it comes first
    passages: dict[str, list[str]] = {name: [] for name in sorted(whole)}
    for name, found in passages.items():
        for text in (part.strip("\n") for part in whole[name].split("\n\n")):
            if text.strip() and text not in seen:
                seen.add(text)
                found.append(text)
    long = {name: [text for text in texts if word_count(text) >= words] for name, texts in passages.items()}
    names = sorted(sorted((name for name in long if len(long[name]) > 2), key=lambda name: -len(long[name]))[:most])
    generator = torch.Generator().manual_seed(seed)
    train_part, test_part = [], []
    for label, name in enumerate(names):
        order = torch.randperm(len(long[name]), generator=generator).tolist()
        count = round(len(order) / 3)
        test_part += [(long[name][index], label) for index in sorted(order[:count])]
        train_part += [(long[name][index], label) for index in sorted(order[count:])]
    parts = [
        Texts([text for text, _ in part], torch.tensor([label for _, label in part]), names)
        for part in (train_part, test_part)
    ]
    hidden = set(parts[1].texts)
    return parts[0], parts[1], [text for found in passages.values() for text in found if text not in hidden]
