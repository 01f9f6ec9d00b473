"""Video: Inception modules over frames and in three dimensions, on motions that no single frame shows.

A digit moves left, right, up or down, or it turns to either side. Wherever it starts and however it is turned, a
single frame looks the same for all six; what tells them apart lies between the frames. Four classifiers on the
same Inception modules see more and more of that: one frame; all frames, in any order (the mean of their
features); the frames' features in order, through a recurrent network; and a network whose kernels reach over
frames, I3D. It is the two-dimensional network with a third dimension added: each kernel is repeated along time
and divided by the number of repetitions (inflated), so that on a clip that stands still it answers as before.
From there it is trained further.

Notes: 48
Paper: Carreira and Zisserman (2017), "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset" (I3D),
    https://arxiv.org/abs/1705.07750; Szegedy et al. (2014), "Going Deeper with Convolutions" (Inception),
    https://arxiv.org/abs/1409.4842
Data: clips of 8 frames, drawn from handwritten digits (UCI); yours as IDX files, a folder a class, or
    torchvision:NAME, whose pictures are then what moves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.evaluation import predict
from recipes.core.figures import draw_curves, new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.measure import parameter_count
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images

SIDE, FRAMES = 16, 8
MOTIONS = ["left", "right", "up", "down", "turning left", "turning right"]
OPPOSITE = torch.tensor([1, 0, 3, 2, 5, 4])


@dataclass
class Clips:
    """Short films: frames (N, 1, FRAMES, SIDE, SIDE) in 0 to 1, and the motion each shows, (N,)."""

    frames: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.frames[indices], self.labels[indices]


def draw_clips(pictures: Images | ImageFiles, count: int, seed: int) -> Clips:
    """Clips of pictures that move over an endless plane: what leaves on one side comes back on the other.

    So the place is uniform in every frame of every motion, as is the angle, and a single frame tells nothing.

    Args:
        pictures: each clip takes one of them at random, in grey.
        count: of clips, as many of each motion.
        seed: of all that is drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(least: float, most: float) -> Tensor:
        return least + (most - least) * torch.rand(count, 1, generator=generator)

    chosen = torch.randint(len(pictures), (count,), generator=generator)
    ink = pictures.pixels(chosen).float().mean(dim=1, keepdim=True) / 255  # (count, 1, height, width)
    labels = torch.arange(count) % len(MOTIONS)
    time, speed = torch.arange(FRAMES), uniform(1.5, 2.5) * 2 / SIDE  # the plane reaches from -1 to 1
    direction = torch.tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])[labels]
    x, y, turn = (time * speed * each[:, None] for each in direction.T)  # (count, FRAMES)
    x, y, turn = x + uniform(-1, 1), y + uniform(-1, 1), turn * math.pi / 2 + uniform(0, 2 * math.pi)
    steps = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    across, down = ((steps - at[..., None] + 1) % 2 - 1 for at in (x, y))  # (count, FRAMES, SIDE), round the plane
    across, down = across[:, :, None, :], down[:, :, :, None]
    sine, cosine, size = (each[..., None, None] for each in (turn.sin(), turn.cos(), uniform(0.45, 0.65)))
    grid = torch.stack([cosine * across + sine * down, cosine * down - sine * across], dim=4) / size[..., None]
    frames = F.grid_sample(ink, grid.flatten(1, 2), align_corners=False).view(count, 1, FRAMES, SIDE, SIDE)
    return Clips((frames + 0.05 * torch.randn(frames.shape, generator=generator)).clamp(0, 1), labels)


def convolution(dimensions: int, inputs: int, outputs: int, size: int) -> nn.Sequential:
    """A convolution over pictures or, with three dimensions, over clips, where it reaches over at most 3 frames."""
    if dimensions == 2:
        layers = [nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)]
    else:
        over = min(size, 3)
        padding = (over // 2, size // 2, size // 2)
        layers = [nn.Conv3d(inputs, outputs, (over, size, size), padding=padding, bias=False), nn.BatchNorm3d(outputs)]
    return nn.Sequential(*layers, nn.ReLU())


class Inception(nn.Module):
    """Four looks at the same features, side by side: 1×1, 3×3 and 5×5 convolutions, and the strongest around."""

    def __init__(self, dimensions: int, inputs: int, width: int) -> None:
        super().__init__()
        self.one = convolution(dimensions, inputs, width, 1)
        # 1×1 convolutions come first, to have fewer channels where kernels are large
        self.three = nn.Sequential(
            convolution(dimensions, inputs, width, 1), convolution(dimensions, width, 2 * width, 3)
        )
        self.five = nn.Sequential(
            convolution(dimensions, inputs, width // 2, 1), convolution(dimensions, width // 2, width // 2, 5)
        )
        pool = nn.MaxPool2d if dimensions == 2 else nn.MaxPool3d
        self.pool = nn.Sequential(pool(3, stride=1, padding=1), convolution(dimensions, inputs, width // 2, 1))

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.children()], dim=1)  # (batch, 4 * width, …)


def inception_stack(dimensions: int, width: int = 8) -> nn.Sequential:
    """Two Inception modules: to 8 * width channels at a quarter of the size; time is kept."""
    halve = nn.MaxPool2d(2) if dimensions == 2 else nn.MaxPool3d((1, 2, 2))
    return nn.Sequential(
        convolution(dimensions, 1, width, 3),
        halve,
        Inception(dimensions, width, width),
        halve,
        Inception(dimensions, 4 * width, 2 * width),
    )


def inflate(flat: nn.Module, deep: nn.Module) -> None:
    """Gives a network of three dimensions the weights of its likeness in two, each kernel spread evenly over time."""
    weights = {}
    for (name, wide), narrow in zip(deep.state_dict().items(), flat.state_dict().values(), strict=True):
        weights[name] = narrow[:, :, None].expand_as(wide) / wide.shape[2] if wide.dim() == 5 else narrow
    deep.load_state_dict(weights)


class FrameClassifier(nn.Module):
    """Inception features of frames (batch, 1, FRAMES, SIDE, SIDE), one by one, and what is made of them.

    Args:
        look: "one frame" (that in the middle), "any order" (the mean over frames) or "in order" (a GRU).
        num_classes: of the motions.
    """

    def __init__(self, look: str, num_classes: int = len(MOTIONS)) -> None:
        super().__init__()
        self.look, self.features = look, inception_stack(2)
        self.recurrent = nn.GRU(64 * 16, 64, batch_first=True) if look == "in order" else None
        self.head = nn.Linear(64 if self.recurrent else 64 * 16, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        if self.look == "one frame":
            clips = clips[:, :, FRAMES // 2 : FRAMES // 2 + 1]
        batch, _, count, _, _ = clips.shape
        maps = self.features(clips.transpose(1, 2).flatten(0, 1))  # (batch * count, 64, SIDE / 4, SIDE / 4)
        features = F.adaptive_avg_pool2d(maps, 4).reshape(batch, count, -1)  # where it is still counts
        if self.recurrent:
            return self.head(self.recurrent(features)[0][:, -1])  # (batch, classes)
        return self.head(features.mean(dim=1))


class I3D(nn.Module):
    """Inception modules inflated to three dimensions, the mean over all places and times, and a linear layer."""

    def __init__(self, num_classes: int = len(MOTIONS)) -> None:
        super().__init__()
        self.features = inception_stack(3)
        self.head = nn.Linear(64, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.features(clips).mean(dim=(2, 3, 4)))  # (batch, classes)


def train(model: nn.Module, train_set: Clips, *, batch_size: int, lr: float, seed: int, **settings: Any) -> OldLoop:
    """Minimises the cross-entropy with AdamW; `settings` are those of `Loop`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loop = OldLoop(model, optimizer, old_batches(train_set, batch_size, seed=seed), schedule=one_cycle, **settings)
    for clips, labels in loop:
        loop.step(F.cross_entropy(loop.model(clips), labels))
    return loop


def answers(model: nn.Module, dataset: Clips, device: torch.device) -> Tensor:
    return torch.stack(predict(model, dataset, device, batch_size=64)).argmax(dim=1)  # (N,)


def accuracy(model: nn.Module, dataset: Clips, device: torch.device) -> float:
    return (answers(model, dataset, device) == dataset.labels).double().mean().item()


@torch.no_grad()
def difference_when_still(flat: nn.Module, deep: nn.Module, dataset: Clips, device: torch.device) -> float:
    """How far the inflated features of a frame held for long are from the flat ones, the largest by the largest."""
    frame = dataset.frames[:16, :, 0].to(device)
    held = frame[:, :, None].expand(-1, -1, 9, -1, -1)
    flat.eval(), deep.eval()
    before = flat(frame)
    return ((deep(held)[:, :, 4] - before).abs().max() / before.abs().max()).item()


def draw(rows: list[dict[str, Any]], model: nn.Module, dataset: Clips, device: torch.device, history: Any) -> Any:
    """What each classifier gets right, the loss, and a clip of each motion with the answer."""
    figure, axes = new_figure(6, 5, width=1.9, height=1.6)
    grid = axes[0, 0].get_gridspec()
    for place in axes[:, 0]:
        place.remove()
    above, below = figure.add_subplot(grid[:3, 0]), figure.add_subplot(grid[3:, 0])
    above.barh([row["sees"] for row in rows[::-1]], [row["accuracy"] for row in rows[::-1]], color="tab:blue")
    above.set(title="accuracy", xlim=(0, 1))
    above.spines[["top", "right"]].set_visible(False)
    draw_curves(below, history)
    found = answers(model, dataset, device)
    for label, places in enumerate(axes[:, 1:]):
        index = int((dataset.labels == label).nonzero()[0])
        titles = [f"is {MOTIONS[label]}", f"taken for {MOTIONS[found[index]]}", "", ""]
        for number, place in enumerate(places):
            show_picture(place, dataset.frames[index, :, 2 * number], titles[number])
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    clips: int = 504,
    epochs: int = 5,
    batch_size: int = 24,
    lr: float = 6e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains four classifiers of motion and measures them on clips of pictures that none of them saw.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        clips: to train on; half as many are drawn from the test part.
        epochs: passes over the clips.
        batch_size: clips in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the clips and of their order.
        out: folder for result.json, figure.png and model.safetensors.
    """
    place = setup(device, seed)
    train_pictures, test_pictures = open_images(data, image_size=None if data is None else SIDE, seed=seed)
    train_set, test_set = draw_clips(train_pictures, clips, seed), draw_clips(test_pictures, clips // 2, seed + 1)
    settings: dict[str, Any] = {"epochs": epochs, "device": place, "precision": "auto", **engine}
    rows: list[dict[str, Any]] = []

    def fit(title: str, model: nn.Module) -> OldLoop:
        name = title.replace(" ", "_")
        loop = train(model, train_set, batch_size=batch_size, lr=lr, seed=seed, name=name, **settings)
        score = accuracy(model, test_set, place)
        rows.append({"sees": title, "accuracy": score, "parameters": parameter_count(model)})
        return loop

    flat = {look: FrameClassifier(look).to(place) for look in ("one frame", "any order", "in order")}
    for look, model in flat.items():
        fit(look, model)
    deep = I3D().to(place)
    inflate(flat["any order"].features, deep.features)
    still = difference_when_still(flat["any order"].features, deep.features, test_set, place)
    loop = fit("inflated", deep)
    one, unordered, ordered, inflated = (row["accuracy"] for row in rows)
    backwards = replace(test_set, frames=test_set.frames.flip(2))
    reversed_answers = answers(deep, backwards, place)
    opposite = (reversed_answers == OPPOSITE[test_set.labels]).double().mean().item()
    return Result(
        metrics={"accuracy": inflated},
        baseline={"accuracy": one},
        baseline_name="one frame",
        bars={"accuracy": 0.8},
        claims=[
            claim("a single frame does not show the motion: accuracy, where guessing gets 1 in 6", one, "<", 0.25),
            claim("all frames in any order do not show it either", unordered, "<", inflated),
            claim("features of the frames in order tell motions apart", ordered, ">", one + 0.2),
            claim("so do kernels that reach over frames", inflated, ">", one + 0.2),
            claim("played backwards, clips are taken for the opposite motion: share", opposite, ">", 0.5),
            claim("inflated kernels see a still clip as the flat ones see its frame: difference", still, "<", 1e-4),
        ],
        history=loop.history,
        rows=rows,
        model=deep,
        draw=lambda: draw(rows, deep, test_set, place, loop.history),
    )


if __name__ == "__main__":
    main(run)
