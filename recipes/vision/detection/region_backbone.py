"""Detectors of regions on a pretrained backbone, for photographs, in place of a recipe's small network."""

from collections.abc import Callable
from typing import Any

import torch

from recipes.core.frame import InputError, Loop, Options, Result, batches, recipe
from recipes.datasets.scenes import Boxes
from recipes.vision.backbones import Features, open_backbone, parameter_groups
from recipes.vision.detection.features import open_pictures
from recipes.vision.detection.region_detector import RegionDetector
from recipes.vision.detection.regions import RegionDetection, moved_along, propose
from recipes.vision.detection.scoring import commonest_places, evaluate
from recipes.vision.photos import recolor


def on_backbone(
    network: Callable[[Any, Any], RegionDetector], figure: Callable[[Result], Any]
) -> Callable[[Any], Callable[..., Result] | None]:
    """What takes a recipe's place where its options name a backbone.

    Args:
        network: makes the network from options and from something with the data set's classes.
        figure: of the recipe.
    """

    @recipe(Options)
    def run(options: Any) -> Result:
        """Trains it on photographs, which are mirrored and recolored too, and scores it on held-out ones."""
        train_set, test_set = (propose(part, options.regions) for part in open_pictures(options))
        model = network(options, train_set).to(options.device)
        optimizer = torch.optim.AdamW(parameter_groups(model, options.lr), weight_decay=0.01)
        loop = Loop(model, optimizer, batches(train_set, options), options)
        for (images, regions), targets in loop:
            images, seen, targets = moved_along(images, regions, targets, mirror=True)
            loop.step(loop.model((recolor(images), seen), targets))
        return Result(
            metrics=evaluate(model, test_set, options.device),
            baseline=commonest_places(train_set, test_set),
            baseline_name="commonest places",
            history=loop.history,
            model=model,
            train_set=train_set,
            test_set=test_set,
        )

    def instead(options: Any) -> Callable[..., Result] | None:
        if options.backbone is None and options.weights is not None:
            raise InputError("option weights: expected a backbone, whose weights they are")
        return run if options.backbone is not None else None

    run.figure(figure)
    run.predicts(RegionDetection, network)
    return instead


def open_features(options: Any, data: Any, strides: list[int]) -> Features:
    """The options' backbone as maps of these strides; a trained detector that is opened again brings its weights."""
    return open_backbone(options.backbone, options.weights if isinstance(data, Boxes) else None, strides=strides)
