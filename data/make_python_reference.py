"""Makes data/python_reference: the language reference that comes with Python, a text file for each topic.

    python data/make_python_reference.py [FOLDER]

Python 3.11.7 made the bundled files; another version has another text. A paragraph that several topics share stands
in the first of them alone, or else a test part would hold what the train part had already shown.
"""

import sys
from pathlib import Path
from pydoc_data.topics import topics


def make(folder: Path) -> None:
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for topic in sorted(topics):
        paragraphs = [part.strip("\n") for part in topics[topic].split("\n\n")]
        new = [part for part in dict.fromkeys(paragraphs) if part and part not in seen]
        seen.update(new)
        if new:
            name = topic.replace("-", "_")  # sorts as the topics do, with .txt behind it
            (folder / f"{name}.txt").write_text("\n\n".join(new) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "python_reference"))
