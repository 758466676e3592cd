"""NestedNet's weight levels: connections learned, beside random ones of the same densities."""

from __future__ import annotations

import torch.nn.functional as F

from benchmarks.seeds.family import TWINS
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.levels import Level
from nestedge.training import joint_objective, nested_masks, prunable_weights, random_masks
from nestedge.training.nested_masks import LevelMasks

DENSITIES = {"third": 1 / 3, "half": 1 / 2}
"""Shares of the weights: compressed 3 and 2 times."""


def learned(trial: Trial) -> Record:
    """Half of the updates for the dense network, half for all levels of its largest weights."""
    return _trained(trial, is_random=False)


def drawn(trial: Trial) -> Record:
    """The same with connections drawn at random: NestedNet's control."""
    return _trained(trial, is_random=True)


def _trained(trial: Trial, *, is_random: bool) -> Record:
    nested = trial.nested(TWINS[FULL])
    begun = trial.budget.epochs // 2
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


VARIANTS: dict[str, Variant] = {"learned": learned, "drawn": drawn}
