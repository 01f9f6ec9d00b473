"""Channels that must go together, against Torch-Pruning, and the smaller network against the larger one."""

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.compression import plain
from recipes.compression.channels import channel_groups, prune_channels
from recipes.compression.coupling import PRODUCERS, couple
from recipes.compression.structured_pruning import (
    StructuredOptions,
    block_changes,
    build,
    build_large,
    recalibrate,
    remove_blocks,
    train,
)
from recipes.core.errors import InputError
from recipes.core.loading import batches
from recipes.core.measure import parameter_count
from recipes.datasets.images import open_images
from recipes.vision.classification.resnet import BasicBlock, Bottleneck, ResNet
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN

CPU = torch.device("cpu")
NAME = "compression.structured_pruning"
PICTURE = torch.zeros(1, 3, 64, 64)


class Zoo(nn.Module):
    """A concatenation, a depthwise and a grouped convolution, a flattened map, a shared layer, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, 12)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.grouped = nn.Conv2d(24, 12, 1, groups=3)
        self.twice = nn.Conv2d(12, 12, 3, padding=1)
        self.gate = nn.Linear(12, 12)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 16, 10), nn.ReLU(), nn.Linear(10, 5))

    def forward(self, images: Tensor) -> Tensor:  # (batch, 3, 8, 8)
        x = self.norm(torch.cat([self.left(images), self.right(images)], dim=1))
        x = F.relu(self.grouped(self.depthwise(x)))
        x = x + self.twice(F.max_pool2d(self.twice(x), 3, 1, 1))
        x = x * torch.sigmoid(self.gate(x.mean(dim=(2, 3))))[:, :, None, None]
        return self.head(F.avg_pool2d(self.up(x), 4))


def zeroed(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """The network at full size in which nothing reads the channels that `prune_channels` removes."""
    from recipes.compression.channels import class_groups, class_norms

    model = copy.deepcopy(model)
    coupling = couple(model, example)
    norms = class_norms(coupling)
    gone: set[int] = set()
    for group in class_groups(coupling):
        gone |= set(sorted(group, key=lambda label: norms[label])[: int(share * len(group))])
    for layer, ends in coupling.layers.items():
        if isinstance(layer, PRODUCERS) and layer.weight.ndim > 1:
            places = [place for place, label in enumerate(ends.ins) if coupling.find(label) in gone]
            dim = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
            if getattr(layer, "groups", 1) == 1:
                layer.weight.data.index_fill_(dim, torch.tensor(places, dtype=torch.long), 0)
    return model


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_answers_as_the_large_network_whose_channels_nothing_reads(
    block: type[BasicBlock] | type[Bottleneck], share: float
) -> None:
    torch.manual_seed(0)
    model = ResNet(block, [1, 2], num_classes=7, width=8).eval()
    images = torch.randn(4, 3, 64, 64)
    small = prune_channels(model, PICTURE, share)
    assert parameter_count(small) < parameter_count(model)
    assert type(small) is ResNet
    with torch.no_grad():
        torch.testing.assert_close(small(images), zeroed(model, PICTURE, share)(images), rtol=1e-4, atol=1e-5)
        assert not torch.equal(small(images[:1]), small(images[1:2]))


def test_every_kind_of_coupling() -> None:
    torch.manual_seed(0)
    example = torch.randn(2, 3, 8, 8)
    model = Zoo().eval()
    groups = {frozenset(group) for group in channel_groups(model, example)}
    assert frozenset({"grouped", "twice", "gate"}) in groups
    assert frozenset({"up"}) in groups
    assert frozenset({"head.1"}) in groups
    small: Any = prune_channels(model, example, 0.5)
    assert small(example).shape == (2, 5)
    assert (small.depthwise.groups, small.depthwise.out_channels) == (
        small.norm.num_channels,
        2 * small.norm.num_channels,
    )
    assert small.grouped.groups == 3
    assert small.head[1].in_features == 3 * 16
    assert small.head[1].out_features == 5


def test_a_network_of_one_path_agrees_channel_by_channel() -> None:
    torch.manual_seed(0)
    model = SmallCNN(1, 10, width=8).eval()
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        small = prune_channels(model, images[:1], 0.5)
        torch.testing.assert_close(small(images), zeroed(model, images[:1], 0.5)(images), rtol=1e-4, atol=1e-5)


def test_parameters_that_are_added_shrink_with_the_channels() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 2)
            self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 8)
            self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
            self.scale = nn.Parameter(torch.randn(8, 1, 1))

        def forward(self, images: Tensor) -> Tensor:  # (batch, 3, 8, 8)
            x = (self.patches(images) * self.scale).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
            x = x + self.outer(F.relu(self.inner(x)))
            return self.head(x[:, 0] + x.mean(dim=1))

    torch.manual_seed(0)
    model, images = Tokens(), torch.randn(4, 3, 8, 8)
    assert sorted(channel_groups(model, images)) == [["inner"], ["patches", "outer"]]
    with torch.no_grad():
        small: Any = prune_channels(model, images, 0.5)
        torch.testing.assert_close(small(images), zeroed(model, images, 0.5)(images), rtol=1e-4, atol=1e-5)
    assert [small.token.shape[-1], small.places.shape[-1], small.scale.shape[0]] == [4, 4, 4]


def test_outputs_in_a_dataclass_stay_and_others_are_refused() -> None:
    @dataclass
    class Scores:
        scores: Tensor

    class Answered(nn.Module):
        def __init__(self, kind: Any) -> None:
            super().__init__()
            self.kind, self.inner, self.head = kind, nn.Linear(8, 16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Any:
            return self.kind(self.head(self.inner(x).relu()))

    small: Any = prune_channels(Answered(Scores), torch.randn(4, 8), 0.5)
    assert small(torch.randn(4, 8)).scores.shape == (4, 10)
    assert small.inner.out_features == 8
    with pytest.raises(InputError, match=r"model: expected tensors, .* as outputs, found none in SimpleNamespace"):
        prune_channels(Answered(lambda scores: SimpleNamespace(scores=scores)), torch.randn(4, 8), 0.5)


def test_hiding_places_does_not_hold_the_channels() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner, self.head = nn.Embedding(9, 8), nn.Linear(8, 12), nn.Linear(12, 2)

        def forward(self, ids: Tensor) -> Tensor:  # (batch, tokens)
            there = (ids > 0)[:, :, None]
            x = F.gelu(self.inner(torch.where(there, self.table(ids), 0.0)))
            return self.head(x.masked_fill(~there, -1e4).amax(dim=1))

    torch.manual_seed(0)
    model, ids = Pooled(), torch.tensor([[1, 2, 3, 0], [4, 8, 0, 0]])
    assert sorted(channel_groups(model, ids)) == [["inner"], ["table"]]
    with torch.no_grad():
        small = prune_channels(model, ids, 0.5)
        torch.testing.assert_close(small(ids), zeroed(model, ids, 0.5)(ids), rtol=1e-4, atol=1e-5)


def test_what_must_stay_stays() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.first(x).split(4, dim=-1)
            return self.last(left * right)

    assert channel_groups(Split(), torch.zeros(1, 6)) == []
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    assert channel_groups(tied, torch.zeros(1, 4)) == [["2"]]
    assert prune_channels(tied, torch.zeros(1, 4), 0.0)(torch.zeros(1, 4)).shape == (1, 2)


def test_attention_keeps_its_size_and_loses_neurons() -> None:
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    example = torch.randn(1, 5, 16)
    assert channel_groups(model, example) == [["linear1"]]
    small: Any = prune_channels(model, example, 0.5)
    assert small.linear1.out_features == 16
    assert small(example).shape == (1, 5, 16)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_refuses_a_share_that_cannot_be(share: float) -> None:
    with pytest.raises(InputError, match="option share"):
        prune_channels(SmallCNN(1, 10), torch.zeros(1, 1, 8, 8), share)


def test_refuses_what_it_cannot_prune_and_names_the_layer() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Linear(4 * 9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).view(-1, 36))

    with pytest.raises(InputError, match="layer first: cannot take what it is given"):
        prune_channels(Fixed(), torch.zeros(1, 1, 3, 3), 0.5)
    with pytest.raises(InputError, match="found none in ReLU"):
        prune_channels(nn.ReLU(), torch.zeros(1), 0.5)
    with pytest.raises(InputError, match="layer 0"):
        channel_groups(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 4))


def test_the_model_itself_is_not_changed() -> None:
    model = SmallCNN(1, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune_channels(model, torch.zeros(1, 1, 8, 8), 0.5)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_block_that_changes_least_goes_first() -> None:
    torch.manual_seed(0)
    model: Any = ResNet(BasicBlock, [3], num_classes=4, width=8, small_pictures=True).eval()
    model.layer1[1].bn2.weight.data.zero_()
    images = torch.randn(2, 3, 8, 8).abs()
    assert set(block_changes(model, images)) == {"layer1", "layer1.0", "layer1.1", "layer1.2"}
    small: Any = remove_blocks(model, images, 1)
    assert isinstance(small.layer1[1], nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images))
    with pytest.raises(InputError, match="option blocks"):
        remove_blocks(SmallCNN(1, 10), torch.zeros(1, 1, 8, 8), 1)


def test_blocks_that_are_given_more_than_their_input_can_go() -> None:
    class Scaled(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, width))

        def forward(self, x: Tensor, scale: float) -> Tensor:
            return scale * self.inner(x)

    class Network(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Scaled(width), Scaled(width)])

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.blocks[0](x, scale=0.1), self.blocks[1](x, 0.1)])

    inputs = torch.randn(3, 5, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    for model in (Network(8), nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(8, 8))):
        small = remove_blocks(model, inputs, 1)
        assert parameter_count(small) < parameter_count(model)
        assert small(inputs).shape == model(inputs).shape
    with pytest.raises(InputError, match="option blocks: expected at most 0, so many blocks can go, got 1"):
        remove_blocks(Network(7), inputs, 1)


def test_recalibrated_statistics_are_those_of_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    parts = [(torch.randn(8, 2, 3, 3) * 3 + 1, None) for _ in range(4)]
    model[0].eval()
    recalibrate(model, parts, CPU)
    assert model.training
    assert not model[0].training
    with pytest.raises(InputError, match="recalibrate: expected at least one batch, got none"):
        recalibrate(model, [], CPU)
    images = torch.stack([images for images, _ in parts])
    norm: Any = model[0]
    torch.testing.assert_close(norm.running_mean, images.mean(dim=(0, 1, 3, 4)))
    torch.testing.assert_close(norm.running_var, images.var(dim=(1, 3, 4)).mean(dim=0))
    assert norm.momentum == 0.1


def test_removing_channels_shifts_statistics_which_are_measured_anew() -> None:
    train_set, test_set = open_images()
    torch.manual_seed(0)
    options = StructuredOptions(device="cpu", epochs=2, width=16)
    large = build_large(options, train_set)
    train(large, train_set, options)
    model = prune_channels(large, train_set[0][0][None], 0.3)
    before = evaluate(model, test_set, CPU)["loss"]
    recalibrate(model, batches(train_set, options), CPU)
    assert evaluate(model, test_set, CPU)["loss"] < before


def test_the_copys_lean_twin_removes_the_same_channels() -> None:
    torch.manual_seed(0)
    model = ResNet(BasicBlock, [2, 1, 1], channels=1, num_classes=10, width=16, small_pictures=True)
    images = torch.zeros(1, 1, 8, 8)
    for share in (0.0, 0.3, 0.75):
        one, other = prune_channels(model, images, share), plain.prune_channels(model, images, share)
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_shuffled_labels_fail_the_bar() -> None:
    train_set, test_set = open_images()
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    shuffled = replace(train_set, labels=train_set.labels[order])
    torch.manual_seed(0)
    options = StructuredOptions(device="cpu", epochs=1, width=16)
    model = build(options, train_set)
    train(model, shuffled, options)
    assert evaluate(model, test_set, CPU)["accuracy"] < 0.4
    assert all(value.requires_grad for value in model.parameters())


def test_auxiliary_classifiers_shrink_too() -> None:
    """GoogLeNet calls them in training alone; their channels go with those that they read, and no statistics move."""
    network = torchvision.models.googlenet(init_weights=False, num_classes=10)
    before = copy.deepcopy(network.state_dict())
    small = prune_channels(network, torch.rand(1, 3, 96, 96), 0.5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    answers = small.train()(torch.rand(2, 3, 96, 96))
    assert [tuple(logits.shape) for logits in answers] == [(2, 10)] * 3
    sum(logits.sum() for logits in answers).backward()
    assert all(value.grad is not None for value in small.parameters())
