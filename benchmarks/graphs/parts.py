"""What the pieces of random networks are made of, and the room that a piece is made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

T = TypeVar("T")

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class Part(nn.Module):
    """A function of a module's parts and one value, as a module."""

    def __init__(self, function: Callable[[Any, Any], Any], **parts: object) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        """The function's value."""
        return self.function(self, x)


def parameter(*shape: int) -> nn.Parameter:
    """A parameter whose values are drawn later."""
    return nn.Parameter(torch.zeros(shape))


@dataclass(frozen=True)
class Room:
    """What a piece is made for.

    A network of half the units is the same network made narrower by hand: so sizes are drawn in
    units, and a group or head keeps its width.

    Attributes:
        units: channels of what goes in, as a multiple of `scale`.
        scale: channels that one unit stands for.
        sides: of what goes in: its spatial dimensions.
        rng: decides all sizes.
    """

    units: int
    scale: int
    sides: tuple[int, ...]
    rng: np.random.Generator

    @property
    def channels(self) -> int:
        """Of what goes in."""
        return self.units * self.scale

    @property
    def dims(self) -> int:
        """How many spatial dimensions there are."""
        return len(self.sides)

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial dimensions."""
        return tuple(range(2, 2 + self.dims))

    def pick(self, options: Sequence[T]) -> T:
        """One of some options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float = 0.5) -> bool:
        """True as often as a share says."""
        return bool(self.rng.random() < share)

    def divisors(self, least: int = 1) -> list[int]:
        """What divides the units, from `least` on."""
        return [n for n in range(least, self.units + 1) if self.units % n == 0]

    def of(self, units: int) -> Room:
        """The same room for another number of units."""
        return replace(self, units=units)

    def conv(self, units: int, kernel: Any = 1, **given: Any) -> nn.Module:
        """A convolution to a number of units."""
        return CONVOLUTIONS[self.dims](self.channels, units * self.scale, kernel, **given)

    def vector(self, x: Tensor) -> Tensor:
        """One value per spatial position, after those of `x` that have lost their positions."""
        return x.reshape(*x.shape, *[1] * self.dims)


Piece = Callable[[Room], nn.Module | None]
"""Makes a piece for a room; None where it does not fit."""


def op(function: Callable[[Any], Any]) -> Piece:
    """A function of the value alone."""
    return lambda _room: Part(lambda _parts, x: function(x))


def tokens(x: Tensor) -> Tensor:
    """A feature map of shape (batch, channels, ...) as (batch, positions, channels)."""
    return x.flatten(2).transpose(1, 2)


def untied(x: Tensor, dim: int) -> Tensor:
    """A value without equal entries along a dimension: rounding decides on no order."""
    ramp = torch.linspace(0, 0.3, x.shape[dim], dtype=x.dtype)
    return x + ramp.view(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
