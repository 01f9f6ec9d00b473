"""Random changes of whole batches of sound, on their device."""

import torch
from torch import Tensor


def speed(waves: Tensor, generator: torch.Generator | None = None, amount: float = 0.2) -> Tensor:
    """Plays it faster or slower, by a factor of up to 1 + `amount`; the voice rises or falls with it.

    Samples between two are read off the line that joins them. The batch becomes longer, (batch, samples *
    (1 + amount)), so that the slowest recording has its end; behind the others there is silence.

    Args:
        waves: float (batch, samples).
        generator: on the same device; torch's own random numbers if not given.
        amount: above 0.
    """
    samples = waves.shape[1]
    drawn = torch.rand(len(waves), 1, generator=generator, device=waves.device)
    factor = (1 + amount) ** (2 * drawn - 1)  # (batch, 1)
    time = torch.arange(round(samples * (1 + amount)), device=waves.device) * factor  # (batch, longer), in samples
    before = time.long().clamp(max=samples - 1)
    after = (before + 1).clamp(max=samples - 1)
    share = time - before
    played = waves.gather(1, before) * (1 - share) + waves.gather(1, after) * share
    return played * (time <= samples - 1)
