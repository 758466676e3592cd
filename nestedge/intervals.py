"""Intervals of whole numbers: which units of an axis a level keeps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Intervals = tuple[tuple[int, int], ...]
"""Units kept, as ascending, disjoint, non-touching half-open intervals."""


def merged(intervals: Iterable[tuple[int, int]]) -> Intervals:
    """Ascending intervals with touching ones joined.

    >>> merged([(0, 2), (2, 5), (7, 8)])
    ((0, 5), (7, 8))
    """
    found: list[tuple[int, int]] = []
    for start, stop in intervals:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return tuple(found)


def is_subset(inner: Intervals, outer: Intervals) -> bool:
    """Whether every unit of `inner` lies in `outer`.

    >>> is_subset(((0, 2), (4, 5)), ((0, 6),))
    True
    """
    return all(any(low <= start and stop <= high for low, high in outer) for start, stop in inner)


def common(one: Intervals, other: Intervals) -> Intervals:
    """What two lists of intervals have in common.

    >>> common(((0, 4), (6, 9)), ((2, 7),))
    ((2, 4), (6, 7))
    """
    return tuple(
        (max(start, low), min(stop, high))
        for start, stop in one
        for low, high in other
        if max(start, low) < min(stop, high)
    )


def intervals_of(live: npt.NDArray[np.bool_]) -> Intervals:
    """The intervals of the true entries of a mask of shape (units,).

    >>> intervals_of(np.array([True, True, False, True]))
    ((0, 2), (3, 4))
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], live, [False])).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def entries(intervals: Intervals | None, size: int) -> npt.NDArray[np.bool_]:
    """Intervals as a mask: shape (size,)."""
    if intervals is None:
        return np.ones(size, dtype=bool)
    kept = np.zeros(size, dtype=bool)
    for start, stop in intervals:
        kept[start:stop] = True
    return kept
