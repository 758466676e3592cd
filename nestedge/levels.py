"""What a user asks of a level, and which units of which axes that is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from nestedge.errors import UsageError, did_you_mean
from nestedge.intervals import Intervals, intervals_of
from nestedge.layouts import KINDS, Axis, Kind
from nestedge.nesting import Choice

Share = float | int
"""A share of the units (float, 0 < share <= 1) or a number of them (int)."""

Units = Share | Sequence[int]
"""The first units, as a share or a number of them, or a list of units by their numbers from 0."""


@dataclass(frozen=True)
class Level:
    """A level as a user asks for it.

    Of width, head width, depth and branches an axis keeps its first units: a share of them (float)
    or a number of them (int), or those in a list. One share may be asked for of all axes, or for
    each pattern of axis names something else: the last pattern that fits an axis counts, and an
    axis that none fits is kept whole.

    Attributes:
        width: of channels, attention heads and groups of convolutions.
        head_width: of the channels of every head, or of every group of a grouped convolution: all
            of its heads keep the same.
        kernel: the largest size of a kernel, or for each pattern a size: kernels above it keep
            their middle, and the padding is as much less, so that the output keeps its size.
        depth: of the blocks of the stages; or a number of blocks for every stage, in order.
        branches: of the modules side by side whose outputs are added or concatenated: the branches
            of a block, the experts of a layer.
        outputs: the names of the outputs that the level gives, where the network has several; all
            unless given. What only the others need is not in the level.
        masks: for names of weights an array of the weight's shape that is true where the level
            has the weight (unstructured pruning). The channels stay; their weights are zero.
    """

    width: Share | Mapping[str, Units] = 1.0
    head_width: Share | Mapping[str, Units] = field(default=1.0, kw_only=True)
    kernel: int | Mapping[str, int] | None = field(default=None, kw_only=True)
    branches: Share | Mapping[str, Units] = field(default=1.0, kw_only=True)
    depth: Share | Sequence[int] | Mapping[str, Units] = 1.0
    outputs: str | Sequence[str] | None = field(default=None, kw_only=True)
    masks: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Check that a level may be called so: its name is a part of those of files.

    Raises:
        UsageError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise UsageError(
            f"level {name!r}: expected letters, digits, '_' and '-' only, and no '-' first"
        )


def choose(level: Level, name: str, axes: Mapping[str, Axis], *, divisor: int) -> Choice:
    """The units that a level keeps of every axis.

    Args:
        level: what is asked for.
        name: the level's name, for errors.
        axes: all axes of the network, of every kind.
        divisor: channels are rounded to a multiple of this, as `rounded_units` says.

    Raises:
        UsageError: a pattern fits no axis, or what is asked of an axis is out of range or leaves
            nothing.
    """
    kept: dict[str, Intervals] = {}
    for kind in KINDS:
        of_kind = {n: axis for n, axis in axes.items() if axis.kind == kind}
        asked = _asked(getattr(level, kind), of_kind, kind, level=name)
        for axis_name, units in asked.items():
            axis, where = of_kind[axis_name], f"level {name!r}, axis {axis_name!r}"
            intervals = _kept(axis, units, divisor=divisor, where=where)
            if intervals != ((0, axis.size),):
                kept[axis_name] = intervals
    return Choice(kept)


def chosen_outputs(level: Level, name: str, outputs: Sequence[str]) -> Intervals:
    """The outputs that a level gives, by their places in the network's.

    Args:
        level: what is asked for.
        name: the level's name, for errors.
        outputs: the names of all outputs, in order.

    Raises:
        UsageError: an output is unknown or named twice, or none is named.
    """
    if level.outputs is None:
        return ((0, len(outputs)),)
    asked = [level.outputs] if isinstance(level.outputs, str) else list(level.outputs)
    for output in asked:
        if output not in outputs:
            raise UsageError(
                f"level {name!r}: no output {output!r}; the network has {list(outputs)}"
                f"{did_you_mean(output, outputs)}"
            )
    if not asked or len(set(asked)) < len(asked):
        raise UsageError(
            f"level {name!r}: outputs: expected some of {list(outputs)}, each once, found {asked}"
        )
    return intervals_of(np.array([output in asked for output in outputs]))


def _kept(axis: Axis, asked: Units, *, divisor: int, where: str) -> Intervals:
    if isinstance(asked, Sequence):
        return _listed(axis, asked, where=where)
    if axis.kind == "kernel":
        rings = kept_rings(axis, asked, where=where)
        return ((0, rings),) if rings else ()
    if axis.kind in ("depth", "branches"):
        what = "blocks" if axis.kind == "depth" else "branches"
        return ((0, kept_blocks(axis.size, asked, where=where, what=what)),)
    return ((0, rounded_units(axis.size, asked, divisor=divisor, unit=axis.unit, where=where)),)


def _listed(axis: Axis, units: Sequence[int], *, where: str) -> Intervals:
    fits = all(type(unit) is int and 0 <= unit < axis.size for unit in units)
    if not fits or not units or len(set(units)) < len(units) or axis.kind == "kernel":
        what = "a size" if axis.kind == "kernel" else f"different numbers of 0 to {axis.size - 1}"
        raise UsageError(f"{where}: expected {what}, found {list(units)}")
    live = np.zeros(axis.size, dtype=bool)
    live[list(units)] = True
    return intervals_of(live)


def _asked(
    asked: Units | Mapping[str, Units] | None, axes: Mapping[str, Axis], kind: Kind, *, level: str
) -> dict[str, Units]:
    what = f"level {level!r}: {kind}"
    if asked is None:
        return {}
    if isinstance(asked, Mapping):
        found: dict[str, Units] = {}
        for pattern, units in asked.items():
            # Brackets are part of some axes' names, and sets of characters in a pattern.
            fitting = [axis for axis in axes if axis == pattern or fnmatchcase(axis, pattern)]
            if not fitting:
                raise UsageError(
                    f"{what}: no axis fits {pattern!r}; the network has {some_names(axes)}"
                    f"{did_you_mean(pattern, axes)}"
                )
            found.update(dict.fromkeys(fitting, units))
        return found
    if isinstance(asked, Sequence):
        if kind != "depth":
            raise UsageError(
                f"{what}: expected one share, or lists by names of axes, found {asked}"
            )
        if len(asked) != len(axes):
            raise UsageError(
                f"{what}: expected {len(axes)} numbers for {list(axes)}, found {asked}"
            )
        return dict(zip(axes, asked, strict=True))
    if not axes and asked != 1.0 and kind not in ("width", "depth"):
        raise UsageError(
            f"{what}: found {asked}, and no axis of this kind in the network; leave it"
        )
    return dict.fromkeys(axes, asked)


def some_names(names: Iterable[str], limit: int = 6) -> str:
    """The first few names, and how many there are more, for errors."""
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


def kept_blocks(size: int, share: Share, *, where: str = "depth", what: str = "blocks") -> int:
    """How many blocks or branches are kept: a number (int), or a share rounded half up.

    Raises:
        UsageError: the number is out of range; at least the first one is kept.

    >>> kept_blocks(3, 0.5)
    2
    """
    if isinstance(share, bool) or not math.isfinite(share) or not share > 0:
        raise UsageError(f"{where}: expected a share of its {what} above 0, found {share!r}")
    if isinstance(share, int):
        if share > size:
            raise UsageError(f"{where}: expected 1 to {size} {what}, found {share}")
        return share
    if share > 1:
        raise UsageError(f"{where}: expected a multiplier of at most 1.0, found {share!r}")
    return max(1, math.floor(share * size + 0.5))


def kept_rings(axis: Axis, size: Share, *, where: str = "kernel") -> int:
    """How many rings of a kernel are left when it is cropped to a size; all of a smaller one.

    Raises:
        UsageError: no crop has that size: every ring is two taps, and its padding has to spare it.

    >>> kept_rings(Axis(3, unit=2, kind="kernel", base=1), 5)
    2
    """
    sizes = range(axis.base, axis.base + axis.unit * axis.size + 1, axis.unit)
    if isinstance(size, int) and not isinstance(size, bool) and size >= sizes[-1]:
        return axis.size
    if isinstance(size, bool) or size not in sizes:
        *others, last = map(str, sizes)
        raise UsageError(f"{where}: expected {', '.join(others)} or {last}, found {size!r}")
    return sizes.index(int(size))
