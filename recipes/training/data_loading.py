"""Data loading: the four jobs between a data set and a training loop.

*Load* a sample when it is asked for; *preprocess* it into what the network takes; *shuffle*, so that no batch tells
what comes next; and put samples together into a *batch*. PyTorch gives each job a place of its own. A `Dataset`
loads and preprocesses, a sampler decides on the order, a collate function makes the batch, and the `DataLoader`
joins the three.

Here a sample is the list of a digit's inked pixels, so samples differ in length and the collate function has to
pad them. Half of the classes are made rare: with a plain shuffle a network hardly meets them, with a sampler that
draws every class equally often it learns them too. Without any shuffling, class after class, it forgets each one
while it learns the next.

Notes: 82
Paper: Qi, Su, Mo, Guibas (2017), "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation",
    https://arxiv.org/abs/1612.00593, for the network
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from recipes.core.device import rank_and_world
from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Result, main, option, recipe
from recipes.core.measure import interleaved, ratio
from recipes.datasets.images import ImageFiles, Images, open_images

Sample = tuple[Tensor, int]  # inked pixels (n, 3) as row, column and ink, all from 0 to 1, and the class
Batch = tuple[tuple[Tensor, Tensor], Tensor]  # padded pixels (B, longest, 3), which are real (B, longest); classes (B,)


class InkedPixels(Dataset):
    """Each picture as the list of its pixels that are not black: the jobs of loading and preprocessing.

    With `moved`, a share of the picture's side, each sample comes shifted, turned and stretched at random by about as
    much, and otherwise every time it is asked for.
    """

    def __init__(self, pictures: Images | ImageFiles, *, moved: float = 0.0) -> None:
        self.pictures, self.labels, self.moved = pictures, pictures.labels, moved

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: Sequence[int]) -> Tensor:
        """From where the pictures are, memory or files: gray, from 0 to 1, (B, height, width)."""
        return self.pictures.pixels(torch.as_tensor(indices)).float().mean(dim=1) / 255

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Many at once, which the DataLoader prefers: one search for ink instead of one a picture."""
        images = self.load(indices)
        found = images.nonzero()  # (all pixels, 3): picture, row, column
        positions = found[:, 1:] / (torch.tensor(images.shape[1:]) - 1).clamp(min=1)
        if self.moved:
            number = found[:, 0]
            turn = torch.eye(2) + 2 * self.moved * torch.randn(len(images), 2, 2)
            shift = self.moved * torch.randn(len(images), 2)
            positions = ((positions - 0.5)[:, None] @ turn[number])[:, 0] + 0.5 + shift[number]
        pixels = torch.cat([positions, images[images != 0][:, None]], dim=1)
        counts = found[:, 0].bincount(minlength=len(images)).tolist()
        return list(zip(pixels.split(counts), self.labels[indices].tolist(), strict=True))


def pad(samples: Sequence[Sample]) -> Batch:
    """The collate function: shorter samples are filled up with zeros, and a mask says what is real."""
    pixels = nn.utils.rnn.pad_sequence([sample for sample, _ in samples], batch_first=True)  # (B, longest, 3)
    lengths = torch.tensor([len(sample) for sample, _ in samples])
    real = torch.arange(pixels.shape[1]) < lengths[:, None]  # (B, longest)
    return (pixels, real), torch.tensor([label for _, label in samples])


class Shuffled(Sampler):
    """Every sample once, in an order that depends on the seed and the epoch alone.

    Under torchrun each process takes every N-th of it.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        self.labels, self.seed, self.epoch = labels, seed, 0
        self.rank, self.world = rank_and_world()

    def __len__(self) -> int:
        return len(self.labels) // self.world

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop: without it every epoch would have the same order."""
        self.epoch = epoch

    def order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self.labels), generator=generator)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        yield from self.order(generator)[self.rank :: self.world][: len(self)].tolist()


class Sorted(Shuffled):
    """Class after class, as many data sets lie on a disk."""

    def order(self, generator: torch.Generator) -> Tensor:
        return self.labels.argsort(stable=True)


class Balanced(Shuffled):
    """As many draws as there are samples, each class as likely: rare ones come again and again."""

    def order(self, generator: torch.Generator) -> Tensor:
        weights = 1.0 / self.labels.bincount()[self.labels]  # (N,)
        return weights.multinomial(len(self.labels), replacement=True, generator=generator)


SAMPLERS = {"balanced": Balanced, "shuffled": Shuffled, "sorted": Sorted}


@dataclass(kw_only=True)
class DataLoadingOptions(Options):
    sampler: Literal["balanced", "shuffled", "sorted"] = option("balanced", "balanced, shuffled, or sorted by class")
    rare_samples: int = option(8, "training samples that the second half of the classes keep, each", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    moved: float = option(0.08, "share of its side by which a training sample is moved at random", least=0, most=1)
    width: int = option(96, "numbers that the network makes of a pixel, at first", least=1)
    epochs: int = 80
    batch_size: int = 64


class PointNet(nn.Module):
    """The same small network for every pixel, the maximum over the real ones, and a second network for that."""

    def __init__(self, num_classes: int, *, width: int, waves: int = 4) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(torch.pi * 2.0 ** torch.arange(waves), persistent=False)
        self.pixel = nn.Sequential(
            nn.Linear(3 + 4 * waves, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * width)
        )
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, num_classes)
        )

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        pixels, real = inputs  # (B, longest, 3), (B, longest)
        # Places as waves of several lengths, so that neighbors can be told apart
        angles = (pixels[:, :, :2, None] * self.frequencies).flatten(2)  # (B, longest, 2 * waves)
        features = self.pixel(torch.cat([pixels, angles.sin(), angles.cos()], dim=2))  # (B, longest, 2 * width)
        features = features.masked_fill(~real[:, :, None], -torch.inf)  # what is padding never wins
        highest = F.pad(features, (0, 0, 0, 1), value=-torch.inf).amax(dim=1)  # a row more, if none has ink
        return self.head(highest.where(real.any(dim=1, keepdim=True), 0.0))  # (B, num_classes)


def build(options: DataLoadingOptions, data: Images | ImageFiles) -> PointNet:
    """The network for classes like these."""
    return PointNet(len(data.classes), width=options.width)


def train(model: nn.Module, dataset: InkedPixels, options: DataLoadingOptions) -> Loop:
    """Minimizes the cross-entropy over a DataLoader's batches: it joins data set, sampler and collate function."""
    sampler = SAMPLERS[options.sampler](dataset.labels, options.seed)
    size = max(1, min(options.batch_size, len(dataset)) // sampler.world)
    loader = DataLoader(dataset, size, sampler=sampler, collate_fn=pad, drop_last=True)
    loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=options.lr), loader, options)
    for inputs, labels in loop:
        loop.step(F.cross_entropy(loop.model(inputs), labels))
    return loop


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: InkedPixels, rare: Tensor, device: Any) -> dict[str, float]:
    """Accuracy over all held-out samples, and over those of the classes that are rare in training."""
    model.eval()
    loader = DataLoader(dataset, 256, collate_fn=pad)
    predicted = [model((pixels.to(device), real.to(device))).argmax(dim=1).cpu() for (pixels, real), _ in loader]
    return scores(torch.cat(predicted), dataset.labels, rare)


def scores(predicted: Tensor, labels: Tensor, rare: Tensor) -> dict[str, float]:
    right, among = predicted == labels, torch.isin(labels, rare)  # (N,) each
    return {"accuracy": right.double().mean().item(), "rare_accuracy": right[among].double().mean().item()}


def nearest_neighbor(known: InkedPixels, unseen: InkedPixels) -> Tensor:
    """The class of the training picture whose pixels differ least: (N,)."""
    query, key = (part.load(range(len(part))).flatten(1) for part in (unseen, known))
    distances = torch.cdist(query, key)
    return known.labels[distances.argmin(dim=1)]


@recipe(DataLoadingOptions)
def run(options: DataLoadingOptions) -> Result:
    """Trains on classes of which half are rare, in batches that a sampler draws."""
    pictures, test_pictures = open_images(options.data, image_size=options.image_size, seed=options.seed)
    count = len(pictures.classes)
    rare, most = torch.arange(count // 2, count), len(pictures)
    of_class = [(pictures.labels == label).nonzero().flatten() for label in range(count)]
    kept = torch.cat([rows[: options.rare_samples if label in rare else most] for label, rows in enumerate(of_class)])
    train_set, test_set = InkedPixels(pictures.subset(kept), moved=options.moved), InkedPixels(test_pictures)
    model = build(options, pictures).to(options.device)
    loop = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, rare, options.device),
        baseline=scores(nearest_neighbor(train_set, test_set), test_set.labels, rare),
        baseline_name="nearest neighbor",
        bars={"accuracy": 0.9},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    ways = {name: run(sampler=name) for name in ("balanced", "shuffled", "sorted")}
    result.rows = [{"sampler": name} | one.metrics for name, one in ways.items()]
    balanced, plain = ways["balanced"], ways["shuffled"]
    text = "drawing every class equally often pays: accuracy on the rare classes"
    yield Claim(text, balanced["rare_accuracy"], ">", plain["rare_accuracy"], margin=0.04)
    yield Claim("so does shuffling: accuracy", plain["accuracy"], ">", ways["sorted"]["accuracy"], margin=0.15)
    text = "moving the samples at random pays: accuracy"
    yield Claim(text, result["accuracy"], ">", run(moved=0.0)["accuracy"], margin=0.005)

    dataset, model = result.train_set, result.model.cpu()
    first, again, later = (Shuffled(dataset.labels, result.seed) for _ in range(3))
    later.set_epoch(1)
    differ = sum(one != other for one, other in zip(first, again, strict=True))
    yield Claim("the order repeats with the seed: positions that differ", differ, "<=", 0, kind="fact")
    same = sum(one == other for one, other in zip(first, later, strict=True)) / len(first)
    yield Claim("and not in the next epoch: share of positions alike", same, "<", 0.05, kind="fact")
    samples = result.test_set.__getitems__(range(min(len(result.test_set), 16)))
    model.eval()
    with torch.inference_mode():
        alone = torch.cat([model(pad([sample])[0]) for sample in samples])
        difference = (model(pad(samples)[0]) - alone).abs().max().item()
    yield Claim("padding changes no answer: largest difference", difference, "<", 1e-4, kind="fact")
    rows = list(first)[:256]
    ways_to_fetch = {"many": lambda: dataset.__getitems__(rows), "one": lambda: [dataset[row] for row in rows]}
    seconds = interleaved(ways_to_fetch)
    text = "samples fetched together: time over one by one"
    yield Claim(text, ratio(seconds["many"], seconds["one"])[1], "<", 0.5, kind="fact")


@run.figure
def figure(result: Result) -> Any:
    """A picture and the list it becomes, a padded batch, and how often each sampler draws each class."""
    dataset = result.test_set
    drawing, axes = new_figure(1, 4, width=3.2)
    sample, _ = dataset[0]
    show_picture(axes[0, 0], dataset.load([0]), "loaded")
    axes[0, 1].scatter(sample[:, 1], 1 - sample[:, 0], c=sample[:, 2], cmap="Greys", vmin=-0.3, edgecolor="gray")
    axes[0, 1].set(title=f"preprocessed: {len(sample)} pixels", xticks=[], yticks=[], aspect="equal")
    (pixels, _), _ = pad(dataset.__getitems__(range(min(len(dataset), 16))))
    axes[0, 2].imshow(pixels[:, :, 2], cmap="Greys", aspect="auto", interpolation="nearest")
    axes[0, 2].set(title="a batch, padded at the right", xlabel="pixel", ylabel="sample")
    for shift, name in ((-0.2, "shuffled"), (0.2, "balanced")):
        labels = result.train_set.labels
        counts = labels[list(SAMPLERS[name](labels, result.seed))].bincount()
        axes[0, 3].bar(torch.arange(len(counts)) + shift, counts, width=0.4, label=name)
    axes[0, 3].set(title="draws of each class in an epoch", xlabel="class")
    axes[0, 3].legend(frameon=False)
    return drawing


if __name__ == "__main__":
    main(run)
