"""What a method of a recipe is given, and what it gives to the training loop."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from nestedge.documents import Value
from nestedge.model import NestedModel
from nestedge.training.checkpoints import Stateful
from nestedge.training.objectives import Loss, Objective
from nestedge.training.shrinking import Rate


@dataclass(frozen=True)
class Setup:
    """What a method finds.

    Attributes:
        nested: the network with the recipe's levels, on the device that it is trained on.
        loss: of a level's output and the target.
        epochs: of the training.
        steps: of an epoch.
        seed: of the training.
        folder: of the recipe, which its files are relative to.
        rate: the learning rate of the recipe's schedule.
        optimizer: makes the recipe's optimizer of parameters; a method calls it once all of them
            are there.
    """

    nested: NestedModel
    loss: Loss
    epochs: int
    steps: int
    seed: int
    folder: Path
    rate: Rate
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]


def nothing(_: NestedModel) -> None:
    """What a method does at the end that leaves the network as it was trained."""


@dataclass(frozen=True)
class Method:
    """A method that is ready to train.

    Attributes:
        objective: what to minimise.
        optimizer: of what is trained; its learning rate follows the recipe's schedule.
        after_epoch: as for `nestedge.training.train`.
        state: what else changes while training, for checkpoints, as for `train`.
        finish: is called once when training has ended, and leaves a network that can be saved:
            folds factors, adds levels.
        settled: of the levels that come of it those that compute what was trained: all others'
            batch-norm statistics are measured afterwards.
    """

    objective: Objective
    optimizer: Optimizer
    after_epoch: Callable[[int], None] | None = None
    state: Mapping[str, Stateful] = field(default_factory=dict)
    finish: Callable[[NestedModel], None] = nothing
    settled: Container[str] = ()


Prepare = Callable[[Setup], Method]
"""Prepares a network to be trained."""

Row = Callable[[Value], Prepare]
"""Reads the keys of a method, which stand beside its name."""
