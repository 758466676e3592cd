"""Rules of operators that look entries up: by index, or by their order."""

from __future__ import annotations

from collections.abc import Sequence

from nestedge.axes.call import Call
from nestedge.axes.planes import at, reduced
from nestedge.axes.tags import Tags, inserted, squeezed
from nestedge.errors import UsageError


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


def gather(call: Call) -> Sequence[Tags]:
    """Entries of each row by the row's own indices: every level has the rows whole.

    In the other dimensions an index chooses from the row that it stands at: units are tied. Where
    there are rows without indices, all are always there.
    """
    value, indices, dim = call.a["self"], call.a["index"], call.a["dim"] % len(call.out[0])
    apart = _unequal(value, indices, dim)
    value = call.ties.reduce(call.ties.freeze_dims(value, [dim, *apart]), [dim, *apart])
    return [call.ties.join(value, call.ties.freeze_dims(indices, apart))]


def scatter(call: Call) -> Sequence[Tags]:
    """Entries of each row replaced, or added to, at the row's own indices: as in `gather`."""
    value, dim = call.a["self"], call.a["dim"] % len(call.out[0])
    for part in (call.a["index"], call.a.get("src")):
        if part is not None:
            dims = [dim, *_unequal(value, part, dim)]
            value = call.ties.freeze_dims(value, dims)
            part = call.ties.reduce(call.ties.freeze_dims(part, dims), dims)
            value = call.ties.join(value, part)
    return [value]


def _unequal(one: Tags, other: Tags, dim: int) -> list[int]:
    """The dimensions but `dim` of which one value has more entries than the other."""
    sizes = zip(one.shape, other.shape, strict=True)
    return [d for d, (size, its) in enumerate(sizes) if d != dim and size != its]


def order(call: Call) -> Sequence[Tags]:
    """The largest entries, or all in order, and where they stood: the dimension is whole."""
    # An output that nothing reads has no shape.
    shape = next(shape for shape in call.out if shape)
    dim = call.a["dim"]
    value = call.ties.reduce(call.ties.freeze_dims(call.a["self"], [dim]), [dim])
    return [call.ties.value(shape, [p.expand(shape) for p in value.planes])] * len(call.out)
