"""A sentence that a learner is told, and the number that would refute it."""

import operator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Claim:
    """A sentence with the number that this run measured for it.

    `Claim("without the skips it does worse", plain["mean_iou"], "<", full["mean_iou"], margin=0.03)`

    Attributes:
        text: the sentence.
        measured, relation, reference: it holds if `measured` is `relation` (>, >=, <, <=) than `reference`.
        margin: by at least so much; larger than the spread between seeds.
        kind: "learned" if it compares what training gave: it needs a margin, and it counts only where the recipe
            is above its bar. A "fact" needs no training: a count, an equality with a reference.
        shown: False where a learned claim was measured on a model that did not learn.
    """

    text: str
    measured: float
    relation: Literal[">", ">=", "<", "<="]
    reference: float
    _: KW_ONLY
    margin: float = 0.0
    kind: Literal["learned", "fact"] = "learned"
    shown: bool = True

    def __post_init__(self) -> None:
        if self.kind == "learned" and not self.margin > 0:
            raise ValueError(f"a learned claim needs a margin above 0: {self.text}")

    @property
    def relation_holds(self) -> bool:
        """Whether the numbers are as the sentence says, whatever the model learned."""
        moved = self.margin if self.relation.startswith(">") else -self.margin
        return bool(RELATIONS[self.relation](self.measured, self.reference + moved))

    @property
    def holds(self) -> bool:
        return self.shown and self.relation_holds

    @property
    def verdict(self) -> str:
        return ("DOES NOT HOLD", "holds")[self.holds] if self.shown else "not shown"
