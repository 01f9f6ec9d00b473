"""What a recipe stands on, in one place; `plain` has the lean twins of these names, which copies get."""

from recipes.core.claims import Claim
from recipes.core.command_line import main
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.loading import batches, batches_by_length, hold_out
from recipes.core.loop import Loop, one_cycle
from recipes.core.options import Options, Precision, option
from recipes.core.recipe import recipe
from recipes.core.result import Result

__all__ = [
    "Claim",
    "InputError",
    "Loop",
    "Options",
    "Precision",
    "Result",
    "batches",
    "batches_by_length",
    "hold_out",
    "main",
    "one_cycle",
    "option",
    "predict",
    "recipe",
]
