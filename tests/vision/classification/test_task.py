from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

from recipes import using
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.backbones import IMAGENET
from recipes.vision.classification.models import own_model
from recipes.vision.classification.scoring import evaluate, majority
from recipes.vision.classification.task import ClassificationOptions, SmallCNN, build, run, train
from recipes.vision.networks import last_linear, named_model

CPU = torch.device("cpu")
NAME = "vision.classification"


@pytest.mark.xdist_group(NAME)
def test_shuffled_labels_fail_the_bar(digits: tuple[Images, Images]) -> None:
    """What is learned comes from the labels: with shuffled ones the same training is at chance."""
    train_set, test_set = digits
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = SmallCNN(1, 10)
    options = ClassificationOptions(epochs=4, batch_size=32, lr=1e-2, device="cpu", precision="fp32")
    train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
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


@pytest.mark.parametrize("last", [[], [nn.Softmax(dim=1)]])
def test_a_softmax_at_the_end_is_told(last: list[nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), *last)
    assert own_model(network, open_images()[0]) is network
    assert ("it seems to end in a softmax" in capsys.readouterr().err) is bool(last)


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
    pictures = Images(torch.zeros(2, channels, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]), list("abcde"))
    model = build(ClassificationOptions(model=name), pictures).eval()
    assert model(pictures.__getitems__([0, 1])[0]).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet18", "timm:", "timm:resnet_18x", "torchvision:resnet18x", "keras:resnet"])
def test_models_there_are_not(name: str) -> None:
    with pytest.raises(InputError, match="option model: "):
        run(model=name, device="cpu")


FROZEN = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (3, "expected a name or an nn.Module, got 3"),
        (None, "expected a name or an nn.Module, got None"),
        (torch.nn.Linear, "expected a name or an nn.Module, got <class"),
        (
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)),
            r"8, 8\) to \(N, 10\).* gives \(2, 3\)",
        ),
        (torch.nn.Linear(3, 3), "a number for each class, but it raises RuntimeError"),
        (torch.nn.Flatten(), "with weights to train"),
        (FROZEN, "with weights to train"),
    ],
)
def test_networks_that_cannot_learn_these_classes(model: object, told: str) -> None:
    with pytest.raises(InputError, match=f"^option model: .*{told}"):
        run(model=model, device="cpu")


def test_a_network_of_your_own_is_trained_and_used(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    before = network[1].weight.detach().clone()
    result = run(model=network, epochs=1, device="cpu", claims=False)
    assert result.model is network
    assert not torch.equal(network[1].weight, before)
    result.save(tmp_path / "out")
    again = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    trained = using.trained(tmp_path / "out", device="cpu", model=again)
    assert torch.equal(trained.model[1].weight, network[1].weight)


@pytest.mark.xdist_group(NAME)
def test_what_was_trained_is_used_with_the_same_answers(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = using.trained(tmp_path / "out", device="cpu")
    pictures = []
    for row in range(3):
        pictures.append(tmp_path / f"{row}.png")
        Image.fromarray(result.test_set.images[row, 0].numpy()).save(pictures[-1])
    answers = trained(pictures, batch_size=2)
    with torch.no_grad():
        shares = result.model.eval()(result.test_set.__getitems__(range(3))[0]).softmax(1)
    found = torch.tensor([list(answer["classes"].values()) for answer in answers])
    torch.testing.assert_close(found, shares, atol=1e-5, rtol=0)
    assert [answer["file"] for answer in answers] == [str(path) for path in pictures]
    assert [answer["class"] for answer in answers] == [result.test_set.classes[i] for i in shares.argmax(1)]


@pytest.mark.parametrize(
    ("name", "channels"), [("timm:test_resnet", 3), ("timm:test_resnet", 1), ("torchvision:resnet18", 3)]
)
def test_weights_of_a_file_are_fine_tuned_and_then_not_needed(name: str, channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: Any = named_model(name, 3, 7).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    images = torch.randint(256, (24, channels, 64, 64), dtype=torch.uint8)
    images[::2] //= 2
    pictures = Images(
        images, torch.arange(24) % 2, ["dark", "light"], torch.full((channels,), 0.4), torch.full((channels,), 0.3)
    )
    given: dict[str, Any] = {"model": name, "weights": str(tmp_path / "mine.pth"), "batch_size": 8, "device": "cpu"}
    model: Any = build(ClassificationOptions(**given), pictures).eval()
    scale = IMAGENET if name.startswith("torchvision") else network.pretrained_cfg
    mean, std = (torch.tensor(scale[key]).view(3, 1, 1) for key in ("mean", "std"))
    network.set_submodule(last_linear(network), torch.nn.Identity())
    with torch.no_grad():
        expected = model.head(network((images[:4].expand(-1, 3, -1, -1) / 255 - mean) / std))
        torch.testing.assert_close(model(pictures.__getitems__(range(4))[0]), expected, rtol=1e-4, atol=1e-4)

    result = run(data=(pictures, pictures), epochs=2, out=str(tmp_path / "out"), **given)
    assert result.history
    assert result.claims == []
    (tmp_path / "mine.pth").unlink()
    answers = using.trained(tmp_path / "out", device="cpu")(list(images[:4]))
    with torch.no_grad():
        shares = result.model.eval()(result.test_set.__getitems__(range(4))[0]).softmax(1)
    found = torch.tensor([list(answer["classes"].values()) for answer in answers])
    torch.testing.assert_close(found, shares, atol=1e-4, rtol=0)


def test_a_backbone_with_weights_learns_slowly_and_keeps_its_statistics(tmp_path: Path) -> None:
    torch.save(named_model("torchvision:resnet18", 3, 7).state_dict(), tmp_path / "mine.pth")
    pair = tuple(Squares(16, as_tensor=True) for _ in range(2))
    given: dict[str, Any] = {
        "model": "torchvision:resnet18",
        "weights": str(tmp_path / "mine.pth"),
        "image_size": 64,
        "device": "cpu",
    }
    model: Any = run(data=pair, steps=1, batch_size=16, **given).model
    before = torch.load(tmp_path / "mine.pth", weights_only=True)
    for key, value in model.backbone.maps.network.state_dict().items():
        assert torch.equal(value, before[key]) == ("running" in key or "num_batches" in key), key
        assert (value - before[key]).abs().max() < 1e-4


@pytest.mark.parametrize("model", ["small_cnn", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))])
def test_weights_need_a_model_by_name(model: object) -> None:
    with pytest.raises(InputError, match=r"^option weights: expected them with a model, timm:NAME or torchvision:NAME"):
        run(model=model, weights="pretrained", device="cpu")


class Squares(Dataset):
    """A bright square, left or right, as color PIL pictures of two sizes or as float tensors; a Dataset of a user."""

    classes = ("left", "right")

    def __init__(self, count: int, *, as_tensor: bool, random: bool = False) -> None:
        self.count, self.as_tensor, self.random = count, as_tensor, random

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[object, int]:
        label = index % 2
        noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index)) / 2
        noise[:, 4:12, 8 * label : 8 * label + 8] += 0.5
        if self.random and torch.rand(()) < 0.5:
            noise = noise.flip(1)
        if self.as_tensor:
            return noise, label
        pixels = (noise.permute(1, 2, 0) * 255).byte().numpy()
        return Image.fromarray(pixels).resize((20, 20) if index % 3 else (16, 16)), label


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_pair_of_your_own_datasets(as_tensor: bool, random: bool, tmp_path: Path) -> None:
    """What is random in their transforms is drawn anew in each epoch, by workers."""
    train_set = Squares(120, as_tensor=as_tensor, random=random)
    test_set = Subset(Squares(80, as_tensor=as_tensor), range(40))
    result = run(data=(train_set, test_set), image_size=16, epochs=4, batch_size=24, device="cpu", out=str(tmp_path))
    assert isinstance(result.train_set, ImageFiles if random else Images)
    assert result.metrics["accuracy"] > 0.9
    assert result.train_set.classes == ["left", "right"]
    trained = using.trained(tmp_path, device="cpu")
    answers = trained(result.test_set.pixels(torch.arange(4)).unbind(0))
    assert [answer["class"] for answer in answers] == ["left", "right", "left", "right"]


@pytest.mark.real
def test_a_timm_model_learns_photos(real_data: Path) -> None:
    result = run(data=real_data / "cifar10_jpg", model="timm:mobilenetv3_small_050", epochs=1, lr=3e-3, claims=False)
    assert result.metrics["accuracy"] > 1.5 * majority(result.train_set, result.test_set)["accuracy"]


@pytest.mark.real
def test_fashion_mnist(real_data: Path) -> None:
    result = run(data=str(real_data / "fashion_mnist"), epochs=1)
    assert result.metrics["accuracy"] > 0.85
    assert result.shortfalls() == []
