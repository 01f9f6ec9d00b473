"""What a measurement gives: a ratio with its spread, and the goal it is held against."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison; `ratios` are ours over theirs, one a round, of time (lower is better)."""

    ours: str
    theirs: str
    ratios: Sequence[float]
    goal: str = ""
    remark: str = ""

    def cells(self) -> list[str]:
        middle, low, high = statistics.median(self.ratios), min(self.ratios), max(self.ratios)
        remark = "; ".join(filter(None, ["no difference shown" if low < 1 < high else "", self.remark]))
        return [self.ours, self.theirs, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", self.goal, remark]


HEADER = ["ours", "instead of", "time, ratio (median)", "least to most", "goal", ""]


def markdown(rows: Sequence[Row]) -> str:
    return table(HEADER, [row.cells() for row in rows])


def table(header: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown of these cells."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])
