"""Measures everything, and writes the table to benchmarks/README.md."""

import argparse
import datetime
import importlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.row import Row, markdown
from recipes.proving import hardware

PARTS = ("startup", "loops", "pictures", "detectors", "generation", "integers", "checkpoints", "fashion")
PAGE = Path(__file__).with_name("README.md")
SECTIONS = ("architectures", "networks", "pretraining_pays", "sizes")  # those with a table of their own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=PARTS + SECTIONS, help="measure this part alone, and put it in the place of what stood there"
    )
    only = parser.parse_args().only
    today, machine, version = datetime.date.today(), hardware("cpu"), torch.__version__.partition("+")[0]
    rows: list[Row] = []
    sections: list[str] = []
    for part in [only] if only else PARTS + SECTIONS:
        module = importlib.import_module(f"benchmarks.{part}")
        if part in SECTIONS:
            if section := module.section():
                sections.append(f"{section}\n\nMeasured on {today}, torch {version}, {machine}.")
                print(sections[-1], flush=True)
        else:
            rows += module.measure()
            print(markdown(rows), flush=True)
    if only:
        page = PAGE.read_text("utf-8")
        when = f"{today}, torch {version}, {torch.backends.cpu.get_cpu_capability()}"
        rows = [replace(row, remark="; ".join(filter(None, [row.remark, when]))) for row in rows]
        PAGE.write_text(with_section(page, sections[0]) if sections else with_rows(page, rows), "utf-8")
        return
    tables = "\n\n".join([markdown(rows), *sections]).strip()
    text = f"""# Side by side

Written by `python -m benchmarks` on {today}: torch {version}, {torch.get_num_threads()} threads, {machine}. Each pair
ran in turn, round after round, in one process (whole commands as processes); a ratio below 1 is in favour of these
recipes. Rows that end with a date were measured anew then. Fashion-MNIST is read from the folder named by
`RECIPES_REAL_DATA`.

{tables}
"""
    PAGE.write_text(text, "utf-8")


def with_rows(page: str, rows: Sequence[Row]) -> str:
    """The page with the rows in the place of those that compare the same, or at the end of the first table."""
    table, *others = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    lines = table.strip().splitlines()
    for line in markdown(rows).splitlines()[2:]:
        same = [number for number, old in enumerate(lines) if old.split(" | ")[:2] == line.split(" | ")[:2]]
        lines[same[0] if same else len(lines) :] = [line, *lines[same[0] + 1 if same else len(lines) :]]
    return "\n".join(lines) + "\n\n" + "".join(others)


def with_section(page: str, section: str) -> str:
    """The page with the section in the place of that of the same heading, or at its end."""
    parts = [part.strip() for part in re.split(r"^(?=## )", page, flags=re.MULTILINE)]
    same = [number for number, part in enumerate(parts) if part.partition("\n")[0] == section.partition("\n")[0]]
    if same:
        parts[same[0]] = section
    else:
        parts.append(section)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
