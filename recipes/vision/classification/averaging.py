"""The average of a network's recent weights, which is ahead of any one of them while the learning rate is high."""

from typing import Any

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
        average = AveragedModel(network, avg_fn=nearer, use_buffers=True).requires_grad_(False)
        self.both = nn.ModuleList([network, average])  # a list, since the parts of one are sharded one by one

    def forward(self, inputs: Tensor) -> Tensor:
        network, average = self.both
        return network(inputs) if self.training else average(inputs)

    def update(self) -> None:
        """Takes the weights of now into the average: to be called after each step."""
        average: Any = self.both[1]
        average.update_parameters(self.both[0])

    def settle(self) -> None:
        """Gives the averaged weights to the network: to be called after the last step."""
        average: Any = self.both[1]
        self.both[0].load_state_dict(average.module.state_dict())


def nearer(average: Tensor, latest: Tensor, updates: Any) -> Tensor:
    """The average, moved by 9 / (9 + updates) of the way to the latest value; whole numbers are taken over."""
    return average.lerp(latest, 9 / (9 + int(updates))) if average.is_floating_point() else latest
