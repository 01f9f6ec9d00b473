"""Measures everything, and writes the table to benchmarks/README.md."""

import argparse
import datetime
import importlib
import platform
import re
from pathlib import Path

import torch

from benchmarks.row import Row, markdown

PARTS = ("startup", "loops", "pictures", "detectors", "integers", "checkpoints", "fashion")
PAGE = Path(__file__).with_name("README.md")
SECTIONS = ("architectures", "networks", "sizes")  # those with a table of their own


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=PARTS + SECTIONS, help="measure this part alone; rows are only printed, a section is replaced"
    )
    only = parser.parse_args().only
    rows: list[Row] = []
    sections: list[str] = []
    for part in [only] if only else PARTS + SECTIONS:
        module = importlib.import_module(f"benchmarks.{part}")
        if part in SECTIONS:
            if section := module.section():
                sections.append(f"{section}\n\nMeasured on {datetime.date.today()}, torch {torch.__version__}.")
                print(sections[-1], flush=True)
        else:
            rows += module.measure()
            print(markdown(rows), flush=True)
    if only:
        if sections:
            PAGE.write_text(with_section(PAGE.read_text("utf-8"), sections[0]), "utf-8")
        return
    tables = "\n\n".join([markdown(rows), *sections]).strip()
    text = f"""# Side by side

Written by `python -m benchmarks` on {datetime.date.today()}: torch {torch.__version__}, {torch.get_num_threads()}
threads, {processor()}. Each pair ran in turn, round after round, in one process (whole commands as processes); a ratio
below 1 is in favour of these recipes. Fashion-MNIST is read from the folder named by `RECIPES_REAL_DATA`.

{tables}
"""
    PAGE.write_text(text, "utf-8")


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
