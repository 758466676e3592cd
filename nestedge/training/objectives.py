"""What a step of training minimises: one function per method.

An objective gives the losses of one batch one at a time. The loop calls backward on each before
it asks for the next, so that the activations of only one level are in memory; their gradients
add up to the gradient of the sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from nestedge.errors import UsageError, did_you_mean
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


def full_objective(loss: Loss) -> Objective:
    """The loss of the full network, whatever levels there are.

    Args:
        loss: of the network's output and the target.
    """

    def objective(nested: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
        yield loss(predict(nested, inputs), target)

    return objective


def joint_objective(levels: Sequence[str], loss: Loss | Mapping[str, Loss]) -> Objective:
    """The plain mean of the levels' losses: nested sparse learning.

    Equation (5) of NestedNet (Kim et al., CVPR 2018, arXiv:1712.03781). Its regulariser of the
    full level is the weight decay of the optimiser. With a loss for each level, as
    `labelled_loss` makes them, the levels learn different labels: a hierarchy of classes.

    Args:
        levels: the levels to train, in any order.
        loss: of a level's output and the target; or one for each level.

    Raises:
        UsageError: there is no level, or a level without a loss.
    """
    losses = _losses(levels, loss)

    def objective(nested: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
        for level, of_level in losses.items():
            with nested.at(level):
                output = predict(nested, inputs)
            yield of_level(output, target) / len(losses)

    return objective


def multitask_objective(levels: Sequence[str], loss: Loss | Mapping[str, Loss]) -> Objective:
    """The mean of the losses of levels that each learn a task of their own.

    Equation (5) of NestedNet with other data for each level. Inputs and target of a batch are
    dicts with an entry for every level.

    Args:
        levels: the levels to train, in any order.
        loss: of a level's output and its target; or one for each level.

    Raises:
        UsageError: there is no level, or a level without a loss; in training, without an entry.
    """
    losses = _losses(levels, loss)

    def objective(nested: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
        for level, of_level in losses.items():
            with nested.at(level):
                output = predict(nested, entry(inputs, level, of="inputs"))
            yield of_level(output, entry(target, level, of="target")) / len(losses)

    return objective


def labelled_loss(key: str, loss: Loss) -> Loss:
    """A loss of one entry of the output, and of the target's entry of that name.

    So a network that returns {"coarse": ..., "fine": ...} learns from a target of the same keys.
    """
    return lambda output, target: loss(entry(output, key, of="output"), entry(target, key))


def entry(value: Any, key: str, *, of: str = "target") -> Any:
    """An entry of a dict of a batch or an output.

    Raises:
        UsageError: it is no dict, or has no such entry.
    """
    if not isinstance(value, Mapping) or key not in value:
        keys = sorted(map(str, value)) if isinstance(value, Mapping) else []
        found = keys if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise UsageError(
            f"{of}: expected a dict with {key!r}, found {found}{did_you_mean(key, keys)}"
        )
    return value[key]


def _losses(levels: Sequence[str], loss: Loss | Mapping[str, Loss]) -> dict[str, Loss]:
    if not levels:
        raise UsageError("levels: expected at least one level to train, found none")
    if not isinstance(loss, Mapping):
        return dict.fromkeys(levels, loss)
    if missing := [level for level in levels if level not in loss]:
        raise UsageError(
            f"loss: expected one for each of {list(levels)}, found none for {missing[0]!r}"
            f"{did_you_mean(missing[0], loss)}"
        )
    return {level: loss[level] for level in levels}


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
