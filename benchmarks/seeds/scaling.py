"""SSGD beside SGD: the same training loss, and what is left after pruning without fine-tuning."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.seeds.budget import sgd
from benchmarks.seeds.family import TWINS
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.training import (
    joint_objective,
    log_sum,
    nested_masks,
    prunable_weights,
    scale_updates,
)

PRUNED = "pruned"
EPSILONS = {1e-3: 7, 1e-4: 6}
"""Of the log-sum measure: with the epochs after which SGD has about the training loss of each."""

DENSITY = 0.1
LIMIT = 100.0
"""The most that a weight's learning rate is multiplied by."""


def plain(trial: Trial) -> Record:
    """Stochastic gradient descent."""
    return _trained(trial, epsilon=None)


def shorter(epochs: int, trial: Trial) -> Record:
    """The same for fewer epochs, to be compared at an equal training loss."""
    return _trained(trial, epsilon=None, epochs=epochs) | {"epochs": epochs}


def scaled(epsilon: float, trial: Trial) -> Record:
    """The same with updates scaled by the log-sum measure."""
    return _trained(trial, epsilon=epsilon)


def _trained(trial: Trial, *, epsilon: float | None, epochs: int | None = None) -> Record:
    nested = trial.nested(TWINS[FULL])
    optimizer = sgd(nested.parameters(), trial.rate)
    if epsilon is not None:
        scale_updates(optimizer, log_sum(epsilon=epsilon), limit=LIMIT)
    objective = joint_objective([FULL], F.cross_entropy)
    trial.fit(nested, objective, epochs=epochs, optimizer=optimizer)
    masks = nested_masks(prunable_weights(nested), {PRUNED: DENSITY})
    nested.add_level(PRUNED, Level(masks=masks[PRUNED]))
    return {
        "accuracies": trial.accuracies(nested, (FULL, PRUNED)),
        "loss": _loss(trial, nested, FULL),
        "pruned_loss": _loss(trial, nested, PRUNED),
    }


def _loss(trial: Trial, nested: NestedModel, level: str) -> float:
    """The mean loss on training images, in evaluation mode."""
    losses = []
    nested.eval()
    with torch.no_grad(), nested.at(level):
        for inputs, target in trial.images.calibration():
            losses.append(float(F.cross_entropy(nested(inputs), target)))
    return sum(losses) / len(losses)


VARIANTS: dict[str, Variant] = {
    "SGD": plain,
    **{f"SGD, {epochs} epochs": partial(shorter, epochs) for epochs in EPSILONS.values()},
    **{f"SSGD, epsilon {epsilon:g}": partial(scaled, epsilon) for epsilon in EPSILONS},
}
