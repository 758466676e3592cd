"""How the learning rate changes from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.training.recipes.tables import at, table
from nestedge.training.shrinking import Rate

Shape = Literal["constant", "cosine", "step"]

_KEYS: dict[Shape, tuple[str, ...]] = {
    "constant": ("name", "warmup"),
    "cosine": ("name", "warmup", "floor"),
    "step": ("name", "warmup", "milestones", "factor"),
}


@dataclass(frozen=True)
class ScheduleTable:
    """A schedule of the learning rate.

    Attributes:
        shape: constant, half a cosine, or steps down.
        warmup: epochs in which the rate rises in a straight line to begin with.
        floor: for a cosine the share of the rate that it ends with.
        milestones: for steps the epochs before which the rate falls.
        factor: for steps what the rate is multiplied by at each.
    """

    shape: Shape
    warmup: float
    floor: float
    milestones: tuple[float, ...]
    factor: float

    def rate(self, base: float, *, epochs: int, steps: int) -> Rate:
        """The learning rate when a share of training is done.

        Args:
            base: the rate of the optimizer.
            epochs: of the training.
            steps: of an epoch.
        """
        rising = self.warmup * steps

        def rate(done: float) -> float:
            step = done * epochs * steps
            if step < rising:
                # The first step is not one of rate 0.
                return base * min(1.0, (math.floor(step + 1e-6) + 1) / rising)
            return base * self._share(step / steps, epochs)

        return rate

    def _share(self, epoch: float, epochs: int) -> float:
        if self.shape == "step":
            return self.factor ** sum(epoch > milestone - 1e-6 for milestone in self.milestones)
        if self.shape == "constant":
            return 1.0
        done = min(1.0, (epoch - self.warmup) / max(epochs - self.warmup, 1e-9))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


def schedule_table(value: Value) -> ScheduleTable:
    """The schedule that a table describes; none is a constant rate.

    Raises:
        FormatError: a key is unknown or missing, or what it says is out of range.
    """
    if not isinstance(value.data, dict):
        raise value.error("a table")
    given = value.members().get("name")
    shape: Shape = "constant" if given is None else given.choice("constant", "cosine", "step")
    found = table(value, _KEYS[shape])
    warmup, floor = found.get("warmup"), found.get("floor")
    milestones = found.numbers("milestones") or ()
    if shape == "step" and (not milestones or list(milestones) != sorted(set(milestones))):
        raise FormatError(f"{at(value, 'milestones')}: expected rising epochs as [80, 120]")
    for member in (warmup, floor):
        if member is not None and member.number() < 0:
            raise member.error("a number from 0 on")
    if floor is not None and floor.number() > 1:
        raise floor.error("a share of the rate, up to 1")
    return ScheduleTable(
        shape,
        0.0 if warmup is None else warmup.number(),
        0.0 if floor is None else floor.number(),
        milestones,
        found.share("factor", 0.1),
    )
