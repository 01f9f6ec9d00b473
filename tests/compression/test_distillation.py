"""The distillation loss against torch's divergence, and who is taught by whom."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recipes.compression.distillation import UNKNOWN, distill, distillation_loss, few_labels
from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.vision.classification.old import train
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

CPU = torch.device("cpu")


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
def test_loss_is_torchs(temperature: float, hard_weight: float) -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(16, 10), torch.randn(16, 10), torch.randint(10, (16,))
    soft = F.kl_div(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="batchmean"
    ) * (temperature**2)
    expected = (1 - hard_weight) * soft + hard_weight * F.cross_entropy(student, labels)
    mine = distillation_loss(student, teacher, labels, temperature=temperature, hard_weight=hard_weight)
    torch.testing.assert_close(mine, expected)


def test_unlabelled_pictures_count_in_the_soft_part_alone() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10), torch.randn(8, 10)
    labels = torch.full((8,), UNKNOWN)
    none = distillation_loss(student, teacher, labels, temperature=2, hard_weight=1)
    assert none == 0
    labels[3] = 7
    one = distillation_loss(student, teacher, labels, temperature=2, hard_weight=1)
    torch.testing.assert_close(one, F.cross_entropy(student[3:4], labels[3:4]))


def test_same_answers_cost_nothing() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    loss = distillation_loss(logits, logits, torch.zeros(4, dtype=torch.long), temperature=4, hard_weight=0)
    assert abs(float(loss)) < 1e-6


def test_the_student_learns_and_the_teacher_stays() -> None:
    train_set, test_set = open_images(None)
    torch.manual_seed(0)
    teacher, student = SmallCNN(1, 10), SmallCNN(1, 10, width=8)
    train(teacher, train_set, test_set, epochs=4, batch_size=64, lr=1e-2, device=CPU)
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    before = [value.clone() for value in student.parameters()]
    train_set.labels = torch.full_like(train_set.labels, UNKNOWN)  # the teacher's word alone
    distill(teacher, student, train_set, hard_weight=0, epochs=4, batch_size=64, lr=1e-2, device=CPU)
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    assert all(not torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True))
    assert evaluate(student, test_set, CPU)["accuracy"] > 0.8


def test_a_teacher_that_knows_nothing_teaches_nothing() -> None:
    train_set, test_set = open_images(None)
    torch.manual_seed(0)
    teacher, student = SmallCNN(1, 10), SmallCNN(1, 10, width=8)
    train_set.labels = torch.full_like(train_set.labels, UNKNOWN)
    distill(teacher, student, train_set, epochs=2, batch_size=64, lr=1e-2, device=CPU)
    assert evaluate(student, test_set, CPU)["accuracy"] < 0.4


def test_few_labels_are_as_many_of_each_and_of_the_seed() -> None:
    labels = torch.arange(10).repeat(20)
    drawn = few_labels(labels, 3, seed=1)
    assert torch.bincount(labels[drawn]).tolist() == [3] * 10
    assert torch.equal(drawn, few_labels(labels, 3, seed=1))
    assert not torch.equal(drawn, few_labels(labels, 3, seed=2))
    with pytest.raises(InputError, match="option labels: expected at most 20"):
        few_labels(labels, 21, seed=0)


@pytest.mark.parametrize(("option", "value"), [("temperature", 0.0), ("hard_weight", 1.5)])
def test_refuses_options_that_cannot_be(option: str, value: Any) -> None:
    options: dict[str, Any] = {option: value}
    train_set, _ = open_images(None)
    networks = SmallCNN(1, 10, width=4), SmallCNN(1, 10, width=4)
    with pytest.raises(InputError, match=f"option {option}"):
        distill(*networks, train_set, epochs=1, batch_size=64, lr=1e-2, device=CPU, **options)


def test_refuses_a_student_with_other_answers() -> None:
    train_set, _ = open_images(None)
    teacher, student = SmallCNN(1, 10, width=4), nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(InputError, match=r"student: expected logits of the teacher's shape \(64, 10\)"):
        distill(teacher, student, train_set, epochs=1, batch_size=64, lr=1e-2, device=CPU)
