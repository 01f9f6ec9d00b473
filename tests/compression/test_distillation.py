"""The distillation loss against torch's divergence, and who is taught by whom."""

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import recipes
from recipes.compression.distillation import (
    UNKNOWN,
    DistillationOptions,
    build,
    distill,
    label_loss,
    roc_area,
    similarity_loss,
    soft_loss,
    some_of_each,
    train,
    with_features,
)
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

CPU = torch.device("cpu")
NAME = "compression.distillation"


def options(**given: Any) -> DistillationOptions:
    return DistillationOptions(device="cpu", **given)


def unlabelled(train_set: Any) -> Any:
    return replace(train_set, labels=torch.full_like(train_set.labels, UNKNOWN))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    train_set, _ = open_images()
    torch.manual_seed(0)
    network = SmallCNN(1, 10)
    train(network, train_set, options(epochs=4))
    return network


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_loss_is_torchs(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(16, 10), torch.randn(16, 10)
    divergence = F.kl_div(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(soft_loss(student, teacher, temperature), divergence * temperature**2)


def test_at_a_high_temperature_the_gradient_is_that_of_matching_centered_logits() -> None:
    """As the paper derives in its section 2.1: (z - v) / N for each of N classes, where both have mean zero."""
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 10, dtype=torch.double), torch.randn(1, 10, dtype=torch.double)
    student, teacher = (one - one.mean() for one in (student, teacher))
    student.requires_grad_()
    soft_loss(student, teacher, 1e4).backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 10, rtol=1e-2, atol=1e-4)


def test_pictures_without_a_label_do_not_count_among_labels() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 10), torch.full((8,), UNKNOWN)
    assert label_loss(logits, labels) == 0
    labels[3] = 7
    torch.testing.assert_close(label_loss(logits, labels), F.cross_entropy(logits[3:4], labels[3:4]))


def test_same_answers_cost_nothing() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert abs(float(soft_loss(logits, logits, 4.0))) < 1e-6
    turned = logits @ torch.linalg.qr(torch.randn(10, 10)).Q  # other features that find the same samples alike
    assert abs(float(similarity_loss(3 * turned, logits))) < 1e-6
    assert float(similarity_loss(logits.flip(0) ** 2, logits)) > 0.01


def test_features_are_what_the_last_linear_layer_reads() -> None:
    network = SmallCNN(1, 10, width=4).eval()
    images = torch.randn(3, 1, 8, 8)
    logits, features = with_features(network, network, images)
    torch.testing.assert_close(network.head(features), logits)
    assert not network.head._forward_pre_hooks
    convolution = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    logits, features = with_features(convolution, convolution, images)
    assert features is logits


@pytest.mark.parametrize("method", ["soft", "hard", "features"])
def test_the_student_learns_and_the_teacher_stays(method: str, teacher: nn.Module) -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    student = SmallCNN(1, 10, width=8)
    kept = copy.deepcopy(teacher.state_dict())
    before = [value.clone() for value in student.parameters()]
    distill(teacher, student, unlabelled(train_set), options(method=method, epochs=4, hard_weight=0.0))
    assert teacher.training
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    assert all(not torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True))
    assert evaluate(student, test_set, CPU)["accuracy"] > 0.8


def test_without_a_teacher_unlabelled_pictures_teach_nothing(teacher: nn.Module) -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    student = SmallCNN(1, 10, width=8)
    distill(teacher, student, unlabelled(train_set), options(method="none", epochs=1))
    assert evaluate(student, test_set, CPU)["accuracy"] < 0.4


@pytest.mark.parametrize("method", ["soft", "hard", "features"])
def test_a_teacher_that_knows_nothing_teaches_nothing(method: str) -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    ignorant, student = SmallCNN(1, 10), SmallCNN(1, 10, width=8)
    distill(ignorant, student, unlabelled(train_set), options(method=method, epochs=2))
    assert evaluate(student, test_set, CPU)["accuracy"] < 0.4


def test_some_of_each_are_as_many_of_each_and_of_the_seed() -> None:
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    part = Images(images, torch.arange(10).repeat(20), [str(number) for number in range(10)])

    def shown(seed: int) -> Tensor:
        few = some_of_each(part, 3, seed)
        assert len(few) == 200
        drawn = few.pixels(torch.arange(200)).flatten().unique()
        assert torch.bincount(part.labels[drawn.long()]).tolist() == [3] * 10
        return drawn

    assert torch.equal(shown(1), shown(1))
    assert not torch.equal(shown(1), shown(2))
    assert len(some_of_each(part, 1000, 0).pixels(torch.arange(200)).unique()) == 200


def test_roc_area_counts_pairs() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], dim=1)

    images = torch.tensor([9, 7, 7, 1], dtype=torch.uint8).view(4, 1, 1, 1)
    part = Images(images, torch.tensor([0, 0, 1, 1]), ["a", "b"])
    assert roc_area(Same(), part, 0) == pytest.approx(3.5 / 4)  # three pairs in order, one tie


class Pairs(Dataset[tuple[Tensor, int]]):
    """A plain data set, whose samples torch collates."""

    def __init__(self) -> None:
        self.inputs = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], UNKNOWN


@pytest.mark.parametrize("method", ["soft", "hard", "features"])
def test_any_data_set_and_any_networks(method: str) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 3))
    student = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    data = Pairs()
    distill(teacher, student, data, options(method=method, epochs=60, batch_size=16, channels_last=False))
    alike = teacher(data.inputs).argmax(1) == student(data.inputs).argmax(1)
    assert alike.double().mean() > 0.8


@pytest.mark.parametrize(("option", "value"), [("temperature", 0.0), ("hard_weight", 1.5), ("method", "softer")])
def test_refuses_options_that_cannot_be(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"option {option}"):
        options(**{option: value})


class Answered(nn.Module):
    """The answers of a network in an object of one's own."""

    def __init__(self, kind: type, inputs: int = 5) -> None:
        super().__init__()
        self.kind, self.layer, self.norm = kind, nn.Linear(inputs, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        return self.kind(self.norm(self.layer(x)))


@dataclass
class Scores:
    scores: Tensor


@dataclass
class Hidden:
    scores: InitVar[Tensor]


def test_answers_in_objects_are_found_and_every_layer_keeps_its_mode() -> None:
    teacher, student = Answered(Scores), nn.Linear(5, 3)
    teacher.norm.eval()
    short = options(epochs=1, batch_size=16, channels_last=False)
    distill(teacher, student, Pairs(), short)
    with pytest.raises(InputError, match="student: expected logits"):
        distill(teacher, nn.Linear(5, 2), Pairs(), short)
    assert teacher.training
    assert not teacher.norm.training
    with pytest.raises(InputError, match="model: expected a tensor among its outputs, found none in Hidden"):
        distill(Answered(Hidden), student, Pairs(), short)


def test_refuses_a_student_with_other_answers() -> None:
    train_set, _ = open_images()
    teacher, student = SmallCNN(1, 10, width=4), nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(InputError, match=r"student: expected logits of the teacher's shape \(64, 10\)"):
        distill(teacher, student, train_set, options(epochs=1))


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    shuffled = replace(train_set, labels=train_set.labels[order])
    torch.manual_seed(0)
    chosen = options(epochs=2)
    teacher, student = build(chosen, train_set, teacher=True), build(chosen, train_set)
    train(teacher, shuffled, chosen)
    distill(teacher, student, shuffled, chosen)
    assert evaluate(student, test_set, CPU)["accuracy"] < 0.4


@pytest.mark.xdist_group(NAME)
def test_the_saved_student_answers_as_the_one_in_memory(default_run: Callable[[str], Result], tmp_path: Path) -> None:
    """With this library, and by the files that `out` gets in a process that has no such library."""
    result = default_run(NAME)
    result.save(tmp_path / "out")
    trained = recipes.trained(tmp_path / "out", device="cpu")
    assert sum(one.numel() for one in trained.model.parameters()) < 10_000
    answers = trained(list(result.test_set.pixels(torch.arange(40))))
    images, _ = result.test_set.__getitems__(range(40))
    with torch.no_grad():
        exact = result.model.cpu().eval()(images)
    for answer, share in zip(answers, exact.softmax(dim=1), strict=True):
        assert list(answer["classes"].values()) == pytest.approx(share.tolist(), abs=1e-5)
    student = build(options(), result.train_set).eval()
    student.load_state_dict(load_file(tmp_path / "out" / "packed.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(student(images), exact)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    save_file({"images": images.contiguous()}, tmp_path / "images.safetensors")
    script = (
        "import sys; sys.modules['recipes'] = None\n"
        "import onnxruntime, torch\n"
        "from safetensors.torch import load_file, save_file\n"
        "images = load_file('images.safetensors')['images']\n"
        "session = onnxruntime.InferenceSession('out/model.onnx')\n"
        "(integers,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})\n"
        "exact = torch.export.load('out/model.pt2').module()(images)\n"
        "save_file({'exact': exact.detach(), 'integers': torch.from_numpy(integers)}, 'answers.safetensors')\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    shipped = load_file(tmp_path / "answers.safetensors")
    torch.testing.assert_close(shipped["exact"], exact, rtol=0, atol=1e-4)
    assert (shipped["integers"] - exact).norm() < 0.05 * exact.norm()
