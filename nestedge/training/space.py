"""The search space of a supernet: the sizes that its subnets choose from, axis by axis.

Elastic kernels, depths and widths as in once-for-all (Cai et al., 2020, arXiv:1908.09791). Every
layer chooses by itself: "Mix'n'Match" of MatFormer (Devvrit et al., 2023, arXiv:2310.07707).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product

from nestedge.errors import UsageError, did_you_mean
from nestedge.layouts import Axis, Kind
from nestedge.levels import Level, Share, kept_blocks, kept_rings, rounded_units
from nestedge.model import NestedModel
from nestedge.nesting import Nesting

Picks = tuple[int, ...]
"""A subnet of a space: for each of its choices which option is taken, from 0, the smallest."""


@dataclass(frozen=True)
class Choices:
    """Axes that choose together: where one takes its i-th size, so do the others.

    Attributes:
        kind: of the axes.
        sizes: for every axis its sizes, ascending and as many as of the others: units of a width,
            blocks of a depth, the size of a kernel.
        within: blocks and branches (axis, unit) without which the axes do not exist.
    """

    kind: Kind
    sizes: Mapping[str, tuple[int, ...]]
    within: tuple[tuple[str, int], ...] = ()

    @property
    def options(self) -> int:
        """How many there are."""
        return len(next(iter(self.sizes.values())))


@dataclass(frozen=True)
class Space:
    """The subnets that a supernet is trained for; `space_of` makes one.

    Axes that are not in it are whole in every subnet.
    """

    choices: tuple[Choices, ...]

    def axes(self, kind: Kind) -> tuple[str, ...]:
        """The axes of a kind that subnets choose sizes of."""
        return tuple(
            axis for choice in self.choices if choice.kind == kind for axis in choice.sizes
        )

    def largest(self) -> Level:
        """The subnet with the largest size of everything."""
        return self.level(tuple(choice.options - 1 for choice in self.choices))

    def smallest(self) -> Level:
        """The subnet with the smallest size of everything."""
        return self.level((0,) * len(self.choices))

    def draw(self, generator: random.Random) -> Level:
        """A subnet, every choice with equal odds for its options."""
        return self.level(self.draw_picks(generator))

    def draw_picks(self, generator: random.Random) -> Picks:
        """As `draw`, by its picks."""
        return self.settled(generator.randrange(choice.options) for choice in self.choices)

    def mutated(self, picks: Picks, generator: random.Random, *, probability: float) -> Picks:
        """The subnet with every choice drawn anew at a probability."""
        return self.settled(
            generator.randrange(choice.options) if generator.random() < probability else pick
            for choice, pick in zip(self.choices, picks, strict=True)
        )

    def crossed(self, one: Picks, other: Picks, generator: random.Random) -> Picks:
        """A subnet that takes every option from one of two others."""
        return self.settled(generator.choice(pair) for pair in zip(one, other, strict=True))

    def settled(self, picks: Iterable[int]) -> Picks:
        """The picks with the first option for every choice inside a block that is left out.

        So the same network has the same picks.
        """
        found = tuple(picks)
        sizes = self._sizes(found)
        return tuple(
            0 if _is_idle(choice, sizes) else pick
            for choice, pick in zip(self.choices, found, strict=True)
        )

    def level(self, picks: Picks) -> Level:
        """The level of a subnet."""
        asked: dict[Kind, dict[str, int]] = {}
        for choice, pick in zip(self.choices, picks, strict=True):
            sizes = {axis: sizes[pick] for axis, sizes in choice.sizes.items()}
            asked.setdefault(choice.kind, {}).update(sizes)
        return Level(
            width=asked.get("width", 1.0),
            head_width=asked.get("head_width", 1.0),
            kernel=asked.get("kernel"),
            branches=asked.get("branches", 1.0),
            depth=asked.get("depth", 1.0),
        )

    def opened(self, options: Mapping[Kind, int | None]) -> Space:
        """The part of the space that progressive shrinking has opened.

        Args:
            options: for a kind how many of its largest sizes there are, None for all; a kind that
                is not named has its largest size only.
        """
        choices = []
        for choice in self.choices:
            count = options.get(choice.kind, 1) or choice.options
            sizes = {axis: sizes[-count:] for axis, sizes in choice.sizes.items()}
            choices.append(replace(choice, sizes=sizes))
        return Space(tuple(choices))

    @property
    def count(self) -> int:
        """How many networks there are: what a left-out block would have chosen does not count."""
        return math.prod(self._count_of(part) for part in self._parts())

    def _sizes(self, picks: Picks) -> dict[str, int]:
        return {
            axis: sizes[pick]
            for choice, pick in zip(self.choices, picks, strict=True)
            for axis, sizes in choice.sizes.items()
        }

    def _parts(self) -> list[list[Choices]]:
        """The choices, those together of which one decides whether the other exists."""
        parts: list[list[Choices]] = []
        for choice in self.choices:
            met = [part for part in parts if any(_are_linked(choice, other) for other in part)]
            parts = [part for part in parts if part not in met]
            parts.append([other for part in met for other in part] + [choice])
        return parts

    def _count_of(self, part: list[Choices]) -> int:
        deciding = {axis for choice in part for axis, _ in choice.within}
        owners = [choice for choice in part if deciding & choice.sizes.keys()]
        inner = [choice for choice in part if not deciding & choice.sizes.keys()]
        space, total = Space(tuple(owners)), 0
        for picks in product(*(range(owner.options) for owner in owners)):
            if space.settled(picks) == picks:
                sizes = space._sizes(picks)
                total += math.prod(c.options for c in inner if not _is_idle(c, sizes))
        return total


def _is_idle(choice: Choices, sizes: Mapping[str, int]) -> bool:
    """Whether a block that a choice is inside of is left out."""
    return any(axis in sizes and unit >= sizes[axis] for axis, unit in choice.within)


def _are_linked(one: Choices, other: Choices) -> bool:
    return any(
        axis in outer.sizes
        for inner, outer in ((one, other), (other, one))
        for axis, _ in inner.within
    )


def space_of(
    nested: NestedModel,
    *,
    width: Mapping[str, Sequence[Share]] | None = None,
    head_width: Mapping[str, Sequence[Share]] | None = None,
    kernel: Mapping[str, Sequence[int]] | None = None,
    depth: Mapping[str, Sequence[Share]] | None = None,
    branches: Mapping[str, Sequence[Share]] | None = None,
    together: Iterable[Sequence[str]] = (),
) -> Space:
    """The search space of a network.

    For each pattern of axis names the sizes to choose from; the last pattern that fits an axis
    counts, and every axis chooses by itself. "Expand" of once-for-all is a width: that of the
    channels inside a block.

    Args:
        nested: the network; shares are rounded to its card's divisor.
        width: shares or numbers of channels, heads and groups.
        head_width: of the channels of every head or group.
        kernel: sizes.
        depth: shares or numbers of a stage's blocks.
        branches: of the modules side by side.
        together: patterns of axes that choose together, as the squeezed channels of a block do
            with those inside it; each needs as many sizes as the others of its row.

    Raises:
        UsageError: a pattern fits no axis, a size is out of range, axes that choose together are
            of several kinds or have other numbers of sizes, or there is nothing to choose.
    """
    asked: dict[Kind, Mapping[str, Sequence[Share]] | None] = {
        "width": width,
        "head_width": head_width,
        "kernel": kernel,
        "depth": depth,
        "branches": branches,
    }
    sizes: dict[str, tuple[int, ...]] = {}
    for kind, patterns in asked.items():
        axes = {name: axis for name, axis in nested.nesting.axes.items() if axis.kind == kind}
        for pattern, options in (patterns or {}).items():
            for name in fitting(pattern, axes, where=f"space: {kind}"):
                found = _sizes_of(axes[name], options, name, divisor=nested.card.divisor)
                # Popped, so that the last pattern decides the order of the choices too.
                sizes.pop(name, None)
                sizes[name] = found
    if not sizes:
        raise UsageError("space: expected sizes of some axis, found nothing to choose")
    rows = [[a for p in row for a in fitting(p, sizes, where="together")] for row in together]
    joined = [axis for row in rows for axis in row]
    if len(set(joined)) < len(joined):
        raise UsageError(f"together: expected every axis once, found {joined}")
    alone = [[axis] for axis in sizes if axis not in joined]
    space = Space(tuple(_choices(row, sizes, nested.nesting) for row in [*alone, *rows]))
    _check_smallest(space, nested)
    return space


def fitting(pattern: str, axes: Iterable[str], *, where: str) -> list[str]:
    """The axes that a pattern fits.

    Raises:
        UsageError: there is none.
    """
    names = list(axes)
    # Brackets are part of some axes' names, and sets of characters in a pattern.
    found = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(
            f"{where}: no axis fits {pattern!r}; the network has {names}"
            f"{did_you_mean(pattern, names)}"
        )
    return found


def _sizes_of(axis: Axis, options: Sequence[Share], name: str, *, divisor: int) -> tuple[int, ...]:
    where = f"space, axis {name!r}"
    if not options:
        raise UsageError(f"{where}: expected sizes to choose from, found none")
    return tuple(sorted(_size(axis, option, divisor=divisor, where=where) for option in options))


def _size(axis: Axis, option: Share, *, divisor: int, where: str) -> int:
    if axis.kind == "kernel":
        return axis.base + axis.unit * kept_rings(axis, option, where=where)
    if axis.kind in ("depth", "branches"):
        what = "blocks" if axis.kind == "depth" else "branches"
        return kept_blocks(axis.size, option, where=where, what=what)
    return rounded_units(axis.size, option, divisor=divisor, unit=axis.unit, where=where)


def _choices(row: Sequence[str], sizes: Mapping[str, tuple[int, ...]], nesting: Nesting) -> Choices:
    kinds: set[Kind] = {nesting.axes[axis].kind for axis in row}
    counts = {axis: len(sizes[axis]) for axis in row}
    if len(kinds) > 1 or len(set(counts.values())) > 1:
        raise UsageError(
            f"together: expected axes of one kind with equally many sizes, found {counts} of "
            f"{sorted(kinds)}"
        )
    # Sizes that are rounded to the same ones are one option.
    options = sorted(set(zip(*(sizes[axis] for axis in row), strict=True)))
    columns = dict(zip(row, zip(*options, strict=True), strict=True))
    return Choices(kinds.pop(), columns, _within(row, nesting))


def _within(row: Sequence[str], nesting: Nesting) -> tuple[tuple[str, int], ...]:
    """The blocks and branches without which no tensor of the axes exists."""
    needed = [set(requires) for axis, requires in _requirements(nesting) if axis in row]
    return tuple(sorted(set.intersection(*needed))) if needed else ()


def _requirements(nesting: Nesting) -> Iterator[tuple[str, tuple[tuple[str, int], ...]]]:
    """For every axis of every tensor what the tensor needs."""
    for layout in nesting.tensors.values():
        names = {run.axis for rows in layout.covers() for runs in rows for run in runs}
        yield from ((name, layout.requires) for name in names if name is not None)


def _check_smallest(space: Space, nested: NestedModel) -> None:
    name = "smallest of the space"
    axes, divisor = nested.nesting.axes, nested.card.divisor
    choice = nested.elastic.choose(space.smallest(), name, axes, divisor=divisor)
    nested.nesting.with_level(name, choice)
