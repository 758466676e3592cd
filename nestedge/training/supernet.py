"""Training a supernet: the largest network on labels, its subnets on what that knows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import predict, same
from nestedge.training.objectives import Loss, Objective, Step
from nestedge.training.shrinking import Rate, Shrinking
from nestedge.training.space import Space
from nestedge.training.subnets import Subnets


def frozen(nested: NestedModel) -> Callable[[Any], Any]:
    """A teacher: what the full network as it is now gives for the inputs of a batch."""
    twin = copy.deepcopy(nested).eval()

    def teacher(inputs: Any) -> Any:
        with torch.no_grad():
            return predict(twin, inputs)

    return teacher


def shrinking_objective(
    shrinking: Shrinking,
    space: Space,
    loss: Loss,
    *,
    subnets: Subnets,
    rate: Rate,
    teacher: Callable[[Any], Any] | None = None,
    logits: Callable[[Any], torch.Tensor] = same,
) -> Objective:
    """The largest network on labels, its subnets on soft labels, by a plan of shrinking.

    Dropout is on in the largest network only. Batch-norm statistics are gathered by it alone too,
    so a subnet needs its own before it is of use: `nestedge.recalibrate`; and where the largest is
    not trained with every step, the full network needs them as well.

    Args:
        shrinking: when and how.
        space: the subnets.
        loss: of an output and the target; label smoothing is its own business.
        subnets: where drawn subnets are kept. Training is to end before it is closed.
        rate: the learning rate, as `rate_schedule` has it.
        teacher: what gives soft labels; None for the largest network as it is in this step.
        logits: picks the logits, of shape (batch, classes, ...), from an output.

    Raises:
        UsageError: there is no teacher, and the largest network is not trained with every step.
    """
    if teacher is None and "largest" not in shrinking.always:
        raise UsageError(
            "teacher: expected one, as not every step trains the largest network; train that "
            "first, and give frozen(nested)"
        )
    opened = [space if p.opened is None else space.opened(p.opened) for p in shrinking.phases]
    method = _Method(shrinking, space, opened, loss, subnets, rate, teacher, logits)
    return method.losses


@dataclass(frozen=True)
class _Method:
    """What `shrinking_objective` was given, and the part of the space of every phase."""

    shrinking: Shrinking
    space: Space
    opened: Sequence[Space]
    loss: Loss
    subnets: Subnets
    rate: Rate
    teacher: Callable[[Any], Any] | None
    logits: Callable[[Any], torch.Tensor]

    def losses(
        self, nested: NestedModel, inputs: Any, target: Any, step: Step
    ) -> Iterator[torch.Tensor]:
        """The losses of one batch: an Objective."""
        settings = self.shrinking
        phase = settings.phase(step.epoch)
        nets = 1 if phase is None else settings.phases[phase].nets
        share = 1 / nets if settings.aggregation == "mean" else 1.0
        soft = None
        if self.teacher is not None and phase is not None:
            soft = self._soft(self.teacher(inputs))
        if phase is None or "largest" in settings.always:
            with nested.at(self.subnets.name_of(self.space.largest())):
                output = predict(nested, inputs)
            # Taken before backward: a loss may change the output in place.
            soft = self._soft(output) if soft is None else soft
            yield share * self.loss(output, target)
        if phase is None:
            return
        weight = share * settings.weight(step, self.rate)
        space, generator = self.opened[phase], step.generator()
        levels = [space.smallest()] if "smallest" in settings.always else []
        levels += [space.draw(generator) for _ in range(nets - len(settings.always))]
        for level in levels:
            output = self.subnets.run(level, inputs)
            yield weight * self._subnet_loss(output, target, soft)

    def _soft(self, output: Any) -> torch.Tensor:
        return (self.logits(output).detach() / self.shrinking.temperature).softmax(1)

    def _subnet_loss(self, output: Any, target: Any, soft: torch.Tensor | None) -> torch.Tensor:
        temperature = self.shrinking.temperature
        assert soft is not None, "there is a teacher, or the largest network is trained"
        found = temperature**2 * F.cross_entropy(self.logits(output) / temperature, soft)
        if self.shrinking.labels:
            found = found + self.shrinking.labels * self.loss(output, target)
        return found
