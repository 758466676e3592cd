"""Sums of products over the entries that are present, and the table of all such formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.graphs.presence import ABSENT, Rule, Told, Value, least, plainly
from benchmarks.graphs.statistics import (
    along,
    channelwise,
    check,
    grouped,
    last_dims,
    reduced,
)
from nestedge.program import operators
from nestedge.program.graph import Node


def _convolved(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """Channels of the input that are absent, or whose weights are, take no part."""
    value, weight = a["input"], a["weight"]
    _check_garbage(node, told, value, weight)
    kept = {**a, "input": _zeroed(value), "weight": _zeroed(weight)}
    (numbers,) = plainly(node, kept)
    rest = [1] * (numbers.dim() - 2)
    if node.op in operators.CONVOLUTION:
        rows = weight.presence.flatten(1).amax(1)
    else:
        there = weight.there.double().flatten(2).amax(2)
        by_group = there.reshape(a["groups"], -1, there.shape[1])
        rows = by_group.amax(1).reshape(-1)
    presence = rows.reshape(1, -1, *rest)
    # Where heads and batch are one dimension, whole cases are absent.
    presence = least(presence, value.presence.flatten(1).amax(1).reshape(-1, 1, *rest))
    if isinstance(a["bias"], Value):
        presence = least(presence, a["bias"].presence.reshape(1, -1, *rest))
    return [Value(numbers, presence)]


def _zeroed(value: Value) -> Value:
    return Value(value.neutral(0.0), value.presence)


def _check_garbage(node: Node, told: Told, value: Value, weight: Value) -> None:
    """Note whether what is absent is no number: a weight of zero does not make it zero."""
    for one in (value, weight):
        if not bool(one.numbers[~one.there].isfinite().all()):
            told.uneven.add(node.op)


def _matmul(node: Node, told: Told, one: Value, other: Value) -> Value:
    if one.numbers.dim() == 1 or other.numbers.dim() == 1:
        row = _reshaped(one, (1, -1)) if one.numbers.dim() == 1 else one
        column = _reshaped(other, (-1, 1)) if other.numbers.dim() == 1 else other
        found = _matmul(node, told, row, column)
        dims = [d for d, v in ((-2, one), (-1, other)) if v.numbers.dim() == 1]
        return Value(found.numbers.squeeze(dims), found.presence.squeeze(dims))
    left, right = one.neutral(0.0), other.neutral(0.0)
    # The network with zeros adds what is absent of one times what the other has there.
    garbage = (one.numbers @ other.numbers) - (left @ right)
    rows = one.presence.amax(-1, keepdim=True)
    columns = other.presence.amax(-2, keepdim=True)
    presence = least(rows, columns)
    if not bool((garbage.abs() <= 1e-12 * (1 + (left @ right).abs()))[presence != ABSENT].all()):
        told.uneven.add(node.op)
    return Value(left @ right, presence)


def _reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    return Value(value.numbers.reshape(shape), value.presence.reshape(shape))


def _turned(value: Value) -> Value:
    return Value(value.numbers.transpose(-1, -2), value.presence.transpose(-1, -2))


def _added(one: Value, other: Value) -> Value:
    return Value(one.numbers + other.numbers, least(one.presence, other.presence))


def _times(value: Value, factor: float) -> Value:
    return Value(value.numbers * factor, value.presence)


def _product(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    one, other = [value for value in a.values() if isinstance(value, Value)][:2]
    return [_matmul(node, told, one, other)]


def _linear(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    found = _matmul(node, told, a["input"], _turned(a["weight"]))
    return [_added(found, a["bias"]) if isinstance(a["bias"], Value) else found]


def _biased_product(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    bias, one, other = [value for value in a.values() if isinstance(value, Value)]
    found = _times(_matmul(node, told, one, other), a["alpha"])
    return [_added(found, _times(bias, a["beta"]))]


def _einsum(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    values: list[Value] = a["tensors"]
    found = torch.einsum(a["equation"], *(value.neutral(0.0) for value in values))
    garbage = torch.einsum(a["equation"], *(value.numbers for value in values)) - found
    there = torch.einsum(a["equation"], *(value.there.double() for value in values))
    presence = (there > 0).double()
    if not bool((garbage.abs() <= 1e-12 * (1 + found.abs()))[presence != ABSENT].all()):
        told.uneven.add(node.op)
    return [Value(found, presence)]


def _attention(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    query, key, value = a["query"], a["key"], a["value"]
    scale = a["scale"] or 1 / math.sqrt(query.numbers.shape[-1])
    scores = _times(_matmul(node, told, query, _turned(key)), scale)
    if isinstance(a["attn_mask"], Value):
        scores = _added(scores, a["attn_mask"])
    numbers = scores.neutral(-math.inf)
    if a["is_causal"]:
        rows, columns = numbers.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool).tril()
        numbers = numbers.masked_fill(~seen, -math.inf)
    check(node, told, scores, [-1], zero=False)
    return [_matmul(node, told, Value(numbers.softmax(-1), scores.presence), value)]


def _weight_normed(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """A direction of the length that is given; absent entries have no length."""
    direction, length = a["v"], a["g"]
    (numbers,) = plainly(node, {**a, "v": _zeroed(direction)})
    return [Value(numbers, least(direction.presence, length.presence))]


def _recurrent(node: Node, a: Mapping[str, Any], told: Told) -> Sequence[Value]:
    """A state without weights, bias and beginning stays zero, and moves no other."""
    _check_garbage(node, told, a["input"], a["input"])
    states = a["hx"] if isinstance(a["hx"], list) else [a["hx"]]
    kept = {
        **a,
        "input": _zeroed(a["input"]),
        "hx": [_zeroed(s) for s in states] if isinstance(a["hx"], list) else _zeroed(states[0]),
        "params": [_zeroed(value) for value in a["params"]],
    }
    numbers, *rest = plainly(node, kept)
    # The recurrent weights of the last layer, in one direction or both: (gates x state, state).
    each, directions = 4 if a["has_biases"] else 2, 2 if a["bidirectional"] else 1
    last = a["params"][len(a["params"]) - each * directions + 1 :: each]
    rows = torch.cat([weight.presence.amax(0) for weight in last])
    return [Value(numbers, rows), *(Value(r, last[0].presence.amax(0)) for r in rest)]


MIXING: dict[str, Rule] = {
    **dict.fromkeys(operators.REDUCTION, reduced),
    **dict.fromkeys(operators.ALONG, along),
    **dict.fromkeys(operators.NORMALISATION, channelwise),
    **dict.fromkeys(operators.CONVOLUTION | operators.TRANSPOSED_CONVOLUTION, _convolved),
    **dict.fromkeys(operators.CONTRACTION, _product),
    "aten.layer_norm.default": last_dims,
    "aten.rms_norm.default": last_dims,
    "aten.group_norm.default": grouped,
    "aten.linear.default": _linear,
    "aten.addmm.default": _biased_product,
    "aten.baddbmm.default": _biased_product,
    "aten.einsum.default": _einsum,
    "aten._weight_norm.default": _weight_normed,
    **dict.fromkeys(operators.RECURRENT, _recurrent),
    "aten.scaled_dot_product_attention.default": _attention,
}
"""How every operator that combines entries is run."""
