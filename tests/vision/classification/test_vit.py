import pytest
import torch

from recipes.core.errors import InputError
from recipes.core.measure import parameter_count
from recipes.vision.classification import vit
from recipes.vision.classification.vit import (
    Attention,
    ShufflePatches,
    VisionTransformer,
    ViTOptions,
    attention_maps,
    from_torchvision,
)
from tests.vision.classification.controls import accuracy_after_shuffled_labels, require_that_all_counts

NAME = "vision.classification.vit"


def small(*, positions: bool = True) -> VisionTransformer:
    torch.manual_seed(0)
    options = {"channels": 1, "num_classes": 10, "width": 48, "depth": 3, "heads": 4}
    return VisionTransformer((8, 8), 2, positions=positions, **options)


def test_equals_torchvision() -> None:
    """torchvision's weights load under this file's names, and give the same logits."""
    from torchvision import models

    with torch.device("meta"):
        theirs, ours = models.vit_b_16(weights=None), VisionTransformer()
    assert parameter_count(ours) == parameter_count(theirs) == 86_567_656
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.03 * torch.randn(v.shape, generator=generator) for key, v in theirs.state_dict().items()}
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(from_torchvision(weights), assign=True)
    images = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_attention_is_the_formula_and_maps_are_shares() -> None:
    torch.manual_seed(0)
    attention, x = Attention(16, 4), torch.randn(2, 5, 16)
    q, k, v = attention.split(x)
    weights = (q @ k.transpose(2, 3) / 2).softmax(dim=3)  # (2, 4, 5, 5); each head has 4 numbers
    torch.testing.assert_close(attention.out((weights @ v).transpose(1, 2).flatten(2)), attention(x))
    maps = attention_maps(small(), torch.randn(3, 1, 8, 8))
    assert maps.shape == (3, 3, 4, 4)
    shares = maps.sum(dim=(2, 3))
    assert ((shares > 0) & (shares < 1)).all()  # the rest is the class token's


def test_only_positions_tell_shuffled_patches_apart() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 1, 8, 8)
    mixed = ShufflePatches(2)(images)
    assert not torch.equal(images, mixed)
    assert torch.equal(images.flatten(1).sort(dim=1).values, mixed.flatten(1).sort(dim=1).values)
    blind, seeing = small(positions=False), small()
    torch.testing.assert_close(blind(images), blind(mixed), rtol=1e-4, atol=1e-5)
    assert (seeing(images) - seeing(mixed)).abs().max() > 1e-2


@pytest.mark.parametrize("positions", [True, False])
def test_every_parameter_gets_a_gradient_and_the_picture_counts(positions: bool) -> None:
    network = small(positions=positions)
    require_that_all_counts(network, torch.randn(8, 1, 8, 8), 1e-3)


def test_shuffled_labels_fail_the_bar() -> None:
    assert accuracy_after_shuffled_labels(vit.train, small(), ViTOptions(epochs=2, device="cpu")) < 0.4


def test_impossible_patch_is_named() -> None:
    with pytest.raises(InputError, match="option patch"):
        vit.run(patch=3, device="cpu")
