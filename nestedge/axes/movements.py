"""Rules of operators that move, repeat, join end to end or make entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nestedge.axes.call import Call
from nestedge.axes.planes import at
from nestedge.axes.tags import FROZEN, Tags, Ties, inserted
from nestedge.program import operators


def movement(call: Call) -> Sequence[Tags]:
    """Data movement: the operator itself, run on every plane."""
    first, *others = call.a
    value = call.a[first]
    rest = {name: call.a[name] for name in others}
    if call.op == "aten.roll.default":
        value = call.ties.freeze_dims(value, call.a["dims"] or range(len(value.shape)))
    if call.op == "aten.channel_shuffle.default":
        # All groups keep the same places: what is shuffled then stays a table of groups by places.
        rows = call.ties.along(value, 1).view(call.a["groups"], -1)
        call.ties.tie(rows, rows[:1])
    if call.op == "aten.pixel_shuffle.default":
        # A channel's pixels come from as many channels, and are whole in every level.
        rows = call.ties.along(value, 1).view(-1, call.a["upscale_factor"] ** 2)
        call.ties.tie(rows, rows[:, :1])
    if call.op == "aten.unfold.default":
        value = call.ties.freeze_dims(value, [call.a["dimension"]])
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


def part_replaced(call: Call) -> Sequence[Tags]:
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


def col2im(call: Call) -> Sequence[Tags]:
    """An image from its patches: every channel is made of as many as a patch has pixels."""
    value = call.ties.freeze_dims(call.a["self"], [2])
    rows = call.ties.along(value, 1).view(-1, math.prod(call.a["kernel_size"]))
    # Without one of its pixels in each patch, a channel would have other values, not fewer.
    call.ties.tie(rows, rows[:, :1])
    return [call.ties.value(call.out[0], [at(rows[:, 0], 1, call.out[0])])]


def grid_sample(call: Call) -> Sequence[Tags]:
    """Pixels between those of an image, by a grid of places: both are whole in every level.

    Each image of the batch has a grid: heads that have been made a part of the batch are tied.
    """
    image, grid = call.a["input"], call.a["grid"]
    (shape,) = call.out
    rank = len(shape)
    image = call.ties.reduce(call.ties.freeze_dims(image, range(2, rank)), range(2, rank))
    grid = call.ties.reduce(call.ties.freeze_dims(grid, range(1, rank)), range(1, rank))
    image = call.ties.join(image, grid)
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


def outer(call: Call) -> Sequence[Tags]:
    """Every entry of one vector by every entry of another."""
    return [call.ties.join(inserted(call.a["self"], 1), inserted(call.a["vec2"], 0))]


def difference(call: Call) -> Sequence[Tags]:
    """Each entry of a dimension less the one before it: every level has the dimension whole."""
    dim, (shape,) = call.a["dim"], call.out
    first, *others = (
        call.ties.reduce(call.ties.freeze_dims(part, [dim]), [dim]) for part in call.operands
    )
    for part in others:
        first = call.ties.join(first, part)
    return [call.ties.value(shape, [plane.expand(shape) for plane in first.planes])]


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
