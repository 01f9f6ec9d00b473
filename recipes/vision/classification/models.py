"""Networks in the place of a recipe's own: timm's or torchvision's, random or trained before, or yours."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recipes.core.errors import tell
from recipes.core.frame import InputError, Loop, Options, Result, batches, recipe
from recipes.datasets.images import ImageFiles, Images, open_images
from recipes.vision.backbones import Classifier, open_whole, parameter_groups
from recipes.vision.classification.scoring import draw, evaluate
from recipes.vision.classification.using import Classification
from recipes.vision.networks import named_model
from recipes.vision.pixels import linear_classifier, nearest_neighbor


def other_model(options: Any, data: Any) -> nn.Module | None:
    """The network that the options name, for pictures and classes like these; None if it is the recipe's own.

    Raises:
        InputError: there is no such network, or weights of none that has any.
    """
    if getattr(options, "weights", None) is not None:  # which copies do not have
        return pretrained_model(options, data)
    if not isinstance(options.model, str):
        return own_model(options.model, data)
    return None if options.model == "small_cnn" else named_model(options.model, data.shape[0], len(data.classes))


def pretrained_model(options: Any, data: Any) -> Classifier:
    """The network of the options' weights under a new head; one that is opened again brings its own weights."""
    if not isinstance(options.model, str) or ":" not in options.model:
        raise InputError("option weights: expected them with a model, timm:NAME or torchvision:NAME")
    if not isinstance(data, (Images, ImageFiles)):
        return Classifier(open_whole(options.model), len(data.classes))
    backbone = open_whole(options.model, options.weights)
    if data.mean is not None and data.std is not None:  # pictures come on a scale of their own, not from 0 to 1
        mean, std = data.mean.view(-1, 1, 1), data.std.view(-1, 1, 1)
        backbone.mean, backbone.std = (backbone.mean - mean) / std, backbone.std / std
    return Classifier(backbone, len(data.classes))


def own_model(model: Any, data: Images | ImageFiles) -> nn.Module:
    """The user's network, which was tried on two empty pictures.

    Raises:
        InputError: it is none, has no weights to train, or does not give a number for each class.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"option model: expected a name or an nn.Module, got {model!r:.100}")
    wanted = f"option model: expected a network from pictures (N, {', '.join(map(str, data.shape))})"
    wanted += f" to (N, {len(data.classes)}), a number for each class"
    if not any(one.requires_grad for one in model.parameters()):
        raise InputError(f"{wanted}, with weights to train: all of its are frozen, or it has none")
    was_training = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.zeros(2, *data.shape, device=next(model.parameters()).device))
    except Exception as error:  # of the user's own code
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{wanted}, but it raises {type(error).__name__} ({reason})") from error
    model.train(was_training)
    if (shape := getattr(outputs, "shape", None)) != (2, len(data.classes)):
        raise InputError(f"{wanted}, but for 2 it gives {tuple(shape) if shape else type(outputs).__name__}")
    if outputs.min() >= 0 and torch.allclose(outputs.sum(dim=1), outputs.new_ones(())):
        tell("option model: it seems to end in a softmax, which the loss has already: leave it out")
    return model


@recipe(Options)
def fine_tune(options: Any) -> Result:
    """Trains a classifier from weights that were trained before, and measures it on held-out pictures."""
    train_set, test_set = open_images(options.data, image_size=options.image_size, seed=options.seed)
    model = pretrained_model(options, train_set).to(options.device)
    optimizer = torch.optim.AdamW(parameter_groups(model, options.lr, share=0.01), weight_decay=0.05)
    loop = Loop(
        model,
        optimizer,
        batches(train_set, options),
        options,
        evaluate=lambda: evaluate(model, test_set, options.device),
    )
    for images, labels in loop:
        loop.step(F.cross_entropy(loop.model(images), labels))
    return Result(
        metrics=evaluate(model, test_set, options.device),
        baseline=linear_classifier(train_set, test_set),
        baseline_name="linear classifier on pixels",
        others={"nearest neighbor on pixels": nearest_neighbor(train_set, test_set)},
        history=loop.history,
        model=model,
        train_set=train_set,
        test_set=test_set,
    )


@fine_tune.figure
def draw_fine_tuned(result: Result) -> Any:
    return draw(result.model, result.test_set, next(result.model.parameters()).device, result.history)


fine_tune.predicts(Classification, pretrained_model)


def fine_tuning_of(options: Any) -> Any:
    """What takes a recipe's place where its options name weights."""
    return fine_tune if options.weights is not None else None
