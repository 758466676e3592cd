"""Pieces that work element by element, and those that create values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs.parts import Part, Piece, Room, op, parameter

aten = torch.ops.aten

OFFSET = 0.137
"""Keeps a step away from zero, where rounding would decide on which side a value is."""

_SMOOTH = """alias celu clone contiguous cos detach elu erf gelu hardsigmoid hardswish hardtanh
leaky_relu log_sigmoid mish neg relu relu6 selu sigmoid silu sin softplus tanh"""
_STEPS = "ceil floor round sign trunc"
_BOUNDED = "exp expm1 square tan"


def _after(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: second(first(x))


def _compared(compare: Callable[[Any, float], Any]) -> Callable[[Any], Any]:
    return lambda x: compare(x, OFFSET).to(x.dtype)


CHANGING: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(aten, name) for name in _SMOOTH.split()},
    **{name: _after(lambda x: x * 2 + OFFSET, getattr(aten, name)) for name in _STEPS.split()},
    **{name: _after(torch.tanh, getattr(aten, name)) for name in _BOUNDED.split()},
    "abs": lambda x: aten.abs(x) - 0.5,
    "clamp": lambda x: aten.clamp(x, -1, 1),
    "clamp_min": lambda x: aten.clamp_min(x, -0.7),
    "clamp_max": lambda x: aten.clamp_max(x, 0.7),
    "sqrt": lambda x: aten.sqrt(x.square() + 0.1),
    "rsqrt": lambda x: aten.rsqrt(x.square() + 0.1),
    "log": lambda x: aten.log(x.square() + 0.1),
    "log1p": lambda x: aten.log1p(x.square()),
    "reciprocal": lambda x: aten.reciprocal(x.square() + 0.5),
    "logit": lambda x: aten.logit(x.sigmoid() * 0.9 + 0.05),
    "logical_not": lambda x: aten.logical_not(x > OFFSET).to(x.dtype),
    "dropout": lambda x: aten.dropout(aten.feature_dropout(x, 0.3, False), 0.3, False),
    "bitwise_not": lambda x: torch.bitwise_not(x > OFFSET).to(x.dtype),
    "to": lambda x: x.to(torch.float32).to(x.dtype),
    "to.dtype_layout": lambda x: aten.to.dtype_layout(x.clone(), dtype=x.dtype),
    "_to_copy": lambda x: aten._to_copy(x, dtype=torch.float32).to(x.dtype),
    "arithmetic": lambda x: aten.rsub(((x + 1 - 0.5) * 2 / 3).clamp(-2, 2) ** 2, 1),
    "scalar arithmetic": lambda x: aten.div.Scalar(
        aten.mul.Scalar(aten.sub.Scalar(aten.add.Scalar(x, 1), 0.5), 2), 3
    ),
    "pow.Scalar": lambda x: 2 ** x.tanh(),
    **{f"{name}.Scalar": _compared(getattr(torch, name)) for name in ("lt", "le", "gt", "ge")},
    "eq.Scalar": lambda x: torch.eq(x.round(), 0).to(x.dtype),
    "ne.Scalar": lambda x: torch.ne(x.round(), 0).to(x.dtype),
}
"""What they give depends on the operand: one is run on what another gives."""

CONSTANT: dict[str, Callable[[Any], Any]] = {
    "ones_like": aten.ones_like,
    "zeros_like": aten.zeros_like,
    "full_like": lambda x: aten.full_like(x, 0.3),
    "fill.Scalar": lambda x: aten.fill.Scalar(x, 0.3),
    "fill.Tensor": lambda x: aten.fill.Tensor(x, x.new_full((), 0.2)),
    "zero": aten.zero,
}
"""What they give has the operand's shape only: it is put beside the operand."""

PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: torch.sub(x, y, alpha=2),
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y.square() + 1),
    "div.Tensor_mode": lambda x, y: torch.div(x + OFFSET, y.abs() + 0.5, rounding_mode="floor"),
    "pow": lambda x, y: torch.pow(x.tanh().abs() + 0.5, y.tanh()),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > 0, x, y),
    "where.ScalarOther": lambda x, y: aten.where.ScalarOther(x > 0, y, 0.5),
    "where.ScalarSelf": lambda x, y: aten.where.ScalarSelf(x > 0, 0.5, y),
    "where.Scalar": lambda x, y: y * aten.where.Scalar(x > 0, 0.25, 0.5),
    "logical_or": lambda x, y: torch.logical_or(x > 0, y > 0).to(x.dtype),
    "logical_and": lambda x, y: torch.logical_and(x > 0, y > 0).to(x.dtype),
    "bitwise_or": lambda x, y: ((x > 0) | (y > 0)).to(x.dtype),
    "bitwise_and": lambda x, y: ((x > 0) & (y > 0)).to(x.dtype),
    "masked_fill.Scalar": lambda x, y: x.masked_fill(y > 0, 0.5),
    "masked_fill.Tensor": lambda x, y: x.masked_fill(y > 0, x.new_full((), 0.5)),
    "copy": aten.copy,
    "lerp.Scalar": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp.Tensor": lambda x, y: torch.lerp(x, y, y.sigmoid()),
    "addcmul": lambda x, y: torch.addcmul(x, y, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, y, y.square() + 1),
    "equal": lambda x, y: (x.round() == y.round()).to(x.dtype) - (x.round() != y.round()) * 0.5,
    "less": lambda x, y: (x < y).to(x.dtype) - (x <= y + 1) * 0.5,
    "greater": lambda x, y: (x > y).to(x.dtype) - (x >= y + 1) * 0.5,
    "eq.Tensor": lambda x, y: (x.round() == y.round()).to(x.dtype),
    "ne.Tensor": lambda x, y: (x.round() != y.round()).to(x.dtype),
    "lt.Tensor": lambda x, y: (x < y).to(x.dtype),
    "le.Tensor": lambda x, y: (x <= y).to(x.dtype),
    "gt.Tensor": lambda x, y: (x > y).to(x.dtype),
    "ge.Tensor": lambda x, y: (x >= y).to(x.dtype),
}


def _changed(room: Room) -> nn.Module:
    """A few functions one after another, and beside them a way on which nothing is lost."""
    names = sorted(CHANGING)
    chosen = [CHANGING[room.pick(names)] for _ in range(int(room.rng.integers(3, 6)))]

    def apply(s: Any, x: Any) -> Any:
        way = s.way(x)
        for function in chosen:
            x = function(x)
        return x + way

    return Part(apply, way=room.conv(room.units))


def _beside_a_constant(room: Room) -> nn.Module | None:
    if room.units > 8:
        return None
    function = CONSTANT[room.pick(sorted(CONSTANT))]
    return Part(lambda _, x: torch.cat([x, function(x)], 1))


def _pair(room: Room) -> nn.Module:
    first, second = (PAIRS[room.pick(sorted(PAIRS))] for _ in range(2))
    is_one = room.chance(0.2)

    def apply(s: Any, x: Tensor) -> Any:
        y = s.other(x)
        found = first(x, y) if is_one else second(first(x, y), y)
        return found + s.way(x)

    return Part(apply, other=room.conv(room.units), way=room.conv(room.units))


def _gated(room: Room) -> nn.Module:
    def apply(s: Any, x: Tensor) -> Any:
        value, gate = s.k(x).chunk(2, 1)
        return value * gate.sigmoid()

    return Part(apply, k=room.conv(2 * room.units))


def _values_in_place(x: Any) -> Any:
    return aten.relu_(x * 1).mul_(2).add_(0.1)


def _changed_in_place(room: Room) -> nn.Module:
    """A part of a value, and a corner of a mask, changed in place before the whole is read."""

    def apply(_: Any, x: Tensor) -> Any:
        mask = x.new_zeros(room.sides)
        mask[1:] = 1.0
        x = x * 1
        x[:, :, 1:].mul_(2)
        return x + mask

    return Part(apply)


def _buffers(room: Room) -> nn.Module:
    shape = (room.channels, *[1] * room.dims)
    return Part(lambda s, x: x * s.scale + s.p, scale=torch.ones(shape), p=parameter(1))


def _ramp(room: Room) -> nn.Module:
    ramp = torch.linspace(1, 2, 64, dtype=torch.float64).view(-1, *[1] * room.dims)
    return Part(lambda _, x: x * ramp[: room.channels])


def _numbers(room: Room) -> nn.Module:
    """A list of numbers, all of which every level needs."""
    c, shape = room.channels, (-1, *[1] * room.dims)
    made: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.arange(c, dtype=x.dtype) / c,
        lambda x: torch.arange(1, c + 1, dtype=x.dtype) / c,
        lambda x: torch.arange(0, 2 * c, 2, dtype=x.dtype) / c,
        lambda x: torch.linspace(1, 2, c, dtype=x.dtype),
    ]
    make = room.pick(made)
    return Part(lambda _, x: x * make(x).view(shape))


def _created(room: Room) -> nn.Module | None:
    """Zeros beside the value, and equal numbers of its size added."""
    if room.units > 8:
        return None
    c, flat = room.channels, [1] * room.dims

    def by_function(_: Any, x: Tensor) -> Tensor:
        wide = torch.cat([x, torch.zeros(x.shape[0], c, *room.sides, dtype=x.dtype)], 1)
        wide = wide + torch.ones(x.shape[0], 2 * c, *flat, dtype=x.dtype)
        return wide + torch.full((1, 2 * c, *flat), 0.5, dtype=x.dtype)

    def by_method(_: Any, x: Tensor) -> Tensor:
        wide = torch.cat([x, x.new_zeros(x.shape[0], c, *room.sides)], 1)
        return wide + x.new_ones(1, 2 * c, *flat) + x.new_full((1, 2 * c, *flat), 0.5)

    def beside(s: Any, x: Tensor) -> Tensor:
        return torch.cat([x, s.p * torch.full((c, *room.sides), 0.5).to(x.dtype).expand_as(x)], 1)

    functions = [by_function, by_method, beside]
    return Part(room.pick(functions), p=parameter(c, *flat))


ELEMENTWISE: dict[str, Piece] = {
    "changed": _changed,
    "beside a constant": _beside_a_constant,
    "pair": _pair,
    "gated": _gated,
    "in place": op(_values_in_place),
    "changed in place": _changed_in_place,
    "buffers": _buffers,
    "created": _created,
    "scalar": op(lambda x: x + torch.scalar_tensor(0.5, dtype=x.dtype)),
    "normalize": op(lambda x: F.normalize(x + OFFSET, dim=1) * 2),
}
"""Pieces of which one of fewer units is the same, made narrower."""

ORDER: dict[str, Piece] = {"ramp": _ramp}
"""Pieces that say which channel is which: what is left of them is narrower by no such rule."""

WHOLE: dict[str, Piece] = {"numbers": _numbers}
"""Pieces that need every channel."""
