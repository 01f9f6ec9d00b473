"""The first part of each bundled data set, in its own format: for runs that have to go through, not to learn."""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

LINES = {"train": 600, "test": 120}  # of texts, and digits
SEQUENCES = {"train": 8, "test": 3}
SCENES = {"train": 96, "test": 48}
SPEAKERS = {"train": 6, "test": 3}


def write_tiny(source: Path, target: Path) -> None:
    """Writes to the folder `target` the first part of every data set in the folder `source`."""
    ways: dict[str, Callable[[Path, Path], None]] = {
        "digits": fewer_digits,
        "python_reference": all_of_it,
        "scenes": fewer_scenes,
        "sequences": fewer_sequences,
        "speech": fewer_speakers,
    }
    for folder in source.iterdir():
        if folder.is_dir():
            (target / folder.name).mkdir(parents=True)
            ways.get(folder.name, fewer_lines)(folder, target / folder.name)


def all_of_it(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def fewer_lines(source: Path, target: Path) -> None:
    """Texts: the first lines; of tagged words, the first sentences with all their lines."""
    for path in source.iterdir():
        most = LINES[path.name.partition(".")[0]]
        content = path.read_bytes()
        if path.suffix == ".json":
            articles = json.loads(content)
            content = json.dumps(articles | {"data": articles["data"][: most // 4]}).encode()
        elif path.suffix == ".gz":
            content = gzip.compress(b"".join(gzip.decompress(content).splitlines(keepends=True)[:most]))
        else:
            end = b"\n\n" if path.suffix == ".conll" else b"\n"
            content = end.join(content.split(end)[:most]) + end
        (target / path.name).write_bytes(content)


def fewer_digits(source: Path, target: Path) -> None:
    for path in source.iterdir():
        content = path.read_bytes()
        sizes = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
        count = LINES["train" if path.name.startswith("train") else "test"]
        start, each = 4 + 4 * content[3], len(content[4 + 4 * content[3] :]) // sizes[0]
        head = content[:4] + struct.pack(">I", count) + content[8:start]
        (target / path.name).write_bytes(head + content[start : start + count * each])


def fewer_scenes(source: Path, target: Path) -> None:
    (target / "annotations").mkdir()
    for part, count in SCENES.items():
        scenes = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
        scenes["images"] = scenes["images"][:count]
        there = {image["id"] for image in scenes["images"]}
        scenes["annotations"] = [one for one in scenes["annotations"] if one["image_id"] in there]
        (target / "annotations" / f"instances_{part}.json").write_text(json.dumps(scenes))
        (target / part).mkdir()
        for image in scenes["images"]:
            shutil.copy(source / part / image["file_name"], target / part)


def fewer_sequences(source: Path, target: Path) -> None:
    for part, count in SEQUENCES.items():
        for folder in sorted((source / part).iterdir())[:count]:
            shutil.copytree(folder, target / part / folder.name)


def fewer_speakers(source: Path, target: Path) -> None:
    for part, count in SPEAKERS.items():
        (target / part).mkdir()
        files = sorted((source / part).iterdir())
        speakers = sorted({path.name.split("_")[1] for path in files})[:count]
        for path in files:
            if path.name.split("_")[1] in speakers:
                shutil.copy(path, target / part)
