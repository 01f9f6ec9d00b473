"""Generation: a Transformer that draws pictures, one pixel after the other.

A picture is written as a text is: row by row, each pixel one of a few gray levels, predicted from all before it. The
blocks are those of the language model, unchanged; what is new stands at the ends. The first word is the class, so that
the network can be told what to draw, and each position has a vector of its row and one of its column. To draw is to
take a level at random, as likely as the network says, and to go on from there.

How good it is, is not a matter of taste: the held-out pictures have a probability, told as bits a pixel, which is what
a file needs that is packed with it. What it learned of the classes is tested by a classifier of real pictures, which is
asked what it sees. And beside each drawing stands the nearest train picture, so that copying would be seen.

Notes: 43
Paper: Chen, Radford, Child, Wu, Jun, Luan, Sutskever (2020), "Generative Pretraining from Pixels",
    https://proceedings.mlr.press/v119/chen20s.html; van den Oord, Kalchbrenner, Kavukcuoglu (2016), "Pixel Recurrent
    Neural Networks", https://arxiv.org/abs/1601.06759
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import (
    Claim,
    InputError,
    Loop,
    Options,
    Precision,
    Result,
    batches,
    main,
    option,
    recipe,
)
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.nlp.language_model import Block
from recipes.vision.drawing import PictureDrawing
from recipes.vision.pixel_counts import bits_by_counts

MOST_PIXELS = 1024


@dataclass(kw_only=True)
class GenerationOptions(Options):
    width: int = option(32, "size of a pixel's embedding, a multiple of the heads", least=2)
    layers: int = option(2, "Transformer blocks", least=1)
    heads: int = option(2, "attention heads in each block", least=1)
    levels: int = option(16, "gray levels", least=2, most=256)
    dropout: float = option(0.1, "share of the pixels' embeddings that are left out in training", least=0, below=1)
    classes: bool = option(True, "tell the network the class of the picture")
    positions: bool = option(True, "tell the network each pixel's row and column")
    image_size: int | None = option(None, "side in pixels that pictures are resized to; each is a word", least=2)
    temperature: float = option(0.7, "of the drawings: below 1, likely levels become likelier still", above=0)
    epochs: int = 24
    lr: float = 6e-3
    precision: Precision = "auto"


class Drawings:
    """Pictures as words: (class, pixels before the last) to all pixels, (batch, pixels) each, in gray levels."""

    def __init__(self, dataset: Images | ImageFiles, levels: int) -> None:
        self.dataset, self.levels, self.labels = dataset, levels, dataset.labels
        self.shape, self.classes = dataset.shape, dataset.classes

    def __len__(self) -> int:
        return len(self.dataset)

    def pixels(self, indices: Tensor) -> Tensor:
        """The levels of those pictures, (batch, pixels)."""
        gray = self.dataset.pixels(indices).float().mean(dim=1).flatten(1)  # 0 to 255
        return (gray * self.levels / 256).long()

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(indices)
        pixels = self.pixels(index)
        return torch.cat([self.levels + self.labels[index, None], pixels[:, :-1]], dim=1), pixels

    def subset(self, indices: Tensor) -> "Drawings":
        return Drawings(self.dataset.subset(indices), self.levels)


class PixelTransformer(nn.Module):
    """Words (batch, pixels), the class first, to logits of the pixel that follows each, (batch, pixels, levels)."""

    def __init__(self, shape: tuple[int, int], num_classes: int, options: GenerationOptions) -> None:
        super().__init__()
        self.levels, self.told, self.placed = options.levels, options.classes, options.positions
        self.height, self.across = shape
        self.words = nn.Embedding(options.levels + num_classes, options.width)
        self.rows, self.columns = nn.Embedding(self.height, options.width), nn.Embedding(self.across, options.width)
        for table in (self.words, self.rows, self.columns):
            nn.init.normal_(table.weight, std=0.1)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options.width, options.heads) for _ in range(options.layers))
        self.norm, self.head = nn.LayerNorm(options.width), nn.Linear(options.width, options.levels)

    def forward(self, words: Tensor, cache: list[list[Tensor]] | None = None) -> Tensor:
        """With a cache, an empty list for each block at first, only what it does not know yet is computed."""
        known = cache[0][0].shape[2] if cache and cache[0] else 0
        if not self.told:
            words = torch.cat([torch.full_like(words[:, :1], self.levels), words[:, 1:]], dim=1)
        place = torch.arange(known, words.shape[1], device=words.device)  # of the pixel to predict
        x = self.words(words[:, known:])
        if self.placed:
            x = x + self.rows(place // self.across) + self.columns(place % self.across)
        x = self.dropout(x)
        for number, block in enumerate(self.blocks):
            x = block(x, None, True, None if cache is None else cache[number])
        return self.head(self.norm(x))

    @torch.inference_mode()
    def draw(self, labels: Tensor, *, temperature: float = 1.0, seed: int = 0) -> Tensor:
        """Pictures of these classes: (N,) to gray levels (N, height, width).

        Args:
            labels: the classes to draw, (N,).
            temperature: below 1, likely levels become likelier still.
            seed: of the draws, on the CPU.
        """
        device, generator = self.head.weight.device, torch.Generator().manual_seed(seed)
        words = (self.levels + labels)[:, None].to(device)
        cache: list[list[Tensor]] = [[] for _ in self.blocks]
        self.eval()
        for _ in range(self.height * self.across):
            chances = (self(words, cache)[:, -1].float().cpu() / temperature).softmax(dim=1)
            words = torch.cat([words, chances.multinomial(1, generator=generator).to(device)], dim=1)
        return words[:, 1:].unflatten(1, (self.height, self.across)).cpu()


def build(options: GenerationOptions, data: Any) -> PixelTransformer:
    """The network for pictures and classes like these."""
    if options.width % options.heads:
        raise InputError(f"option width: expected a multiple of {options.heads} heads, got {options.width}")
    if math.prod(data.shape[1:]) > MOST_PIXELS:
        size = "×".join(map(str, data.shape[1:]))
        raise InputError(f"option image_size: expected pictures of at most {MOST_PIXELS} pixels, got {size}; try 16")
    return PixelTransformer(data.shape[1:], len(data.classes), options)


def train(model: nn.Module, train_set: Drawings, test_set: Drawings, options: GenerationOptions) -> Loop:
    """Minimizes the cross-entropy of all pixels at once with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1, fused=True)
    measure = functools.partial(evaluate, model, test_set, options.device)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for words, pixels in loop:
        loop.step(F.cross_entropy(loop.model(words).flatten(0, 1), pixels.flatten()))
    return loop


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Drawings, device: Any) -> dict[str, float]:
    """Bits a pixel of held-out pictures: the mean of -log2 of the probability of each level that is there."""
    was_training = model.training
    model.eval()
    nats = 0.0
    for indices in torch.arange(len(dataset)).split(256):
        words, pixels = (tensor.to(device) for tensor in dataset.__getitems__(indices.tolist()))
        nats += F.cross_entropy(model(words).flatten(0, 1).float(), pixels.flatten(), reduction="sum").item()
    model.train(was_training)
    return {"bits_per_pixel": nats / math.log(2) / len(dataset) / math.prod(dataset.shape[1:])}


@recipe(GenerationOptions)
def run(options: GenerationOptions) -> Result:
    """Trains a Transformer on pictures, and measures how likely held-out ones are."""
    parts = open_images(options.data, image_size=options.image_size, seed=options.seed)
    train_set, test_set = (Drawings(part, options.levels) for part in parts)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline={"bits_per_pixel": bits_by_counts(train_set, test_set, options.seed)},
        baseline_name="counts of levels by row, column, class and neighbors",
        bars={"bits_per_pixel": 1.85},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result = run()
    bits, counted = result["bits_per_pixel"], result.baseline["bits_per_pixel"]
    yield Claim("it beats counts", bits, "<", counted, margin=0.1)
    lost = run(positions=False)
    text = "without rows and columns it needs more bits"
    yield Claim(text, lost["bits_per_pixel"], ">", bits, margin=0.03)
    drawings, asked = drawn(result, 40)
    seen, real = recognized(result, drawings, asked)
    text = "what it was asked to draw is seen in it by a classifier of real pictures: share of the drawings"
    yield Claim(text, seen, ">", 0.85, margin=0.02)
    far = {"drawings": nearest(result, drawings)[1], "held-out pictures": nearest(result, whole(result.test_set))[1]}
    result.rows = [
        {"pictures": name, "recognized": share, "levels off the nearest train picture": distance.mean().item()}
        for (name, distance), share in zip(far.items(), (seen, real), strict=True)
    ]


def whole(dataset: Drawings) -> Tensor:
    """The levels of all pictures, (N, height, width)."""
    return dataset.pixels(torch.arange(len(dataset))).unflatten(1, dataset.shape[1:])


def drawn(result: Result, count: int) -> tuple[Tensor, Tensor]:
    """So many drawings of each class, one class after the other, (N, height, width), and their classes, (N,)."""
    labels = torch.arange(len(result.test_set.classes)).repeat_interleave(count)
    return result.model.draw(labels, temperature=result.options["temperature"], seed=result.seed), labels


def recognized(result: Result, drawings: Tensor, asked: Tensor) -> tuple[float, float]:
    """Shares of drawings and of held-out pictures that a classifier of real pictures recognizes."""
    from sklearn.svm import SVC

    train, test = (whole(part).flatten(1) for part in (result.train_set, result.test_set))
    classifier = SVC().fit(train, result.train_set.labels)
    return classifier.score(drawings.flatten(1), asked), classifier.score(test, result.test_set.labels)


def nearest(result: Result, drawings: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest train picture of each, (N, height, width), and how many levels a pixel is off in the mean, (N,)."""
    train = whole(result.train_set)
    least, index = torch.cdist(drawings.flatten(1).float(), train.flatten(1).float(), p=1).min(dim=1)
    return train[index], least / train[0].numel()


@run.figure
def figure(result: Result) -> Any:
    """Drawings of each class, each beside its nearest train picture, and the bits of each epoch."""
    drawing, axes = new_figure(1, 2, width=5.0, height=4.4)
    drawings, _ = drawn(result, 3)
    pairs = F.pad(torch.stack([drawings, nearest(result, drawings)[0]], dim=1), (1, 1, 1, 1), value=-1)
    rows = pairs.unflatten(0, (-1, 3))[:10]  # (classes, 3, 2, height, width)
    sheet = rows.permute(0, 3, 1, 2, 4).flatten(2).flatten(0, 1)
    axes[0, 0].imshow(sheet, cmap="gray_r", vmin=-1)
    axes[0, 0].set(xticks=[], ylabel="class")
    axes[0, 0].set_yticks(rows.shape[3] * (torch.arange(len(rows)) + 0.5), result.test_set.classes[: len(rows)])
    axes[0, 0].set_title("three drawings, each beside its nearest train picture", fontsize=9)
    epochs = [row["epoch"] for row in result.history]
    axes[0, 1].plot(epochs, [row["bits_per_pixel"] for row in result.history], label="Transformer")
    axes[0, 1].axhline(result.baseline["bits_per_pixel"], color="gray", linestyle="--", label="counts")
    axes[0, 1].set(xlabel="epoch", ylabel="bits a held-out pixel")
    axes[0, 1].legend(frameon=False)
    return drawing


run.predicts(PictureDrawing, build)


if __name__ == "__main__":
    main(run)
