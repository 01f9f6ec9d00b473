"""Losses against plain loops, pairs against counting, and that nobody who is tested on was trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.drawn_faces import draw_faces
from recipes.datasets.faces import hold_out_people, open_faces
from recipes.datasets.images import Images
from recipes.vision.verification import (
    Embedding,
    Learner,
    VerificationOptions,
    arcface_loss,
    train,
    triplet_loss,
)
from recipes.vision.verifying import Verification, WithAnother, accuracy, best_threshold, pairs_of, roc_area

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few() -> tuple[Images, Images]:
    """Faces of twelve and of six people, four of each."""
    parts = []
    for people, seed in ((12, 1), (6, 2)):
        images, labels = draw_faces(people, 4, seed)
        parts.append(Images(images, labels, [f"{seed}-{i}" for i in range(people)]))
    return parts[0], parts[1]


def test_arcface_is_the_papers_formula_sample_by_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, centers = (F.normalize(torch.randn(rows, 8, generator=generator)) for rows in (6, 4))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = torch.zeros(())
    for vector, label in zip(vectors, labels.tolist(), strict=True):
        angles = [torch.acos(vector @ center) for center in centers]
        logits = [9.0 * torch.cos(angle + (0.4 if i == label else 0.0)) for i, angle in enumerate(angles)]
        expected = expected - torch.log(logits[label].exp() / sum(logit.exp() for logit in logits)) / len(labels)
    cosines = vectors @ centers.T
    torch.testing.assert_close(arcface_loss(cosines, labels, 0.4, 9.0), expected)
    torch.testing.assert_close(arcface_loss(cosines, labels, 0.0, 9.0), F.cross_entropy(9 * cosines, labels))


def test_arcfaces_gradient_is_finite_at_the_center_and_opposite_to_it() -> None:
    cosines = torch.tensor([[1.0, -1.0], [1.0, -1.0]], requires_grad=True)
    arcface_loss(cosines, torch.tensor([0, 1]), 0.4, 10.0).backward()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()


def test_triplets_are_those_a_plain_loop_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(12, 3, generator=generator))
    labels = torch.randint(4, (12,), generator=generator)
    chosen = list(semihard(vectors, labels))
    anchors, positives, negatives = (vectors[list(column)] for column in zip(*chosen, strict=True))
    theirs = nn.TripletMarginWithDistanceLoss(distance_function=lambda a, b: (a - b).square().sum(dim=1), margin=0.3)
    torch.testing.assert_close(triplet_loss(vectors, labels, 0.3), theirs(anchors, positives, negatives))


def semihard(vectors: Tensor, labels: Tensor) -> Iterator[tuple[int, int, int]]:
    def distance(one: int, other: int) -> float:
        return (vectors[one] - vectors[other]).square().sum().item()

    people = labels.tolist()
    for anchor, person in enumerate(people):
        others = [i for i, one in enumerate(people) if one != person]
        for positive in (i for i, one in enumerate(people) if one == person and i != anchor):
            farther = [i for i in others if distance(anchor, i) > distance(anchor, positive) + 1e-6]
            among = farther or [max(others, key=lambda i: distance(anchor, i))]
            yield anchor, positive, min(among, key=lambda i: distance(anchor, i))


def test_pairs_are_counted() -> None:
    labels, vectors = torch.tensor([0, 0, 1, 1, 2]), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    cosines, same = pairs_of(vectors, labels)
    assert len(cosines) == 10
    assert int(same.sum()) == 2
    wins = [float(a > b) + 0.5 * float(a == b) for a in cosines[same] for b in cosines[~same]]
    assert roc_area(cosines, same) == pytest.approx(sum(wins) / len(wins))
    assert roc_area(torch.zeros(10), same) == 0.5
    every = [accuracy(cosines, same, at) for at in [*cosines.tolist(), 2.0]]
    assert accuracy(cosines, same, best_threshold(cosines, same)) == pytest.approx(max(every))
    assert accuracy(cosines, same, -2.0) == accuracy(cosines, same, 2.0) == 0.5


def test_nobody_is_in_two_parts() -> None:
    train_set, test_set = open_faces()
    fit, chosen_on = hold_out_people(train_set, 0.2, 3)
    parts = [set(part.classes) for part in (fit, chosen_on, test_set)]
    assert [len(part) for part in parts] == [240, 60, 100]
    assert len(set.union(*parts)) == 400
    assert all(part.labels.unique().tolist() == list(range(len(part.classes))) for part in (fit, chosen_on, test_set))
    assert not any(torch.equal(train_set.images[10 * i], image) for i in range(20) for image in test_set.images)


def test_drawn_faces_are_the_same_again_and_of_one_person_never_alike() -> None:
    images, labels = draw_faces(3, 4, 5)
    assert torch.equal(images, draw_faces(3, 4, 5)[0])
    assert images.shape == (12, 3, 32, 32)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_every_picture_comes_with_another_of_the_same_person(few: tuple[Images, Images]) -> None:
    images, labels = WithAnother(few[0]).__getitems__(range(24))
    assert torch.equal(labels[:24], labels[24:])
    assert not any(torch.equal(one, other) for one, other in zip(images[:24], images[24:], strict=True))


@pytest.mark.parametrize("loss", ["arcface", "triplet", "softmax"])
def test_every_loss_reaches_every_parameter_and_can_be_driven_down(loss: Any, few: tuple[Images, Images]) -> None:
    torch.manual_seed(0)
    options = VerificationOptions(loss=loss, epochs=12, batch_size=16, width=16, device=CPU)
    learner = Learner(Embedding(3, 16), 12, options)
    outputs = learner(few[0].__getitems__(range(24))[0])
    outputs.square().mul(torch.rand_like(outputs)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learner.parameters())
    model = Embedding(3, 16)
    history = train(model, *few, options).history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    vectors = model.eval()(few[1].__getitems__(range(5))[0])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Folders of people, a model of a few steps on them, and its result."""
    folder = tmp_path_factory.mktemp("faces")
    images, labels = draw_faces(8, 3, 7)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (folder / "people" / f"person {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "people" / f"person {label}" / f"{number}.png")
    (folder / "people" / "seen once").mkdir()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(folder / "people" / "seen once" / "0.png")
    options = {"data": str(folder / "people"), "image_size": 32, "steps": 4, "batch_size": 8}
    result = recipes.run("vision.verification", device="cpu", out=str(folder / "out"), claims=False, **options)
    return folder, result


def test_folders_are_split_by_person(trained: tuple[Path, Result]) -> None:
    _, result = trained
    assert len(result.train_set.classes) == 4  # of eight two are tested on, and two choose the threshold
    assert len(result.test_set.classes) == 2
    assert not {"seen once"} & {*result.train_set.classes, *result.test_set.classes}


def test_answers_are_those_of_the_model_in_memory(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    used = recipes.trained(folder / "out", device="cpu")
    files = sorted((folder / "people").glob("person*/*.png"))[:5]
    answers = used(files, batch_size=2)
    images = torch.stack([result.task.load(file).image for file in files])  # type: ignore[union-attr]
    scaled = (images / 255 - result.train_set.mean.view(-1, 1, 1)) / result.train_set.std.view(-1, 1, 1)
    with torch.no_grad():
        vectors = result.model.eval()(scaled)
    cosines = (vectors @ vectors.T).fill_diagonal_(-2)
    for number, answer in enumerate(answers):
        torch.testing.assert_close(torch.tensor(answer["embedding"]), vectors[number], rtol=0, atol=1e-5)
        assert answer["file"] == str(files[number])
        assert answer["nearest"] == str(files[int(cosines[number].argmax())])
        assert answer["similarity"] == pytest.approx(cosines[number].max().item(), abs=1e-5)
        assert answer["same"] == (answer["similarity"] >= result.model.threshold.item())
    assert "nearest" not in used(files[:1])[0]
    assert isinstance(used.task, Verification)
    found = list(used.stream(files[:2]))
    assert used.task.draw(*found[0]).axes


def test_ones_own_datasets(few: tuple[Images, Images]) -> None:
    own = [[(image, f"{name} {label}") for image, label in zip(part.images, part.labels.tolist(), strict=True)]
           for name, part in zip("ab", few, strict=True)]  # fmt: skip
    train_set, test_set = open_faces(([*own[0], (own[0][0][0], "seen once")], own[1]))
    assert [len(part.classes) for part in (train_set, test_set)] == [12, 6]
    with pytest.raises(InputError, match="data: expected other people in the test part than in the train part"):
        open_faces((own[0], own[0]))
    with pytest.raises(InputError, match="expected at least 4 people in the train part"):
        open_faces((own[0][:12], own[1]))
    with pytest.raises(InputError, match="expected at least 2 people in the test part"):
        open_faces((own[0], own[1][:4]))


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_faces(tmp_path / "nowhere")
    (tmp_path / "somebody").mkdir()
    with pytest.raises(InputError, match="expected at least 6 folders, one a person"):
        open_faces(tmp_path)


def test_shuffled_names_teach_nothing() -> None:
    train_set, test_set = open_faces()
    found = []
    for shuffled in (False, True):
        torch.manual_seed(0)
        images, labels = train_set.images[:1200], train_set.labels[:1200]  # type: ignore[union-attr]
        labels = labels[torch.randperm(1200)] if shuffled else labels
        part = Images(images, labels, train_set.classes[:120], train_set.mean, train_set.std)
        options = VerificationOptions(epochs=4, batch_size=32, width=32, device=CPU)
        found.append(train(Embedding(3, 32), part, test_set, options).history[-1]["roc_area"])
    assert found[0] > 0.7
    assert found[1] < 0.6
