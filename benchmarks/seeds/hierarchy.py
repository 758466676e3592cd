"""NestedNet's hierarchy of classes: a core that tells animals from vehicles."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.resnet import CifarResNet
from benchmarks.seeds.family import BLOCKS, HALF
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.training import Objective, Step, accuracy, joint_objective, labelled_loss

VEHICLES = ("airplane", "automobile", "ship", "truck")
COARSE, FINE = "coarse", "fine"


class TwoHeads(nn.Module):
    """A residual network with a head for two classes and one for ten."""

    def __init__(self) -> None:
        super().__init__()
        self.body = CifarResNet(BLOCKS)
        self.body.linear = nn.Identity()  # type: ignore[assignment]
        self.coarse = nn.Linear(64, 2)
        self.fine = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of both."""
        features = self.body(x)
        return {COARSE: self.coarse(features), FINE: self.fine(features)}


LEVELS: dict[str, Level | float] = {
    "core": Level(HALF, outputs=(COARSE,)),
    FULL: Level(outputs=(FINE,)),
}
TASKS = {"core": COARSE, FULL: FINE}


def together(trial: Trial) -> Record:
    """Both levels in one set of weights."""
    nested = trial.nested(TwoHeads, LEVELS)
    return _trained(trial, nested, list(LEVELS))


def alone(level: str, trial: Trial) -> Record:
    """One of them by itself: the same network, of which only the level is trained."""
    nested = trial.nested(TwoHeads, LEVELS)
    return _trained(trial, nested, [level])


def _trained(trial: Trial, nested: NestedModel, levels: list[str]) -> Record:
    losses = {level: labelled_loss(TASKS[level], F.cross_entropy) for level in levels}
    coarse = _coarse(trial)
    trial.fit(nested, _with_coarse(joint_objective(levels, losses), coarse))
    found = {}
    for level in levels:
        test = trial.images.test()
        if TASKS[level] == COARSE:
            test = [(inputs, coarse[target]) for inputs, target in test]
        found[level] = accuracy(nested, test, level, logits=itemgetter(TASKS[level]))
    return {"accuracies": found}


def _coarse(trial: Trial) -> Tensor:
    """The coarse class of every fine one."""
    return torch.tensor([int(label in VEHICLES) for label in trial.images.data.labels])


def _with_coarse(objective: Objective, coarse: Tensor) -> Objective:
    """An objective whose targets are of both kinds, from fine ones."""

    def both(nested: NestedModel, inputs: Any, target: Any, step: Step) -> Iterator[Tensor]:
        return objective(nested, inputs, {COARSE: coarse[target], FINE: target}, step)

    return both


VARIANTS: dict[str, Variant] = {
    "nested": together,
    "core alone": lambda trial: alone("core", trial),
    "full alone": lambda trial: alone(FULL, trial),
}
