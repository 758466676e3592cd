"""Tags: which unit every entry of a value belongs to, and which units live and die together.

A value carries *planes*: integer tensors of its own shape, each saying for every entry which unit
it belongs to. A weight has one plane for each dimension, a feature map usually one, along its
channels. An entry exists when its units in all planes do. Planes are broadcast views (stride 0
wherever they do not vary), so that operators which only move data are run on them as they are.

Units that must live and die together are *tied*; a unit tied to FROZEN is never removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

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


def varying(plane: torch.Tensor) -> tuple[int, ...]:
    """The dimensions along which a plane varies, outermost first."""
    return tuple(
        d for d, (n, s) in enumerate(zip(plane.shape, plane.stride(), strict=True)) if n > 1 and s
    )


def compact(plane: torch.Tensor) -> torch.Tensor:
    """The same plane with stride 0 along every dimension in which it is constant."""
    for dim in varying(plane):
        first = plane.narrow(dim, 0, 1)
        if bool((plane == first).all()):
            plane = first.expand(plane.shape)
    return plane


def reduced(plane: torch.Tensor) -> torch.Tensor:
    """The plane with every constant dimension cut to size 1."""
    for dim, stride in enumerate(plane.stride()):
        if stride == 0 and plane.shape[dim] > 1:
            plane = plane.narrow(dim, 0, 1)
    return plane


@dataclass
class Ties:
    """The units of one program so far, and which of them are tied."""

    count: int = 1
    pairs: list[torch.Tensor] = field(default_factory=list)
    joint: list[torch.Tensor] = field(default_factory=list)

    def fresh(self, number: int) -> torch.Tensor:
        """New units: shape (number,)."""
        start = self.count
        self.count += number
        return torch.arange(start, self.count)

    def weight(self, shape: Sequence[int]) -> Tags:
        """The tags of a stored tensor: new units along every dimension longer than 1."""
        planes = []
        for dim, size in enumerate(shape):
            if size > 1:
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

        A plane that varies along several dimensions (heads and head width) keeps the outermost:
        whole heads are removed, and their width stays.
        """
        wanted = {dim % max(1, len(value.shape)) for dim in dims}
        planes = []
        for plane in value.planes:
            inner = varying(plane)[1:]
            if inner and not wanted.isdisjoint(varying(plane)):
                plane = self.collapse(plane, inner)
            planes.append(plane)
        return Tags(value.shape, tuple(planes))

    def collapse(self, plane: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
        """Tie a plane's units along `dims`, and make it constant there."""
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

        A plane that varies along other dimensions too stays elastic in the outermost of them: a
        pixel shuffle's channels do, although each of them has become a patch of pixels.
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
        of the other are frozen; where it is broadcast from size 1, they are free.
        """
        shape = np.broadcast_shapes(one.shape, other.shape)
        first, second = _spread(one, shape), _spread(other, shape)
        matched: set[int] = set()
        planes = []
        for plane in first:
            dims = set(varying(plane))
            partners = [i for i, q in enumerate(second) if not dims.isdisjoint(varying(q))]
            for i in partners:
                self.tie(plane, second[i])
            matched.update(partners)
            if not partners and _occupies(other, dims, len(shape)):
                self.freeze(plane)
                continue
            planes.append(plane)
        for i, plane in enumerate(second):
            if i in matched:
                continue
            if _occupies(one, set(varying(plane)), len(shape)):
                self.freeze(plane)
                continue
            planes.append(plane)
        return self.value(shape, planes)

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

        A level of such a value would not be a box. The units are tied along the inner
        dimensions, so that the outermost is the elastic one.
        """
        label, checked = self.labels(), 0
        while checked < len(self.joint):
            # Round and round, until all have been seen since the last tie: what was tied for one
            # may be enough for the next.
            plane = self.joint.pop(0)
            self.joint.append(plane)
            dims = varying(compact(torch.from_numpy(label)[reduced(plane)]))
            checked += 1
            if len(dims) > 1:
                self.collapse(reduced(plane), dims[1:])
                label, checked = self.labels(), 0
        return label


def _narrowed(plane: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
    for dim in dims:
        plane = plane.narrow(dim, 0, 1)
    return plane


def _spread(value: Tags, shape: Sequence[int]) -> list[torch.Tensor]:
    """The planes of a value, broadcast to a shape."""
    return [plane.expand(tuple(shape)) for plane in value.planes]


def _occupies(value: Tags, dims: set[int], rank: int) -> bool:
    """Whether a value broadcast to `rank` dimensions has entries of its own along any of `dims`."""
    lead = rank - len(value.shape)
    return any(dim >= lead and value.shape[dim - lead] > 1 for dim in dims)


def at(units: torch.Tensor, dim: int, shape: Sequence[int]) -> torch.Tensor:
    """A plane of a shape, varying along one dimension."""
    view = [1] * len(shape)
    view[dim] = len(units)
    return units.view(view).expand(tuple(shape))


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
