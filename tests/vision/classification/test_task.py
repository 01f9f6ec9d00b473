from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images
from recipes.vision.classification.old import build_model, train
from recipes.vision.classification.scoring import evaluate, majority
from recipes.vision.classification.task import SmallCNN, run

CPU = torch.device("cpu")
NAME = "vision.classification"


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Images]:
    train_set, test_set = open_images()
    assert isinstance(train_set, Images)
    assert isinstance(test_set, Images)
    return train_set, test_set


@pytest.mark.xdist_group(NAME)
def test_shuffled_labels_fail_the_bar(digits: tuple[Images, Images]) -> None:
    """What is learned comes from the labels: with shuffled ones the same training is at chance."""
    train_set, test_set = digits
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = SmallCNN(1, 10)
    train(
        model,
        replace(train_set, labels=train_set.labels[order]),
        test_set,
        epochs=4,
        batch_size=32,
        lr=1e-2,
        device=CPU,
    )
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.3


@pytest.mark.xdist_group(NAME)
def test_outputs_depend_on_the_picture(default_run: Callable[[str], Result], digits: tuple[Images, Images]) -> None:
    model = default_run(NAME).model.eval()
    images, _ = digits[1].__getitems__(range(50))
    with torch.no_grad():
        logits, noise = model(images), model(torch.randn_like(images))
    assert logits.argmax(1).unique().numel() == 10
    assert not torch.allclose(logits, noise, atol=0.1)


def test_every_parameter_gets_a_gradient(digits: tuple[Images, Images]) -> None:
    model = SmallCNN(1, 10)
    images, labels = digits[0].__getitems__(range(32))
    F.cross_entropy(model(images), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_evaluation_equals_one_picture_at_a_time(digits: tuple[Images, Images]) -> None:
    """Batches of unequal size weigh by their size, dropout is off, and training goes on as it was."""
    test_set = digits[1].subset(range(300))
    torch.manual_seed(0)
    model = SmallCNN(1, 10).train()
    measured = evaluate(model, test_set, CPU)
    assert model.training
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for index in range(len(test_set)):
            image, label = test_set[index]
            logits = model(image.unsqueeze(0))[0]
            right += int(logits.argmax() == label)
            loss -= logits.log_softmax(0)[label].item()
    assert measured["accuracy"] == pytest.approx(right / 300)
    assert measured["loss"] == pytest.approx(loss / 300, rel=1e-5)


def test_majority_is_what_no_look_at_the_picture_gives() -> None:
    labels = torch.tensor([0, 1, 1, 1])
    pictures = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels, ["a", "b"])
    baseline = majority(pictures, pictures)
    assert baseline["accuracy"] == 0.75
    entropy = -(0.25 * torch.tensor(0.25).log() + 0.75 * torch.tensor(0.75).log()).item()
    assert baseline["loss"] == pytest.approx(entropy)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["small_cnn", "timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"])
def test_models_by_name(name: str, channels: int) -> None:
    model = build_model(name, channels, 5).eval()
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet18", "timm:", "timm:resnet_18x", "torchvision:resnet18x", "keras:resnet"])
def test_models_there_are_not(name: str) -> None:
    with pytest.raises(InputError, match="option model: "):
        build_model(name, 3, 5)


@pytest.mark.real
def test_a_timm_model_learns_photos(real_data: Path) -> None:
    result = run(data=str(real_data / "cifar10_jpg"), model="timm:mobilenetv3_small_050", epochs=1, lr=3e-3)
    assert result.metrics["accuracy"] > 1.5 * result.baseline["accuracy"]


@pytest.mark.real
def test_fashion_mnist(real_data: Path) -> None:
    result = run(data=str(real_data / "fashion_mnist"), epochs=1)
    assert result.metrics["accuracy"] > 0.85
    assert result.shortfalls() == []
