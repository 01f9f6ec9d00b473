"""Data loading: the four jobs between a data set and a training loop.

*Load* a sample when it is asked for; *preprocess* it into what the network takes; *shuffle*, so that no batch tells
what comes next; and put samples together into a *batch*. PyTorch gives each job a place of its own. A `Dataset`
loads and preprocesses, a sampler decides on the order, a collate function makes the batch, and the `DataLoader`
joins the three.

Here a sample is the list of a digit's inked pixels, so samples differ in length and the collate function has to
pad them. Half of the digits are made rare: with a plain shuffle a network hardly meets them, with a sampler that
draws every class equally often it learns them too.

Notes: 82
Paper: Qi, Su, Mo, Guibas (2017), "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation",
    https://arxiv.org/abs/1612.00593, for the network
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from recipes.core.command_line import main
from recipes.core.device import rank_and_world, setup
from recipes.core.errors import InputError
from recipes.core.evaluation import predict
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.measure import interleaved, ratio
from recipes.core.old import Engine, OldLoop, claim, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import Images, open_images

Sample = tuple[Tensor, int]  # inked pixels (n, 3) as row, column and ink, all from 0 to 1, and the class
Batch = tuple[tuple[Tensor, Tensor], Tensor]  # padded pixels (B, longest, 3), which are real (B, longest); classes (B,)


class InkedPixels(Dataset):
    """Each picture as the list of its pixels that are not black: the jobs of loading and preprocessing."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels  # (N, height, width) from 0 to 1, (N,)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        places = image.nonzero()  # (n, 2)
        size = torch.tensor(image.shape) - 1
        return torch.cat([places / size, image[image != 0][:, None]], dim=1), int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The same for many at once, which the DataLoader prefers: one search for ink instead of one a picture."""
        images = self.images[indices]
        places = images.nonzero()  # (all pixels, 3): picture, row, column
        size = torch.tensor(images.shape[1:]) - 1
        pixels = torch.cat([places[:, 1:] / size, images[images != 0][:, None]], dim=1)
        counts = places[:, 0].bincount(minlength=len(images)).tolist()
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


class Balanced(Shuffled):
    """As many draws as there are samples, each class as likely: rare ones come again and again."""

    def order(self, generator: torch.Generator) -> Tensor:
        weights = 1.0 / self.labels.bincount()[self.labels]  # (N,)
        return weights.multinomial(len(self.labels), replacement=True, generator=generator)


class PointNet(nn.Module):
    """The same small network for every pixel, the maximum over the real ones, and a second network for that."""

    def __init__(self, num_classes: int, *, width: int = 64, waves: int = 4) -> None:
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
        # Places as waves of several lengths, so that neighbours can be told apart
        angles = (pixels[:, :, :2, None] * self.frequencies).flatten(2)  # (B, longest, 2 * waves)
        features = self.pixel(torch.cat([pixels, angles.sin(), angles.cos()], dim=2))  # (B, longest, 2 * width)
        features = features.masked_fill(~real[:, :, None], -torch.inf)  # what is padding never wins
        return self.head(features.amax(dim=1))  # (B, num_classes)


def train(
    model: nn.Module, dataset: InkedPixels, sampler: Shuffled, *, batch_size: int, lr: float, **loop_options: Any
) -> OldLoop:
    """Minimises the cross-entropy over a DataLoader's batches: it joins data set, sampler and collate function."""
    share = max(1, batch_size // sampler.world)
    loader = DataLoader(dataset, share, sampler=sampler, collate_fn=pad, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loop = OldLoop(model, optimizer, loader, schedule=one_cycle, **loop_options)
    for inputs, labels in loop:
        loss = F.cross_entropy(loop.model(inputs), labels)
        loop.step(loss)
    return loop


class Padded:
    """Whole batches of a data set, for `predict`."""

    def __init__(self, dataset: InkedPixels) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return pad(self.dataset.__getitems__(indices))


def evaluate(model: nn.Module, dataset: InkedPixels, rare: Tensor, device: torch.device) -> dict[str, float]:
    """Accuracy over all held-out samples, and over those of the classes that are rare in training."""
    right = torch.stack(predict(model, Padded(dataset), device)).argmax(dim=1) == dataset.labels  # (N,)
    among = torch.isin(dataset.labels, rare)
    return {"accuracy": right.double().mean().item(), "rare_accuracy": right[among].double().mean().item()}


def draw(dataset: InkedPixels, pixels: Tensor, draws: dict[str, Tensor], classes: list[str]) -> Any:
    """A picture and the list it becomes, a padded batch, and how often either sampler draws each class."""
    figure, axes = new_figure(1, 4, width=3.2)
    sample, label = dataset[0]
    show_picture(axes[0, 0], dataset.images[:1], f"loaded: a {classes[label]}")
    axes[0, 1].scatter(sample[:, 1], 1 - sample[:, 0], c=sample[:, 2], cmap="Greys", vmin=-0.3, edgecolor="gray")
    axes[0, 1].set(title=f"preprocessed: {len(sample)} pixels", xticks=[], yticks=[], aspect="equal")
    axes[0, 2].imshow(pixels[:, :, 2], cmap="Greys", aspect="auto", interpolation="nearest")
    axes[0, 2].set(title="a batch, padded at the right", xlabel="pixel", ylabel="sample")
    for shift, (name, counts) in zip((-0.2, 0.2), draws.items(), strict=True):
        axes[0, 3].bar(torch.arange(len(counts)) + shift, counts, width=0.4, label=name)
    axes[0, 3].set(title="draws of each class in an epoch")
    axes[0, 3].set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes[0, 3].legend(frameon=False)
    axes[0, 3].spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    rare_samples: int = 8,
    width: int = 64,
    epochs: int = 20,
    batch_size: int = 32,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains with a plain and with a balancing sampler on classes of which half are rare.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        rare_samples: training samples that the second half of the classes keep, each.
        width: numbers that the network makes of a pixel, at first.
        epochs: passes over the training samples.
        batch_size: samples in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the orders.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    if not (isinstance(train_set, Images) and isinstance(test_set, Images)):
        raise InputError("option image_size: expected a smaller one, so that all pictures fit in memory")
    rare = torch.arange(len(train_set.classes) // 2, len(train_set.classes))
    kept = torch.cat(
        [
            (train_set.labels == label).nonzero().flatten()[: rare_samples if label in rare else None]
            for label in range(len(train_set.classes))
        ]
    )
    dataset, unseen = (
        InkedPixels(part.pixels(rows).float().mean(dim=1) / 255, part.labels[rows])
        for part, rows in ((train_set, kept), (test_set, torch.arange(len(test_set))))
    )
    samplers = {"shuffled": Shuffled(dataset.labels, seed), "balanced": Balanced(dataset.labels, seed)}
    metrics: dict[str, dict[str, float]] = {}
    for name, sampler in samplers.items():
        torch.manual_seed(seed)
        model = PointNet(len(train_set.classes), width=width).to(place)
        shared: dict[str, Any] = {"epochs": epochs, "device": place, "name": name, **engine}
        loop = train(model, dataset, sampler, batch_size=batch_size, lr=lr, **shared)
        metrics[name] = evaluate(model, unseen, rare, place)

    plain = Shuffled(dataset.labels, seed)
    first, again = list(plain), list(Shuffled(dataset.labels, seed))
    plain.set_epoch(1)
    second = list(plain)
    same = sum(one == other for one, other in zip(first, second, strict=True)) / len(first)
    draws = {name: dataset.labels[list(sampler)].bincount() for name, sampler in samplers.items()}
    share = {name: counts[rare].sum().item() / counts.sum().item() for name, counts in draws.items()}
    (pixels, real), _ = pad(dataset.__getitems__(first[:16]))
    model.eval()
    with torch.no_grad():
        together = model((pixels.to(place), real.to(place)))
        alone = [model(tuple(each.to(place) for each in pad([dataset[index]])[0])) for index in first[:16]]
    indices = first[: 8 * batch_size]
    seconds = interleaved(
        {"many": lambda: dataset.__getitems__(indices), "one": lambda: [dataset[index] for index in indices]}
    )
    return Result(
        metrics=metrics["balanced"],
        baseline=metrics["shuffled"],
        baseline_name="plain shuffle",
        bars={"accuracy": 0.8},
        claims=[
            claim("load: samples that an epoch leaves out", len(dataset) - len(set(first)), "<=", 0),
            claim("preprocess: the largest number in a sample", pixels.max().item(), "<=", 1),
            claim("batch: different lengths that one batch holds", len(real.sum(dim=1).unique()), ">", 1),
            claim(
                "padding changes no answer: largest difference",
                (together - torch.cat(alone)).abs().max().item(),
                "<",
                1e-5,
            ),
            claim("shuffle: share of places with the same sample in the next epoch", same, "<", 0.05),
            claim(
                "and the order repeats with the seed: places that differ",
                sum(a != b for a, b in zip(first, again, strict=True)),
                "<=",
                0,
            ),
            claim(
                "a balancing sampler evens out the classes: share of rare ones in an epoch", share["balanced"], ">", 0.4
            ),
            claim("where a plain shuffle has hardly any", share["shuffled"], "<", 0.1),
            claim(
                "and they are learned: accuracy on rare classes",
                metrics["balanced"]["rare_accuracy"],
                ">",
                metrics["shuffled"]["rare_accuracy"],
            ),
            claim(
                "samples fetched together: time over one by one", ratio(seconds["many"], seconds["one"])[1], "<", 0.5
            ),
        ],
        history=loop.history,
        model=model,
        draw=lambda: draw(dataset, pixels, draws, train_set.classes),
    )


if __name__ == "__main__":
    main(run)
