"""What copies get in place of longer parts of this task."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.plain import Loop, Result, predict
from recipes.datasets.plain.images_idx import Images
from recipes.vision.plain import named_model


def evaluate(model: nn.Module, dataset: Images, device: torch.device) -> dict[str, float]:
    """Accuracy and mean cross-entropy (nats) over the whole set."""
    logits, labels = torch.stack(predict(model, dataset, device)), dataset.labels
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, labels).item()}


def result_of(model: nn.Module, loop: Loop, train_set: Images, test_set: Images, *, bar: float) -> Result:
    """What a trained classifier reaches on held-out pictures."""
    return Result(metrics=evaluate(model, test_set, loop.device), model=model)


def shifted(images: Tensor) -> Tensor:
    """Each picture (B, C, H, W) moved at random by up to an eighth of its side: padded with black, and cropped."""
    count, (height, width), black = len(images), images.shape[2:], images.amin()
    y, x = -(-height // 8), -(-width // 8)
    padded = (F.pad(images - black, (x, x, y, y)) + black).movedim(1, 3)
    starts = [torch.randint(0, 2 * most + 1, (count, 1), device=images.device) for most in (y, x)]
    rows, columns = (start + torch.arange(side).to(start) for start, side in zip(starts, (height, width), strict=True))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def other_model(options: Any, data: Images) -> nn.Module | None:
    """The network in the small one's place, if the options name one: yours, timm:NAME or torchvision:NAME."""
    if not isinstance(options.model, str):
        return options.model
    return None if options.model == "small_cnn" else named_model(options.model, data.shape[0], len(data.classes))
