"""Statistics, norms and softmax over the entries that are present: formulas of the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.graphs.presence import FREE, Told, Value, least, plainly
from nestedge.program.graph import Node


def check(node: Node, told: Told, value: Value, dims: list[int], *, zero: bool) -> None:
    """Note whether zeros in place of what is absent would change a combination.

    Args:
        node: the operator.
        told: where that is noted.
        value: what is combined.
        dims: along which dimensions.
        zero: whether zeros change nothing, as in a sum.
    """
    gone = ~value.there
    if bool((value.presence == FREE).any()):
        # All free is as good as all present.
        mixed = value.presence.amin(dims) != value.presence.amax(dims)
        if bool((mixed & (value.presence.amax(dims) == FREE)).any()):
            told.undecided.add(node.op)
    if zero:
        gone = gone & (value.numbers != 0)
    else:
        # A row all of which is absent is no one's.
        gone = gone & value.there.any(dim=tuple(dims), keepdim=True) if dims else gone
    if bool(gone.any()):
        told.uneven.add(node.op)


def _dims(a: Mapping[str, Any], rank: int) -> list[int]:
    given = a.get("dim")
    if given is None or given == []:
        return list(range(rank))
    listed = given if isinstance(given, (list, tuple)) else [given]
    return [dim % rank for dim in listed]


def reduced(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """A reduction along some dimensions."""
    value: Value = a["self"]
    dims, name = _dims(a, value.numbers.dim()), node.op.split(".")[1]
    check(node, told, value, dims, zero=name in ("sum", "linalg_vector_norm"))
    keep = a.get("keepdim") or False
    presence = value.presence.amax(dims, keepdim=keep)
    if name in ("max", "min", "argmax", "argmin"):
        fill = -math.inf if "max" in name else math.inf
        kept = Value(value.neutral(fill), value.presence)
        return [Value(found, presence) for found in plainly(node, {**a, "self": kept})]
    return [Value(_reduction(name, value, a, dims, keep), presence)]


def _reduction(
    name: str, value: Value, a: Mapping[str, Any], dims: list[int], keep: bool
) -> Tensor:
    zeroed = value.neutral(0.0)
    count = value.there.sum(dims, keepdim=True).clamp_min(1)
    if name == "sum":
        return zeroed.sum(dims, keepdim=keep)
    if name == "all":
        everywhere: Tensor = (value.numbers | ~value.there).all(dims[0], keepdim=keep)
        return everywhere
    mean = zeroed.sum(dims, keepdim=True) / count
    if name == "mean":
        found = mean
    elif name in ("amax", "amin"):
        found = value.neutral(-math.inf if name == "amax" else math.inf)
        found = getattr(found, name)(dims, keepdim=True)
    elif name in ("var", "std"):
        # Older overloads say whether the divisor is one less.
        correction = a.get("correction", a.get("unbiased"))
        correction = 1 if correction is None else int(correction)
        centred = torch.where(value.there, value.numbers - mean, torch.zeros_like(zeroed))
        found = centred.square().sum(dims, keepdim=True) / (count - correction).clamp_min(0)
        found = found.sqrt() if name == "std" else found
    elif name == "linalg_vector_norm":
        assert a["ord"] == 2
        found = zeroed.square().sum(dims, keepdim=True).sqrt()
    elif name == "logsumexp":
        found = value.neutral(-math.inf).logsumexp(dims, keepdim=True)
    else:
        (dim,) = dims
        found = value.neutral(1.0).prod(dim, keepdim=True)
    return found if keep else found.squeeze(dims)


def along(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """A softmax or a running sum along one dimension."""
    value: Value = a["self"]
    is_sum = node.op == "aten.cumsum.default"
    check(node, told, value, [a["dim"]], zero=is_sum)
    kept = Value(value.neutral(0.0 if is_sum else -math.inf), value.presence)
    return [Value(plainly(node, {**a, "self": kept})[0], value.presence)]


def channelwise(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Batch norm, instance norm, PReLU: every channel by itself."""
    value: Value = a["input"] if "input" in a else a["self"]
    shape = [1, -1, *[1] * (value.numbers.dim() - 2)]
    named = (a.get(name) for name in ("weight", "bias", "running_mean", "running_var"))
    rows = [v.presence.reshape(shape) for v in named if isinstance(v, Value)]
    return [Value(plainly(node, a)[0], least(value.presence, *rows))]


def _standardised(value: Value, dims: list[int], eps: float, *, centred: bool) -> Tensor:
    count = value.there.sum(dims, keepdim=True).clamp_min(1)
    zeroed = value.neutral(0.0)
    mean = zeroed.sum(dims, keepdim=True) / count if centred else torch.zeros(())
    rest = torch.where(value.there, value.numbers - mean, torch.zeros_like(zeroed))
    return rest / (rest.square().sum(dims, keepdim=True) / count + eps).sqrt()


def _scaled(found: Tensor, presence: Tensor, a: Mapping[str, Any], shape: list[int]) -> Value:
    for name in ("weight", "bias"):
        if isinstance(a.get(name), Value):
            numbers = a[name].numbers.reshape(shape)
            found = found * numbers if name == "weight" else found + numbers
            presence = least(presence, a[name].presence.reshape(shape))
    return Value(found, presence)


def last_dims(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """Layer norm and RMS norm; what the weight lacks is absent from the value too."""
    value: Value = a["input"]
    dims = list(range(-len(a["normalized_shape"]), 0))
    if isinstance(a.get("weight"), Value):
        value = Value(value.numbers, least(value.presence, a["weight"].presence))
    check(node, told, value, dims, zero=False)
    centred = node.op == "aten.layer_norm.default"
    eps = torch.finfo(value.numbers.dtype).eps if a["eps"] is None else a["eps"]
    found = _standardised(value, dims, eps, centred=centred)
    return [_scaled(found, value.presence, a, list(value.numbers.shape[dims[0] :]))]


def grouped(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """A group norm."""
    value: Value = a["input"]
    shape = value.numbers.shape
    rows = [1, -1, *[1] * (len(shape) - 2)]
    if isinstance(a.get("weight"), Value):
        value = Value(value.numbers, least(value.presence, a["weight"].presence.reshape(rows)))
    by_group = [shape[0], a["num_groups"], -1]
    grouped = Value(value.numbers.reshape(by_group), value.presence.reshape(by_group))
    check(node, told, grouped, [2], zero=False)
    found = _standardised(grouped, [2], a["eps"], centred=True).reshape(shape)
    return [_scaled(found, value.presence, a, rows)]
