"""The rule of every operator: the tags of its outputs, and what it ties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nestedge.axes import contractions, indexing, movements, recurrence
from nestedge.axes.call import Call
from nestedge.axes.tags import Tags, squeezed
from nestedge.program import operators

Rule = Callable[[Call], Sequence[Tags]]


def unary(call: Call) -> Sequence[Tags]:
    """Element by element: the operand's own tags."""
    return [call.operands[0]]


def join(call: Call) -> Sequence[Tags]:
    """Element by element on several tensors: units that meet are tied."""
    result, *others = call.operands
    for operand in others:
        result = call.ties.join(result, operand)
    return [result]


def channel_norm(call: Call) -> Sequence[Tags]:
    """Batch norm, instance norm, PReLU: one number for each channel of dimension 1."""
    value: Tags = call.a["input"] if "input" in call.a else call.a["self"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(call.a.get(name), Tags):
            value = call.ties.join(value, _per_channel(call.a[name], len(value.shape)))
    return [value]


def _per_channel(vector: Tags, rank: int) -> Tags:
    shape = (vector.shape[0], *[1] * (rank - 2)) if rank > 1 else vector.shape
    return Tags(shape, tuple(plane.view(shape) for plane in vector.planes))


def last_dims_norm(call: Call) -> Sequence[Tags]:
    """Layer norm, RMS norm: over the last dimensions, over the entries that live."""
    value = call.ties.isolate(call.a["input"], range(-len(call.a["normalized_shape"]), 0))
    for name in ("weight", "bias"):
        if isinstance(call.a.get(name), Tags):
            value = call.ties.join(value, call.a[name])
    return [value]


def group_norm(call: Call) -> Sequence[Tags]:
    """Group norm: a group is normalised together: over what all groups have alike of it.

    A single group is the whole layer: as in a layer norm, it is what lives of it.
    """
    if call.a["num_groups"] > 1:
        call.ties.collapse(call.ties.along(call.a["input"], 1).view(call.a["num_groups"], -1))
    return channel_norm(call)


def weight_norm(call: Call) -> Sequence[Tags]:
    """A weight as a direction and a length: over what lives of it, one length an entry of `dim`."""
    direction: Tags = call.a["v"]
    dim, rank = call.a["dim"], len(direction.shape)
    direction = call.ties.isolate(direction, [d for d in range(rank) if d != dim % rank])
    return [call.ties.join(direction, call.a["g"])]


def reduction(call: Call) -> Sequence[Tags]:
    """Reduced over the entries that live; an index into a dimension freezes it."""
    value: Tags = call.a["self"]
    rank = len(value.shape)
    given = call.a.get("dim")
    dims = range(rank) if given is None or given == [] else _as_dims(given, rank)
    if call.op.split(".")[1] in ("max", "min", "argmax", "argmin"):
        value = call.ties.freeze_dims(value, dims)
    value = call.ties.reduce(value, dims)
    if not call.a.get("keepdim", False):
        value = squeezed(value, list(dims), call.ties)
    return [value] * len(call.out)


def _as_dims(dim: Any, rank: int) -> list[int]:
    return [d % max(1, rank) for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


def along(call: Call) -> Sequence[Tags]:
    """Softmax, cumulative sum: over the entries that live along one dimension."""
    return [call.ties.isolate(call.a["self"], [call.a["dim"]])]


def spatial(call: Call) -> Sequence[Tags]:
    """Pooling, interpolation: the last dimensions are resampled, and every level has them."""
    value: Tags = call.a["input"] if "input" in call.a else call.a["self"]
    rank, dims = len(value.shape), operators.SPATIAL[call.op]
    last = range(rank - dims, rank)
    value = call.ties.reduce(call.ties.freeze_dims(value, last), last)
    # An output that nothing reads has no shape: maxima are read without their indices.
    shape = next(shape for shape in call.out if shape)
    return [call.ties.value(shape, [p.expand(shape) for p in value.planes])] * len(call.out)


def _table() -> dict[str, Rule]:
    groups: list[tuple[Iterable[str], Rule]] = [
        (operators.UNARY, unary),
        (operators.IN_PLACE, unary),
        (operators.JOIN, join),
        (operators.MOVEMENT, movements.movement),
        (operators.CONVOLUTION, contractions.convolution),
        (operators.TRANSPOSED_CONVOLUTION, contractions.transposed_convolution),
        (operators.CONTRACTION, contractions.matmul),
        (operators.NORMALISATION, channel_norm),
        (operators.REDUCTION, reduction),
        (operators.ALONG, along),
        (operators.SPATIAL, spatial),
        (operators.CREATION, movements.creation),
        (("aten.expand.default",), movements.expand),
        (("aten.expand_as.default",), movements.expand_as),
        (("aten.reshape_as.default",), movements.reshape_as),
        (("aten.linear.default",), contractions.linear),
        (("aten.addmm.default", "aten.baddbmm.default"), contractions.addmm),
        (("aten.einsum.default",), contractions.einsum),
        (("aten.scaled_dot_product_attention.default",), contractions.attention),
        (("aten.layer_norm.default", "aten.rms_norm.default"), last_dims_norm),
        (("aten.group_norm.default",), group_norm),
        (("aten._weight_norm.default",), weight_norm),
        (("aten.cat.default", "aten.stack.default"), movements.cat),
        (("aten.pad.default",), movements.pad),
        (("aten.embedding.default",), indexing.embedding),
        (("aten.index_select.default",), indexing.index_select),
        (("aten.index.Tensor",), indexing.index),
        (("aten.slice_scatter.default", "aten.select_scatter.default"), movements.part_replaced),
        (operators.RECURRENT, recurrence.recurrent),
        (("aten.gather.default",), indexing.gather),
        (operators.SCATTER, indexing.scatter),
        (operators.ORDER, indexing.order),
        (("aten.diff.default",), movements.difference),
        (("aten.outer.default",), movements.outer),
        (("aten.col2im.default",), movements.col2im),
        (("aten.grid_sampler.default",), movements.grid_sample),
        (("aten.im2col.default",), movements.im2col),
        (("aten.meshgrid.default", "aten.meshgrid.indexing"), movements.meshgrid),
    ]
    return {op: rule for ops, rule in groups for op in ops}


RULES: dict[str, Rule] = _table()
"""The rule of every operator that works on tensors."""
