"""Video: Inception modules over frames and in three dimensions, on motions that no single frame shows.

A digit moves left, right, up or down, or it turns to either side, while a darker one moves in another way. Wherever
they start and however they are turned, a single frame looks the same for all six motions of the brighter one; what
tells them apart lies between the frames. Classifiers on the same Inception modules see more and more of that: one
frame; all frames in any order (the mean of their features); the frames' features in order, through a recurrent
network; and a network whose kernels reach over frames, I3D. It is the two-dimensional network with a third dimension
added: each kernel is repeated along time and divided by the number of repetitions (inflated), so that in a clip that
stands still it sees what it saw before, but for the ends, beyond which there are zeros. From there it is trained.

One network is shared by all frames: one for each would have that many times its parameters, and learns less. Its
features also find a clip's key frames, those nearest to the centers of their clusters. A plain method gets far too: a
linear classifier on optical flow, which the darker digit confuses where kernels learn to overlook it.

Notes: 48
Paper: Carreira, Zisserman (2017), "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset" (I3D),
    https://arxiv.org/abs/1705.07750; Szegedy and others (2014), "Going Deeper with Convolutions" (Inception),
    https://arxiv.org/abs/1409.4842
Data: clips of 8 frames, drawn from handwritten digits (UCI); yours as a folder of frames for each clip, in a folder a
    class, or as pictures (IDX files, a folder a class, torchvision:NAME, Datasets), which are then what moves.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, Loop, Options, Result, batches, main, option, predict, recipe
from recipes.core.measure import parameter_count
from recipes.datasets.clips import MOTIONS, Clips, open_clips
from recipes.vision.clips import ClipClassification, evaluate, flow_classifier


@dataclass(kw_only=True)
class VideoOptions(Options):
    look: Literal["inflated", "one frame", "any order", "in order"] = option("inflated", "what of a clip is looked at")
    shared: bool = option(True, "one network for all frames, where they are looked at one by one")
    width: int = option(8, "channels of the first convolution", least=2)
    frames: int = option(8, "frames of a clip", least=2)
    image_size: int = option(16, "side in pixels that frames are brought to", least=8)
    clips: int = option(800, "clips to train on that are drawn from pictures; half as many are drawn to test", least=6)
    batch_size: int = 24
    lr: float = 6e-3


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
    """Four looks at the same features, side by side: 1×1, 3×3 and 5×5 convolutions, and the maximum around.

    1×1 convolutions come before large kernels, which then have fewer channels.
    """

    def __init__(self, dimensions: int, inputs: int, width: int) -> None:
        super().__init__()
        few, half = width, width // 2
        self.one = convolution(dimensions, inputs, width, 1)
        self.three = nn.Sequential(convolution(dimensions, inputs, few, 1), convolution(dimensions, few, 2 * width, 3))
        self.five = nn.Sequential(convolution(dimensions, inputs, half, 1), convolution(dimensions, half, half, 5))
        pool = nn.MaxPool2d if dimensions == 2 else nn.MaxPool3d
        self.pool = nn.Sequential(pool(3, stride=1, padding=1), convolution(dimensions, inputs, half, 1))

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.children()], dim=1)  # (batch, 4 * width, …)


def inception_stack(dimensions: int, channels: int, width: int) -> nn.Sequential:
    """Two Inception modules: to 8 * width channels at a quarter of the size; time is kept."""
    halve = nn.MaxPool2d(2) if dimensions == 2 else nn.MaxPool3d((1, 2, 2))
    start = [convolution(dimensions, channels, width, 3), halve, Inception(dimensions, width, width), halve]
    return nn.Sequential(*start, Inception(dimensions, 4 * width, 2 * width))


def inflate(flat: nn.Module, deep: nn.Module) -> None:
    """Gives a network of three dimensions the weights of its likeness in two, each kernel spread evenly over time."""
    weights = {}
    for (name, wide), narrow in zip(deep.state_dict().items(), flat.state_dict().values(), strict=True):
        weights[name] = narrow[:, :, None].expand_as(wide) / wide.shape[2] if wide.dim() == 5 else narrow
    deep.load_state_dict(weights)


class I3D(nn.Module):
    """Inception modules inflated to three dimensions, the mean over all positions and times, and a linear layer."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = inception_stack(3, channels, width)
        inflate(inception_stack(2, channels, width), self.features)
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, clips: Tensor) -> Tensor:  # (batch, channels, frames, height, width)
        return self.head(self.features(clips).mean(dim=(2, 3, 4)))  # (batch, classes)


class FrameClassifier(nn.Module):
    """Inception features of frames, one by one, and what is made of them.

    Args:
        look: "one frame" (that in the middle), "any order" (the mean over frames) or "in order" (a GRU).
        channels, frames: of the clips.
        num_classes: of the last layer.
        width: channels of the first convolution.
        shared: False gives each frame a network of its own.
    """

    def __init__(self, look: str, channels: int, frames: int, num_classes: int, width: int, shared: bool) -> None:
        super().__init__()
        self.look = look
        self.features = nn.ModuleList(inception_stack(2, channels, width) for _ in range(1 if shared else frames))
        self.recurrent = nn.GRU(128 * width, 64, batch_first=True) if look == "in order" else None
        self.head = nn.Linear(64 if self.recurrent else 128 * width, num_classes)

    def forward(self, clips: Tensor) -> Tensor:  # (batch, channels, frames, height, width)
        middle, batch = clips.shape[2] // 2, len(clips)
        frames = clips.transpose(1, 2)[:, middle : middle + 1] if self.look == "one frame" else clips.transpose(1, 2)
        if len(self.features) == 1:
            maps = self.features[0](frames.flatten(0, 1)).unflatten(0, (batch, -1))  # (batch, frames, 8 · width, …)
        else:
            maps = torch.stack([net(frames[:, time]) for time, net in enumerate(self.features)], dim=1)
        features = F.adaptive_avg_pool2d(maps.flatten(0, 1), 4).reshape(batch, len(maps[0]), -1)  # position counts
        if self.recurrent:
            return self.head(self.recurrent(features)[0][:, -1])  # (batch, classes)
        return self.head(features.mean(dim=1))


def build(options: VideoOptions, data: Clips) -> nn.Module:
    """The network for clips and classes like these."""
    channels, frames, _, _ = data.shape
    if options.look == "inflated":
        return I3D(channels, len(data.classes), options.width)
    return FrameClassifier(options.look, channels, frames, len(data.classes), options.width, options.shared)


def train(model: nn.Module, train_set: Clips, test_set: Clips, options: VideoOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    measure = lambda: {"accuracy": evaluate(model, test_set, options.device)["accuracy"]}  # noqa: E731
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for clips, labels in loop:
        loop.step(F.cross_entropy(loop.model(clips), labels))
    return loop


@recipe(VideoOptions)
def run(options: VideoOptions) -> Result:
    """Trains a classifier of clips and measures it on clips of pictures that it has not seen."""
    size = {"frames": options.frames, "image_size": options.image_size, "count": options.clips, "seed": options.seed}
    train_set, test_set = open_clips(options.data, **size)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=flow_classifier(train_set, test_set),
        baseline_name="linear classifier on optical flow",
        bars={"accuracy": 0.88},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, flat = run(), {look: run(look=look) for look in ("one frame", "any order", "in order")}
    apart = run(look="in order", shared=False)
    result.rows = [
        {"looks at": name, "parameters": parameter_count(one.model), "accuracy": one["accuracy"]}
        for name, one in ({"inflated": result} | flat | {"in order, not shared": apart}).items()
    ]
    guessing = 1 / len(result.train_set.classes)
    for look in ("one frame", "any order") if result.options["data"] is None else ():
        text = f"kernels that reach over frames tell motions apart that are not seen in {look}"
        yield Claim(text, result["accuracy"], ">", max(flat[look]["accuracy"], guessing), margin=0.3)
    text = "features of frames in order tell more than those in any order"
    yield Claim(text, flat["in order"]["accuracy"], ">", max(flat["any order"]["accuracy"], 2 * guessing), margin=0.1)
    text = "one network shared by all frames learns more than one for each frame"
    yield Claim(text, flat["in order"]["accuracy"], ">", max(apart["accuracy"], 2 * guessing), margin=0.1)
    if result.train_set.classes == MOTIONS:
        opposite = torch.tensor([1, 0, 3, 2, 5, 4])[result.test_set.labels]
        backwards = Clips(result.test_set.frames.flip(2), opposite, MOTIONS)
        share = evaluate(result.model, backwards, next(result.model.parameters()).device)["accuracy"]
        yield Claim("played backwards, clips are taken for the opposite motion: share", share, ">", 0.5, margin=0.2)
    by_frame = deepcopy(flat["any order"].model.features[0]).cpu().eval()
    text = "inflated kernels see the middle of a still clip as the flat ones see its frame: difference"
    yield Claim(text, difference_when_still(by_frame, result), "<", 1e-4, kind="fact")
    chosen, evenly = shots_found(by_frame, result.test_set)
    text = "key frames show more of a clip's shots, long and short, than frames at equal distances"
    yield Claim(text, chosen, ">", evenly + 0.05, kind="fact")  # which random features find as well


@torch.no_grad()
def difference_when_still(flat: nn.Module, result: Result) -> float:
    """How far the inflated features of a frame held for long are from the flat ones, the largest by the largest."""
    deep = inception_stack(3, result.train_set.shape[0], result.options["width"]).eval()
    inflate(flat, deep)
    frame = result.test_set.__getitems__(range(min(16, len(result.test_set))))[0][:, :, 0]
    before, after = flat(frame), deep(frame[:, :, None].expand(-1, -1, 9, -1, -1))[:, :, 4]
    return ((after - before).abs().max() / before.abs().max()).item()


def key_frames(features: Tensor, count: int) -> Tensor:
    """The frames nearest to the centers of clusters (k-means): features (T, D) to `count` numbers of frames."""
    centers = features[:1]
    while len(centers) < count:  # start from frames that are far from each other
        centers = torch.cat([centers, features[torch.cdist(features, centers).amin(dim=1).argmax()][None]])
    for _ in range(10):
        nearest = torch.cdist(features, centers).argmin(dim=1)  # (T,)
        means = [features[nearest == i].mean(dim=0) if (nearest == i).any() else centers[i] for i in range(count)]
        centers = torch.stack(means)
    return torch.cdist(centers, features).argmin(dim=1).sort().values


@torch.no_grad()
def shots_found(flat: nn.Module, clips: Clips, count: int = 60) -> tuple[float, float]:
    """Of clips with a long and three short shots, the share of shots in four key frames, and in four at equal steps."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        frames = clips.__getitems__(torch.randint(len(clips), (4,), generator=generator).tolist())[0].transpose(1, 2)
        lengths = torch.tensor([frames.shape[1], 1, 1, 1])[torch.randperm(4, generator=generator)].tolist()
        shot = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
        features = flat(torch.cat([one[:length] for one, length in zip(frames, lengths, strict=True)])).flatten(1)
        evenly = ((torch.arange(4) + 0.5) * len(shot) / 4).long()
        found.append([len(shot[chosen].unique()) / 4 for chosen in (key_frames(features, 4), evenly)])
    chosen, evenly = torch.tensor(found).mean(dim=0).tolist()
    return chosen, evenly


@run.figure
def figure(result: Result) -> Any:
    """What each classifier gets right, and a clip of each class with the answer."""
    shown = min(6, len(result.train_set.classes))
    drawn, axes = new_figure(shown, 5, width=1.9, height=1.6)
    rows = result.rows or [{"looks at": result.options["look"], "accuracy": result["accuracy"]}]
    for panel in axes[:, 0]:
        panel.remove()
    bars = drawn.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    bars.barh([row["looks at"] for row in rows[::-1]], [row["accuracy"] for row in rows[::-1]], color="tab:blue")
    bars.set(title="accuracy", xlim=(0, 1), ylim=(-0.6, 4.6))
    clips, labels = result.test_set, result.test_set.labels
    found = torch.stack(predict(result.model, clips, next(result.model.parameters()).device)).argmax(dim=1)
    for label, panels in enumerate(axes[:shown, 1:]):
        index = int((labels == label).nonzero()[0]) if (labels == label).any() else 0
        titles = [f"is {clips.classes[labels[index]]}", f"taken for {clips.classes[found[index]]}", "", ""]
        for panel, title, moment in zip(panels, titles, torch.linspace(0, clips.shape[1] - 1, 4).long(), strict=True):
            show_picture(panel, clips.frames[index, :, moment], title)
    return drawn


run.predicts(ClipClassification, build)


if __name__ == "__main__":
    main(run)
