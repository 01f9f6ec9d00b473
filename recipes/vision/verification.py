"""Verification: are two pictures of the same person, whom the network has never seen?

A classifier knows the people it was trained on. To compare strangers, a picture is turned into a vector, its embedding,
such that pictures of one person lie close together on the sphere and those of two far apart; the cosine between two of
them, held to a threshold, is the answer. Two losses ask for that:

- ArcFace keeps the classifier and its cross-entropy, but its logits are cosines, between the picture's vector and a
  center that each person has, and the angle θ to the picture's own center counts as θ + margin. To be right is not
  enough: a picture has to be nearer to its center than to all others by that angle.
- Triplets need no centers. An anchor, another picture of the same person, and one of someone else: the first two shall
  be closer than the last, by a margin. Most triplets are that already and teach nothing, and the hardest mislead early
  on, so each pair takes the nearest stranger who is farther than the pair is ("semi-hard").

Whoever is tested on was never trained on, and the threshold is chosen on people of the train part that are held out for
it. The features of a classifier without a margin (loss="softmax") come close. Pixels are of no use, for pose and light
change them more than the person does; even Fisherfaces, which learn from the same people in which directions of pixels
they differ, make more than twice as many mistakes.

Notes: 81, 83
Paper: Deng, Guo, Xue, Zafeiriou (2019), "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
    https://arxiv.org/abs/1801.07698; Schroff, Kalenichenko, Philbin (2015), "FaceNet: A Unified Embedding for Face
    Recognition and Clustering", https://arxiv.org/abs/1503.03832
Data: faces drawn by code, 32×32 pixels, of 300 people to train on and 100 to test on; yours as a folder a person, or
    Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, predict, recipe
from recipes.datasets.faces import hold_out_people, open_faces, people
from recipes.datasets.loading import few_of_each
from recipes.vision.pixels import shrunk
from recipes.vision.verifying import (
    MOST,
    Verification,
    WithAnother,
    best_threshold,
    evaluate,
    fisherfaces,
    pairs_of,
    roc_area,
)


@dataclass(kw_only=True)
class VerificationOptions(Options):
    loss: Literal["arcface", "triplet", "softmax"] = option("arcface", "softmax is a classifier without a margin")
    margin: float = option(0.4, "of arcface in radians; of triplets in squared distance", least=0)
    scale: float = option(10.0, "what arcface multiplies cosines by", above=0)
    width: int = option(64, "size of an embedding", least=2)
    persons: int | None = option(None, "to train on; all if not given", least=2)
    pictures: int | None = option(None, "of each person to train on; all if not given", least=2)
    image_size: int | None = option(None, "side in pixels of the pictures; 64 for yours if not given", least=8)
    epochs: int = 10
    batch_size: int = 64


class Embedding(nn.Module):
    """Pictures (N, C, H, W) to vectors (N, width) of length 1; with the threshold that their cosines are held to."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.threshold: Tensor
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.project = nn.Sequential(nn.Linear(128 * 16, width, bias=False), nn.BatchNorm1d(width, affine=False))
        self.register_buffer("threshold", torch.tensor(0.0))

    def features(self, images: Tensor) -> Tensor:
        return self.project(self.layers(images))  # (N, width)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.features(images))


class Learner(nn.Module):
    """An embedding with what training needs of the people it is trained on, and using it does not: their centers."""

    def __init__(self, embedding: Embedding, persons: int, options: VerificationOptions) -> None:
        super().__init__()
        self.embedding, self.loss = embedding, options.loss
        if self.loss != "triplet":
            self.centers = nn.Linear(options.width, persons, bias=self.loss == "softmax")
            nn.init.normal_(self.centers.weight, std=0.05)

    def forward(self, images: Tensor) -> Tensor:
        if self.loss == "softmax":
            return self.centers(self.embedding.features(images))  # logits (N, persons)
        vectors = self.embedding(images)
        if self.loss == "triplet":
            return vectors  # (N, width)
        return F.linear(vectors, F.normalize(self.centers.weight))  # cosines (N, persons)


def arcface_loss(cosines: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Cross-entropy of scale · cos θ, where the angle θ to the picture's own center counts as θ + margin."""
    angles = cosines.clamp(-1 + 1e-6, 1 - 1e-6).acos()  # (N, persons); at ±1 its slope is infinite
    own = F.one_hot(labels, cosines.shape[1]).bool()
    return F.cross_entropy(scale * torch.where(own, (angles + margin).clamp(max=torch.pi).cos(), cosines), labels)


def triplet_loss(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of max(0, d(anchor, same) − d(anchor, other) + margin) over all pairs of one person in the batch.

    d is the squared distance. The other is semi-hard: the nearest that is farther from the anchor than the same person
    is; where none is, the farthest.
    """
    distances = 2 - 2 * vectors @ vectors.T  # (N, N), of vectors of length 1
    same = labels[:, None] == labels
    anchors, positives = (same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).nonzero().T
    near, far = distances[anchors, positives], distances[anchors]  # (pairs,), (pairs, N)
    semihard = far.masked_fill(same[anchors] | (far <= near[:, None]), torch.inf).amin(dim=1)
    farthest = far.masked_fill(same[anchors], -1.0).amax(dim=1)
    return F.relu(near - torch.where(semihard.isinf(), farthest, semihard) + margin).mean()


def varied(images: Tensor) -> Tensor:
    """Pictures (N, C, H, W), half of them mirrored, in light of another color."""
    images = images.flip(3).where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images)
    gain, shift = torch.empty(2, *images.shape[:2], 1, 1, device=images.device).uniform_(-0.15, 0.15)
    return (1 + gain) * images + shift


def build(options: VerificationOptions, data: Any) -> Embedding:
    """The network for pictures like these."""
    return Embedding(data.shape[0], options.width)


def train(model: Embedding, train_set: Any, test_set: Any, options: VerificationOptions) -> Loop:
    """Minimizes the loss with AdamW over the people of the train part."""
    learner = Learner(model, len(train_set.classes), options)
    loader = batches(train_set, options)
    if options.loss == "triplet":
        loader = batches(WithAnother(train_set), options.with_changes(batch_size=max(options.batch_size // 2, 1)))
    loop = Loop(
        learner,
        torch.optim.AdamW(learner.parameters(), lr=options.lr, weight_decay=0.05, fused=True),
        loader,
        options,
        evaluate=lambda: {"roc_area": evaluate(model, test_set, options.device)["roc_area"]},
    )
    for images, labels in loop:
        outputs = loop.model(varied(images))
        if options.loss == "arcface":
            loop.step(arcface_loss(outputs, labels, options.margin, options.scale))
        elif options.loss == "triplet":
            loop.step(triplet_loss(outputs, labels, options.margin))
        else:
            loop.step(F.cross_entropy(outputs, labels))
    return loop


@recipe(VerificationOptions)
def run(options: VerificationOptions) -> Result:
    """Trains an embedding and measures it on pairs of pictures of people it has never seen."""
    side = options.image_size or (None if options.data is None else 64)
    train_set, test_set = open_faces(options.data, image_size=side, seed=options.seed)
    train_set, chosen_on = hold_out_people(train_set, 0.2, options.seed)
    chosen = people(train_set, torch.arange(options.persons or len(train_set.classes)))
    chosen = chosen.subset(few_of_each(chosen.labels, options.pictures or len(chosen), options.seed))
    model = build(options, chosen).to(options.device)
    loop = train(model, chosen, test_set, options)
    vectors = torch.stack(predict(model, chosen_on, loop.device))
    model.threshold.fill_(best_threshold(*pairs_of(vectors, chosen_on.labels)))
    return Result(
        metrics=evaluate(model, test_set, loop.device),
        baseline=fisherfaces(train_set, chosen_on, test_set),
        baseline_name="Fisherfaces",
        bars={"roc_area": 0.96, "accuracy": 0.89},
        history=loop.history,
        model=model,
        train_set=chosen,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    full, classifier = run(), run(loss="softmax")
    pixels = roc_area(*pairs_of(shrunk(full.test_set, 32), full.test_set.labels))
    rows = {"raw pixels": pixels, "Fisherfaces": full.baseline["roc_area"]}
    rows |= {"a classifier's features": classifier["roc_area"], "this recipe": full["roc_area"]}
    text = "it tells people apart whom it has never seen, far better than pixels do"
    yield Claim(text, full["roc_area"], ">", max(pixels, full.baseline["roc_area"]), margin=0.05)
    if full.options["loss"] != "softmax":
        text = "the features of the same network, trained to classify without a margin, compare less well"
        yield Claim(text, classifier["roc_area"], "<", full["roc_area"], margin=0.005)
    full.rows = [{"compared by": name, "roc_area": value} for name, value in rows.items()]
    count, least = len(full.train_set.classes) // 2, int(full.train_set.labels.bincount().min()) // 2
    if full.options["data"] is None:
        fewer_people, fewer_pictures = run(persons=count), run(pictures=least)
        text = "half as many people cost less than half as many pictures of each, which show what to overlook"
        yield Claim(text, fewer_people["roc_area"], ">", fewer_pictures["roc_area"], margin=0.01)


@run.figure
def figure(result: Result) -> Any:
    """Cosines of pairs, all that was compared, and the pairs that are told least rightly."""
    dataset, device = result.test_set, next(result.model.parameters()).device
    vectors = torch.stack(predict(result.model, dataset, device))[:MOST]
    cosines, same = pairs_of(vectors, dataset.labels)
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    drawn, axes = new_figure(2, 4, width=2.6, height=2.6)
    for which, label in ((same, "one person"), (~same, "two people")):
        axes[0, 0].hist(cosines[which].numpy(), bins=50, density=True, alpha=0.6, label=label)
    axes[0, 0].axvline(result.model.threshold.item(), color="black", linewidth=0.8)
    axes[0, 0].set(xlabel="cosine", yticks=[], title="held-out pairs")
    axes[0, 0].legend(frameon=False, fontsize=7)
    rows = result.rows or [{"compared by": "this recipe"} | result.metrics]
    axes[0, 1].barh([row["compared by"] for row in rows][::-1], [row["roc_area"] for row in rows][::-1])
    axes[0, 1].set(xlim=(0.5, 1), title="area under the ROC curve")
    for number, axis in enumerate(axes.flatten()[2:]):
        of_one = number % 2 == 0
        among = (same if of_one else ~same).nonzero().flatten()
        pair = among[cosines[among].argsort(descending=not of_one)[number // 2]]
        sides = [dataset.pixels(torch.tensor([int(one[pair])]))[0] for one in (first, second)]
        show_picture(axis, torch.cat(sides, dim=2), f"{'one person' if of_one else 'two people'}, {cosines[pair]:.2f}")
    return drawn


run.predicts(Verification, build)


if __name__ == "__main__":
    main(run)
