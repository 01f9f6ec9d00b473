"""The average of a network's recent weights, which is ahead of any one of them while the learning rate is high."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Averaged(nn.Module):
    """A network that learns, and beside it the average of its recent weights, which answers in evaluation mode.

    The average of the last ninth or so of all steps, later ones counting more; the statistics of batch norm are
    averaged with the weights. It is saved and taken up again with the network.

    Paper: Polyak, Juditsky (1992), "Acceleration of Stochastic Approximation by Averaging",
        https://doi.org/10.1137/0330046; the weights of the steps are from Shamir, Zhang (2013), "Stochastic
        Gradient Descent for Non-smooth Optimization", https://arxiv.org/abs/1212.1824
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=lean_towards, use_buffers=True).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs) if self.training else self.average(inputs)

    def update(self) -> None:
        """Takes the weights of now into the average: to be called after each step."""
        self.average.update_parameters(self.network)

    def settle(self) -> None:
        """Gives the averaged weights to the network: to be called after the last step."""
        self.network.load_state_dict(self.average.module.state_dict())


@torch.no_grad()
def lean_towards(averages: Any, latest: Any, updates: Any) -> None:
    """Moves each average by 9 / (9 + updates) of the way to the latest value; whole numbers are taken over."""
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, latest, 9 / (9 + int(updates)))
    else:
        torch._foreach_copy_(averages, latest)
