"""Networks of other libraries with random weights, and inputs for them."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression.calls import call, logits_of


class UNet(nn.Module):
    """A concatenation of what was before pooling and what is after it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(64, 32, 2, stride=2), nn.Conv2d(64, 32, 3, padding=1, groups=2)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, pictures: Tensor) -> Tensor:  # (batch, 3, height, width)
        x = F.relu(self.down(pictures))
        y = self.up(F.relu(self.inner(F.max_pool2d(x, 2))))
        return self.head(F.relu(self.join(torch.cat([x, y], dim=1))))


class Gated(nn.Module):
    """Channels in equal parts that are multiplied, and weights that are computed, both ways that torch has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(32, 128))
        self.second, self.last = nn.Linear(64, 128), nn.Linear(64, 8)
        with warnings.catch_warnings(action="ignore"):  # deprecated, and still met
            self.conv = nn.utils.weight_norm(nn.Conv1d(8, 8, 3))

    def forward(self, x: Tensor) -> Tensor:  # (batch, words, 32)
        left, right = self.second(F.glu(self.first(x))).chunk(2, dim=-1)
        return self.conv(input=self.last(input=left * right.sigmoid()).transpose(1, 2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 96, 2, batch_first=True, bidirectional=True), nn.Linear(192, 8)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.lstm(words)[0][torch.arange(len(words)), lengths])


def tiny(name: str) -> tuple[nn.Module, Any]:
    """A small network, most of them as dicts and tuples are taken, and inputs."""
    words, ids = torch.randn(4, 9, 32), torch.randint(0, 100, (4, 9))
    if name == "lstm":
        return Recurrent(), (words, torch.tensor([8, 3, 5, 7]))
    if name == "encoder":
        layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(4, 9, 64)
    if name in ("unet", "gated"):
        return (UNet(), torch.randn(4, 3, 16, 16)) if name == "unet" else (Gated(), {"x": words})
    import transformers

    sizes: Any = {"num_hidden_layers": 2, "num_attention_heads": 4}
    small = sizes | {"hidden_size": 64, "intermediate_size": 256}
    if name == "gpt2":
        options: Any = {"n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
        config: Any = transformers.GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4, **options)
        return transformers.GPT2LMHeadModel(config), {"input_ids": ids}
    if name == "llama":
        config = transformers.LlamaConfig(vocab_size=100, num_key_value_heads=2, **small)
        return transformers.LlamaForCausalLM(config), {"input_ids": ids}
    if name == "t5":
        options = {"d_kv": 16, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
        config = transformers.T5Config(vocab_size=100, d_model=64, d_ff=256, **options)
        return transformers.T5ForConditionalGeneration(config), {"input_ids": ids, "decoder_input_ids": ids}
    if name == "vit":
        config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **small)
        return transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(4, 3, 32, 32)}
    config = transformers.BertConfig(vocab_size=100, max_position_embeddings=32, **small)
    return transformers.BertForMaskedLM(config), {"input_ids": ids, "attention_mask": (ids > 20).long()}


def large(name: str) -> tuple[nn.Module, Any]:
    if name.partition("_")[0] in ("regnety", "convnextv2", "mobilenetv4"):
        import timm

        return awake(timm.create_model(name, pretrained=False)), pictures(4)
    from torchvision import models

    options: Any = {"googlenet": {"init_weights": False}, "vit_b_16": {"image_size": 64}}.get(name, {})
    if name.startswith("deeplab"):
        options = {"weights_backbone": None, "num_classes": 5}
    model = models.get_model(name, weights=None, **options)
    if name == "vit_b_16":
        nn.init.normal_(model.heads.head.weight)  # which is zero before training
    return awake(model), pictures(4)


def pictures(count: int) -> Tensor:
    """Some that differ as photographs do, in their large parts: (count, 3, 64, 64)."""
    return F.interpolate(
        torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)), (64, 64), mode="bicubic"
    )


def awake(model: nn.Module) -> nn.Module:
    """The network with other answers to other inputs, as random weights hardly have.

    Biases, beside which weak signals would vanish, are zero, and layers that are scaled to nothing at first take part.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        if name.endswith(("layer_scale", "gamma", "grn.weight")):
            nn.init.constant_(parameter, 0.3)
    return model


TINY = ("gpt2", "llama", "t5", "vit", "masked_bert", "lstm", "encoder", "unet", "gated")
LARGE = (
    *("resnet50", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16", "densenet121"),
    *("googlenet", "shufflenet_v2_x1_0", "deeplabv3_mobilenet_v3_large", "regnety_002", "convnextv2_atto"),
    "mobilenetv4_conv_small",
)


def other(name: str, seed: int) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    model, inputs = tiny(name) if name in TINY else large(name)
    return model.eval(), inputs


@torch.no_grad()
def answer(model: nn.Module, inputs: Any) -> Tensor:
    return logits_of(call(model, inputs))


def off(answers: Tensor, exact: Tensor) -> float:
    """The relative error."""
    return float((answers - exact).norm() / exact.norm())


def off_by_input(answers: Tensor, exact: Tensor) -> float:
    """The error relative to what differs from input to input: what is the same to all would hide it."""
    return float((answers - exact).norm() / (exact - exact.mean(0)).norm())
