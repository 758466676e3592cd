"""Tags: which unit every entry of a value belongs to, and which units live and die together.

A value carries *planes*: integer tensors of its own shape, each saying for every entry which unit
it belongs to. A weight has one plane for each dimension, a feature map usually one, along its
channels. An entry exists when its units in all planes do. Planes are broadcast views (stride 0
wherever they do not vary), so that operators which only move data are run on them as they are.

Units that must live and die together are *tied*; a unit tied to FROZEN is never removed.

What one level keeps of a value is a box. So where units vary along two dimensions, as those of a
projection do once it is cut into heads, they are tied along one of them: along the inner one, so
that whole heads live and die, or along the outer one, so that all heads lose the same places. An
analysis is made for each; what lives by both of them is a box too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from nestedge.axes.planes import compact, meets_others, reduced, varying

Elastic = Literal["outer", "inner"]
"""Which of the dimensions that a value's units vary along together stays elastic."""

FROZEN = 0
"""The tag of entries that every level has."""


@dataclass(frozen=True)
class Tags:
    """The tags of one value: its shape at the traced batch, and its planes."""

    shape: tuple[int, ...]
    planes: tuple[torch.Tensor, ...] = ()

    def base(self) -> torch.Tensor:
        """A plane of FROZEN, for running data movement on a value without planes."""
        return torch.zeros((), dtype=torch.int64).expand(self.shape)


@dataclass
class Ties:
    """The units of one program so far, and which of them are tied.

    Attributes:
        elastic: which dimension stays elastic where units vary along several.
        kernels: whether the rings of kernels are elastic.
        count: how many units there are.
        pairs: units that are tied, shapes (2, ties).
        joint: planes that vary along several dimensions.
        rings: the units of kernels' rings.
        is_chosen: whether a dimension had to be chosen to stay elastic.
    """

    elastic: Elastic = "outer"
    kernels: bool = True
    count: int = 1
    pairs: list[torch.Tensor] = field(default_factory=list)
    joint: list[torch.Tensor] = field(default_factory=list)
    rings: list[torch.Tensor] = field(default_factory=list)
    is_chosen: bool = False

    def fresh(self, number: int) -> torch.Tensor:
        """New units: shape (number,)."""
        start = self.count
        self.count += number
        return torch.arange(start, self.count)

    def weight(self, shape: Sequence[int]) -> Tags:
        """The tags of a stored tensor: new units along every dimension longer than 1."""
        planes = []
        for dim, size in enumerate(shape):
            if size > 1 and 0 not in shape:
                view = [1] * len(shape)
                view[dim] = size
                planes.append(self.fresh(size).view(view).expand(tuple(shape)))
        return Tags(tuple(shape), tuple(planes))

    def tie(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Tie two planes of shapes that broadcast, entry by entry."""
        one, other = reduced(one), reduced(other)
        shape = np.broadcast_shapes(one.shape, other.shape)
        one, other = one.expand(shape).reshape(-1), other.expand(shape).reshape(-1)
        different = one != other
        self.pairs.append(torch.stack([one[different], other[different]]))

    def freeze(self, plane: torch.Tensor) -> None:
        """Make every unit of a plane one that is never removed."""
        self.tie(plane, torch.zeros((), dtype=torch.int64))

    def value(self, shape: Sequence[int], planes: Iterable[torch.Tensor]) -> Tags:
        """A value with the given planes; planes that do not vary are frozen and dropped."""
        kept = []
        for plane in map(compact, planes):
            dims = varying(plane)
            if not dims:
                self.freeze(plane)
                continue
            if len(dims) > 1:
                self.joint.append(plane)
            kept.append(plane)
        return Tags(tuple(shape), tuple(kept))

    def isolate(self, value: Tags, dims: Iterable[int]) -> Tags:
        """The value with every plane that varies along one of `dims` varying along one only.

        A plane that varies along several dimensions (heads and head width) keeps the one that
        stays elastic.
        """
        wanted = {dim % max(1, len(value.shape)) for dim in dims}
        planes = (
            plane if wanted.isdisjoint(varying(plane)) else self.collapse(plane)
            for plane in value.planes
        )
        return Tags(value.shape, tuple(planes))

    def collapse(self, plane: torch.Tensor) -> torch.Tensor:
        """Tie a plane's units along all dimensions but the one that stays elastic."""
        dims = varying(plane)
        self.is_chosen |= len(dims) > 1
        return self.tied_along(plane, dims[1:] if self.elastic == "outer" else dims[:-1])

    def tied_along(self, plane: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
        """Tie a plane's units along some dimensions, and make it constant there."""
        for dim in dims:
            first = plane.narrow(dim, 0, 1)
            self.tie(plane, first)
            plane = first.expand(plane.shape)
        return plane

    def along(self, value: Tags, dim: int) -> torch.Tensor:
        """The units of a value along one dimension: shape (size,).

        Of a dimension that was merged of two elastic ones, one stays elastic.
        """
        dim %= len(value.shape)
        planes = [p for p in self.isolate(value, [dim]).planes if dim in varying(p)]
        for plane in planes[1:]:
            self.freeze(plane)
        if not planes:
            return torch.zeros(value.shape[dim], dtype=torch.int64)
        return reduced(planes[0]).reshape(-1)

    def freeze_dims(self, value: Tags, dims: Iterable[int]) -> Tags:
        """The value with everything that varies along `dims` frozen.

        A plane that varies along other dimensions too may stay elastic in one of them: a pixel
        shuffle's channels do, although each of them has become a patch of pixels.
        """
        frozen = {dim % max(1, len(value.shape)) for dim in dims}
        value = self.isolate(value, frozen)
        kept = []
        for plane in value.planes:
            if frozen.isdisjoint(varying(plane)):
                kept.append(plane)
            else:
                self.freeze(plane)
        return Tags(value.shape, tuple(kept))

    def join(self, one: Tags, other: Tags) -> Tags:
        """The tags of an element-wise combination of two values, broadcast.

        Units that meet are tied. Where one operand has entries that are always there, the units
        of the other are frozen; where it is broadcast from size 1, they are free. Heads that meet
        heads and places keep what stays elastic of both.
        """
        shape = np.broadcast_shapes(one.shape, other.shape)
        planes = _spread(one, shape), _spread(other, shape)
        first, second = (
            [self.collapse(p) if meets_others(p, others) else p for p in mine]
            for mine, others in (planes, planes[::-1])
        )
        matched: set[int] = set()
        kept = []
        for plane in first:
            partners = [i for i, q in enumerate(second) if varying(plane) == varying(q) != ()]
            for i in partners:
                self.tie(plane, second[i])
            matched.update(partners)
            kept.append(plane if partners else self._beside(plane, other))
        free = (plane for i, plane in enumerate(second) if i not in matched)
        kept += [self._beside(plane, one) for plane in free]
        return self.value(shape, kept)

    def _beside(self, plane: torch.Tensor, other: Tags) -> torch.Tensor:
        """A plane, constant along the dimensions in which another value has entries of its own."""
        lead = plane.dim() - len(other.shape)
        dims = varying(plane)
        return self.tied_along(plane, [d for d in dims if d >= lead and other.shape[d - lead] > 1])

    def reduce(self, value: Tags, dims: Iterable[int]) -> Tags:
        """The tags after combining the entries along `dims`, which stay with size 1."""
        gone = sorted({dim % max(1, len(value.shape)) for dim in dims}) if value.shape else []
        value = self.isolate(value, gone)
        shape = tuple(1 if d in gone else n for d, n in enumerate(value.shape))
        kept = [p for p in value.planes if not set(gone) & set(varying(p))]
        return Tags(shape, tuple(_narrowed(plane, gone) for plane in kept))

    def labels(self) -> npt.NDArray[np.int64]:
        """For every unit the smallest unit it is tied to, directly or not: shape (count,)."""
        label = np.arange(self.count)
        if not self.pairs:
            return label
        one, other = torch.cat(self.pairs, dim=1).numpy()
        while True:
            first, second = label[one], label[other]
            open_ = first != second
            if not open_.any():
                return label
            low = np.minimum(first[open_], second[open_])
            np.minimum.at(label, np.maximum(first[open_], second[open_]), low)
            while True:
                jumped = label[label]
                if (jumped == label).all():
                    break
                label = jumped

    def resolve(self) -> npt.NDArray[np.int64]:
        """The labels, once no value's units vary along two dimensions together.

        A level of such a value would not be a box: one of the dimensions stays elastic.
        """
        label, checked = self.labels(), 0
        while checked < len(self.joint):
            # Round and round, until all have been seen since the last tie: what was tied for one
            # may be enough for the next.
            plane = self.joint.pop(0)
            self.joint.append(plane)
            plane = compact(torch.from_numpy(label)[reduced(plane)])
            checked += 1
            if len(varying(plane)) > 1:
                self.collapse(plane)
                label, checked = self.labels(), 0
        return label


def _narrowed(plane: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
    for dim in dims:
        plane = plane.narrow(dim, 0, 1)
    return plane


def _spread(value: Tags, shape: Sequence[int]) -> list[torch.Tensor]:
    """The planes of a value, broadcast to a shape."""
    return [plane.expand(tuple(shape)) for plane in value.planes]


def inserted(value: Tags, dim: int) -> Tags:
    """The value with a dimension of size 1 put in."""
    planes = tuple(plane.unsqueeze(dim) for plane in value.planes)
    shape = list(value.shape)
    shape.insert(dim, 1)
    return Tags(tuple(shape), planes)


def squeezed(value: Tags, dims: Sequence[int], ties: Ties) -> Tags:
    """The value without some dimensions of size 1."""
    planes = value.planes
    for dim in sorted(dims, reverse=True):
        planes = tuple(plane.select(dim, 0) for plane in planes)
    return ties.value([n for d, n in enumerate(value.shape) if d not in dims], planes)
