"""Rules of operators that sum over an axis: convolutions, matrix products, attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nestedge.axes.call import Call
from nestedge.axes.kernels import spare_rings, tie_rings
from nestedge.axes.planes import at, varying
from nestedge.axes.tags import Tags, Ties, inserted, squeezed
from nestedge.errors import UsageError


def convolution(call: Call) -> Sequence[Tags]:
    """Convolution: the weight is (out, in / groups, *kernel)."""
    made, read = _channels_of_weight(call)
    value = _pixels_frozen(call)
    channels = call.ties.along(value, 1)
    if call.a["groups"] == 1:
        call.ties.tie(channels, read)
    else:
        tables = [units.view(call.a["groups"], -1) for units in (channels, made)]
        _tie_groups(call.ties, *tables, places=read, of=tables[0])
    return _convolved(call, value, made)


def transposed_convolution(call: Call) -> Sequence[Tags]:
    """Transposed convolution: the weight is (in, out / groups, *kernel)."""
    read, made = _channels_of_weight(call)
    value = _pixels_frozen(call)
    channels = call.ties.along(value, 1)
    call.ties.tie(channels, read)
    if call.a["groups"] > 1:
        places, made = made, call.ties.fresh(call.out[0][1])
        tables = [units.view(call.a["groups"], -1) for units in (channels, made)]
        _tie_groups(call.ties, *tables, places=places, of=tables[1])
    return _convolved(call, value, made)


def _channels_of_weight(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """The units of the weight's first two dimensions; those of its kernel are its rings."""
    ties, weight = call.ties, call.a["weight"]
    dims = range(2, len(weight.shape))
    if ties.kernels:
        rows = [ties.along(weight, dim) for dim in dims]
        tie_rings(ties, rows, spare_rings(call.a, len(rows)))
    else:
        ties.freeze_dims(weight, dims)
    return ties.along(weight, 0), ties.along(weight, 1)


def _pixels_frozen(call: Call) -> Tags:
    rank = len(call.out[0])
    if rank != len(call.a["weight"].shape):
        raise UsageError(f"{call.op} without a batch; give it one with unsqueeze(0)")
    return call.ties.isolate(call.ties.freeze_dims(call.a["input"], range(2, rank)), [1])


def _tie_groups(
    ties: Ties, read: torch.Tensor, made: torch.Tensor, *, places: torch.Tensor, of: torch.Tensor
) -> None:
    """Whole groups live and die, or all groups keep the same places.

    Args:
        ties: where ties are made.
        read: the units of the channels that go in, shape (groups, channels of a group).
        made: the same of those that come out.
        places: the units of that dimension of the weight which has the channels of one group.
        of: the table whose groups have these channels.
    """
    ties.is_chosen |= read.shape[1] > 1
    if ties.elastic == "outer" or read.shape[1] == 1:
        ties.tie(read, read[:, :1])
        ties.tie(made, read[:, :1])
        ties.freeze(places)
        return
    ties.tie(read, read[:1])
    ties.tie(made, made[:1])
    ties.tie(of, places)
    if made.shape[1] == 1:
        # Without its one output a group would be gone.
        ties.freeze(made)


def _convolved(call: Call, value: Tags, made: torch.Tensor) -> Sequence[Tags]:
    ties, shape = call.ties, call.out[0]
    if call.a["bias"] is not None:
        ties.tie(made, ties.along(call.a["bias"], 0))
    others = [_respan(p, shape) for p in value.planes if 1 not in varying(p)]
    return [ties.value(shape, [*others, at(made, 1, shape)])]


def _respan(plane: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A plane that varies along the batch only, for a value of another shape."""
    return plane.reshape(plane.shape[0], -1)[:, 0].view(-1, *[1] * (len(shape) - 1)).expand(shape)


def linear(call: Call) -> Sequence[Tags]:
    """X @ W.T + b."""
    result = _matmul(call.a["input"], _transposed(call.a["weight"]), call.ties)
    return [result if call.a["bias"] is None else call.ties.join(result, call.a["bias"])]


def matmul(call: Call) -> Sequence[Tags]:
    """Matrix product of the last two dimensions, the others broadcast."""
    one, other = call.operands[:2]
    return [_matmul(one, other, call.ties)]


def addmm(call: Call) -> Sequence[Tags]:
    """A bias plus a matrix product."""
    bias, one, other = call.operands[:3]
    return [call.ties.join(_matmul(one, other, call.ties), bias)]


def einsum(call: Call) -> Sequence[Tags]:
    """Einstein's sum: dimensions of one letter meet, and go where the result lacks the letter."""
    operands: Sequence[Tags] = call.a["tensors"]
    ranks = [len(value.shape) for value in operands]
    letters, result = _letters(call.a["equation"], ranks)
    rows: dict[str, torch.Tensor] = {}
    for value, names in zip(operands, letters, strict=True):
        if len(set(names)) < len(names):
            raise UsageError(f"{call.op} of a diagonal, {call.a['equation']!r}; take it by itself")
        value = call.ties.isolate(value, range(len(names)))
        for dim, name in enumerate(names):
            if value.shape[dim] == 1:  # broadcast against the others of its letter
                continue
            row = call.ties.along(value, dim)
            call.ties.tie(rows.setdefault(name, row), row)
    (shape,) = call.out
    planes = [at(rows[name], dim, shape) for dim, name in enumerate(result) if name in rows]
    return [call.ties.value(shape, planes)]


def _letters(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """A name for every dimension of every operand, and of the result.

    Those behind an ellipsis are called by their place from its right end, since they broadcast.

    >>> _letters("b...i,ij->b...j", [4, 2])
    ([['b', '.2', '.1', 'i'], ['i', 'j']], ['b', '.2', '.1', 'j'])
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = [_spelled(text, rank) for text, rank in zip(left.split(","), ranks, strict=True)]
    dots = max((sum(name[0] == "." for name in names) for names in operands), default=0)
    if arrow:
        return operands, _spelled(right, len(right.replace("...", "")) + dots * ("..." in right))
    names = [name for operand in operands for name in operand]
    once = sorted(name for name in set(names) if name[0] != "." and names.count(name) == 1)
    return operands, [*(f".{i}" for i in range(dots, 0, -1)), *once]


def _spelled(text: str, rank: int) -> list[str]:
    head, ellipsis, tail = text.partition("...")
    hidden = rank - len(head) - len(tail) if ellipsis else 0
    return [*head, *(f".{i}" for i in range(hidden, 0, -1)), *tail]


def attention(call: Call) -> Sequence[Tags]:
    """softmax(q k^T / sqrt(width)) v."""
    if call.a["enable_gqa"]:
        raise UsageError(f"{call.op} with enable_gqa; repeat keys and values for their queries")
    scores = _matmul(call.a["query"], _transposed(call.a["key"]), call.ties)
    if call.a["is_causal"]:
        # Which tokens a token sees follows from their numbers.
        scores = call.ties.freeze_dims(scores, [-2, -1])
    if call.a["attn_mask"] is not None:
        scores = call.ties.join(scores, call.a["attn_mask"])
    return [_matmul(call.ties.isolate(scores, [-1]), call.a["value"], call.ties)]


def _transposed(value: Tags) -> Tags:
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
    return Tags(shape, tuple(plane.transpose(-1, -2) for plane in value.planes))


def _matmul(one: Tags, other: Tags, ties: Ties) -> Tags:
    if len(one.shape) == 1 or len(other.shape) == 1:
        row = inserted(one, 0) if len(one.shape) == 1 else one
        column = inserted(other, 1) if len(other.shape) == 1 else other
        product = _matmul(row, column, ties)
        drop = [d for d, v in ((-2, one), (-1, other)) if len(v.shape) == 1]
        return squeezed(product, [d % len(product.shape) for d in drop], ties)
    ties.tie(ties.along(one, -1), ties.along(other, -2))
    return ties.join(ties.reduce(one, [-1]), ties.reduce(other, [-2]))
