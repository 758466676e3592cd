"""Delayed epsilon-shrinking beside early and late shrinking at equal cost, and without its ramp."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F

from benchmarks.seeds.budget import sgd
from benchmarks.seeds.family import TWINS
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.training import (
    Shrinking,
    Space,
    Subnets,
    cosine_rate,
    delayed_shrinking,
    early_shrinking,
    frozen,
    joint_objective,
    macs_of,
    progressive_shrinking,
    recalibrated_accuracy,
    shrinking_objective,
    sort_after,
    space_of,
)

WIDTHS = (0.5, 0.75, 1.0)
NETS = 4
DRAWN = 32
"""Subnets that the cost of a drawn one is the mean of."""


def spaces(nested: NestedModel) -> Space:
    """Widths inside the blocks, and the depth of the stages."""
    return space_of(nested, width={"layer*": WIDTHS}, depth={"layer*": (1, 2)})


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of subnets, as shares of the full network's.

    Attributes:
        smallest: of the smallest.
        drawn: of a drawn one on average.
    """

    smallest: float
    drawn: float

    @property
    def sandwich(self) -> float:
        """Of a step of the largest, the smallest and two drawn ones."""
        return 1 + self.smallest + (NETS - 2) * self.drawn


def cost_of(nested: NestedModel, space: Space) -> Cost:
    """What a step of each kind of subnet costs."""
    macs, generator = macs_of(nested), random.Random(0)
    whole = macs(space.largest())
    drawn = [macs(space.draw(generator)) for _ in range(DRAWN)]
    return Cost(macs(space.smallest()) / whole, sum(drawn) / len(drawn) / whole)


def delayed(ramp: int, trial: Trial) -> Record:
    """The full network for half of the epochs, then a ramp; 0 is without."""
    epochs = trial.budget.epochs
    plan = delayed_shrinking(epochs // 2 + ramp // 2, ramp=ramp, nets=NETS)
    return _shrunk(trial, trial.nested(TWINS[FULL]), plan, epochs=epochs)


def early(trial: Trial) -> Record:
    """BigNAS: subnets from the first step on, for as many epochs as cost the same."""
    nested = trial.nested(TWINS[FULL])
    cost = cost_of(nested, spaces(nested))
    epochs = round(budget_of(trial, cost) / cost.sandwich)
    return _shrunk(trial, nested, early_shrinking(nets=NETS), epochs=epochs)


def late(trial: Trial) -> Record:
    """Once-for-all: the full network, then from it as a teacher depths, then widths."""
    nested = trial.nested(TWINS[FULL])
    cost = cost_of(nested, spaces(nested))
    total = budget_of(trial, cost)
    first = round(total / 3)
    trial.fit(nested, joint_objective([FULL], F.cross_entropy), epochs=first)
    # A drawn network a step, and a forward pass of the teacher, a third of a step's cost.
    part = (total - first) / (2 * (2 * cost.drawn + 1 / 3) + 2 * (4 * cost.drawn + 1 / 3))
    each = max(1, round(part))
    plan = progressive_shrinking(kernel=0, depth=(each, each), expand=(each, each))
    return _shrunk(trial, nested, plan, epochs=4 * each, teacher=True) | {"first": first}


def budget_of(trial: Trial, cost: Cost) -> float:
    """What delayed shrinking costs, in epochs of the full network."""
    half = trial.budget.epochs // 2
    return half + (trial.budget.epochs - half) * cost.sandwich


def _shrunk(
    trial: Trial, nested: NestedModel, plan: Shrinking, *, epochs: int, teacher: bool = False
) -> Record:
    space, rate = spaces(nested), cosine_rate(trial.rate)
    optimizer = sgd(nested.parameters(), trial.rate)
    with Subnets(nested, limit=256) as subnets:
        objective = shrinking_objective(
            plan,
            space,
            F.cross_entropy,
            subnets=subnets,
            rate=rate,
            teacher=frozen(nested) if teacher else None,
        )
        sort = sort_after(plan.begins - 1, nested, axes=space.axes("width"), optimizer=optimizer)
        trial.fit(nested, objective, epochs=epochs, optimizer=optimizer, after_epoch=sort)
    levels: dict[str, Level] = {"smallest": space.smallest(), "largest": space.largest()}
    calibration, test = trial.images.calibration(), trial.images.test()
    return {
        "accuracies": {
            name: recalibrated_accuracy(nested, level, calibration=calibration, test=test)
            for name, level in levels.items()
        },
        "epochs": epochs,
        "subnets": space.count,
    }


VARIANTS: dict[str, Variant] = {
    "delayed": partial(delayed, 2),
    "without ramp": partial(delayed, 0),
    "early": early,
    "late": late,
}
