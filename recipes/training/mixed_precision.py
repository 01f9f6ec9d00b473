"""Mixed precision: half the bits where they suffice, and a loss scaled up where they do not.

Convolutions and matrix products run in 16 bits under autocast. bf16 has the range of fp32 with 3 decimal digits in
place of 7, and needs no more than that. fp16 has a digit more and ends early: what is smaller than 6e-8 becomes zero.
A mean over many pixels makes gradients that small, and nothing is learned from them. So the loss is multiplied by a
large number before the backward pass and the gradients are divided by it after; where one of them overflows, the step
is left out and the number is halved.

The weights stay in 32 bits. Kept in bf16 they would lose every update below a fifth of a percent of the weight, and
many of up to twice that, and the model would learn more slowly. The activations, which take most of the memory, take
half of it. Whether 16 bits also take less time is for the device to say: it is measured here, and many CPUs are far
slower in fp16.

Paper: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev, Venkatesh, Wu (2017), "Mixed
    Precision Training", https://arxiv.org/abs/1710.03740
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure
from recipes.core.frame import Claim, InputError, Options, Precision, Result, batches, main, one_cycle, option, recipe
from recipes.core.measure import interleaved, ratio
from recipes.core.precision import precision_of
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.training.by_hand import refuse_engine
from recipes.training.scoring import evaluate, least_squares
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class MixedPrecisionOptions(Options):
    precision: Precision = option(
        "bf16",
        "arithmetic of convolutions and products: fp32, bf16, fp16, or auto: bf16 where the device computes in it",
    )
    loss_scale: float | None = option(
        None, "what the loss is multiplied by at first; if not given, 65,536 in fp16 and 1 in the others", above=0
    )
    master_weights: bool = option(True, "keep the weights in fp32, not in the precision of the arithmetic")
    width: int = option(12, "channels of each convolution; few, since fp16 takes long on a CPU", least=1)
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    clip: float | None = option(5.0, "largest norm of the gradient; a larger one is scaled down", above=0)
    epochs: int = 8
    batch_size: int = 64
    lr: float = 4e-3


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3×3 convolutions; the shape stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, H, W)
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def build(options: MixedPrecisionOptions, data: Images | ImageFiles) -> nn.Sequential:
    """A residual network of five convolutions, at half the size after the first block."""
    width = options.width
    return nn.Sequential(
        *(nn.Conv2d(data.shape[0], width, 3, padding=1), ResidualBlock(width), nn.MaxPool2d(2), ResidualBlock(width)),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten()),  # (B, width)
        nn.Linear(width, len(data.classes)),
    )


def loss_of(model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """The cross-entropy, computed in 32 bits from logits computed in the precision."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels)


def train(model: nn.Module, train_set: Images | ImageFiles, options: MixedPrecisionOptions) -> list[dict[str, float]]:
    """Minimizes the cross-entropy in that precision; returns a row an epoch."""
    device = torch.device(options.device)
    dtype = precision_of(options.precision, device)
    if not options.master_weights:
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.to(dtype)
    loader = batches(train_set, options)
    total = options.steps or options.epochs * len(loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / total, 1)))
    scaled = dtype == torch.float16 or options.loss_scale is not None
    scaler = torch.amp.GradScaler(device.type, init_scale=options.loss_scale or 2.0**16, enabled=scaled)
    history: list[dict[str, float]] = []
    steps = 0
    while steps < total:
        loader.sampler.set_epoch(len(history))  # type: ignore[attr-defined]
        losses = []
        model.train()
        for images, labels in islice(loader, total - steps):
            loss = loss_of(model, images.to(device), labels.to(device), dtype)
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # the gradients of scale · loss
            scaler.unscale_(optimizer)  # divided by the scale: only now does their size mean anything
            nn.utils.clip_grad_norm_(model.parameters(), options.clip or torch.inf)
            scaler.step(optimizer)  # left out where one of them is infinite
            before = scaler.get_scale()
            scaler.update()  # halves the scale then, and doubles it after 2,000 good steps
            if scaler.get_scale() >= before:
                schedule.step()
            losses.append(loss.detach())
            steps += 1
        row = {"epoch": len(history) + 1, "loss": torch.stack(losses).mean().item(), "scale": scaler.get_scale()}
        history.append(row)
    model.float()
    return history


@recipe(MixedPrecisionOptions)
def run(options: MixedPrecisionOptions) -> Result:
    """Trains a network in 16 bits by a loop that shows what autocast and the loss's scale do."""
    refuse_engine(options, "precision", "clip")
    if options.precision == "fp16" and not options.master_weights:
        raise InputError(
            "option master_weights: fp16 needs them, since GradScaler does not unscale gradients of fp16 weights"
        )
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    history = train(model, train_set, options)
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=least_squares(train_set, test_set),
        baseline_name="linear classifier, solved",
        bars={"accuracy": 0.95},
        history=history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    result, small = run(), 2.0**-16  # as a mean over 65,536 pixels makes a loss
    ways: dict[str, dict[str, Any]] = {name: {"precision": name} for name in DTYPES}
    ways["bf16, its weights too"] = {"precision": "bf16", "master_weights": False}
    for name, how in ways.items():
        seeds = range(result.options["seed"], result.options["seed"] + 3)
        trained = [run(seed=seed, **how) for seed in seeds]
        scores = {key: mean(one[key] for one in trained) for key in ("accuracy", "loss")}
        result.rows.append({"precision": name} | scores | (costs(result, name) if name in DTYPES else {}))
    single, brain, half, pure = result.rows
    lead = single["accuracy"] - result.baseline["accuracy"]
    for row in (brain, half):
        text = f"{row['precision']} and fp32: closer than half the lead on the linear classifier, means of 3 trainings"
        yield Claim(text, abs(row["accuracy"] - single["accuracy"]), "<", lead / 2, margin=0.003)
    yield Claim("held-out loss: higher with the weights in bf16 too", pure["loss"], ">", brain["loss"], margin=0.01)
    lost, found = (run(precision=name, loss_scale=small)["accuracy"] for name in ("fp16", "bf16"))
    text = "fp16: from a loss 65,536 times smaller less is learned, unless it is scaled"
    yield Claim(text, lost, "<", half["accuracy"], margin=0.2)
    yield Claim("and less than in bf16, which needs no scaling", lost, "<", found, margin=0.2)
    text = "bytes kept for the backward pass: bf16 over fp32"
    yield Claim(text, brain["bytes"] / single["bytes"], "<", 0.75, kind="fact")


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def costs(result: Result, precision: str) -> dict[str, float]:
    """Bytes kept by a training step of a wide network, where arithmetic dominates, and its time over fp32's."""
    device = next(result.model.parameters()).device
    model = build(MixedPrecisionOptions(width=64), result.train_set).to(device)
    images, labels = (
        tensor.to(device) for tensor in result.train_set.__getitems__(range(min(64, len(result.train_set))))
    )

    def step(name: str) -> None:
        loss_of(model, images, labels, DTYPES[name]).backward()

    steps: dict[str, Callable[[], Any]] = {name: partial(step, name) for name in (precision, "fp32")}
    seconds = interleaved(steps, rounds=4, warmup=1, device=device.type)
    kept = saved_bytes(model, images, labels, DTYPES[precision])
    return {"bytes": kept, "step, over fp32's": round(ratio(seconds[precision], seconds["fp32"])[1], 2)}


def saved_bytes(model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> int:
    """Bytes that a forward pass keeps for the backward pass, each tensor once, the weights left out."""
    kept: dict[int, Tensor] = {}  # held on to, so that no address is used again
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, images, labels, dtype)
    return sum(tensor.nbytes for tensor in kept.values())


def output_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradients, in fp32, at the output of each convolution and linear layer, where 16 bits must hold them."""
    outputs: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in layers]
    loss = loss_of(model, images, labels, torch.float32)
    for hook in hooks:
        hook.remove()
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, outputs)])


@run.figure
def figure(result: Result) -> Any:
    """How large the gradients are beside the smallest number of fp16, and the loss of each precision."""
    drawing, axes = new_figure(1, 2 if result.rows else 1, width=4.6)
    device = next(result.model.parameters()).device
    images, labels = (
        tensor.to(device) for tensor in result.train_set.__getitems__(range(min(64, len(result.train_set))))
    )
    gradients = output_gradients(result.model, images, labels)
    powers = gradients[gradients != 0].abs().log2().cpu().numpy()
    for shift, name in ((-16, "loss 65,536 times smaller"), (0, "loss as it is"), (16, "scaled by 65,536")):
        axes[0, 0].hist(powers + shift, bins=60, histtype="step", label=name)
    axes[0, 0].axvline(-24, color="C3", linestyle=":", label="smallest in fp16")
    axes[0, 0].set(xlabel="log2 of the gradients at the layers' outputs", ylabel="how many")
    axes[0, 0].legend(frameon=False, fontsize=7)
    if result.rows:
        axes[0, 1].barh([row["precision"] for row in result.rows], [row["loss"] for row in result.rows])
        axes[0, 1].set(xlabel="held-out loss, mean of three trainings")
        axes[0, 1].locator_params(axis="x", nbins=5)
    return drawing


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
