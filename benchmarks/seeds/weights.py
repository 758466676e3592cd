"""NestedNet's weight levels: connections learned, beside random ones of the same densities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import nn

from benchmarks.networks.resnet import CifarResNet
from benchmarks.seeds.family import TWINS
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.levels import Level
from nestedge.training import joint_objective, nested_masks, prunable_weights, random_masks
from nestedge.training.nested_masks import LevelMasks

DENSITIES = {"third": 1 / 3, "half": 1 / 2}
"""Shares of the weights: compressed 3 and 2 times."""


Make = Callable[[], nn.Module]


def learned(make: Make, trial: Trial) -> Record:
    """Half of the updates for the dense network, half for all levels of its largest weights.

    A network that starts trained has had its dense half: all updates are for the levels.
    """
    return _trained(make, trial, is_random=False)


def drawn(make: Make, trial: Trial) -> Record:
    """The same with connections drawn at random: NestedNet's control."""
    return _trained(make, trial, is_random=True)


def dense(make: Make, trial: Trial) -> Record:
    """The network with all its weights."""
    return {"accuracies": trial.accuracies(trial.alone(make), [FULL])}


def _trained(make: Make, trial: Trial, *, is_random: bool) -> Record:
    nested = trial.nested(make)
    begun = 0 if trial.start else trial.budget.epochs // 2
    if begun:
        trial.fit(nested, joint_objective([FULL], F.cross_entropy), until=begun)
    weights = prunable_weights(nested)
    masks: LevelMasks = (
        random_masks(weights, DENSITIES, seed=trial.seed)
        if is_random
        else nested_masks(weights, DENSITIES)
    )
    for level, of_level in masks.items():
        nested.add_level(level, Level(masks=of_level))
    levels = [*DENSITIES, FULL]
    trial.fit(nested, joint_objective(levels, F.cross_entropy), begun=begun)
    return {"accuracies": trial.accuracies(nested, levels)}


VARIANTS: dict[str, Variant] = {
    "learned": partial(learned, TWINS[FULL]),
    "drawn": partial(drawn, TWINS[FULL]),
}

STARTED: dict[str, Variant] = {
    "dense": partial(dense, CifarResNet),
    "learned": partial(learned, CifarResNet),
    "drawn": partial(drawn, CifarResNet),
}
"""Of the published ResNet-20, trained further."""
