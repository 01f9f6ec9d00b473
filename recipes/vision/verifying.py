"""How embeddings of pictures are measured by pairs, the plain method to beat, and how trained ones are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.core.evaluation import predict
from recipes.core.figures import new_figure, show_picture
from recipes.core.result import Result
from recipes.vision.classification.using import ScaledPictures
from recipes.vision.pixels import shrunk

MOST = 4000  # pictures, the pairs of which are compared


class WithAnother:
    """A data set whose batches hold, for each picture, another one of the same person: triplets need both."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.labels = dataset, dataset.labels.cpu()

    def __len__(self) -> int:
        return len(self.dataset) // 2

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = 2 * torch.as_tensor(indices) + torch.randint(2, (len(indices),))
        same = (self.labels[index, None] == self.labels).float()  # (batch, N)
        another = same.scatter(1, index[:, None], 1e-9).multinomial(1)[:, 0]  # itself only where there is no other
        return self.dataset.__getitems__(torch.cat([index, another]))


def pairs_of(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of every pair of vectors (N, width), and whether the two are of one person."""
    vectors, labels = F.normalize(vectors[:MOST]), labels[:MOST].cpu()
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    return (vectors @ vectors.T)[first, second], labels[first] == labels[second]


def roc_area(cosines: Tensor, same: Tensor) -> float:
    """The probability that two pictures of one person are more alike than two of different people; ties count half."""
    different = cosines[~same].sort().values
    below = sum(
        torch.searchsorted(different, cosines[same], right=side).double().mean().item() for side in (False, True)
    )
    return below / (2 * len(different))


def accuracy(cosines: Tensor, same: Tensor, threshold: float) -> float:
    """The share of pairs decided rightly by the threshold, if as many are of one person as are of two."""
    alike = cosines >= threshold
    return (alike[same].double().mean().item() + (~alike[~same]).double().mean().item()) / 2


def best_threshold(cosines: Tensor, same: Tensor) -> float:
    """The cosine that decides most of these pairs rightly, if as many are of one person as are of two."""
    values, order = cosines.sort(descending=True)
    hits, errors = (chosen[order].double().cumsum(0) / chosen.sum() for chosen in (same, ~same))
    best = int((hits - errors).argmax())
    return (values[best] + values[min(best + 1, len(values) - 1)]).item() / 2


def evaluate(model: Any, dataset: Any, device: torch.device) -> dict[str, float]:
    """Area under the ROC curve, and accuracy by the model's threshold, over the pairs of a data set's pictures."""
    return scores(torch.stack(predict(model, dataset, device)), dataset.labels, model.threshold.item())


def scores(vectors: Tensor, labels: Tensor, threshold: float) -> dict[str, float]:
    pairs = pairs_of(vectors, labels)
    return {"roc_area": roc_area(*pairs), "accuracy": accuracy(*pairs, threshold)}


def fisherfaces(train_set: Any, chosen_on: Any, test_set: Any, *, pieces: int = 100) -> dict[str, float]:
    """The baseline without a network: the directions of pixels in which people differ most, and their pictures least.

    How many of them, and the threshold, are chosen on `chosen_on`. Source: Belhumeur, Hespanha, Kriegman (1997),
    "Eigenfaces vs. Fisherfaces".
    """
    pixels, labels = shrunk(train_set, 32), train_set.labels.cpu()
    mean, pieces = pixels.mean(dim=0), min(pieces, *pixels.shape)
    axes = torch.pca_lowrank(pixels, pieces)[2]
    seen = (pixels - mean) @ axes  # (N, pieces)
    centers = torch.stack([seen[labels == person].mean(dim=0) for person in labels.unique()])
    within = seen - centers[labels.unique(return_inverse=True)[1]]
    values, vectors = torch.linalg.eigh(within.T @ within / len(within))
    whiten = (
        vectors / (values + 1e-3 * values.mean()).sqrt()
    )  # pictures of one person now differ alike in all directions
    apart = axes @ whiten @ torch.linalg.svd(centers @ whiten, full_matrices=False).Vh.T
    best = (-1.0, 1, 0.0)
    for count in (5, 10, 20, 40, 80):
        pairs = pairs_of((shrunk(chosen_on, 32) - mean) @ apart[:, :count], chosen_on.labels)
        best = max(best, (roc_area(*pairs), count, best_threshold(*pairs)))
    _, count, threshold = best
    return scores((shrunk(test_set, 32) - mean) @ apart[:, :count], test_set.labels, threshold)


@dataclass(eq=False)
class Face:
    """A picture (C, H, W) uint8, the file it is from, and the picture that is nearest to it."""

    file: str | None
    image: Tensor
    nearest: "Face | None" = None


@dataclass(kw_only=True)
class Verification(ScaledPictures):
    """Pictures to the nearest of all others given, the cosine between the two, and whether they are of one person.

    Attributes:
        threshold: least cosine of two pictures of one person.
    """

    threshold: float

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        return cls(threshold=result.model.threshold.item(), **cls.remembered(result))

    def load(self, item: Any) -> Face:
        return Face(*super().load(item))

    def batch(self, items: Sequence[Face]) -> tuple[Tensor, ...]:
        return super().batch([(item.file, item.image) for item in items])

    def answers(self, outputs: Tensor, items: Sequence[Face]) -> list[dict[str, Any]]:
        given = [{"file": item.file} if item.file is not None else {} for item in items]
        return [one | {"embedding": vector} for one, vector in zip(given, outputs.tolist(), strict=True)]

    def together(self, answered: Iterator[tuple[Face, dict[str, Any]]]) -> Iterator[tuple[Face, dict[str, Any]]]:
        found = list(answered)
        vectors = torch.tensor([answer["embedding"] for _, answer in found])  # (N, width)
        for number, (face, answer) in enumerate(found):
            if len(found) > 1:
                cosines = vectors @ vectors[number]
                cosines[number] = -2.0  # itself
                nearest = int(cosines.argmax())
                face.nearest, cosine = found[nearest][0], cosines[nearest].item()
                told = {"nearest": face.nearest.file or nearest, "similarity": cosine}
                answer = answer | told | {"same": cosine >= self.threshold}
            yield face, answer

    def draw(self, item: Face, answer: dict[str, Any]) -> Any:
        figure, axes = new_figure(1, 2, width=2.4, height=2.8)
        show_picture(axes[0, 0], item.image)
        axes[0, 1].axis("off")
        if item.nearest is not None:
            told = "the same" if answer["same"] else "someone else"
            show_picture(axes[0, 1], item.nearest.image, f"{told}, {answer['similarity']:.2f}")
        return figure
