"""ASNI-I: a global sparsity that rises as a sigmoid during one round of training.

Amenable Sparse Network Investigator (Damadi, Nouri & Pirsiavash, 2022). In the authors' logs of VGG
networks a steep sigmoid gives a better network than a gentle one of the same final sparsity:
more of the training is left when the pruning is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from nestedge.errors import UsageError
from nestedge.training.sparsity import Sparsity

SparsitySchedule = Callable[[int, int], float]
"""The percentage of weights that are dead after an epoch, from its number and that of all epochs.

Epochs count from 0. `partial(sparsity_schedule, magnitude=95, scale=2)` is one.
"""

_LEAST = 0.1
"""Percent of the survivors; a smaller step is skipped."""


@dataclass(frozen=True)
class Sigmoid:
    """One rise of the sparsity.

    Attributes:
        magnitude: percent of the weights that it ends at.
        scale: epochs in which the rise falls off by a factor e on either side of its centre.
        centre: where half of it is reached, as a share of its epochs.
    """

    magnitude: float
    scale: float
    centre: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.magnitude <= 100:
            raise UsageError(f"magnitude: expected 0 < percent <= 100, found {self.magnitude}")
        if not self.scale > 0:
            raise UsageError(f"scale: expected more than 0 epochs, found {self.scale}")

    def at(self, epoch: int, epochs: int) -> float:
        """Percent of the weights, at an epoch of `epochs`."""
        # By tanh, which no exponent makes overflow.
        rise = (1 + math.tanh((epoch - self.centre * epochs) / (2 * self.scale))) / 2
        return self.magnitude * rise


def sparsity_schedule(
    epoch: int, epochs: int, *, magnitude: float, scale: float, centre: float = 0.5
) -> float:
    """ASNI's percentage of weights that are dead after an epoch.

    Args:
        epoch: from 0.
        epochs: in all.
        magnitude: percent of the weights that the sigmoid ends at.
        scale: epochs; the smaller, the steeper.
        centre: where half of it is reached, as a share of the epochs.

    Raises:
        UsageError: the magnitude or the scale is out of range.

    >>> [round(sparsity_schedule(e, 25, magnitude=95, scale=2), 3) for e in (0, 12, 24)]
    [0.183, 41.593, 94.699]
    """
    return Sigmoid(magnitude, scale, centre).at(epoch, epochs)


def two_segment_schedule(
    epoch: int, epochs: int, *, rest: int, first: Sigmoid, second: Sigmoid
) -> float:
    """A sparsity that rises twice, with a rest between.

    Args:
        epoch: from 0.
        epochs: in all.
        rest: the epoch, 0 < rest < epochs, that the second rise begins with, on top of what the
            first had reached one epoch before. Each rise has a centre within its own epochs.
        first: the rise until then.
        second: the rise from then on.

    Raises:
        UsageError: the rest is out of range, or the rises exceed 100 percent together.
    """
    if not 0 < rest < epochs:
        raise UsageError(f"rest: expected an epoch between 0 and {epochs}, found {rest}")
    if first.magnitude + second.magnitude > 100:
        total = first.magnitude + second.magnitude
        raise UsageError(f"magnitude: expected at most 100 percent together, found {total}")
    if epoch < rest:
        return first.at(epoch, rest)
    return first.at(rest - 1, rest) + second.at(epoch - rest, epochs - rest)


class ScheduledPruning:
    """Prunes after every epoch, over all layers together, to a schedule.

    With s(e) as the schedule has it, and s(-1) = 0, epoch e is followed by the death of
    100 (s(e) - s(e-1)) / (100 - s(e-1)) percent of the survivors, rounded down to whole weights,
    with all that are as large as the last of them. As in the authors' code a step of at most
    0.1 percent is skipped and never made up for, since s(e-1) counts as reached all the same.

    Their code also prunes after the last epoch, so that the accuracy it reports belongs to a
    network less sparse than its file. Here the last epoch prunes nothing unless `after_last` is
    set: then what is saved is what was trained and measured, as sparse as s(epochs - 2).

    Args:
        sparsity: is to be attached to the optimizer.
        epochs: how many the network is trained for.
        schedule: the percentage of dead weights after every epoch.
        after_last: whether to prune after the last epoch too.

    Raises:
        UsageError: there is no epoch.
    """

    def __init__(
        self,
        sparsity: Sparsity,
        epochs: int,
        *,
        schedule: SparsitySchedule,
        after_last: bool = False,
    ) -> None:
        if epochs < 1:
            raise UsageError(f"epochs: expected 1 or more, found {epochs}")
        self.sparsity = sparsity
        self.epochs = epochs
        self._schedule = schedule
        self._after_last = after_last
        self._scheduled = 0.0

    def __call__(self, epoch: int) -> None:
        """Prune after an epoch.

        Args:
            epoch: from 0.

        Raises:
            UsageError: there is no such epoch, or the schedule leaves 0 to 100 percent.
        """
        if not 0 <= epoch < self.epochs:
            raise UsageError(f"epoch: expected 0 to {self.epochs - 1}, found {epoch}")
        if epoch == self.epochs - 1 and not self._after_last:
            return
        before, self._scheduled = self._scheduled, self._schedule(epoch, self.epochs)
        if not 0 <= self._scheduled <= 100:
            raise UsageError(
                f"schedule: expected 0 to 100 percent at epoch {epoch}, found {self._scheduled}"
            )
        percent = 100 * (self._scheduled - before) / (100 - before) if before < 100 else 0.0
        if percent > _LEAST:
            self.sparsity.prune(int(self.sparsity.survivors() * percent / 100))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where pruning stands, with the masks: tensors only, for exact resumption."""
        masks = {f"masks/{name}": live for name, live in self.sparsity.state_dict().items()}
        return {"scheduled": torch.tensor(self._scheduled, dtype=torch.float64), **masks}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what `state_dict` gave.

        Raises:
            UsageError: it is of another network, or not of scheduled pruning.
        """
        if "scheduled" not in state:
            raise UsageError(f"expected 'scheduled' and masks, found {sorted(state)}")
        masks = {name.removeprefix("masks/"): t for name, t in state.items() if name != "scheduled"}
        self.sparsity.load_state_dict(masks)
        self._scheduled = state["scheduled"].item()
