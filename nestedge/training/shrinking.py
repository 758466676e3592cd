"""When the subnets of a supernet are shrunk, and how much each of them teaches the weights.

Delayed shrinking with a ramp (Annavajjala et al., Delayed epsilon-shrinking, ECCV 2024), the
progressive shrinking of once-for-all (Cai et al., 2020, arXiv:1908.09791), and shrinking from the
first step on, as in BigNAS (Yu et al., 2020, arXiv:2003.11142).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nestedge.errors import UsageError
from nestedge.layouts import Kind
from nestedge.training.objectives import Step

Rate = Callable[[float], float]
"""The learning rate when a share of training, 0 to 1, is done."""


def cosine_rate(base: float, *, floor: float = 0.0) -> Rate:
    """Half a cosine from `base` down to 0, never below `floor`."""

    def rate(done: float) -> float:
        return max(floor, 0.5 * base * (1 + math.cos(math.pi * done)))

    return rate


def rates_in_turn(parts: Sequence[tuple[int, Rate]]) -> Rate:
    """One rate after another, each of as many epochs as stand with it."""
    total = sum(epochs for epochs, _ in parts)

    def rate(done: float) -> float:
        epoch, before = done * total, 0
        for epochs, part in parts[:-1]:
            if epoch < before + epochs:
                return part((epoch - before) / epochs)
            before += epochs
        epochs, part = parts[-1]
        return part(min(1.0, (epoch - before) / epochs))

    return rate


def rate_schedule(optimizer: Optimizer, rate: Rate, *, steps: int) -> LambdaLR:
    """The schedule of a rate, stepped after every step of the optimizer.

    Args:
        optimizer: a group whose learning rate is `rate(0)` gets the rate; the others' are scaled
            alike.
        rate: what `shrinking_objective` has, so that both agree.
        steps: of all epochs together.

    Raises:
        UsageError: the rate begins at 0, or there is no step.
    """
    first = rate(0.0)
    if not first > 0 or steps < 1:
        raise UsageError(f"expected a rate above 0 to begin with and steps, found {first}, {steps}")
    return LambdaLR(optimizer, lambda step: rate(min(1.0, step / steps)) / first)


def beta(step: Step, *, warmup: int, ramp: int, rate: Rate) -> float:
    """What the subnets' losses are multiplied by: the epsilon of delayed epsilon-shrinking.

    0 before epoch `warmup - ramp`, and 1 from `warmup` on. In between, beta times the learning
    rate is a straight line from 0 to the rate at `warmup`, climbed batch by batch.

    Args:
        step: with the number of steps of an epoch, where it is on the ramp.
        warmup: the epoch, from 0, from which on subnets learn at the full rate.
        ramp: how many epochs before that they begin.
        rate: of the whole training.

    Raises:
        UsageError: it is not known how many steps the epoch has, or the rate is 0.
    """
    if step.epoch >= warmup:
        return 1.0
    if step.epoch < warmup - ramp:
        return 0.0
    if step.steps is None:
        raise UsageError(
            "ramp: expected batches of a known number; give a list or a loader that has a length"
        )
    climbed = (step.epoch - (warmup - ramp)) * step.steps + step.index + 1
    here = rate((step.epoch * step.steps + step.index) / (step.epochs * step.steps))
    if not here > 0:
        raise UsageError(f"rate: expected above 0 at epoch {step.epoch}, found {here}")
    return climbed / (ramp * step.steps) * rate(warmup / step.epochs) / here


@dataclass(frozen=True)
class Phase:
    """Epochs in which subnets are trained.

    Attributes:
        start: its first epoch, from 0.
        nets: how many networks every step trains, those that it always does among them.
        opened: the part of the space, as `Space.opened` takes it; None for all of it.
    """

    start: int
    nets: int
    opened: Mapping[Kind, int | None] | None = None


@dataclass(frozen=True)
class Shrinking:
    """When and how a supernet is shrunk.

    `delayed_shrinking`, `progressive_shrinking` and `early_shrinking` give the published ones.
    Before the first phase only the largest network is trained.

    Attributes:
        phases: in order of their start; the last one goes on to the end.
        ramp: epochs at the beginning of the first phase in which the subnets' losses grow to their
            full weight, as `beta` says; 0 for the full weight at once.
        always: what every step trains; the rest of its networks are drawn.
        labels: weight of the loss on labels for subnets; their distillation has weight 1.
        temperature: of the distillation, whose loss is multiplied by its square.
        aggregation: whether the losses of a step are added up or averaged. Another one needs
            another learning rate.
    """

    phases: tuple[Phase, ...]
    ramp: int = 0
    always: tuple[Literal["largest", "smallest"], ...] = ("largest", "smallest")
    labels: float = 0.0
    temperature: float = 1.0
    aggregation: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: phases that do not follow each other, or a number that is out of range.
        """
        starts = [phase.start for phase in self.phases]
        if not starts or starts[0] < 0 or starts != sorted(set(starts)):
            raise UsageError(f"phases: expected starts that ascend from 0 or more, found {starts}")
        least = max(1, len(self.always))
        if few := [phase.nets for phase in self.phases if phase.nets < least]:
            raise UsageError(f"phases: expected {least} or more nets a step, found {few[0]}")
        if self.ramp < 0 or self.labels < 0 or not self.temperature > 0:
            raise UsageError(
                "expected ramp and labels of 0 or more and a temperature above 0, found "
                f"{self.ramp}, {self.labels} and {self.temperature}"
            )

    @property
    def begins(self) -> int:
        """The first epoch that trains subnets: sort channels after the one before it."""
        return self.phases[0].start

    def phase(self, epoch: int) -> int | None:
        """Which phase an epoch is in, from 0; None before the first."""
        started = [number for number, phase in enumerate(self.phases) if phase.start <= epoch]
        return started[-1] if started else None

    def weight(self, step: Step, rate: Rate) -> float:
        """What the subnets' losses are multiplied by."""
        return beta(step, warmup=self.begins + self.ramp, ramp=self.ramp, rate=rate)


def delayed_shrinking(warmup: int, *, ramp: int = 5, nets: int = 4) -> Shrinking:
    """Delayed epsilon-shrinking: the largest network alone for half of the training, then a ramp.

    With a ramp of 0 it is its ablation without epsilon-shrinking.

    Args:
        warmup: the epoch at which the ramp is over; the authors found half of all epochs best.
        ramp: epochs; the subnets begin this long before `warmup`.
        nets: the largest, the smallest, and the rest drawn.

    Raises:
        UsageError: the ramp is longer than the warm-up.
    """
    if not 0 <= ramp <= warmup:
        raise UsageError(f"ramp: expected 0 to {warmup} epochs, those of the warmup, found {ramp}")
    return Shrinking((Phase(warmup - ramp, nets),), ramp=ramp)


def early_shrinking(*, nets: int = 4) -> Shrinking:
    """BigNAS: the sandwich with in-place distillation from the first step on."""
    return Shrinking((Phase(0, nets),))


def progressive_shrinking(
    *,
    warmup: int = 0,
    kernel: int = 120,
    depth: tuple[int, int] = (25, 120),
    expand: tuple[int, int] = (25, 120),
) -> Shrinking:
    """Once-for-all: kernels, then depths, then widths; 1, 2 and 4 drawn networks a step.

    Subnets learn labels and the soft labels of a teacher: the trained full network, `frozen`. Of
    depths and widths the two largest sizes are open first, then all. A phase of 0 epochs is left
    out; the last one goes on to the end of training.

    Args:
        warmup: epochs of the full network alone; 0 where it is trained already.
        kernel: epochs.
        depth: epochs of either part.
        expand: likewise.
    """
    all_widths: dict[Kind, int | None] = {"width": None, "head_width": None, "branches": None}
    stages: list[tuple[int, int, dict[Kind, int | None]]] = [
        (kernel, 1, {"kernel": None}),
        (depth[0], 2, {"kernel": None, "depth": 2}),
        (depth[1], 2, {"kernel": None, "depth": None}),
        (expand[0], 4, {"kernel": None, "depth": None, **dict.fromkeys(all_widths, 2)}),
        (expand[1], 4, {"kernel": None, "depth": None, **all_widths}),
    ]
    phases, start = [], warmup
    for epochs, nets, opened in stages:
        if epochs:
            phases.append(Phase(start, nets, opened))
        start += epochs
    return Shrinking(tuple(phases), always=(), labels=1.0)
