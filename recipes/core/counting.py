"""Probabilities by counts of what came before: the plain method that networks which predict have to beat."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def chances_by_counts(
    known: Mapping[str, Tensor],
    truths: Tensor,
    asked: Mapping[str, Tensor],
    asked_truths: Tensor,
    *,
    chain: Sequence[str],
    weight: float,
    size: int,
) -> Tensor:
    """The probability of each truth that is asked for: each link of the chain knows one thing more.

    What the links before it say weighs as much as `weight` observations:

        p(truth | context) = (count(context, truth) + weight · p(truth | shorter context)) / (count(context) + weight)

    Source: Witten, Bell (1991), https://doi.org/10.1109/18.87000, with a weight of its own in place of the number of
    kinds that followed.

    Args:
        known: what is known of each sample that is counted, by name: whole numbers below 1009, (samples,).
        truths: what they turned out to be, 0 to `size` - 1, (samples,).
        asked, asked_truths: the same of the samples that are asked for.
        chain: names, in the order that contexts grow in.
        weight: of the shorter context, in observations.
        size: kinds of truths, all as likely before anything is known.
    """
    chances = torch.full(asked_truths.shape, 1 / size, dtype=torch.double)
    context = torch.zeros(len(truths) + len(asked_truths), dtype=torch.long)  # the number of each sample's context
    truth, counted = torch.cat([truths, asked_truths]), len(truths)
    for name in chain:
        context = numbered(context * 1009 + torch.cat([known[name], asked[name]]))
        pair = numbered(context * size + truth)
        seen, seen_with = (keys[:counted].bincount(minlength=len(keys))[keys[counted:]] for keys in (context, pair))
        chances = (seen_with + weight * chances) / (seen + weight)
    return chances


def numbered(keys: Tensor) -> Tensor:
    """A number from 0 for each different key."""
    return keys.unique(return_inverse=True)[1]
