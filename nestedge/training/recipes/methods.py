"""How levels are trained: one row for each method.

A row reads the keys that the method has beside its name, as soon as the recipe is read, and gives a
function that prepares a network for it. What that returns is all that the training loop needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from nestedge.cost import count_parameters
from nestedge.documents import Value
from nestedge.errors import UsageError, did_you_mean
from nestedge.model import NestedModel
from nestedge.training.objectives import Loss, joint_objective, sandwich_objective
from nestedge.training.recipes.frame import Method, Prepare, Row, Setup
from nestedge.training.recipes.sparse import asni, connections, ssgd
from nestedge.training.recipes.structured import shrinking, sss
from nestedge.training.recipes.tables import table


def joint(keys: Value) -> Prepare:
    """All levels with every batch: nested sparse learning (NestedNet).

    Its key: `levels`, which levels to train; all unless given.
    """
    chosen = table(keys, ("levels",)).strings("levels")

    def prepare(setup: Setup) -> Method:
        levels = setup.nested.levels if chosen is None else chosen
        check_levels(levels, setup.nested, f"{keys.where}.levels")
        objective = joint_objective(levels, setup.loss)
        return Method(objective, setup.optimizer(setup.nested.parameters()))

    return prepare


def sandwich(keys: Value) -> Prepare:
    """The largest level, the smallest and a few between with every batch (US-Nets).

    Its keys: `largest` and `smallest`, the levels of most and fewest parameters unless given;
    `between`, all others unless given; `drawn`, how many of those for every batch, 2 unless given.
    """
    found = table(keys, ("largest", "smallest", "between", "drawn"))
    asked = {key: found.string(key) for key in ("largest", "smallest")}
    between, drawn = found.strings("between"), found.integer("drawn", 2, minimum=0)

    def prepare(setup: Setup) -> Method:
        nested = setup.nested
        if len(nested.levels) < 2:
            raise UsageError(f"{keys.where}: expected two levels or more, found {nested.levels}")
        sizes = {name: count_parameters(nested.plan(name).program) for name in nested.levels}
        largest = asked["largest"] or max(sizes, key=lambda name: sizes[name])
        smallest = asked["smallest"] or min(sizes, key=lambda name: sizes[name])
        ends = (largest, smallest)
        others = [n for n in sizes if n not in ends] if between is None else list(between)
        check_levels([*ends, *others], nested, keys.where)
        objective = sandwich_objective(
            setup.loss, largest=largest, smallest=smallest, between=others, drawn=drawn
        )
        return Method(objective, setup.optimizer(nested.parameters()))

    return prepare


METHODS: Mapping[str, Row] = {
    "joint": joint,
    "sandwich": sandwich,
    "connections": connections,
    "sss": sss,
    "shrinking": shrinking,
    "ssgd": ssgd,
    "asni": asni,
}


TOGETHER = ("joint", "sandwich", "connections")
"""Those that train the levels that stay, so that these can learn to be rounded."""


def check_levels(names: Iterable[str], nested: NestedModel, where: str) -> None:
    """Refuses names of levels that the network has not.

    Raises:
        UsageError: there is one.
    """
    for name in names:
        if name not in nested.levels:
            raise UsageError(
                f"{where}: no level {name!r}; there are {', '.join(nested.levels)}"
                f"{did_you_mean(name, nested.levels)}"
            )


def cross_entropy(smoothing: float) -> Loss:
    """The cross-entropy of logits, of shape (batch, classes), and class numbers."""

    def loss(output: Any, target: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)

    return loss
