"""Whole networks of torchvision in a recipe's place: their weights, heads, training, use, and errors of one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import recipes
from recipes.core.errors import InputError
from recipes.vision.detection import faster_rcnn, ssd
from recipes.vision.detection.features import DetectorOptions
from recipes.vision.detection.torchvision_detectors import OneStage, TorchvisionDetector, build_torchvision_detector
from recipes.vision.segmentation import fcn
from recipes.vision.torchvision_models import TorchvisionModel, head_and_shapes, open_model
from tests.forking import run_file

FASTER = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
LRASPP = "torchvision:lraspp_mobilenet_v3_large"
SIDE = 64


def squares(count: int, *, masks: bool = False) -> Any:
    """Pictures of one bright square on a dark ground, with its box or its mask."""
    torch.manual_seed(0)
    samples: list[tuple[Tensor, Any]] = []
    for index in range(count):
        left, top = torch.randint(SIDE - 32, (2,)).tolist()
        image, mask = 0.2 * torch.rand(3, SIDE, SIDE), torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        image[index % 2, top : top + 28, left : left + 28] += 0.7
        mask[top : top + 28, left : left + 28] = 1
        box = {"boxes": torch.tensor([[left, top, left + 28.0, top + 28.0]]), "labels": torch.tensor([1 + index % 2])}
        samples.append((image, mask if masks else box))
    return samples


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights as torchvision ships them, for its 91 or 21 classes, but random."""
    from torchvision import models

    torch.manual_seed(0)
    found = {}
    for name, classes in ((FASTER, 91), (LRASPP, 21)):
        found[name] = tmp_path_factory.mktemp("weights") / "weights.pth"
        network = models.get_model(name.partition(":")[2], weights=None, weights_backbone=None, num_classes=classes)
        state = {key: one for key, one in network.state_dict().items() if not key.endswith("num_batches_tracked")}
        torch.save(state, found[name])  # its frozen batch norms count no batches
    return found


@pytest.mark.parametrize(
    ("name", "kind", "head"),
    [
        ("fasterrcnn_resnet50_fpn_v2", "detection", 4),
        ("maskrcnn_resnet50_fpn", "detection", 6),
        ("retinanet_resnet50_fpn", "detection", 2),
        ("ssd300_vgg16", "detection", 12),
        ("ssdlite320_mobilenet_v3_large", "detection", 12),
        ("deeplabv3_mobilenet_v3_large", "segmentation", 2),
    ],
)
def test_the_head_is_found_and_its_classes_counted(name: str, kind: str, head: int) -> None:
    from torchvision import models

    def make(classes: int) -> nn.Module:
        return models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)

    with torch.device("meta"):
        state = make(91).state_dict()
    names, shapes = head_and_shapes(make, state)
    assert len(names) == head
    assert all(shapes[key] == state[key].shape for key in shapes)


def test_a_head_for_other_classes_is_new_and_all_else_the_file_s(files: dict[str, Path]) -> None:
    given = torch.load(files[FASTER], weights_only=True)
    network, new = open_model(FASTER, "detection", 3, str(files[FASTER]))
    state = network.state_dict()
    assert {name.rpartition(".")[0] for name in new} == {
        f"roi_heads.box_predictor.{e}" for e in ("cls_score", "bbox_pred")
    }
    assert [len(state[name]) for name in sorted(new)] == [12, 12, 3, 3]
    assert all(torch.equal(state[key], given[key]) for key in given if key not in new)
    network, new = open_model(FASTER, "detection", 91, str(files[FASTER]))
    assert new == []
    assert all(torch.equal(network.state_dict()[key], given[key]) for key in given)
    groups = TorchvisionModel(network, ["roi_heads.box_predictor.cls_score.weight"]).parameter_groups(1.0)
    assert [(group["lr"], len(group["params"]) == 1) for group in groups] == [(0.1, False), (1.0, True)]


def test_detector_learns_and_answers_alike_in_another_process(files: dict[str, Path], tmp_path: Path) -> None:
    out, given = tmp_path / "out", torch.load(files[FASTER], weights_only=True)
    options: dict[str, Any] = {"model": FASTER, "weights": str(files[FASTER]), "image_size": SIDE, "device": "cpu"}
    result = faster_rcnn.run(
        data=(squares(8), squares(4)), batch_size=4, epochs=4, lr=5e-3, precision="fp32", out=str(out), **options
    )
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert result.claims == []
    assert result.model.training is False or not any(
        part.training for part in result.model.modules() if isinstance(part, nn.BatchNorm2d)
    )
    kept = result.model.network.state_dict()["backbone.body.0.1.running_mean"]
    assert torch.equal(kept, given["backbone.body.0.1.running_mean"]), "statistics are the file's"

    picture = (squares(1)[0][0] * 255).to(torch.uint8)
    with torch.inference_mode():
        raw = result.model.eval()(picture[None].float() / 255)[0]
    torch.save(picture, tmp_path / "picture.pt")
    files[FASTER].rename(files[FASTER].with_suffix(".away"))  # a trained model needs them no more
    try:
        (tmp_path / "use.py").write_text(
            "import json, torch, recipes\n"
            "answer = recipes.trained('out', device='cpu')([torch.load('picture.pt')])[0]\n"
            "print(json.dumps([answer['boxes'].tolist(), answer['scores'].tolist()]))\n"
        )
        words, modules = ["use.py"], ("torch", "torchvision", "recipes.vision.detection.faster_rcnn")
        status, printed = run_file(words, tmp_path, modules, {"OMP_NUM_THREADS": "1"})
    finally:
        files[FASTER].with_suffix(".away").rename(files[FASTER])
    assert status == 0, printed
    boxes, scores = json.loads(printed.strip().splitlines()[-1])
    assert len(scores) == len(raw["scores"])
    assert torch.allclose(torch.tensor(boxes).view(-1, 4), raw["boxes"], atol=1e-3, rtol=1e-5)
    assert torch.allclose(torch.tensor(scores), raw["scores"], atol=1e-5)
    with pytest.raises(InputError, match="FasterRCNN: the second stage looks where the first found something"):
        recipes.trained(out, device="cpu").export(tmp_path / "faster.onnx")


def test_segmenter_learns_in_place_of_the_recipe_s_own(files: dict[str, Path], tmp_path: Path) -> None:
    result = fcn.run(
        data=(squares(8, masks=True), squares(4, masks=True)),
        model=LRASPP,
        weights=str(files[LRASPP]),
        image_size=SIDE,
        batch_size=4,
        epochs=5,
        device="cpu",
        out=str(tmp_path / "out"),
    )
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    assert result.model.network.classifier.low_classifier.out_channels == 2
    trained = recipes.trained(tmp_path / "out", device="cpu")
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        assert torch.allclose(trained.model(images), result.model.eval()(images), atol=1e-5)


def test_what_one_stage_exports_holds_what_it_detects() -> None:
    torch.manual_seed(0)
    options = DetectorOptions(model="torchvision:ssdlite320_mobilenet_v3_large")
    data: Any = type("Data", (), {"classes": ["a", "b"], "image_size": SIDE})()
    model = build_torchvision_detector(options, data).eval()
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        scores, boxes = OneStage(model, SIDE)(images)
        (found,) = model(images)
    assert scores.shape[2] == 2
    for box, score, label in list(zip(found["boxes"], found["scores"], found["labels"], strict=True))[:10]:
        same = (boxes[0] - box).abs().amax(dim=1) < 1e-3
        assert (scores[0, same, label] - score).abs().min() < 1e-5


class TestErrors:
    """Each is one line that says what was expected."""

    def test_names(self) -> None:
        for name, told in (
            ("torchvision:fasterrcnn_resnet5_fpn", "no detector 'fasterrcnn_resnet5_fpn', did you mean fasterrcnn_"),
            ("fasterrcnn_resnet50_fpn", "expected torchvision:NAME, got 'fasterrcnn_resnet50_fpn'"),
            ("torchvision:keypointrcnn_resnet50_fpn", "no detector 'keypointrcnn_resnet50_fpn'"),
        ):
            with pytest.raises(InputError, match=f"option model: .*{told}"):
                open_model(name, "detection", 2, None)
        with pytest.raises(InputError, match="no segmenter 'fcn_resnet5', did you mean fcn_resnet50"):
            open_model("torchvision:fcn_resnet5", "segmentation", 2, None)

    def test_weights(self, files: dict[str, Path], tmp_path: Path) -> None:
        text, other = tmp_path / "text.pth", tmp_path / "other.pth"
        text.write_text("no weights")
        torch.save({"weight": torch.zeros(2)}, other)
        for weights, told in (
            (str(text), "text.pth: expected a file of weights"),
            (str(other), "other.pth: expected weights of torchvision:fasterrcnn.* is missing"),
            (str(files[LRASPP]), "expected weights of torchvision:fasterrcnn.* is missing"),
            (
                "missing.pth",
                "option weights: expected a file, none, or one of pretrained, .*COCO_V1.*, got 'missing.pth'",
            ),
        ):
            with pytest.raises(InputError, match=told) as error:
                open_model(FASTER, "detection", 2, weights)
            assert "\n" not in str(error.value)

    def test_by_name_without_a_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(InputError, match=r"'COCO_V1' of torchvision:fasterrcnn.* cannot be had") as error:
            open_model(FASTER, "detection", 2, "COCO_V1")
        assert "\n" not in str(error.value)

    def test_options_that_do_not_go_together(self) -> None:
        with pytest.raises(InputError, match="option backbone: expected none beside a model"):
            ssd.run(model=FASTER, backbone="timm:resnet18", device="cpu")
        with pytest.raises(InputError, match="option weights: expected a backbone or a model"):
            fcn.run(weights="pretrained", device="cpu")


def test_no_background_among_the_answers() -> None:
    class Network(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            one = {"boxes": torch.ones(2, 4), "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 2])}
            return [one for _ in images]

    (found,) = TorchvisionDetector(Network()).eval()(torch.zeros(1, 3, 8, 8))
    assert found["labels"].tolist() == [1]
    assert found["scores"].tolist() == [pytest.approx(0.8)]
