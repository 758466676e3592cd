"""Rules of operators that move, repeat, join end to end or make entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nestedge.axes.call import Call
from nestedge.axes.tags import FROZEN, Tags, Ties, at, inserted, reduced, squeezed
from nestedge.program import operators


def movement(call: Call) -> Sequence[Tags]:
    """Data movement: the operator itself, run on every plane."""
    names = list(call.a)
    value = call.a[names[0]]
    rest = [call.a[name] for name in names[1:]]
    if call.op == "aten.roll.default":
        value = call.ties.freeze_dims(value, call.a["dims"] or range(len(value.shape)))
    if call.op == "aten.slice.Tensor" and call.a["step"] != 1:
        value = call.ties.freeze_dims(value, [call.a["dim"]])
    moved = [_as_list(operators.resolve(call.op)(plane, *rest)) for plane in value.planes]
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


def creation(call: Call) -> Sequence[Tags]:
    """Equal entries are free until they meet others; a range is a list of numbers: frozen."""
    if call.op.startswith(("aten.arange", "aten.scalar_tensor")):
        return [Tags(call.out[0])]
    planes = [
        at(call.ties.fresh(size), dim, call.out[0])
        for dim, size in enumerate(call.out[0])
        if size > 1
    ]
    return [call.ties.value(call.out[0], planes)]
