"""Cases of operators that work element by element or move entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.axes.small import Case, Op, op, sized, tokens

aten = torch.ops.aten

RAMP = torch.linspace(1, 2, 16, dtype=torch.float64).view(-1, 1, 1)

_NAMES = """abs alias celu ceil clone contiguous cos detach elu erf exp expm1 floor gelu hardsigmoid
hardswish hardtanh leaky_relu log_sigmoid mish neg ones_like relu relu6 round selu sigmoid sign silu
sin softplus tanh tan trunc square zeros_like"""

UNARY: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(aten, name) for name in _NAMES.split()},
    "clamp": lambda x: aten.clamp(x, -1, 1),
    "clamp_min": lambda x: aten.clamp_min(x, 0.1),
    "clamp_max": lambda x: aten.clamp_max(x, 0.1),
    "roots": lambda x: aten.rsqrt(x.square() + 1) + aten.sqrt(x.square() + 1),
    "logarithms": lambda x: aten.log(x.square() + 1) + aten.log1p(x.square()),
    "reciprocal": lambda x: aten.reciprocal(x.square() + 1),
    "logit": lambda x: aten.logit(x.sigmoid() * 0.9),
    "logical_not": lambda x: aten.logical_not(x > 0).double(),
    "full_like": lambda x: aten.full_like(x, 0.3),
    "fill": lambda x: aten.fill.Scalar(x, 0.3) + aten.fill.Tensor(x, x.new_full((), 0.2)),
    "zero": aten.zero,
    "dropout": lambda x: F.dropout(F.dropout2d(x, training=False), training=False),
    "dtypes": lambda x: x.to(torch.float32).to(x.dtype) + aten.to.dtype_layout(x, dtype=x.dtype),
    "bitwise_not": lambda x: aten.bitwise_not(x > 0).double(),
    "copies": lambda x: aten._to_copy(x, dtype=torch.float32).to(x.dtype),
    "scalars": lambda x: aten.rsub(((x + 1 - 0.5) * 2 / 3) ** 2, 1) + 2 ** x.tanh(),
    "scalar arithmetic": lambda x: aten.div.Scalar(
        aten.mul.Scalar(aten.sub.Scalar(aten.add.Scalar(x, 1), 0.5), 2), 3
    ),
    "comparisons": lambda x: sum(
        f(x.round(), 0).double() * weight
        for weight, f in enumerate(
            [torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge], start=1
        )
    ),
}
"""Element by element: their sum is one case."""

JOIN: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda x, y: (x + y) * (x - 2 * y) / (y.square() + 1),
    "division": lambda x, y: torch.div(x, y.abs() + 0.5, rounding_mode="floor"),
    "powers": lambda x, y: torch.pow(x.abs() + 0.5, y.tanh()),
    "extremes": lambda x, y: torch.maximum(x, y) + 2 * torch.minimum(x, y * 0.5),
    "where": lambda x, y: torch.where(torch.logical_or(x > 0, y > 0), x, y),
    "where scalar": lambda x, y: (
        aten.where.ScalarOther(x > 0, y, 0.5)
        + aten.where.ScalarSelf(x > 0, 0.5, y)
        + aten.where.Scalar(x > 0, 0.25, 0.5)
    ),
    "masked_fill": lambda x, y: x.masked_fill(torch.logical_and(x > 0, y < 0), 0.5),
    "masked_fill tensor": lambda x, y: x.masked_fill(x > 0, y.mean()),
    "comparisons": lambda x, y: (
        (x == y).double() + 2 * (x != y) + 3 * (x < y) + 4 * (x <= y) + 5 * (x > y) + 6 * (x >= y)
    ),
    "bits": lambda x, y: ((x > 0) & (y > 0)).double() + 2 * ((x > 0) | (y < 0)),
    "copy": lambda x, y: aten.copy(x, y.relu()),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3) + torch.lerp(x, y, y.sigmoid()),
    "addc": lambda x, y: torch.addcmul(x, x, y) + torch.addcdiv(x, x, y.square() + 1),
}
"""Element by element on the two halves of a feature map: their sum is one case."""


def _halves(function: Callable[[Any, Any], Any]) -> Callable[[int], nn.Module]:
    return lambda c: Op(
        lambda s, x: function(x, s.other(x)), other=nn.Conv2d(c, c, 1, groups=c, bias=False)
    )


def _shuffled(x: torch.Tensor, c: int) -> torch.Tensor:
    return x.reshape(x.shape[0], 2, c // 2, 4, 4).transpose(1, 2).reshape(x.shape[0], c, 4, 4)


def _parts_reduced(x: Any, c: int) -> torch.Tensor:
    first, second = x.split(c // 2, 1)
    reduced: torch.Tensor = first.amax(1, keepdim=True) + second.mean(1, keepdim=True)
    return reduced


def _gated(c: int) -> nn.Module:
    def apply(s: Any, x: torch.Tensor) -> torch.Tensor:
        value, gate = s.k(x).chunk(2, 1)
        return value * gate.sigmoid()  # type: ignore[no-any-return]

    return Op(apply, k=nn.Conv2d(c, 2 * c, 1))


def _differences(c: int) -> nn.Module:
    return Op(
        lambda s, x: x.diff(dim=2, prepend=s.first.expand(x.shape[0], -1, -1, -1)),
        first=torch.rand(1, c, 1, 4).double(),
    )


def _grid(down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    first = aten.meshgrid.default([down, right])
    second = torch.meshgrid(right, down, indexing="xy")
    grid: torch.Tensor = first[0] * first[1] + second[0] * second[1]
    return grid.unsqueeze(-1)


def _changed(x: torch.Tensor) -> torch.Tensor:
    """A part of a value, and a row of another, changed in place before the whole is read."""
    mask = x.new_zeros(4, 4)
    mask[1:, :2] = 1.0
    x[:, :, 1:].mul_(2)
    return x + mask


def _places(x: torch.Tensor) -> torch.Tensor:
    row = torch.linspace(-1, 1, 3, dtype=x.dtype)
    grid = torch.stack(torch.meshgrid(row, row, indexing="ij"), -1)
    return grid.expand(x.shape[0], 3, 3, 2)


def _sampled_by_heads(c: int) -> nn.Module:
    def apply(s: Any, x: torch.Tensor) -> torch.Tensor:
        heads = x.reshape(x.shape[0] * (c // 4), 4, 4, 4)
        places = s.places(x).reshape(x.shape[0] * (c // 4), 2, 4, 4).tanh()
        found = F.grid_sample(heads, places.permute(0, 2, 3, 1), align_corners=False)
        return found.reshape(x.shape[0], c, 4, 4)

    return Op(apply, places=nn.Conv2d(c, c // 2, 1))


ELEMENTWISE = {
    "unary": Case(op(lambda x: sum(f(x) * 0.1 for f in UNARY.values()))),
    "join": Case(_halves(lambda x, y: sum(f(x, y) * 0.1 for f in JOIN.values()))),
    "in place": Case(op(lambda x: aten.relu_(x * 1).mul_(2))),
    "buffers": Case(
        lambda c: Op(
            lambda s, x: x * s.scale + s.p, scale=torch.rand(c, 1, 1), p=nn.Parameter(torch.ones(1))
        )
    ),
    "constant": Case(sized(lambda x, c: x * RAMP[:c])),
    "range": Case(
        sized(lambda x, c: x * torch.arange(c, dtype=x.dtype).view(-1, 1, 1)), kept="all"
    ),
    "steps": Case(
        sized(
            lambda x, c: (
                x + torch.arange(1, c + 1).view(-1, 1, 1) + torch.arange(0, 2 * c, 2).view(-1, 1, 1)
            )
        ),
        kept="all",
    ),
    "created": Case(
        sized(
            lambda x, c: (
                torch.cat([x, torch.zeros(x.shape[0], c, 4, 4, dtype=x.dtype)], 1)
                + torch.ones(x.shape[0], 2 * c, 1, 1, dtype=x.dtype)
                + torch.full((1, 2 * c, 1, 1), 0.5, dtype=x.dtype)
                + torch.scalar_tensor(0.5, dtype=x.dtype)
            )
        )
    ),
    "created like": Case(
        sized(
            lambda x, c: (
                torch.cat([x, x.new_zeros(x.shape[0], c, 4, 4)], 1)
                + x.new_ones(1, 2 * c, 1, 1)
                + x.new_full((1, 2 * c, 1, 1), 0.5)
            )
        )
    ),
    "linspace": Case(
        sized(lambda x, c: x * torch.linspace(1, 2, c, dtype=x.dtype).view(-1, 1, 1)), kept="all"
    ),
    "meshgrid": Case(
        lambda c: Op(
            lambda s, x: x + _grid(s.down, s.right),
            down=torch.rand(c).double(),
            right=torch.rand(4).double(),
        )
    ),
    "tied": Case(lambda c: Op(lambda s, x: s.k(F.relu(s.k(x))), k=nn.Conv2d(c, c, 3, padding=1))),
    "normalize": Case(op(lambda x: F.normalize(x, dim=1))),
}

MOVEMENTS = {
    "differences": Case(_differences),
    "differences of channels": Case(op(lambda x: x.diff(dim=1)), kept="all"),
    "outer": Case(
        lambda c: Op(
            lambda s, x: x * torch.outer(s.down, s.right).unsqueeze(-1),
            down=torch.rand(c).double(),
            right=torch.rand(4).double(),
        )
    ),
    "tile": Case(op(lambda x: x.tile(1, 2, 1, 1))),
    "windows": Case(op(lambda x: x.unfold(2, 2, 1).mean(-1))),
    "windows of channels": Case(op(lambda x: x.unfold(1, 4, 4).mean(-1)), kept="all"),
    "concat of three": Case(op(lambda x: torch.cat([x, x.relu(), -x], 1))),
    "concat of tokens": Case(op(lambda x: torch.cat([x, x.relu()], 3))),
    "repeat_interleave": Case(op(lambda x: x.repeat_interleave(2, 1) * 0.5)),
    "tensor_split": Case(
        sized(
            lambda x, c: torch.cat(
                [p * (i + 1) for i, p in enumerate(x.tensor_split((c // 2,), 1))], 1
            )
        )
    ),
    "tensor_split in sections": Case(
        op(lambda x: torch.cat([p * (i + 1) for i, p in enumerate(x.tensor_split(2, 1))], 1))
    ),
    "slice_scatter": Case(sized(lambda x, c: x.slice_scatter(x[:, : c // 2].relu(), 1, 0, c // 2))),
    "slice_scatter of pixels": Case(op(lambda x: x.slice_scatter(x[:, :, :2].relu(), 2, 0, 4, 2))),
    "select_scatter": Case(op(lambda x: x.select_scatter(x[:, :, 1].relu(), 2, -1))),
    "slices changed in place": Case(op(lambda x: _changed(x * 1))),
    "patches": Case(op(lambda x: F.unfold(x, (2, 3), padding=1).unsqueeze(-1))),
    "grid_sample": Case(op(lambda x: F.grid_sample(x, _places(x), align_corners=False))),
    "grid_sample of heads": Case(_sampled_by_heads),
    "stack": Case(op(lambda x: torch.stack([x, x.relu(), -x], 2).sum(2))),
    "stack in front": Case(op(lambda x: torch.stack([x, x.relu()], 1).flatten(1, 2))),
    "chunk": Case(_gated),
    "split": Case(
        sized(lambda x, c: torch.cat([p * (i + 1) for i, p in enumerate(x.split(c // 2, 1))], 1))
    ),
    "unequal split": Case(
        sized(
            lambda x, c: torch.cat(
                [p * (i + 1) for i, p in enumerate(x.split([c // 4, 3 * c // 4], 1))], 1
            )
        )
    ),
    "split.sizes": Case(
        sized(lambda x, c: aten.split.sizes(x, [c // 2, c // 2], 1)[0] * 2), kept="some"
    ),
    "split_with_sizes": Case(
        sized(lambda x, c: torch.split_with_sizes(x, [c // 2, c // 2], 1)[1].relu()), kept="some"
    ),
    "parts reduced": Case(sized(_parts_reduced)),
    "unbind": Case(op(lambda x: torch.stack([p * (i + 1) for i, p in enumerate(x.unbind(2))], 2))),
    "unbind channels": Case(op(lambda x: torch.stack(x.unbind(1)[::-1], 1)), kept="all"),
    "select": Case(op(lambda x: x + x[:, 3:4] + x.select(1, -5).unsqueeze(1)), kept="some"),
    "slice": Case(sized(lambda x, c: torch.cat([x[:, : c // 2].relu(), x[:, c // 2 :]], 1))),
    "slice from behind": Case(
        sized(lambda x, c: torch.cat([x[:, -c // 2 :].relu(), x[:, : -c // 2]], 1))
    ),
    "narrow": Case(
        sized(lambda x, c: aten.narrow(x, 1, c // 2, c // 2) + aten.narrow(x, 1, 0, c // 2))
    ),
    "slice with a step": Case(op(lambda x: x[:, ::2]), kept="all"),
    "slice of pixels": Case(op(lambda x: x[:, :, ::2, 1:])),
    "flatten": Case(op(lambda x: x.flatten(1)), head="linear"),
    "view": Case(op(lambda x: x.view(x.shape[0], -1)), head="linear"),
    "view with sizes": Case(sized(lambda x, c: x.reshape(-1, c * 16)), head="linear"),
    "unflatten": Case(sized(lambda x, c: x.unflatten(1, (c // 4, 4)).relu().flatten(1, 2))),
    "sizes of heads and the batch": Case(
        sized(
            lambda x, c: (
                x.reshape(x.shape[0] * (c // 4), 4, -1).softmax(1).reshape(x.shape[0], c, 4, 4)
            )
        )
    ),
    "reshape_as": Case(op(lambda x: x.flatten(2).relu().reshape_as(x))),
    "transposes": Case(
        op(
            lambda x: (
                tokens(x).swapaxes(1, 2).movedim(1, -1).movedim((1, 2), (2, 1)).reshape(x.shape)
            )
        )
    ),
    "t": Case(
        lambda c: Op(lambda s, x: x.mean((2, 3)) @ s.w.t(), w=nn.Parameter(torch.ones(c, c))),
        head="linear",
    ),
    "squeeze": Case(op(lambda x: x.mean((2, 3), keepdim=True).squeeze()), head="linear"),
    "squeeze to one channel": Case(
        op(lambda x: x.mean((2, 3), keepdim=True).squeeze(1).squeeze((2, 3))),
        head="linear",
        kept="some",
        channels=4,
    ),
    "flip": Case(op(lambda x: x.flip(1)), kept="some"),
    "roll": Case(op(lambda x: x.roll(1, 1)), kept="all"),
    "roll of pixels": Case(op(lambda x: x.roll((1, -1), (2, 3)).flip(3))),
    "pixel_shuffle": Case(lambda c: nn.PixelShuffle(2)),
    "pixel_unshuffle": Case(lambda c: nn.PixelUnshuffle(2)),
    "channel shuffle": Case(sized(_shuffled), kept="some"),
    "channel_shuffle": Case(op(lambda x: F.channel_shuffle(x, 4))),
    "pad": Case(sized(lambda x, c: F.pad(x, (1, 1, 0, 0, c // 2, c)) * 2)),
    "crop": Case(sized(lambda x, c: F.pad(x, (-1, 0, 0, 0, -c // 4, -c // 4)))),
    "reflect": Case(op(lambda x: F.pad(x, (1, 1, 2, 1), mode="reflect"))),
    "expand": Case(sized(lambda x, c: x.mean(1, keepdim=True).expand(-1, c, -1, -1))),
    "expand_as": Case(op(lambda x: x * x.mean(1, keepdim=True).sigmoid().expand_as(x))),
    "repeat": Case(op(lambda x: x.repeat(1, 2, 1, 1))),
}
