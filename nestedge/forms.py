"""What a converter may have done to the entries of a tensor: rounded, or made whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nestedge.expressions import Array, Expression, cast, clipped, quantized
from nestedge.quantization import in_steps


class Form(Protocol):
    """Something that a converter may have done to every entry of a tensor."""

    def of(self, entries: Array) -> Array:
        """The first entries of a tensor in this form, flat."""
        ...

    def expression(self, source: Expression) -> Expression:
        """The same of an expression."""
        ...


@dataclass(frozen=True)
class Rounded:
    """Another floating-point dtype; what is too large for it becomes infinite or its largest."""

    dtype: np.dtype[Any]
    saturates: bool

    def of(self, entries: Array) -> Array:
        """The first entries of a tensor in this form, flat."""
        # What becomes infinite is not the constant, and is seen to differ.
        with np.errstate(over="ignore"):
            return (
                np.clip(entries, -self._most, self._most) if self.saturates else entries
            ).astype(self.dtype)

    def expression(self, source: Expression) -> Expression:
        """The same of an expression."""
        kept = clipped(source, -self._most, self._most) if self.saturates else source
        return cast(kept, self.dtype.name)

    @property
    def _most(self) -> float:
        return float(np.finfo(self.dtype).max)


@dataclass(frozen=True)
class InSteps:
    """Whole numbers of steps: one for each entry, and the expression of all along an axis."""

    steps: Array
    scale: Expression
    axis: int | None
    dtype: str

    def of(self, entries: Array) -> Array:
        """The first entries of a tensor in this form, flat."""
        return in_steps(entries, self.steps[: len(entries)], self.dtype)

    def expression(self, source: Expression) -> Expression:
        """The same of an expression."""
        return quantized(source, self.scale, self.axis, self.dtype)
