"""Levels as a recipe writes them."""

from __future__ import annotations

from nestedge.documents import Value
from nestedge.levels import Level, Share, Units
from nestedge.training.recipes.tables import table

_KEYS = ("width", "head_width", "kernel", "depth", "branches")


def level_of(value: Value) -> Level:
    """A level: a share of all widths, or a table of what it keeps.

    A number with a point is a share, one without a number of units.

    Raises:
        FormatError: it is neither.
    """
    if isinstance(value.data, Level):
        return value.data
    if isinstance(value.data, float):
        return Level(width=_share(value))
    if not isinstance(value.data, dict):
        # A width of 1 would be one channel of every layer, which nobody means.
        raise value.error("a share as 0.5 or 1.0, or a table as {width = 0.5, depth = 0.5}")
    found = table(value, _KEYS)
    width, heads, kernel = found.get("width"), found.get("head_width"), found.get("kernel")
    depth, branches = found.get("depth"), found.get("branches")
    return Level(
        width=1.0 if width is None else _each(width),
        head_width=1.0 if heads is None else _each(heads),
        kernel=None if kernel is None else _kernel(kernel),
        depth=1.0 if depth is None else _depth(depth),
        branches=1.0 if branches is None else _each(branches),
    )


def _depth(value: Value) -> Share | list[int] | dict[str, Units]:
    """As `_each`, or a number of blocks for every stage."""
    return _numbers(value) if isinstance(value.data, list) else _each(value)


def _each(value: Value) -> Share | dict[str, Units]:
    """One choice for the whole network, or one for each pattern of names of axes."""
    if isinstance(value.data, dict):
        return {pattern: _units(member) for pattern, member in value.members().items()}
    return _share(value)


def _share(value: Value) -> Share:
    if isinstance(value.data, int):
        return value.integer(minimum=1)
    return value.number()


def _units(value: Value) -> Units:
    return _numbers(value) if isinstance(value.data, list) else _share(value)


def _numbers(value: Value) -> list[int]:
    return [item.integer(minimum=0) for item in value.elements()]


def _kernel(value: Value) -> int | dict[str, int]:
    if isinstance(value.data, dict):
        return {pattern: v.integer(minimum=1) for pattern, v in value.members().items()}
    return value.integer(minimum=1)
