"""ASNI on Conv-4: sparse in one round, and again from two numbers a layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam

from benchmarks.networks.conv import Conv4
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.training import (
    ScheduledPruning,
    Sparsity,
    joint_objective,
    sparsity_schedule,
    start_from,
    start_sizes,
    ternary_start,
)

MAGNITUDE = 95.0
"""Percent of the weights; with the authors' 25 epochs and a scale of 2 that ends at 94.5."""

SCALE = 2 / 25
"""Of the sigmoid, as a share of the epochs."""


def dense(trial: Trial) -> Record:
    """The network with all its weights."""
    nested = trial.nested(_conv4(trial))
    optimizer = Adam(nested.parameters(), trial.rate)
    trial.fit(nested, joint_objective([FULL], F.cross_entropy), optimizer=optimizer)
    return {"accuracies": trial.accuracies(nested, [FULL])}


def sparse(trial: Trial) -> Record:
    """ASNI-I, and ASNI-II from what it gives."""
    nested = trial.nested(_conv4(trial))
    objective = joint_objective([FULL], F.cross_entropy)
    epochs = trial.budget.epochs
    sparsity, optimizer = Sparsity(nested), Adam(nested.parameters(), trial.rate)
    schedule = partial(sparsity_schedule, magnitude=MAGNITUDE, scale=SCALE * epochs)
    pruning = ScheduledPruning(sparsity, epochs, schedule=schedule)
    sparsity.attach(optimizer)
    trial.fit(nested, objective, optimizer=optimizer, after_epoch=pruning)
    first = trial.accuracies(nested, [FULL])[FULL]
    start = ternary_start(nested)
    sizes = start_sizes(start)
    again = trial.nested(_conv4(trial))
    kept, optimizer = start_from(start, again), Adam(again.parameters(), trial.rate)
    kept.attach(optimizer)
    trial.fit(again, objective, optimizer=optimizer)
    return {
        "accuracies": {"ASNI-I": first, "ASNI-II": trial.accuracies(again, [FULL])[FULL]},
        "sparsity": 100 * (1 - sparsity.density()),
        "bytes": sizes.file,
        "dense_bytes": sizes.dense,
        "numbers": sizes.numbers // 4,
        "empty_filters": _empty_filters(sparsity),
    }


def _conv4(trial: Trial) -> Callable[[], nn.Module]:
    return partial(Conv4, pixels=trial.budget.pixels)


def _empty_filters(sparsity: Sparsity) -> int:
    """Output channels of convolutions that no weight is left of."""
    weights = [w for w in sparsity.weights.values() if w.dim() == 4]
    return int(sum((torch.count_nonzero(w, dim=(1, 2, 3)) == 0).sum() for w in weights))


VARIANTS: dict[str, Variant] = {"dense": dense, "sparse": sparse}
