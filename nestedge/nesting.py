"""What every level uses of every tensor, and the proof that levels nest.

An elastic *axis* (the channels of a residual stage, the heads of an attention, the blocks of a
stage) is a list of *units* that live or die one by one. A level keeps some intervals of units of
every axis; the end points of all levels' intervals cut the axis into *segments*, and the segments
cut every tensor into *tiles*, one per combination of segments. Which tiles a level uses follows
from its intervals alone: nothing here is per element, except the codes of an element mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nestedge.errors import UsageError, did_you_mean
from nestedge.intervals import Intervals, is_subset
from nestedge.joining import Consensus
from nestedge.layouts import Axis, TensorLayout
from nestedge.usage import Keep, edges, exists, is_served, used_entries


@dataclass(frozen=True)
class Choice:
    """The units that one level keeps; an axis that is not named is kept whole."""

    kept: Mapping[str, Intervals] = field(default_factory=dict)

    def intervals(self, axis: str, size: int) -> Intervals:
        """The kept intervals of an axis of `size` units."""
        return self.kept.get(axis, ((0, size),))


@dataclass(frozen=True)
class Nesting:
    """The levels of one network, over its axes and tensors.

    Attributes:
        axes: every elastic axis by name.
        tensors: the layout of every tensor by name.
        levels: what each level keeps, by level name.
        own: level-specific tensors: for a level, the names of the tensors of which it has a
            copy of its own (batch-norm sets), of the size that the level uses.
        patterns: for a tensor with an element mask, the set of levels behind each code; code 0
            is the weights that no level uses.
        consensus: the levels that are made of others, and use what these do.
    """

    axes: Mapping[str, Axis]
    tensors: Mapping[str, TensorLayout]
    levels: Mapping[str, Choice] = field(default_factory=dict)
    own: Mapping[str, frozenset[str]] = field(default_factory=dict)
    patterns: Mapping[str, tuple[frozenset[str], ...]] = field(default_factory=dict)
    consensus: Mapping[str, Consensus] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all levels, those made of others last."""
        return (*self.levels, *self.consensus)

    def members(self, level: str) -> tuple[str, ...]:
        """The levels that a level is made of: itself, or the members of a consensus.

        Raises:
            UsageError: there is no such level.
        """
        if level in self.consensus:
            return self.consensus[level].members
        self.choice(level)
        return (level,)

    @cached_property
    def segments(self) -> dict[str, tuple[int, ...]]:
        """For every axis its breakpoints 0 = b0 < b1 < ... = size: segment i is b[i]..b[i+1]."""
        return {
            name: tuple(
                sorted(
                    {0, axis.size}.union(
                        *(
                            end
                            for choice in self.levels.values()
                            for end in choice.intervals(name, axis.size)
                        )
                    )
                )
            )
            for name, axis in self.axes.items()
        }

    def choice(self, level: str) -> Choice:
        """What `level` keeps.

        Raises:
            UsageError: there is no such level, or it is a consensus.
        """
        if level in self.consensus:
            members = list(self.consensus[level].members)
            raise UsageError(f"level {level!r} is a consensus of {members}; ask for one of these")
        if level not in self.levels:
            raise UsageError(
                f"no level {level!r}; the network has {list(self.names)}"
                f"{did_you_mean(level, self.names)}"
            )
        return self.levels[level]

    def live(self, level: str) -> dict[str, npt.NDArray[np.bool_]]:
        """For every axis which units the level keeps: shape (size,), dtype bool."""
        choice = self.choice(level)
        return {name: self._live_axis(choice, name) for name in self.axes}

    def _live_axis(self, choice: Choice, name: str) -> npt.NDArray[np.bool_]:
        live = np.zeros(self.axes[name].size, dtype=bool)
        for start, stop in choice.intervals(name, len(live)):
            live[start:stop] = True
        return live

    def uses(self, level: str, tensor: str) -> tuple[Intervals | None, ...] | None:
        """Which entries of a tensor a level uses.

        Returns:
            For each dimension the entries used, as intervals (None: the whole dimension), or
            None when the level does not have the tensor at all.

        Raises:
            UsageError: there is no such level.
        """
        choice = self.choice(level)
        layout = self.tensors[tensor]
        keep = self._keep(choice)
        if not exists(layout, keep) or not is_served(layout, keep):
            return None
        return tuple(used_entries(rows, keep, chosen=choice.kept) for rows in layout.covers())

    def unserved(self, level: str) -> set[str]:
        """The tensors that only outputs need that the level does not give."""
        keep = self._keep(self.choice(level))
        return {name for name, layout in self.tensors.items() if not is_served(layout, keep)}

    def _keep(self, choice: Choice) -> Keep:
        return lambda axis: choice.intervals(axis, self.axes[axis].size)

    def contains(self, larger: str, smaller: str) -> bool:
        """Whether every weight that `smaller` uses is used by `larger` too.

        Kept intervals of every axis being subsets is enough: what a level uses of a tensor is
        a monotone function of them. Element masks are compared by their codes. A consensus contains
        what one of its members does, and lies in another one that has more members than its own.
        """
        members = set(self.members(larger))
        if smaller in self.consensus:
            others = set(self.members(smaller))
            return larger == smaller or (larger in self.consensus and others < members)
        if larger in self.consensus:
            return any(self.contains(member, smaller) for member in members)
        return self.structure_contains(larger, smaller) and not self.stray_codes(larger, smaller)

    def structure_contains(self, larger: str, smaller: str) -> bool:
        """Whether the axes of `smaller` lie inside those of `larger`, element masks aside."""
        big, small = self.choice(larger), self.choice(smaller)
        return all(
            is_subset(small.intervals(name, axis.size), big.intervals(name, axis.size))
            for name, axis in self.axes.items()
        )

    def stray_codes(self, larger: str, smaller: str) -> dict[str, tuple[int, ...]]:
        """For each masked tensor the codes that `smaller` uses and `larger` does not."""
        stray = {
            tensor: tuple(
                code
                for code, levels in enumerate(patterns)
                if smaller in levels and larger not in levels
            )
            for tensor, patterns in self.patterns.items()
        }
        return {tensor: codes for tensor, codes in stray.items() if codes}

    def is_masked(self, level: str) -> bool:
        """Whether a level lacks weights of its axes by an element mask."""
        return any(
            level not in levels for patterns in self.patterns.values() for levels in patterns[1:]
        )

    def order(self) -> tuple[tuple[str, str], ...]:
        """Every pair (smaller, larger) of levels of which the first is inside the second."""
        return tuple(
            (small, large)
            for small in self.names
            for large in self.names
            if small != large and self.contains(large, small)
        )

    def is_chain(self) -> bool:
        """Whether of any two levels one contains the other."""
        names = self.names
        return all(
            self.contains(a, b) or self.contains(b, a)
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        )

    def with_level(self, name: str, choice: Choice, *, own: Iterable[str] = ()) -> Nesting:
        """The nesting with one more level; segments split, no stored tensor changes.

        Raises:
            UsageError: the name is taken, an axis is unknown or would be left empty.
        """
        self._check_free(name)
        for axis, intervals in choice.kept.items():
            if axis not in self.axes:
                raise UsageError(f"no axis {axis!r}{did_you_mean(axis, self.axes)}")
            self._check_intervals(name, axis, intervals)
        wider = replace(
            self,
            levels={**self.levels, name: choice},
            own={**self.own, name: frozenset(own)},
        )
        for tensor in self.tensors:
            # An axis may go as a whole where blocks do, but no tensor that stays may be empty.
            if () in (wider.uses(name, tensor) or (None,)):
                raise UsageError(f"level {name!r} leaves nothing of {tensor!r}; keep a unit of it")
        return wider

    def with_consensus(self, name: str, consensus: Consensus) -> Nesting:
        """The nesting with one more level that is made of others.

        Raises:
            UsageError: the name is taken, a member is unknown, a consensus itself or named twice,
                or there is only one.
        """
        self._check_free(name)
        for member in consensus.members:
            self.choice(member)
        if len(set(consensus.members)) < max(2, len(consensus.members)):
            raise UsageError(
                f"level {name!r}: expected two or more different levels of "
                f"{list(self.levels)}, found {list(consensus.members)}"
            )
        return replace(self, consensus={**self.consensus, name: consensus})

    def _check_free(self, name: str) -> None:
        if name in self.names:
            raise UsageError(f"level {name!r} exists already; choose another name")

    def without_level(self, name: str) -> Nesting:
        """The nesting with one level less.

        Raises:
            UsageError: there is no such level, or a consensus needs it.
        """
        if name in self.consensus:
            left = {n: consensus for n, consensus in self.consensus.items() if n != name}
            return replace(self, consensus=left)
        self.choice(name)
        needing = [n for n, consensus in self.consensus.items() if name in consensus.members]
        if needing:
            raise UsageError(
                f"level {name!r} is in the consensus {needing[0]!r}; remove that first"
            )
        others = [level for level in self.levels if level != name]
        return replace(
            self,
            levels={level: self.levels[level] for level in others},
            own={level: self.own[level] for level in others},
            patterns={
                tensor: tuple(levels - {name} for levels in patterns)
                for tensor, patterns in self.patterns.items()
            },
        )

    def _check_intervals(self, level: str, axis: str, intervals: Intervals) -> None:
        size = self.axes[axis].size
        if not intervals and self.axes[axis].kind == "outputs":
            raise UsageError(f"level {level!r} gives no output; name one")
        flat = [end for interval in intervals for end in interval]
        if flat and (flat[0] < 0 or flat[-1] > size or any(a >= b for a, b in pairwise(flat))):
            raise UsageError(
                f"level {level!r}, axis {axis!r}: expected ascending, disjoint intervals within "
                f"0..{size}, found {[list(interval) for interval in intervals]}"
            )

    def tiles(self, tensor: str) -> int:
        """Into how many tiles the segments cut a tensor."""
        count = 1
        chosen = {axis for choice in self.levels.values() for axis in choice.kept}
        for rows in self.tensors[tensor].covers():
            found = {edge for row in rows for edge in edges(row, self.segments, chosen=chosen)}
            count *= max(1, len(found))
        return count
