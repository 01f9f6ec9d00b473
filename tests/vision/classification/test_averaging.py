import copy
from pathlib import Path

import pytest
import torch

from recipes.datasets.images import open_images
from recipes.vision.classification import task
from recipes.vision.classification.averaging import Averaged
from recipes.vision.classification.task import ClassificationOptions, SmallCNN, early_peak


def test_the_average_equals_a_plain_sum() -> None:
    """The weight of each step, multiplied out: 9 / (9 + n) of it, and what the later ones leave of that."""
    torch.manual_seed(0)
    network = SmallCNN(1, 3, width=2)
    model, history = Averaged(network), []
    for step in range(12):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
            network.features[2].running_mean.normal_()
            network.features[2].num_batches_tracked.fill_(step)
        history.append(copy.deepcopy(network.state_dict()))
        model.update()
    model.settle()
    shares = [9 / (9 + step) for step in range(12)]
    for name, value in network.state_dict().items():
        expected = sum(
            share
            * torch.tensor([1 - later for later in shares[step + 1 :]]).double().prod()
            * history[step][name].double()
            for step, share in enumerate(shares)
        )
        whole = not value.is_floating_point()
        assert torch.equal(value, history[-1][name]) if whole else torch.allclose(value, expected.float(), atol=1e-6)


def test_the_average_answers_when_tested_and_the_network_when_trained() -> None:
    network = SmallCNN(1, 3, width=2)
    model, images = Averaged(network), torch.randn(4, 1, 8, 8)
    model.update()
    with torch.no_grad():
        network.head.weight.add_(1.0)
        assert torch.equal(model.train()(images), network.train()(images))
        assert not torch.allclose(model.eval()(images), network.eval()(images))
    learning = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in network.parameters()}


def test_a_stopped_training_resumes_with_its_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that a run ends with are the same to the bit if it was stopped on the way."""
    train_set, test_set = open_images()

    def trained(folder: Path, stop: bool) -> SmallCNN:
        torch.manual_seed(0)
        model, steps = SmallCNN(1, 10, width=4), 0

        def schedule(progress: float) -> float:
            nonlocal steps
            steps += 1
            if stop and steps > 9:
                raise InterruptedError
            return early_peak(progress)

        monkeypatch.setattr(task, "early_peak", schedule)
        options = ClassificationOptions(
            epochs=2, batch_size=50, device="cpu", precision="fp32", checkpoint=str(folder), save_every=4
        )
        task.train(model, train_set.subset(range(300)), test_set.subset(range(50)), options)
        return model

    whole = trained(tmp_path / "whole", stop=False)
    with pytest.raises(InterruptedError):
        trained(tmp_path / "cut", stop=True)
    again = trained(tmp_path / "cut", stop=False)
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
