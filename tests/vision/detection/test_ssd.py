"""SSD: its parts held against torchvision's, the three minings, and controls that must fail."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import recipes
from recipes.datasets.scenes import Boxes, open_boxes
from recipes.vision.detection import ssd
from recipes.vision.detection.boxes import box_iou
from recipes.vision.detection.scoring import evaluate, truths
from recipes.vision.few_labels import first

CPU = torch.device("cpu")
NAME = "vision.detection.ssd"


@pytest.fixture(scope="module")
def scenes() -> tuple[Boxes, Boxes]:
    return open_boxes()


def test_matching_and_loss_equal_torchvision(scenes: tuple[Boxes, Boxes]) -> None:
    from torchvision.models.detection import _utils
    from torchvision.models.detection.ssd import SSD as Reference

    torch.manual_seed(0)
    train_set, model = scenes[0], ssd.SSD(4, 64, ssd.SSDOptions())
    targets = truths(train_set)[:8]
    anchors, matcher = model.defaults, _utils.SSDMatcher(0.5)
    matched = [matcher(box_iou(target["boxes"], anchors)) for target in targets]
    for target, theirs in zip(targets, matched, strict=True):
        ours = ssd.match(target["boxes"], model.defaults)
        assert torch.equal(ours, theirs.clamp(min=-1))
        assert set(ours.tolist()) >= set(range(len(target["boxes"])))

    logits, codes = torch.randn(8, len(anchors), 5), torch.randn(8, len(anchors), 4)
    reference: Any = SimpleNamespace(box_coder=_utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    losses = Reference.compute_loss(
        reference,
        [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets],
        {"bbox_regression": codes, "cls_logits": logits},
        [anchors] * 8,
        matched,
    )
    ours = ssd.ssd_loss(logits, codes, targets, model.defaults)
    torch.testing.assert_close(ours, losses["classification"] + losses["bbox_regression"])


def test_a_backbone_whose_convolutions_do_not_pad() -> None:
    options = ssd.SSDOptions(backbone="torchvision:inception_v3", image_size=96, steps=1, batch_size=2, device=CPU)
    train_set = first(open_boxes(image_size=96)[0], 0, 2)
    model = ssd.build(options, train_set)
    before = [one.detach().clone() for one in model.parameters()]
    loop = ssd.train(model, train_set, options)
    assert loop.steps == 1
    assert not any(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("mining", ["hard", "random", "all"])
def test_what_enters_the_loss(mining: str, scenes: tuple[Boxes, Boxes]) -> None:
    """Logits of zero have a loss of log(classes) everywhere: the sum counts the boxes."""
    model, targets = ssd.SSD(4, 64, ssd.SSDOptions()), truths(scenes[0])[:4]
    matched = [int((ssd.match(target["boxes"], model.defaults) >= 0).sum()) for target in targets]
    counted = 4 * len(model.defaults) if mining == "all" else 4 * sum(matched)
    logits = torch.zeros(4, len(model.defaults), 5)
    codes = torch.zeros(4, len(model.defaults), 4, requires_grad=True)
    loss = ssd.ssd_loss(logits, codes, targets, model.defaults, mining)
    loss.backward()
    assert codes.grad is not None
    assert int((codes.grad != 0).any(dim=2).sum()) == sum(matched)
    perfect = codes.detach().clone()
    for row, target in zip(perfect, targets, strict=True):
        objects = ssd.match(target["boxes"], model.defaults)
        chosen = objects >= 0
        row[chosen] = ssd.encode(target["boxes"][objects[chosen]], model.defaults[chosen])
    loss = ssd.ssd_loss(logits, perfect, targets, model.defaults, mining)
    assert loss.item() == pytest.approx(counted * torch.tensor(5.0).log().item() / sum(matched), rel=1e-4)


def test_loss_of_pictures_without_objects_is_zero() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    model = ssd.SSD(3, 64, ssd.SSDOptions())
    logits, codes = model(torch.rand(2, 3, 64, 64))
    assert ssd.ssd_loss(logits, codes, [nothing, nothing], model.defaults) == 0


@pytest.mark.parametrize("size", [48, 64, 75, 128, 200])
@pytest.mark.parametrize("maps", [1, None])
def test_default_boxes_fit_the_maps_of_any_picture(size: int, maps: int | None) -> None:
    model = ssd.SSD(2, size, ssd.SSDOptions(width=4, maps=maps))
    logits, codes = model(torch.rand(2, 3, size, size))
    assert logits.shape == (2, len(model.defaults), 3)
    assert codes.shape == (2, len(model.defaults), 4)
    centers = (model.defaults[:, :2] + model.defaults[:, 2:]) / 2
    assert centers.min() > 0
    assert centers.max() < size + model.strides[-1]
    assert len(model.strides) == (maps or len(model.stages))
    assert len(model.eval()(torch.rand(2, 3, size, size))) == 2


def test_each_cell_has_a_square_two_oblongs_and_a_larger_square() -> None:
    boxes = ssd.default_boxes(3, 8)
    assert boxes.shape == (36, 4)
    sizes = (boxes[:, 2:] - boxes[:, :2]).view(9, 4, 2)
    side, half = 20.0, 0.5**0.5
    expected = torch.tensor([[1, 1], [half, 2 * half], [2 * half, half], [2 * half, 2 * half]]) * side
    torch.testing.assert_close(sizes, expected.expand(9, -1, -1))
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2).view(3, 3, 4, 2)
    torch.testing.assert_close(centers[0, 2, 0], torch.tensor([20.0, 4.0]), msg="across, then down")


def test_raw_outputs_are_what_detections_are_made_of(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = ssd.SSD(4, 64, ssd.SSDOptions(overlap=0.3)).eval()
    images = scenes[1].__getitems__(range(3))[0]
    with torch.no_grad():
        logits, boxes = model.raw(images)
        found = model(images)
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    for picture, own, scores in zip(found, boxes, logits.softmax(dim=2), strict=True):
        assert (picture["boxes"][:, None] == own).all(dim=2).any(dim=1).all()
        assert torch.isin(picture["scores"], scores[:, 1:]).all()
        same = picture["labels"][:, None] == picture["labels"]
        overlaps = box_iou(picture["boxes"], picture["boxes"]).fill_diagonal_(0)
        assert overlaps[same].max() <= 0.3


def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(scenes: tuple[Boxes, Boxes]) -> None:
    torch.manual_seed(0)
    model = ssd.SSD(4, 64, ssd.SSDOptions())
    images, targets = scenes[0].__getitems__(range(16))
    outputs = model(images)
    ssd.ssd_loss(*outputs, targets, model.defaults).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not torch.equal(outputs[0], model(1 - images)[0])


def shuffled(dataset: Boxes) -> Boxes:
    labels = torch.cat(dataset.labels)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return replace(dataset, labels=list(labels.split([len(some) for some in dataset.labels])))


def test_shuffled_labels_teach_nothing(scenes: tuple[Boxes, Boxes]) -> None:
    """The places of objects can still be learned, their kinds cannot."""
    train_set, test_set = scenes
    torch.manual_seed(0)
    options = ssd.SSDOptions(epochs=4, device="cpu")
    model = ssd.build(options, train_set)
    ssd.train(model, shuffled(train_set), options)
    assert evaluate(model, test_set, CPU)["map_50"] < 0.45


def few(dataset: Boxes, count: int) -> Boxes:
    return Boxes(dataset.images[:count], dataset.boxes[:count], dataset.labels[:count], dataset.classes, [""] * count)


def test_your_own_datasets(scenes: tuple[Boxes, Boxes]) -> None:
    """Torch Datasets in torchvision's form give what the folder gives."""

    class Yours(torch.utils.data.Dataset[Any]):
        classes = ("zero", "one", "four", "seven")

        def __init__(self, dataset: Boxes) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, index: int) -> Any:
            image, target = self.dataset[index]
            return image, {"boxes": target["boxes"], "labels": target["labels"] + 1}

    pair = few(scenes[0], 32), few(scenes[1], 8)
    mine, theirs = (
        ssd.run(data=data, epochs=1, claims=False, device="cpu") for data in (pair, tuple(map(Yours, pair)))
    )
    assert mine.metrics == theirs.metrics
    for key, value in mine.model.state_dict().items():
        assert torch.equal(theirs.model.state_dict()[key], value), key


def test_what_is_written_answers_as_the_model_in_memory(scenes: tuple[Boxes, Boxes], tmp_path: Path) -> None:
    """A picture twice as wide as high: boxes are in its own pixels."""
    result = ssd.run(
        data=(few(scenes[0], 64), few(scenes[1], 8)), epochs=2, device="cpu", claims=False, out=str(tmp_path)
    )
    trained = recipes.trained(tmp_path, device="cpu")
    images = scenes[1].images[:4]
    with torch.inference_mode():
        expected = result.model.eval()(images.float() / 255)
    wide = images.repeat_interleave(2, dim=2).repeat_interleave(4, dim=3)  # 128 x 256
    for answer, found in zip(trained(list(images)), expected, strict=True):
        assert answer["labels"] == [result.test_set.classes[label] for label in found["labels"]]
        torch.testing.assert_close(answer["boxes"], found["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(answer["scores"], found["scores"], rtol=0, atol=1e-5)
        assert len(answer["objects"]) == int((found["scores"] >= trained.task.least_score).sum())
    answer = trained([wide[0]])[0]
    assert answer["boxes"].max() > 128, "the width of the picture itself"
    assert answer["boxes"][:, [1, 3]].max() <= 128
    item = trained.task.load(wide[0])
    assert trained.task.draw(item, answer).axes


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_exported_files_give_logits_and_boxes(suffix: str, scenes: tuple[Boxes, Boxes], tmp_path: Path) -> None:
    ssd.run(
        data=(few(scenes[0], 16), few(scenes[1], 8)), epochs=1, device="cpu", claims=False, out=str(tmp_path / "out")
    )
    assert recipes.trained(tmp_path / "out", device="cpu").export(tmp_path / f"ssd.{suffix}") < 1e-3


@pytest.mark.real
def test_blood_cells(real_data: Path) -> None:
    options = {"epochs": 10, "batch_size": 8, "claims": False}
    result = recipes.run(NAME, data=str(real_data / "BCCD"), device="cpu", **options)
    assert result.metrics["map_50"] > 0.6
