"""Mixed precision: half the bits where they suffice, and a loss scaled up where they do not.

Convolutions and matrix products run in 16 bits under autocast, while the weights stay in 32. bf16 has the range
of fp32 with 3 digits fewer, and needs nothing else. fp16 is finer and ends early: what is smaller than 6e-8 becomes
zero, small gradients among it. So the loss is multiplied by a large number before the backward pass and the
gradients are divided by it after; where one overflows, the step is left out and the number is halved.

16 bits take half the memory. Whether they also take less time is the device's to say: here all three are measured,
on the wider network where arithmetic dominates. Many CPUs compute in fp16 far slower than in fp32.

Paper: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev, Venkatesh, Wu (2017), "Mixed
    Precision Training", https://arxiv.org/abs/1710.03740
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure
from recipes.core.loop import one_cycle
from recipes.core.measure import interleaved, ratio
from recipes.core.old import claim, old_recipe
from recipes.core.precision import computes_in_bf16
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.scoring import evaluate, majority

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3×3 convolutions; the shape stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:  # (batch, width, height, width of the picture)
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def build_model(channels: int, num_classes: int, *, width: int) -> nn.Module:
    """A residual network of five convolutions, on pictures of half the size after the first block."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        ResidualBlock(width),
        nn.MaxPool2d(2),
        ResidualBlock(width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),  # (batch, width)
        nn.Linear(width, num_classes),
    )


def loss_of(model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> Tensor:
    """The cross-entropy, computed in 32 bits from logits computed in the precision."""
    with torch.autocast(images.device.type, DTYPES[precision], enabled=precision != "fp32"):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels)


def train(
    model: nn.Module,
    train_set: Images | ImageFiles,
    precision: str,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    seed: int,
) -> list[dict[str, float]]:
    """Minimises the cross-entropy in that precision; gives a row an epoch."""
    count = max(1, len(train_set) // batch_size)  # batches in an epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / (epochs * count), 1)))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # others do nothing with it
    history: list[dict[str, float]] = []
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        losses = []
        for rows in order.split(batch_size)[:count]:
            images, labels = (tensor.to(device) for tensor in train_set.__getitems__(rows))
            loss = loss_of(model, images, labels, precision)
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # the gradients of scale · loss
            scaler.unscale_(optimizer)  # divided by the scale: only now does their size mean anything
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            scaler.step(optimizer)  # left out where one of them is infinite
            before = scaler.get_scale()
            scaler.update()  # halves the scale then, and doubles it after 2,000 good steps
            if scaler.get_scale() >= before:
                schedule.step()
            losses.append(loss.detach())
        history.append({"epoch": epoch + 1, "loss": torch.stack(losses).mean().item(), "scale": scaler.get_scale()})
    return history


def saved_bytes(model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> int:
    """Bytes that a forward pass keeps for the backward pass, each tensor once, the weights left out."""
    kept: dict[int, Tensor] = {}  # held on to, so that no address is used again
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, images, labels, precision)
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


def lost_gradients(model: nn.Module, images: Tensor, labels: Tensor, precision: str, scale: float = 2.0**16) -> float:
    """Share of the numbers on the way back through the network that are zero, and are not with the loss scaled.

    They are the gradients at the output of each convolution and linear layer, where 16 bits must hold them.
    """
    outputs: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in layers]
    loss = loss_of(model, images, labels, precision)
    for hook in hooks:
        hook.remove()
    plain = torch.autograd.grad(loss, outputs, retain_graph=True)
    scaled = torch.autograd.grad(loss * scale, outputs)
    lost = sum(int(((one == 0) & (other != 0)).sum()) for one, other in zip(plain, scaled, strict=True))
    return lost / sum(int((other != 0).sum()) for other in scaled)


def draw(histories: dict[str, list[dict[str, float]]], rows: list[dict[str, Any]]) -> Any:
    """The losses of the three trainings, and the memory and time of each beside those of fp32."""
    figure, ((left, middle, right),) = new_figure(1, 3, width=3.6)
    for name, history in histories.items():
        left.plot([row["epoch"] for row in history], [row["loss"] for row in history], marker=".", label=name)
    left.set(yscale="log", xlabel="epoch", ylabel="training loss")
    left.legend(frameon=False)
    names = [row["precision"] for row in rows]
    for place, title, values in (
        (middle, "bytes kept for the backward pass", [row["bytes"] / rows[0]["bytes"] for row in rows]),
        (right, "time of a step", [row["latency_ratio"] for row in rows]),
    ):
        bars = place.bar(names, values, color=["C0", "C1", "C2"])
        place.bar_label(bars, [f"{value:.2g}" for value in values])
        place.axhline(1, color="0.6", linewidth=0.8)
        place.set(title=f"{title}, fp32 = 1", ylim=(0, max(values) * 1.15))
        place.title.set_fontsize(9)
    for place in (left, middle, right):
        place.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    image_size: int | None = None,
    width: int = 12,
    measured_width: int = 64,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
) -> Result:
    """Trains the same network in fp32, bf16 and fp16, and measures accuracy, memory and time.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        width: channels of the network that is trained; small, for fp16 to end in time on a CPU.
        measured_width: channels of the network whose memory and time are measured.
        epochs: passes over the training pictures, in each precision.
        batch_size: pictures in an optimizer step.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights and of the order of the pictures.
        out: folder for result.json, figure.png and model.safetensors, the network trained in bf16.
    """
    if width < 1 or measured_width < 1:
        raise InputError(f"options width and measured_width: expected at least 1, got {width} and {measured_width}")
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    shape = train_set.shape[0], len(train_set.classes)
    images, labels = (tensor.to(place) for tensor in train_set.__getitems__(range(min(batch_size, len(train_set)))))
    start, wide = (build_model(*shape, width=channels).to(place) for channels in (width, measured_width))

    def step(precision: str) -> None:
        loss_of(wide, images, labels, precision).backward()

    seconds = interleaved({name: partial(step, name) for name in DTYPES}, rounds=4, warmup=1, device=place.type)
    networks: dict[str, nn.Module] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    rows: list[dict[str, Any]] = []
    for name in DTYPES:
        networks[name] = copy.deepcopy(start)
        options: Any = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": place, "seed": seed}
        histories[name] = train(networks[name], train_set, name, **options)
        rows.append(
            {
                "precision": name,
                **evaluate(networks[name], test_set, place),
                "bytes": saved_bytes(wide, images, labels, name),
                "latency_ratio": ratio(seconds[name], seconds["fp32"])[1],
            }
        )
    single, brain, half = rows
    trained = networks["fp32"].eval()
    lost = {name: lost_gradients(trained, images, labels, name) for name in DTYPES}
    faster = [claim("bf16: time of a step, where the device computes in it", brain["latency_ratio"], "<", 1)]
    return Result(
        metrics={"accuracy": brain["accuracy"], "loss": brain["loss"]},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("bf16 is within a point of fp32", abs(brain["accuracy"] - single["accuracy"]), "<=", 0.01),
            claim("and so is fp16, its loss scaled", abs(half["accuracy"] - single["accuracy"]), "<=", 0.01),
            claim("bytes kept for the backward pass: bf16 over fp32", brain["bytes"] / single["bytes"], "<", 0.75),
            *(faster if computes_in_bf16(place) else []),
            claim("fp16: share of the gradients that become zero unless the loss is scaled", lost["fp16"], ">", 0),
            claim("the same in bf16", lost["bf16"], "<", lost["fp16"] / 10),
        ],
        history=histories["bf16"],
        rows=rows,
        model=networks["bf16"],
        draw=lambda: draw(histories, rows),
    )


if __name__ == "__main__":
    main(run)
