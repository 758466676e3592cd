"""What a consensus is: a level whose output is made from those of other levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Of = Literal["outputs", "probabilities"]

OF: tuple[Of, ...] = get_args(Of)


@dataclass(frozen=True)
class Layer:
    """The learned layer of a consensus.

    Attributes:
        classes: how many there are: entries of a member's output, and of its own.
        dtype: of its weight and bias, by name.
    """

    classes: int
    dtype: str


@dataclass(frozen=True)
class Consensus:
    """A level that runs others and joins their outputs, as NestedNet's consensus networks do.

    Attributes:
        members: the levels that it runs.
        output: the name of the output that all of them give, and that it gives.
        of: what it joins: the members' outputs as they are, or the softmax of each.
        layer: what it puts on their concatenation; None where it gives their average.
    """

    members: tuple[str, ...]
    output: str
    of: Of
    layer: Layer | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its own tensors by name."""
        if self.layer is None:
            return {}
        classes = self.layer.classes
        return {"weight": (classes, classes * len(self.members)), "bias": (classes,)}
