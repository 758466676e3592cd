"""One training of a comparison, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.seeds.budget import Budget, schedule, sgd
from benchmarks.seeds.data import Images
from nestedge.card import Card
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.training import Objective, accuracy, joint_objective, train

Record = dict[str, Any]
Variant = Callable[["Trial"], Record]
"""A method or a baseline: trains, and says what came out."""

FULL = "full"


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        images: to train and to test with.
        budget: how much.
        seed: of the first weights and of all draws.
        rate: the learning rate.
        start: the first weights by name; None for those that the seed decides.
    """

    images: Images
    budget: Budget
    seed: int
    rate: float
    start: Mapping[str, Tensor] | None = None

    def nested(
        self,
        make: Callable[[], nn.Module],
        levels: Mapping[str, Level | float] | None = None,
        *,
        card: Card | None = None,
    ) -> NestedModel:
        """A network with its first weights."""
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            model = make()
        if self.start is not None:
            model.load_state_dict(self.start)
        example, _ = self.images.test()[0]
        return nest(model, example[:2], {FULL: 1.0} if levels is None else levels, card=card)

    def fit(
        self,
        nested: NestedModel,
        objective: Objective,
        *,
        epochs: int | None = None,
        begun: int = 0,
        until: int | None = None,
        optimizer: Optimizer | None = None,
        after_epoch: Callable[[int], None] | None = None,
    ) -> float:
        """Train; the mean loss of the last epoch.

        Args:
            nested: the network.
            objective: what it is trained for.
            epochs: of one schedule; the budget's unless given.
            begun: how many of them a training before this one did.
            until: after how many of them to stop, for a training behind this one.
            optimizer: gradient descent with the trial's rate unless given.
            after_epoch: as for `train`.
        """
        epochs = self.budget.epochs if epochs is None else epochs
        optimizer = optimizer or sgd(nested.parameters(), self.rate)
        reports = train(
            nested,
            self.images.train(self.budget),
            epochs=(epochs if until is None else until) - begun,
            objective=objective,
            optimizer=optimizer,
            schedule=schedule(optimizer, self.budget, epochs, begun=begun),
            seed=self.seed,
            precision=self.budget.precision,
            after_epoch=after_epoch,
        )
        return reports[-1].loss

    def alone(self, make: Callable[[], nn.Module]) -> NestedModel:
        """A network trained by itself: the baseline of a level of its size."""
        nested = self.nested(make)
        self.fit(nested, joint_objective([FULL], F.cross_entropy))
        return nested

    def accuracies(self, nested: NestedModel, levels: Iterable[str]) -> dict[str, float]:
        """Percentages of the images to test with."""
        test = self.images.test()
        return {level: accuracy(nested, test, level) for level in levels}
