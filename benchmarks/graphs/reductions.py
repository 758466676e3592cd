"""Pieces that combine entries: reductions, softmax, cumulative sums, resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs.parts import Part, Piece, Room, op, untied

aten = torch.ops.aten

REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "mean.dim": lambda x: x * x.mean(1, keepdim=True),
    "means": lambda x: x + x.mean((1, 2), keepdim=True) * x.mean(),
    "sum.dim_IntList": lambda x: x * x.sum((1, 2), keepdim=True).tanh() + x.sum(-1, keepdim=True),
    "sum": lambda x: x * x.sum().tanh(),
    "amax": lambda x: x * x.amax(1, keepdim=True),
    "amin": lambda x: x + x.amin((1, 2), keepdim=True),
    "var.correction": lambda x: x * aten.var.correction(x, [1], correction=0, keepdim=True).tanh(),
    "std.correction": lambda x: x + aten.std.correction(x, [1, 2], correction=1, keepdim=True),
    "var.dim": lambda x: x * aten.var.dim(x, [1], False, True).tanh(),
    "std.dim": lambda x: x + aten.std.dim(x, [1], False, True),
    "linalg_vector_norm": lambda x: (
        x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 0.5) * 2
    ),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True) * 0.5,
    "prod": lambda x: x * (x.tanh() * 0.1 + 1).prod(1, keepdim=True),
    "min of positions": lambda x: x * x.min(2, keepdim=True)[0],
    "max of positions": lambda x: x + x.max(2, keepdim=True)[0],
    "argmin of positions": lambda x: x * (untied(x, 2).argmin(2, keepdim=True) * 0.1 + 0.5),
    "argmax of positions": lambda x: x * (untied(x, -1).argmax(-1, keepdim=True) * 0.1 + 0.5),
    "softmax": lambda x: x + x.softmax(1) * 2,
    "log_softmax": lambda x: x.log_softmax(1) * 0.3,
    "softmax of positions": lambda x: x.log_softmax(2) * x.softmax(-1),
    "cumsum": lambda x: x.cumsum(1) * 0.3,
    "cumsum of positions": lambda x: x.cumsum(2) * 0.3,
}

"""Over channels or positions, of as many as there are."""

FIXED_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "max": lambda x: x * x.max(1, keepdim=True)[0],
    "min": lambda x: x * x.min(1, keepdim=True)[0],
    "argmax": lambda x: x * (untied(x, 1).argmax(1, keepdim=True) * 0.1 + 0.5),
    "argmin": lambda x: x * (untied(x, 1).argmin(1, keepdim=True) * 0.1 + 0.5),
}


POSITIONS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda x: x.mean(2),
    "sum": lambda x: x.sum(2) * 0.3,
    "amax": lambda x: x.amax(2),
    "amin": lambda x: x.amin(2),
    "max": lambda x: x.max(2)[0],
    "min": lambda x: x.min(2)[0],
    "argmax": lambda x: untied(x, 2).argmax(2) * 0.2,
    "argmin": lambda x: untied(x, 2).argmin(2) * 0.2,
    "var.correction": lambda x: aten.var.correction(x, [2], correction=0),
    "std.correction": lambda x: aten.std.correction(x, [2], correction=1),
    "var.dim": lambda x: aten.var.dim(x, [2], True),
    "std.dim": lambda x: aten.std.dim(x, [2], False),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=2),
    "logsumexp": lambda x: x.logsumexp(2),
    "prod": lambda x: (x.tanh() * 0.1 + 1).prod(2),
    "all": lambda x: (x > -1).all(2).to(x.dtype),
    "cumsum": lambda x: x.cumsum(2)[:, :, -1] * 0.3,
    "softmax": lambda x: x.softmax(2)[:, :, 0],
    "log_softmax": lambda x: x.log_softmax(2)[:, :, 0],
}
"""Over the positions of every channel, whose number a layer then reads."""


def _pooled(room: Room) -> nn.Module:
    """A gate of one number for every channel."""
    reduce = POSITIONS[room.pick(sorted(POSITIONS))]
    return Part(
        lambda s, x: x * room.vector(s.k(reduce(x.flatten(2)).to(x.dtype)).sigmoid()),
        k=nn.Linear(room.channels, room.channels),
    )


def _reduced(room: Room) -> nn.Module:
    return op(REDUCTIONS[room.pick(sorted(REDUCTIONS))])(room)  # type: ignore[return-value]


def _indexed(room: Room) -> nn.Module:
    return op(FIXED_REDUCTIONS[room.pick(sorted(FIXED_REDUCTIONS))])(room)  # type: ignore[return-value]


_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _resampled(room: Room) -> nn.Module | None:
    """Two ways of pooling to half the size, and back to the whole."""
    dims, sides = room.dims, list(room.sides)
    if min(sides) < 4:
        return None
    half, modes = [side // 2 for side in sides], ["nearest", _MODES[dims], _MODES[dims]]
    mode, keep = room.pick([*modes[:2], "bicubic" if dims == 2 else "nearest"]), room.chance(0.3)
    is_halved = min(sides) >= 6 and room.chance()

    def pool(x: Tensor, name: str) -> Tensor:
        size = half if name.startswith("adaptive") else 2
        found: Tensor = getattr(F, f"{name}_pool{dims}d")(x, size)
        return found

    names = ["max", "avg", "adaptive_avg", "adaptive_max"]
    first, second = room.pick(names), room.pick(names)

    def apply(_: Any, x: Tensor) -> Any:
        if is_halved:
            return F.interpolate(x, scale_factor=0.5, mode=mode)
        found = F.interpolate(pool(x, first) + pool(x.tanh(), second), size=sides, mode=mode)
        return x + found if keep else found

    return Part(apply)


def _indices(room: Room) -> nn.Module | None:
    if room.dims != 2 or min(room.sides) < 4:
        return None
    return op(
        lambda x: F.adaptive_max_pool2d(x, 4, return_indices=True)[1].to(x.dtype) * 0.1 - 0.5
    )(room)


COMBINED: dict[str, Piece] = {
    "reduced": _reduced,
    "pooled": _pooled,
    "resampled": _resampled,
    "indices": _indices,
}
"""Pieces of which one of fewer units is the same, made narrower."""

WHOLE: dict[str, Piece] = {"indexed": _indexed}
"""Pieces that need every channel."""
