"""What recipes that write their own training loop, in place of `Loop`, share."""

from typing import Any

from recipes.core.device import rank_and_world
from recipes.core.errors import InputError


def refuse_engine(options: Any, *taken: str) -> None:
    """A loop written by hand has no more than is read in it: what else `Loop` can do is refused.

    Args:
        options: of the recipe.
        taken: names of the engine's options that the recipe's own loop does heed.

    Raises:
        InputError: another of them is set, or there are several processes.
    """
    usual = {"precision": "fp32", "accumulate": 1, "clip": None, "channels_last": False, "compile": False}
    usual |= {"override": False, "shard": False, "sync_batch_norm": False}
    for name, default in usual.items():
        if name not in taken and getattr(options, name, default) != default:
            raise InputError(f"option {name}: this recipe's training loop, written by hand, has only {default}")
    if rank_and_world()[1] > 1:
        raise InputError("this recipe's training loop, written by hand, joins no other processes: expected no torchrun")
