"""What a user asks of a level, and which units of which axes that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from nestedge.errors import UsageError, did_you_mean
from nestedge.intervals import Intervals
from nestedge.nesting import Axis, Choice

Share = float | int
"""A share of the units (float, 0 < share <= 1) or a number of them (int)."""


@dataclass(frozen=True)
class Level:
    """A level as a user asks for it.

    Attributes:
        width: a multiplier for every width axis, or for each pattern of axis names a multiplier
            (float) or a number of units (int); the last pattern that fits an axis counts, and an
            axis that none fits is kept whole.
        depth: the same for the stages' blocks, of which the first ones are kept; or a number of
            blocks for every stage, in order.
        masks: for names of weights an array of the weight's shape that is true where the level
            has the weight (unstructured pruning). The channels stay; their weights are zero.
    """

    width: Share | Mapping[str, Share] = 1.0
    depth: Share | Sequence[int] | Mapping[str, Share] = 1.0
    masks: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


def choose(level: Level, name: str, axes: Mapping[str, Axis], *, divisor: int) -> Choice:
    """The units that a level keeps of every axis: the first ones.

    Args:
        level: what is asked for.
        name: the level's name, for errors.
        axes: all axes of the network, width and depth.
        divisor: channels are rounded to a multiple of this, as `rounded_units` says.

    Raises:
        UsageError: a pattern fits no axis, a width or depth is out of range or leaves nothing.
    """
    kept: dict[str, Intervals] = {}
    width = {n: axis for n, axis in axes.items() if axis.kind == "width"}
    depth = {n: axis for n, axis in axes.items() if axis.kind == "depth"}
    for axis_name, share in _shares(level.width, width, f"level {name!r}: width").items():
        axis = width[axis_name]
        where = f"level {name!r}, axis {axis_name!r}"
        units = rounded_units(axis.size, share, divisor=divisor, unit=axis.unit, where=where)
        if units < axis.size:
            kept[axis_name] = ((0, units),)
    for axis_name, share in _shares(level.depth, depth, f"level {name!r}: depth").items():
        blocks = kept_blocks(depth[axis_name].size, share, where=f"level {name!r}, {axis_name!r}")
        if blocks < depth[axis_name].size:
            kept[axis_name] = ((0, blocks),)
    return Choice(kept)


def _shares(
    asked: Share | Sequence[int] | Mapping[str, Share], axes: Mapping[str, Axis], what: str
) -> dict[str, Share]:
    if isinstance(asked, Mapping):
        found: dict[str, Share] = {}
        for pattern, share in asked.items():
            # Brackets are part of some axes' names, and sets of characters in a pattern.
            fitting = [axis for axis in axes if axis == pattern or fnmatchcase(axis, pattern)]
            if not fitting:
                raise UsageError(
                    f"{what}: no axis fits {pattern!r}; the network has {_some(axes)}"
                    f"{did_you_mean(pattern, axes)}"
                )
            found.update(dict.fromkeys(fitting, share))
        return found
    if isinstance(asked, Sequence):
        if len(asked) != len(axes):
            raise UsageError(
                f"{what}: expected {len(axes)} numbers for {list(axes)}, found {asked}"
            )
        return dict(zip(axes, asked, strict=True))
    return dict.fromkeys(axes, asked)


def _some(names: Iterable[str], limit: int = 6) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(map(repr, listed[:limit])) + more if listed else "none"


def rounded_units(size: int, share: Share, *, divisor: int, unit: int, where: str = "width") -> int:
    """How many of an axis's units a width keeps.

    A number (int) is taken as it is. A multiplier is rounded half up so that the channels are
    a multiple of `divisor`, at least one such multiple (as MobileNet's `make_divisible`, Sandler
    et al., 2018, arXiv:1801.04381) and at most all.

    Args:
        size: units of the axis.
        share: multiplier (float) or number of units (int).
        divisor: what the number of channels is to be a multiple of.
        unit: channels that one unit stands for.
        where: what to call the axis in errors.

    Raises:
        UsageError: the share is out of range, or leaves less than half a unit.

    >>> rounded_units(64, 0.3, divisor=8, unit=1)
    16
    >>> rounded_units(6, 0.5, divisor=8, unit=64)
    3
    """
    if isinstance(share, bool) or not math.isfinite(share) or not share > 0:
        raise UsageError(f"{where}: expected a width above 0, found {share!r}")
    if isinstance(share, int):
        if share > size:
            raise UsageError(f"{where}: expected 1 to {size} units, found {share}")
        return share
    if share > 1:
        raise UsageError(f"{where}: expected a multiplier of at most 1.0, found {share!r}")
    if share == 1 or size == 1:
        # Rounded, 10 channels at divisor 8 would be 8: the full network would not be the full one.
        # And a single head or group can only stay.
        return size
    if share * size < 0.5:
        raise UsageError(
            f"{where}: width {share!r} leaves none of its {size} units; "
            f"the smallest that leaves one is {math.ceil(500 / size) / 1000}"
        )
    step = divisor // math.gcd(divisor, unit)
    return min(size, max(step, math.floor(share * size / step + 0.5) * step))


def kept_blocks(size: int, share: Share, *, where: str = "depth") -> int:
    """How many of a stage's blocks a depth keeps: a number (int), or a share rounded half up.

    Raises:
        UsageError: the depth is out of range; a stage keeps at least its first block.

    >>> kept_blocks(3, 0.5)
    2
    """
    if isinstance(share, bool) or not math.isfinite(share) or not share > 0:
        raise UsageError(f"{where}: expected a depth above 0, found {share!r}")
    if isinstance(share, int):
        if share > size:
            raise UsageError(f"{where}: expected 1 to {size} blocks, found {share}")
        return share
    if share > 1:
        raise UsageError(f"{where}: expected a multiplier of at most 1.0, found {share!r}")
    return max(1, math.floor(share * size + 0.5))
