"""NestedNet's channel and layer levels, each beside a network of its size trained alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.resnet import CifarResNet
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.card import Card
from nestedge.consensus import add_consensus
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.training import accuracy, joint_objective

BLOCKS = (2, 2, 2)
SHALLOW = (1, 1, 1)
HALF = 0.5
LEVELS: dict[str, Level | float] = {
    "core": Level(HALF, depth=SHALLOW),
    "narrow": Level(HALF),
    "shallow": Level(depth=SHALLOW),
    FULL: 1.0,
}
"""Two widths by two depths: a partial order, as in NestedNet's table 2."""

TWINS: dict[str, Callable[[], nn.Module]] = {
    "core": partial(CifarResNet, BLOCKS, width=HALF, depth=SHALLOW),
    "narrow": partial(CifarResNet, BLOCKS, width=HALF),
    "shallow": partial(CifarResNet, BLOCKS, depth=SHALLOW),
    FULL: partial(CifarResNet, BLOCKS),
}
"""The levels as networks of their own."""

CONSENSUS = ("average", "learned")
LEARNED_EPOCHS = 1


def together(trial: Trial) -> Record:
    """All levels in one set of weights with a head each, and what they say together."""
    nested = trial.nested(TWINS[FULL], LEVELS, card=Card(own=("linear.*",)))
    trial.fit(nested, joint_objective(list(LEVELS), F.cross_entropy))
    found = trial.accuracies(nested, LEVELS)
    for name in CONSENSUS:
        add_consensus(nested, name, tuple(LEVELS), learned=name == "learned")
    _learn(trial, nested)
    return {"accuracies": found | trial.accuracies(nested, CONSENSUS)}


def _learn(trial: Trial, nested: NestedModel) -> None:
    """Train the layer of the learned consensus alone, on what the trained levels say."""
    layer = list(nested.own_tensors("learned").values())
    said, classes = [], []
    nested.eval()
    with torch.no_grad(), nested.at(*LEVELS):
        for inputs, target in trial.images.train(trial.budget):
            said.append(torch.cat(list(nested(inputs).values()), 1))
            classes.append(target)
    weight, bias = sorted(layer, key=lambda tensor: -tensor.dim())
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)
    features, target = torch.cat(said), torch.cat(classes)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), target)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def alone(name: str, trial: Trial) -> Record:
    """A network of a level's size by itself."""
    nested = trial.alone(TWINS[name])
    return {"accuracies": {name: accuracy(nested, trial.images.test(), FULL)}}


VARIANTS: dict[str, Variant] = {
    "nested": together,
    **{f"{name} alone": partial(alone, name) for name in TWINS},
}
