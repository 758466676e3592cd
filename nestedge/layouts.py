"""Elastic axes, and how the entries of a tensor depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

Kind = Literal["width", "head_width", "kernel", "depth", "branches", "outputs"]

KINDS: tuple[Kind, ...] = ("width", "head_width", "kernel", "depth", "branches")
"""The kinds of axes that a level has shares, numbers or lists of units of: all but "outputs"."""


@dataclass(frozen=True)
class Axis:
    """One elastic axis of a network.

    Attributes:
        size: how many units there are.
        unit: entries of a tensor that one unit stands for where it first occurs: 1 for a channel,
            the head width for a head, the channels of a group for a group, 2 for a ring of a
            kernel: its first and its last tap.
        kind: what the units are: "width": channels, heads or groups; "head_width": places in a
            head or group, the same in each of them; "kernel": the rings around the middle of a
            kernel, from within; "depth": blocks; "branches": modules side by side; "outputs": what
            the network returns.
        base: entries beside the units that every level has where the axis first occurs: of a
            kernel the taps in the middle.
    """

    size: int
    unit: int = 1
    kind: Kind = "width"
    base: int = 0


@dataclass(frozen=True)
class Run:
    """Consecutive entries of one dimension: `repeat` for each of the units start..stop of an axis.

    A run without an axis is `stop - start` entries that every level has.
    """

    axis: str | None
    start: int
    stop: int
    repeat: int = 1

    @property
    def entries(self) -> int:
        """How many entries of the dimension the run covers."""
        return (self.stop - self.start) * self.repeat


@dataclass(frozen=True)
class TensorLayout:
    """How the entries of one tensor depend on the axes.

    Attributes:
        dims: for each dimension the runs that cover it, in order; empty for a dimension that
            every level has whole.
        inner: the same once more where an entry has two units, say of a head and of a place in
            the head, and a level has it where it keeps both; empty where no dimension does.
        requires: blocks and branches (axis, unit) without which the tensor does not exist.
        serves: outputs (axis, unit) without all of which the tensor does not exist: those that
            need it; empty where every output does, or none.
    """

    dims: tuple[tuple[Run, ...], ...]
    requires: tuple[tuple[str, int], ...] = ()
    inner: tuple[tuple[Run, ...], ...] = ()
    serves: tuple[tuple[str, int], ...] = ()

    def covers(self) -> Iterator[tuple[tuple[Run, ...], ...]]:
        """For each dimension the rows of runs that cover it: none, one, or one inside another."""
        for runs, inside in zip_longest(self.dims, self.inner, fillvalue=()):
            yield tuple(row for row in (runs, inside) if row)
