"""Moved pictures, one for one, and networks whose files are as large as others'."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recipes.compression.files import file_bytes, save_dense
from recipes.compression.moved import DeepNet, Moved, as_large_a_file, evaluate_moved, for_longer
from recipes.core.options import Options
from recipes.datasets.images import Images

CPU = torch.device("cpu")


def picture(side: int, row: int, column: int) -> Images:
    images = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    images[0, 0, row, column] = 255
    return Images(images, torch.tensor([0]), ["a", "b"])


def test_pictures_are_moved_by_an_eighth_of_their_side() -> None:
    part = picture(16, 8, 8)
    moved, labels = Moved(part, (1, -1)).__getitems__([0])
    assert moved[0, 0].nonzero().tolist() == [[10, 6]]
    assert labels.tolist() == [0]
    torch.manual_seed(0)
    corners = {tuple(Moved(part).__getitems__([0])[0][0, 0].nonzero()[0].tolist()) for _ in range(400)}
    assert corners == {(y, x) for y in range(6, 11) for x in range(6, 11)}


def test_every_side_counts_as_much() -> None:
    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0, 0, 0], 1 - images[:, 0, 0, 0]], dim=1)

    assert evaluate_moved(Corner(), picture(8, 1, 1), CPU)["accuracy"] == pytest.approx(1 / 9)
    assert evaluate_moved(Corner(), picture(8, 4, 4), CPU)["accuracy"] == 0


def test_the_small_network_has_the_next_larger_file() -> None:
    def build(width: int) -> nn.Module:
        return DeepNet(1, 10, width=width)

    sizes = [file_bytes(build(width), save_dense) for width in range(1, 9)]
    for wanted, expected in ((sizes[2] - 1, sizes[2]), (sizes[2] + 1, sizes[3]), (10**9, sizes[7])):
        assert file_bytes(as_large_a_file(build, wanted, 8), save_dense) == expected


@pytest.mark.parametrize(("given", "epochs", "steps"), [({"epochs": 4}, 6, None), ({"steps": 5}, 8, 8), ({}, 8, None)])
def test_longer_trainings_take_more_epochs_and_steps(given: dict[str, Any], epochs: int, steps: int | None) -> None:
    longer = for_longer(Options(**given), 1.5)
    assert (longer.epochs, longer.steps) == (epochs, steps)
