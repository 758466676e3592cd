"""Which entries of a tensor a level uses, and where that may change between levels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import accumulate

from nestedge.intervals import Intervals, common, merged
from nestedge.layouts import Run, TensorLayout

Keep = Callable[[str], Intervals]
"""The intervals of units that a level keeps of an axis."""


def exists(layout: TensorLayout, keep: Keep) -> bool:
    """Whether a level has all that a tensor requires."""
    return all(_keeps(keep, *unit) for unit in layout.requires)


def is_served(layout: TensorLayout, keep: Keep) -> bool:
    """Whether a level gives an output that needs a tensor."""
    return not layout.serves or any(_keeps(keep, *unit) for unit in layout.serves)


def _keeps(keep: Keep, axis: str, unit: int) -> bool:
    return any(start <= unit < stop for start, stop in keep(axis))


def used_entries(
    rows: tuple[tuple[Run, ...], ...], keep: Keep, *, chosen: Collection[str]
) -> Intervals | None:
    """The entries of a dimension that a level uses; None for all of it.

    Args:
        rows: the runs that cover the dimension: of an entry with two units one row for each.
        keep: what the level keeps.
        chosen: the axes that it does not keep whole.
    """
    found: Intervals | None = None
    for runs in rows:
        if all(run.axis is None or run.axis not in chosen for run in runs):
            continue
        kept = merged(list(_kept_entries(runs, keep)))
        found = kept if found is None else common(found, kept)
    return found


def _kept_entries(runs: tuple[Run, ...], keep: Keep) -> Iterator[tuple[int, int]]:
    offset = 0
    for run in runs:
        for start, stop in _clipped(run, keep):
            shift = offset - run.start * run.repeat
            yield start * run.repeat + shift, stop * run.repeat + shift
        offset += run.entries


def _clipped(run: Run, keep: Keep) -> Iterator[tuple[int, int]]:
    if run.axis is None:
        yield run.start, run.stop
        return
    for start, stop in keep(run.axis):
        low, high = max(start, run.start), min(stop, run.stop)
        if low < high:
            yield low, high


def edges(
    runs: tuple[Run, ...], segments: Mapping[str, tuple[int, ...]], *, chosen: Collection[str]
) -> Iterator[int]:
    """The entries of a dimension at which what levels keep of it may change.

    Args:
        runs: that cover the dimension.
        segments: the breakpoints of every axis.
        chosen: the axes that some level does not keep whole.
    """
    was_chosen = True
    offsets = accumulate((run.entries for run in runs), initial=0)
    for run, offset in zip(runs, offsets, strict=False):
        is_chosen = run.axis in chosen
        if is_chosen or was_chosen:
            yield offset
        for bound in segments[run.axis] if run.axis is not None else ():
            if run.start < bound < run.stop:
                yield offset + (bound - run.start) * run.repeat
        was_chosen = is_chosen
