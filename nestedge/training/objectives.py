"""What a step of training minimises: one function per method.

An objective gives the losses of one batch one at a time. The loop calls backward on each before
it asks for the next, so that the activations of only one level are in memory; their gradients
add up to the gradient of the sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import predict, same

Loss = Callable[[Any, Any], torch.Tensor]
"""A scalar from what the network returns and the target of the batch."""


@dataclass(frozen=True)
class Step:
    """A step of training, by its place.

    Attributes:
        epoch: from 0.
        epochs: in all.
        index: in its epoch, from 0.
        steps: of every epoch; None in a first epoch whose length is not known.
        number: how many steps went before.
        seed: of the training.
    """

    epoch: int
    epochs: int
    index: int
    steps: int | None
    number: int
    seed: int

    def generator(self) -> random.Random:
        """Draws of this step: the same in every process, and in training that is resumed."""
        return random.Random(f"{self.seed}/{self.number}")


Objective = Callable[[NestedModel, Any, Any, Step], Iterator[torch.Tensor]]
"""The losses of one batch, from the network, the inputs, the target and the step.

Their sum is minimised.
"""


def joint_objective(levels: Sequence[str], loss: Loss) -> Objective:
    """The plain mean of the levels' losses: nested sparse learning.

    Equation (5) of NestedNet (Kim et al., CVPR 2018, arXiv:1712.03781). Its regulariser of the
    full level is the weight decay of the optimiser.

    Args:
        levels: the levels to train, in any order.
        loss: of a level's output and the target.

    Raises:
        UsageError: there is no level.
    """
    if not levels:
        raise UsageError("levels: expected at least one level to train, found none")

    def objective(nested: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
        for level in levels:
            with nested.at(level):
                output = predict(nested, inputs)
            yield loss(output, target) / len(levels)

    return objective


def sandwich_objective(
    loss: Loss,
    *,
    largest: str,
    smallest: str,
    between: Sequence[str] = (),
    drawn: int = 2,
    logits: Callable[[Any], torch.Tensor] = same,
) -> Objective:
    """The sandwich rule with in-place distillation.

    The largest level learns the target; the smallest and some levels drawn anew for every batch
    learn the soft labels of the largest. The losses are summed, not averaged, as in the authors'
    code. US-Nets (Yu & Huang, ICCV 2019, arXiv:1903.05134).

    Args:
        loss: of the largest level's output and the target.
        largest: the level that teaches.
        smallest: the level that is trained with every batch.
        between: the levels to draw from.
        drawn: how many of them to draw for every batch without repetition; all if they are fewer.
        logits: picks the logits, of shape (batch, classes, ...), from a level's output.

    Raises:
        UsageError: a level is named twice, or `drawn` is negative.
    """
    named = [largest, smallest, *between]
    if len(set(named)) < len(named):
        raise UsageError(f"expected the largest, the smallest and others between, found {named}")
    if drawn < 0:
        raise UsageError(f"drawn: expected 0 or more levels, found {drawn}")

    def objective(
        nested: NestedModel, inputs: Any, target: Any, step: Step
    ) -> Iterator[torch.Tensor]:
        with nested.at(largest):
            output = predict(nested, inputs)
        # Taken before backward: a loss may change the output in place.
        soft = logits(output).detach().softmax(1)
        yield loss(output, target)
        others = step.generator().sample(list(between), min(drawn, len(between)))
        for level in (smallest, *others):
            with nested.at(level):
                output = predict(nested, inputs)
            yield F.cross_entropy(logits(output), soft)

    return objective
