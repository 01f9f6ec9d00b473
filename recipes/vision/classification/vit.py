"""Vision Transformer: a picture as a sentence of patches.

The picture is cut into square patches, and each becomes a token by one linear layer. A class token joins them, and
blocks of attention and MLPs let every token look at every other. Nothing here knows which patch is whose neighbour,
but for a learned vector that is added to each token for its position. Without these vectors the network cannot tell
a picture from the same patches in any other order, which the recipe shows by shuffling them.

Notes: 43
Paper: Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai and others (2020), "An Image is Worth 16x16 Words:
    Transformers for Image Recognition at Scale", https://arxiv.org/abs/2010.11929
Data: handwritten digits (UCI), 8×8 pixels; yours as IDX files, a folder a class, or torchvision:NAME.
"""

from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.command_line import main
from recipes.core.device import setup
from recipes.core.errors import InputError
from recipes.core.figures import new_figure, show_picture
from recipes.core.loop import one_cycle
from recipes.core.old import Engine, OldLoop, claim, old_batches, old_recipe
from recipes.core.result import Result
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.classification.scoring import evaluate, majority


class Attention(nn.Module):
    """Each token asks (query), is asked (key), and answers (value); every head does so with its share of the width."""

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
        answers = F.scaled_dot_product_attention(q, k, v)  # softmax(q kᵀ / √(width / heads)) v
        return self.out(answers.transpose(1, 2).flatten(2))  # (batch, tokens, width)

    def weights(self, x: Tensor) -> Tensor:
        """How much each token takes of each other's value, (batch, heads, tokens, tokens); rows sum to 1."""
        q, k, _ = self.split(x)
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): normalised before, so that the sum runs through untouched."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (batch, tokens, width)
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches to tokens, a class token, positions, blocks, and a linear layer on what the class token has become.

    Without arguments it is the paper's ViT-B/16.

    Args:
        image_size: (height, width) of the pictures, multiples of the patch.
        patch: side of a patch in pixels.
        channels: of the pictures.
        num_classes: of the last layer.
        width: numbers in a token.
        depth: blocks.
        heads: of each attention, a divisor of the width.
        dropout: share of each block's additions that is left out.
        positions: False tells the network nothing of where a patch was.
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
        if patch < 1 or height % patch or across % patch:
            raise InputError(f"option patch: expected a divisor of the pictures' {height}×{across} pixels, got {patch}")
        if heads < 1 or width % heads:
            raise InputError(f"option heads: expected a divisor of the width {width}, got {heads}")
        self.grid = height // patch, across // patch
        # A convolution that steps by its own size is the same linear layer on every patch.
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = 1 + self.grid[0] * self.grid[1]
        # About as large as the patches' vectors; at the paper's 0.02 a short training hardly sees them.
        self.positions = nn.Parameter(0.5 * torch.randn(1, tokens, width)) if positions else None
        self.blocks = nn.Sequential(*(Block(width, heads, 4 * width, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def embed(self, images: Tensor) -> Tensor:  # (batch, channels, height, width)
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (batch, patches, width)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return tokens if self.positions is None else tokens + self.positions  # (batch, 1 + patches, width)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.embed(images)))  # (batch, 1 + patches, width)
        return self.head(tokens[:, 0])  # (batch, num_classes)

    @torch.no_grad()
    def attention_maps(self, images: Tensor) -> Tensor:
        """How much the class token takes from each patch in each block, mean over the heads.

        Returns:
            (batch, blocks, patches down, patches across).
        """
        was_training = self.training
        self.eval()
        tokens, maps = self.embed(images), []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights = block.attention.weights(block.norm1(tokens))  # (batch, heads, tokens, tokens)
            maps.append(weights[:, :, 0, 1:].mean(dim=1).unflatten(1, self.grid))
            tokens = block(tokens)
        self.train(was_training)
        return torch.stack(maps, dim=1)


def from_torchvision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of torchvision's vit_b_16 (or another of its ViTs), under this file's names."""
    names = {
        "class_token": "class_token",
        "conv_proj.": "patches.",
        "encoder.pos_embedding": "positions",
        "encoder.layers.encoder_layer_": "blocks.",
        "encoder.ln.": "norm.",
        "heads.head.": "head.",
        # within a block
        ".ln_1.": ".norm1.",
        ".self_attention.in_proj_": ".attention.qkv.",
        ".self_attention.out_proj.": ".attention.out.",
        ".ln_2.": ".norm2.",
        ".mlp.3.": ".mlp.2.",
    }
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        renamed[name] = value
    return renamed


class ShufflePatches(nn.Module):
    """Puts the patches of each picture (batch, channels, height, width) in a random order of its own."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        patches = F.unfold(images, self.patch, stride=self.patch)  # (batch, channels * patch², patches)
        order = torch.rand(len(images), 1, patches.shape[2], device=images.device).argsort(dim=2)
        return F.fold(patches.gather(2, order.expand_as(patches)), images.shape[2:], self.patch, stride=self.patch)


def train(
    model: VisionTransformer,
    train_set: Images | ImageFiles,
    test_set: Images | ImageFiles,
    batch_size: int,
    lr: float,
    seed: int,
    *,
    device: torch.device,
    **loop_options: Any,
) -> OldLoop:
    """Minimises the cross-entropy with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    loader = old_batches(train_set, batch_size, seed=seed, workers=2 if isinstance(train_set, ImageFiles) else 0)
    measure = partial(evaluate, model, test_set, device)
    loop = OldLoop(model, optimizer, loader, device=device, schedule=one_cycle, evaluate=measure, **loop_options)
    for images, labels in loop:
        loss = F.cross_entropy(loop.model(images), labels)
        loop.step(loss)
    return loop


def draw(model: VisionTransformer, dataset: Images | ImageFiles, rows: list[dict[str, Any]]) -> Any:
    """What the class token looks at in four held-out pictures, block by block; and the table as bars."""
    chosen = torch.arange(min(4, len(dataset)))
    images = dataset.__getitems__(chosen)[0].to(model.head.weight.device)
    maps = model.attention_maps(images).cpu()  # (pictures, blocks, patches down, patches across)
    pictures, depth = maps.shape[:2]
    figure, axes = new_figure(depth + 1, pictures + 2, width=1.6, height=1.6)
    for column in range(pictures):
        show_picture(axes[0, column], dataset.pixels(chosen[column : column + 1])[0])
        for block in range(depth):
            axes[block + 1, column].imshow(maps[column, block].numpy(), cmap="magma", vmin=0)
            axes[block + 1, column].set(xticks=[], yticks=[], ylabel=f"block {block + 1}" if column == 0 else "")
    for place in axes[:, pictures:].flatten():
        place.remove()
    bars = figure.add_subplot(axes[0, 0].get_gridspec()[:, pictures:])
    for offset, score, color in ((-0.2, "accuracy", "tab:blue"), (0.2, "patches shuffled", "tab:gray")):
        places = [number + offset for number in range(len(rows))]
        bars.bar(places, [row[score] for row in rows], 0.36, label=score, color=color)
    bars.set_xticks(range(len(rows)), [row["network"] for row in rows])
    bars.set(ylim=(0, 1), title="held-out accuracy")
    bars.legend(frameon=False, loc="upper right", fontsize=8)
    bars.spines[["top", "right"]].set_visible(False)
    return figure


@old_recipe
def run(
    *,
    data: str | None = None,
    model: Literal["small", "vit_b_16"] = "small",
    patch: int = 2,
    image_size: int | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 3e-3,
    device: str = "auto",
    seed: int = 0,
    out: str | None = None,
    **engine: Unpack[Engine],
) -> Result:
    """Trains a Vision Transformer with and without positions; measures both on held-out pictures, whole and shuffled.

    Args:
        data: folder of your pictures, or torchvision:NAME; the bundled digits if not given.
        model: small, with 3 blocks of width 48, or the paper's vit_b_16, with 12 of width 768.
        patch: side of a patch in pixels, a divisor of the pictures' sides.
        image_size: side in pixels that your pictures are brought to; their own size if not given.
        epochs: passes over the training pictures, for each of the two networks.
        batch_size: pictures in an optimizer step, over all processes.
        lr: highest learning rate of the one-cycle schedule.
        device: auto, cpu, cuda or mps.
        seed: of the weights, of the order of the pictures and of how their patches are shuffled.
        out: folder for result.json, figure.png and model.safetensors, those of the network with positions.
    """
    place = setup(device, seed)
    train_set, test_set = open_images(data, image_size=image_size, seed=seed)
    channels, height, across = train_set.shape
    make = partial(VisionTransformer, (height, across), patch, channels=channels, num_classes=len(train_set.classes))
    make = partial(make, width=48, depth=3, heads=4, dropout=0.1) if model == "small" else make
    networks: dict[str, VisionTransformer] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    rows: list[dict[str, Any]] = []
    for name in ("with positions", "without"):
        torch.manual_seed(seed)
        network = networks[name] = make(positions=name == "with positions").to(place)
        options: dict[str, Any] = {"epochs": epochs, "device": place, "name": name.replace(" ", "-"), **engine}
        histories[name] = train(network, train_set, test_set, batch_size, lr, seed, **options).history
        whole = evaluate(network, test_set, place)
        mixed = evaluate(nn.Sequential(ShufflePatches(patch), network), test_set, place)
        rows.append({"network": name} | whole | {"patches shuffled": mixed["accuracy"], "their loss": mixed["loss"]})
    known, blind = rows
    return Result(
        metrics={key: known[key] for key in ("accuracy", "loss")},
        baseline=majority(train_set, test_set),
        baseline_name="majority class",
        bars={"accuracy": 0.95},
        claims=[
            claim("positions are worth 10 points of accuracy", known["accuracy"], ">", blind["accuracy"] + 0.1),
            claim("with them, shuffled patches cost 20", known["patches shuffled"], "<", known["accuracy"] - 0.2),
            claim(
                "without them, shuffling leaves the loss as it is", abs(blind["their loss"] - blind["loss"]), "<", 1e-4
            ),
        ],
        history=histories["with positions"],
        rows=rows,
        model=networks["with positions"],
        draw=lambda: draw(networks["with positions"], test_set, rows),
    )


if __name__ == "__main__":
    main(run)
