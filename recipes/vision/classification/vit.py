"""Vision Transformer: a picture as a sentence of patches.

The picture is cut into square patches, and each becomes a token by one linear layer. A class token joins them, and
blocks of attention and MLPs let every token look at every other. Nothing here knows which patches are neighbors, but
for a learned vector that is added to each token for its position. Without these vectors, the network cannot tell a
picture from the same patches in any other order.

Notes: 43
Paper: Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai and others (2020), "An Image is Worth 16x16 Words:
    Transformers for Image Recognition at Scale", https://arxiv.org/abs/2010.11929
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, torchvision:NAME, or Datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.figures import new_figure, show_picture
from recipes.core.frame import Claim, InputError, Loop, Options, Result, batches, main, option, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, result_of
from recipes.vision.classification.using import Classification


@dataclass(kw_only=True)
class ViTOptions(Options):
    model: Literal["small", "vit_b_16"] = option("small", "3 blocks of width 48, or the paper's 12 of width 768")
    patch: int = option(2, "side of a patch in pixels, a divisor of the pictures' sides", least=1)
    positions: bool = option(True, "tell the network where each patch was")
    image_size: int | None = option(None, "side in pixels that pictures are resized to", least=1)
    epochs: int = 12
    lr: float = 3e-3


class Attention(nn.Module):
    """Each token's query is compared with all keys, and it takes in their values in proportion; in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:  # (batch, tokens, width)
        """Queries, keys and values: (3, batch, heads, tokens, width / heads)."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:  # (batch, tokens, width)
        q, k, v = self.split(x)
        mixed = F.scaled_dot_product_attention(q, k, v)  # softmax(q kᵀ / √(width / heads)) v
        return self.out(mixed.transpose(1, 2).flatten(2))  # (batch, tokens, width)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): normalized before, so that the residual stream stays as it is."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (batch, tokens, width)
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches to tokens, a class token, positions, blocks, and a linear layer on what the class token has become.

    By default it is the paper's ViT-B/16, for pictures of `image_size` (height, width).
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch: int = 16,
        *,
        channels: int = 3,
        num_classes: int = 1000,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        dropout: float = 0.0,
        positions: bool = True,
    ) -> None:
        super().__init__()
        height, across = image_size
        if height % patch or across % patch:
            raise InputError(f"option patch: expected a divisor of the pictures' {height}×{across} pixels, got {patch}")
        self.grid = height // patch, across // patch
        # A convolution that steps by its kernel's size is the same linear layer on every patch.
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = 1 + self.grid[0] * self.grid[1]
        # About as large as the patches' vectors; at the paper's 0.02 a short training hardly sees them.
        self.positions = nn.Parameter(0.5 * torch.randn(1, tokens, width)) if positions else None
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def embed(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (batch, patches, width)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        return tokens if self.positions is None else tokens + self.positions  # (batch, 1 + patches, width)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.embed(images)))  # (batch, 1 + patches, width)
        return self.head(tokens[:, 0])  # (batch, num_classes)


def build(options: ViTOptions, data: Images | ImageFiles) -> VisionTransformer:
    """The network for pictures and classes like these."""
    channels, height, across = data.shape
    make = partial(VisionTransformer, (height, across), options.patch, positions=options.positions)
    if options.model == "small":
        make = partial(make, width=48, depth=3, heads=4, dropout=0.1)
    return make(channels=channels, num_classes=len(data.classes))


def train(model: nn.Module, train_set: Images | ImageFiles, test_set: Images | ImageFiles, options: ViTOptions) -> Loop:
    """Minimizes the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    measure = partial(evaluate, model, test_set, options.device)
    loop = Loop(model, optimizer, batches(train_set, options), options, evaluate=measure)
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return loop


@recipe(ViTOptions)
def run(options: ViTOptions) -> Result:
    """Trains a Vision Transformer and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = build(options, train_set).to(options.device)
    loop = train(model, train_set, test_set, options)
    return result_of(model, loop, train_set, test_set, bar=0.95)


@run.claims
def claims(run: Any) -> Iterator[Claim]:
    runs = {"with positions": run(), "without": run(positions=False)}
    shuffled = {name: on_shuffled_patches(one) for name, one in runs.items()}
    run().rows = [
        {"network": name, "accuracy": one["accuracy"], "loss": one["loss"]}
        | {f"{metric}, patches shuffled": value for metric, value in shuffled[name].items()}
        for name, one in runs.items()
    ]
    known, blind = (one["accuracy"] for one in runs.values())
    yield Claim("positions are worth 10 points of accuracy", known, ">", blind, margin=0.1)
    text = "with them, shuffling the patches costs 20 points"
    yield Claim(text, shuffled["with positions"]["accuracy"], "<", known, margin=0.2)
    off = abs(shuffled["without"]["loss"] - runs["without"]["loss"])
    yield Claim("without them, shuffling leaves the loss as it is", off, "<", 1e-3, kind="fact")


def on_shuffled_patches(result: Result) -> dict[str, float]:
    """The metrics with each held-out picture's patches in a random order of its own."""
    device = next(result.model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return evaluate(nn.Sequential(ShufflePatches(result.options["patch"]), result.model), result.test_set, device)


class ShufflePatches(nn.Module):
    """Puts the patches of each picture (batch, channels, height, width) in a random order of its own."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        patches = F.unfold(images, self.patch, stride=self.patch)  # (batch, channels * patch², patches)
        order = torch.rand(len(images), 1, patches.shape[2]).argsort(dim=2).to(images.device)
        return F.fold(patches.gather(2, order.expand_as(patches)), images.shape[2:], self.patch, stride=self.patch)


@torch.no_grad()
def attention_maps(model: VisionTransformer, images: Tensor) -> Tensor:
    """How much the class token takes from each patch, mean over the heads: (batch, blocks, down, across)."""
    tokens, maps = model.eval().embed(images), []
    for block in model.blocks.children():
        assert isinstance(block, Block)
        q, k, _ = block.attention.split(block.norm1(tokens))
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)  # (batch, heads, tokens, tokens)
        maps.append(weights[:, :, 0, 1:].mean(dim=1).unflatten(1, model.grid))
        tokens = block(tokens)
    return torch.stack(maps, dim=1)


@run.figure
def figure(result: Result) -> Any:
    """What the class token looks at in held-out pictures: a row a picture, a column a block."""
    chosen = torch.arange(min(4, len(result.test_set)))
    images = result.test_set.__getitems__(chosen)[0].to(result.model.head.weight.device)
    maps = attention_maps(result.model, images).cpu()
    drawn, axes = new_figure(len(chosen), 1 + maps.shape[1], width=1.8, height=1.8)
    for row, number in enumerate(chosen.tolist()):
        show_picture(axes[row, 0], result.test_set.pixels(chosen[row : row + 1])[0], f"held-out picture {number + 1}")
        for block in range(maps.shape[1]):
            axes[row, block + 1].imshow(maps[row, block].numpy(), cmap="magma", vmin=0)
            axes[row, block + 1].set(xticks=[], yticks=[], title=f"attention, block {block + 1}" if row == 0 else "")
    return drawn


def from_torchvision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of torchvision's vit_b_16 (or another of its ViTs), under this file's names."""
    names = {"conv_proj.": "patches.", "encoder.pos_embedding": "positions", "encoder.ln.": "norm."}
    names |= {"encoder.layers.encoder_layer_": "blocks.", "heads.head.": "head.", ".ln_1.": ".norm1."}
    names |= {".ln_2.": ".norm2.", ".mlp.3.": ".mlp.2.", ".self_attention.in_proj_": ".attention.qkv."}
    names |= {".self_attention.out_proj.": ".attention.out."}
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        renamed[name] = value
    return renamed


run.predicts(Classification, build)


if __name__ == "__main__":
    main(run)
