"""Rules of operators that move, repeat, join end to end or make entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nestedge.axes.call import Call
from nestedge.axes.tags import FROZEN, Tags, Ties, at, inserted, reduced, squeezed
from nestedge.errors import UsageError
from nestedge.program import operators


def movement(call: Call) -> Sequence[Tags]:
    """Data movement: the operator itself, run on every plane."""
    first, *others = call.a
    value = call.a[first]
    rest = {name: call.a[name] for name in others}
    if call.op == "aten.roll.default":
        value = call.ties.freeze_dims(value, call.a["dims"] or range(len(value.shape)))
    if call.op == "aten.slice.Tensor" and call.a["step"] != 1:
        value = call.ties.freeze_dims(value, [call.a["dim"]])
    moved = [_as_list(operators.resolve(call.op)(plane, **rest)) for plane in value.planes]
    # A part that nothing reads has no shape, and must not freeze anything.
    read = [len(call.out) == 1 or shape != () for shape in call.out]
    return [
        call.ties.value(shape, [planes[i] for planes in moved] if read[i] else [])
        for i, shape in enumerate(call.out)
    ]


def _as_list(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def expand(call: Call) -> Sequence[Tags]:
    """Broadcasting to a shape: the new entries are free until they meet others."""
    value: Tags = call.a["self"]
    (shape,) = call.out
    lead = len(shape) - len(value.shape)
    planes = [plane.expand(shape) for plane in value.planes]
    for dim, size in enumerate(shape):
        if size > 1 and (dim < lead or value.shape[dim - lead] == 1):
            planes.append(at(call.ties.fresh(size), dim, shape))
    return [call.ties.value(shape, planes)]


def expand_as(call: Call) -> Sequence[Tags]:
    """Broadcasting to another value's shape: its units are the other's."""
    (expanded,) = expand(call)
    return [call.ties.join(expanded, call.a["other"])]


def reshape_as(call: Call) -> Sequence[Tags]:
    """Reshape to another value's shape."""
    shape = call.a["other"].shape
    planes = [plane.reshape(shape) for plane in call.a["self"].planes]
    return [call.ties.join(call.ties.value(shape, planes), call.a["other"])]


def cat(call: Call) -> Sequence[Tags]:
    """Concatenation: along its dimension units stand side by side, elsewhere they are tied."""
    parts: Sequence[Tags] = call.a["tensors"]
    dim = call.a["dim"]
    if call.op.startswith("aten.stack"):
        parts = [inserted(part, dim % (len(part.shape) + 1)) for part in parts]
    parts = [part for part in parts if part.shape != (0,)]
    dim %= len(call.out[0])
    rows = [call.ties.along(part, dim) for part in parts]
    across = [call.ties.reduce(part, [dim]) for part in parts]
    result = across[0]
    for part in across[1:]:
        result = call.ties.join(result, part)
    planes = [plane.expand(call.out[0]) for plane in result.planes]
    if any(bool((row != FROZEN).any()) for row in rows):
        planes.append(at(torch.cat(rows), dim, call.out[0]))
    return [call.ties.value(call.out[0], planes)]


def pad(call: Call) -> Sequence[Tags]:
    """Padding: new entries are free until they meet others; a copied border freezes."""
    value: Tags = call.a["self"]
    rank, amounts = len(value.shape), call.a["pad"]
    edges = {rank - 1 - i: amounts[2 * i : 2 * i + 2] for i in range(len(amounts) // 2)}
    edges = {dim: pair for dim, pair in edges.items() if any(pair)}
    if call.a.get("mode", "constant") != "constant":
        value = call.ties.freeze_dims(value, edges)
    rows = {dim: call.ties.along(value, dim) for dim in edges}
    across = call.ties.reduce(value, edges)
    planes = [plane.expand(call.out[0]) for plane in across.planes]
    if call.a.get("mode", "constant") == "constant":
        planes += [at(_padded(rows[d], edges[d], call.ties), d, call.out[0]) for d in edges]
    return [call.ties.value(call.out[0], planes)]


def _padded(row: torch.Tensor, edge: Sequence[int], ties: Ties) -> torch.Tensor:
    front, back = edge
    row = row[max(0, -front) : len(row) - max(0, -back)]
    return torch.cat([ties.fresh(max(0, front)), row, ties.fresh(max(0, back))])


def embedding(call: Call) -> Sequence[Tags]:
    """Rows of a table by index: the rows stay, the columns are units."""
    columns = squeezed(
        call.ties.reduce(call.ties.freeze_dims(call.a["weight"], [0]), [0]), [0], call.ties
    )
    indices: Tags = call.a["indices"]
    return [call.ties.join(inserted(indices, len(indices.shape)), columns)]


def index_select(call: Call) -> Sequence[Tags]:
    """Entries by index: every level has the dimension whole; the result has the index's units."""
    dim = call.a["dim"] % len(call.out[0])
    value = call.ties.reduce(call.ties.freeze_dims(call.a["self"], [dim]), [dim])
    planes = [plane.expand(call.out[0]) for plane in value.planes]
    planes += [at(reduced(p).reshape(-1), dim, call.out[0]) for p in call.a["index"].planes]
    return [call.ties.value(call.out[0], planes)]


def index(call: Call) -> Sequence[Tags]:
    """Entries by tensors of indices: every level has those dimensions whole.

    The result has the units of the indices where the first of those dimensions was, or in front
    where they do not stand next to each other, as in numpy.
    """
    given = {dim: index for dim, index in enumerate(call.a["indices"]) if index is not None}
    dims = list(given)
    value = call.ties.reduce(call.ties.freeze_dims(call.a["self"], dims), dims)
    indices, *others = given.values()
    for other in others:
        indices = call.ties.join(indices, other)
    (shape,) = call.out
    rank = len(indices.shape)
    if len(shape) != len(value.shape) - len(dims) + rank:
        raise UsageError(f"{call.op} by truth values; use torch.where, whose shape is known")
    start = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    value = squeezed(value, dims, call.ties)
    for _ in range(rank):
        value = inserted(value, start)
    rest = [1] * (len(shape) - start - rank)
    planes = [plane.expand(shape) for plane in value.planes]
    planes += [p.reshape(*p.shape, *rest).expand(shape) for p in indices.planes]
    return [call.ties.value(shape, planes)]


def scatter(call: Call) -> Sequence[Tags]:
    """A value with some of its entries replaced by another's: where they meet, units are tied."""
    value, source, dim = call.a["self"], call.a["src"], call.a["dim"] % len(call.out[0])
    if call.a.get("step", 1) != 1:
        value = call.ties.freeze_dims(value, [dim])
        source = call.ties.freeze_dims(source, [dim])
    row = call.ties.along(value, dim)
    if call.op.startswith("aten.select_scatter"):
        start = call.a["index"] % len(row)
        source, stop = inserted(source, dim), start + 1
    else:
        start, stop = call.a["start"], call.a["end"]
    if call.a.get("step", 1) == 1:
        call.ties.tie(row[start:stop], call.ties.along(source, dim))
    across = call.ties.join(call.ties.reduce(value, [dim]), call.ties.reduce(source, [dim]))
    planes = [plane.expand(call.out[0]) for plane in across.planes]
    return [call.ties.value(call.out[0], [*planes, at(row, dim, call.out[0])])]


def im2col(call: Call) -> Sequence[Tags]:
    """Patches of an image: every channel becomes as many as a patch has pixels."""
    value = call.ties.freeze_dims(call.a["self"], [2, 3])
    row = call.ties.along(value, 1).repeat_interleave(math.prod(call.a["kernel_size"]))
    return [call.ties.value(call.out[0], [at(row, 1, call.out[0])])]


def grid_sample(call: Call) -> Sequence[Tags]:
    """Pixels between those of an image, by a grid of places: both are whole in every level."""
    image, grid = call.a["input"], call.a["grid"]
    (shape,) = call.out
    rank = len(shape)
    image = call.ties.reduce(call.ties.freeze_dims(image, range(2, rank)), range(2, rank))
    call.ties.freeze_dims(grid, range(1, rank))
    return [call.ties.value(shape, [plane.expand(shape) for plane in image.planes])]


def meshgrid(call: Call) -> Sequence[Tags]:
    """Coordinates: every result has each vector's units along the dimension of that vector."""
    # A result that nothing reads has no shape.
    shape = next(shape for shape in call.out if shape)
    rows = [call.ties.along(vector, 0) for vector in call.a["tensors"]]
    dims = list(range(len(rows)))
    if call.a.get("indexing") == "xy":
        dims[:2] = dims[1::-1]
    planes = [at(row, dim, shape) for row, dim in zip(rows, dims, strict=True)]
    return [call.ties.value(shape, planes)] * len(call.out)


def creation(call: Call) -> Sequence[Tags]:
    """Equal entries are free until they meet others; a range is a list of numbers: frozen."""
    if call.op.startswith(("aten.arange", "aten.linspace", "aten.scalar_tensor")):
        return [Tags(call.out[0])]
    planes = [
        at(call.ties.fresh(size), dim, call.out[0])
        for dim, size in enumerate(call.out[0])
        if size > 1
    ]
    return [call.ties.value(call.out[0], planes)]
