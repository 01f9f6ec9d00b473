"""Measures everything, and writes the table to benchmarks/README.md."""

import argparse
import datetime
import importlib
import platform
from pathlib import Path

import torch

from benchmarks.row import Row, markdown

PARTS = ("startup", "loops", "pictures", "detectors", "integers", "checkpoints", "fashion")
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
    parser.add_argument("--only", choices=PARTS + SECTIONS, help="measure this part alone, and write nothing")
    only = parser.parse_args().only
    rows: list[Row] = []
    sections: list[str] = []
    for part in [only] if only else PARTS + SECTIONS:
        module = importlib.import_module(f"benchmarks.{part}")
        if part in SECTIONS:
            sections.append(module.section())
            print(sections[-1], flush=True)
        else:
            rows += module.measure()
            print(markdown(rows), flush=True)
    if only:
        return
    tables = "\n\n".join([markdown(rows), *sections]).strip()
    text = f"""# Side by side

Written by `python -m benchmarks` on {datetime.date.today()}: torch {torch.__version__}, {torch.get_num_threads()}
threads, {processor()}. Each pair ran in turn, round after round, in one process (whole commands as processes); a ratio
below 1 is in favour of these recipes. Fashion-MNIST is read from the folder named by `RECIPES_REAL_DATA`.

{tables}
"""
    Path(__file__).with_name("README.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
