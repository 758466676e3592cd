"""Pieces with weights: convolutions, norms, attention, products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs.parts import TRANSPOSED, Part, Piece, Room, parameter, tokens

_BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORMS: dict[int, type[nn.Module]] = {
    1: nn.InstanceNorm1d,
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}


def _convolution(room: Room) -> nn.Module:
    units, kernel, dilation = int(room.rng.integers(2, 7)), room.pick([1, 3, 3, 5]), 1
    if kernel == 3:
        dilation = room.pick([1, 1, 2])
    padding: Any = room.pick(["same", dilation * (kernel // 2), dilation * (kernel // 2)])
    if min(room.sides) > 5 and kernel == 3 and dilation == 1:
        padding = room.pick([padding, 0, "valid", 1])
    return room.conv(units, kernel, padding=padding, dilation=dilation, bias=room.chance(0.8))


def _strided(room: Room) -> nn.Module | None:
    if min(room.sides) < 6:
        return None
    return room.conv(int(room.rng.integers(2, 7)), 3, stride=2, padding=1)


def _grouped(room: Room) -> nn.Module:
    groups, wider = room.pick(room.divisors()), room.pick([1, 2])
    units = groups * wider
    kernel, padding = room.pick([(3, 1), (3, "same"), (1, 0)])
    return room.conv(units, kernel, padding=padding, groups=groups * room.scale)


def _depthwise(room: Room) -> nn.Module:
    wider = room.pick([1, 2]) if room.units < 6 else 1
    dilation = room.pick([1, 2])
    padding = room.pick([dilation, "same"])
    return room.conv(
        wider * room.units, 3, padding=padding, dilation=dilation, groups=room.channels
    )


def _transposed(room: Room) -> nn.Module:
    sizes: list[dict[str, int]] = [{"kernel_size": 3, "padding": 1}]
    if max(room.sides) < 6:
        sizes.append({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1})
        sizes.append({"kernel_size": 2})
    groups = room.pick([1, 1, room.pick(room.divisors())])
    units = int(room.rng.integers(2, 6)) if groups == 1 else groups * room.pick([1, 2])
    given = {**room.pick(sizes), "groups": 1 if groups == 1 else groups * room.scale}
    return TRANSPOSED[room.dims](room.channels, units * room.scale, **given)


def _of_heads(room: Room) -> nn.Module:
    """One small convolution for every head, heads and batch being one dimension."""
    c, sides, width = room.channels, room.sides, room.units // room.pick(room.divisors())
    conv = Room(width, 1, room.sides, room.rng).conv(width)

    def apply(s: Any, x: Tensor) -> Any:
        heads = x.reshape(x.shape[0] * (c // width), width, *sides)
        return s.k(heads).reshape(x.shape[0], c, *sides)

    return Part(apply, k=conv)


def _tied(room: Room) -> nn.Module:
    return Part(lambda s, x: s.k(F.relu(s.k(x))), k=room.conv(room.units, 3, padding=1))


def _dense(room: Room) -> nn.Module:
    """A linear layer over the channels of every position."""
    last = int(room.rng.integers(2, 7)) * room.scale
    return Part(lambda s, x: s.k(x.movedim(1, -1)).movedim(-1, 1), k=nn.Linear(room.channels, last))


def _mixer(room: Room) -> nn.Module:
    """Two linear layers over positions."""
    count, sides = int(torch.tensor(room.sides).prod()), room.sides
    hidden = int(room.rng.integers(2, 6)) * room.scale
    return Part(
        lambda s, x: x + s.b(F.gelu(s.a(x.flatten(2)))).unflatten(2, sides),
        a=nn.Linear(count, hidden),
        b=nn.Linear(hidden, count),
    )


def _channel_norm(room: Room) -> nn.Module:
    c, groups = room.channels, room.pick(room.divisors())
    norms: list[Callable[[], nn.Module]] = [
        lambda: _BATCH_NORMS[room.dims](c),
        lambda: _BATCH_NORMS[room.dims](c),
        lambda: _INSTANCE_NORMS[room.dims](c, affine=True),
        lambda: _INSTANCE_NORMS[room.dims](c, affine=True, track_running_stats=True),
        lambda: nn.GroupNorm(groups * room.scale, c),
        lambda: nn.GroupNorm(1, c),
        lambda: nn.PReLU(c),
    ]
    return room.pick(norms)()


def _last_norm(room: Room) -> nn.Module:
    c = room.channels
    if room.chance(0.2):
        return nn.LayerNorm([c, *room.sides])
    norm = room.pick([nn.LayerNorm, nn.RMSNorm])(c)
    return Part(lambda s, x: s.norm(x.movedim(1, -1)).movedim(-1, 1), norm=norm)


def _excited(room: Room) -> nn.Module:
    narrow = max(1, room.units // 2)
    return Part(
        lambda s, x: x * s.up(F.relu(s.down(x.mean(room.spatial, keepdim=True)))).sigmoid(),
        down=room.conv(narrow),
        up=room.of(narrow).conv(room.units),
    )


def _attention(room: Room) -> nn.Module:
    """Attention of several heads in one of five spellings, with weights around it."""
    c, sides, width = room.channels, room.sides, room.units // room.pick(room.divisors())
    count = c // width

    def by_function(s: Any, x: Tensor) -> Tensor:
        parts = s.qkv(tokens(x)).reshape(x.shape[0], -1, 3, count, width)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def causal(_: Any, x: Tensor) -> Tensor:
        q = tokens(x).reshape(x.shape[0], -1, count, width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, q, q, is_causal=True)
        return mixed.transpose(1, 2).reshape(x.shape[0], -1, c)

    def by_products(s: Any, x: Tensor) -> Tensor:
        q, k, v = s.qkv(tokens(x)).chunk(3, -1)
        q, k, v = (t.reshape(x.shape[0], -1, count, width).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-1, -2) / 2).softmax(-1)
        return torch.matmul(scores, v).transpose(1, 2).reshape(x.shape[0], -1, c)

    def by_batched_products(_: Any, x: Tensor) -> Tensor:
        q = tokens(x).reshape(x.shape[0], -1, count, width).transpose(1, 2)
        q = q.reshape(x.shape[0] * count, -1, width)
        scores = torch.baddbmm(q.mean(2, keepdim=True), q, q.transpose(1, 2), alpha=0.5)
        mixed = torch.bmm(scores.log_softmax(-1), q) * 0.1
        return (
            mixed.reshape(x.shape[0], count, -1, width).transpose(1, 2).reshape(x.shape[0], -1, c)
        )

    def one_head(_: Any, x: Tensor) -> Tensor:
        q = tokens(x)
        return F.scaled_dot_product_attention(q, q, q, scale=room_scale)

    room_scale = room.pick([0.5, None])
    ways = [by_function, causal, by_products, by_batched_products, one_head]
    way = room.pick(ways)
    has_qkv = way in (by_function, by_products)
    qkv = nn.Linear(c, 3 * c) if has_qkv else nn.Identity()
    return Part(
        lambda s, x: x + s.out(way(s, x)).transpose(1, 2).unflatten(2, sides),
        qkv=qkv,
        out=nn.Linear(c, c),
    )


def _multihead(room: Room) -> nn.Module:
    heads = room.pick(room.divisors()) * room.scale
    attention = nn.MultiheadAttention(room.channels, heads, batch_first=True)

    def apply(s: Any, x: Tensor) -> Any:
        mixed = s.a(tokens(x), tokens(x), tokens(x), need_weights=False)[0]
        return mixed.transpose(1, 2).unflatten(2, room.sides)

    return Part(apply, a=attention)


def _summed(room: Room) -> nn.Module:
    """A product with a matrix in one of four spellings, or of a map with itself."""
    out = int(room.rng.integers(2, 7)) * room.scale
    ways: list[Callable[[Any, Tensor], Tensor]] = [
        lambda s, x: torch.einsum("bcp,oc->bop", x.flatten(2), s.w),
        lambda s, x: torch.einsum("...c,oc->...o", tokens(x), s.w).transpose(1, 2),
        # Without an arrow the letters of the result are in alphabetical order.
        lambda s, x: torch.einsum("bcp, ac", x.flatten(2), s.w).transpose(0, 1),
        lambda s, x: (
            torch.einsum("bcp,bdp,od->boc", x.flatten(2), x.flatten(2), s.w)
            .softmax(-1)
            .matmul(x.flatten(2))
        ),
    ]
    way = room.pick(ways)
    return Part(
        lambda s, x: torch.unflatten(way(s, x), 2, room.sides), w=parameter(out, room.channels)
    )


def _products(room: Room) -> nn.Module:
    """Matrix products on one number for every channel, in front of a gate."""
    c, spatial = room.channels, room.spatial
    ways: list[Callable[[Any, Tensor], Tensor]] = [
        lambda s, v: torch.addmm(s.b, torch.mm(v, s.w), s.u, alpha=0.5),
        lambda s, v: torch.addmm(s.b, v, s.u, beta=2) + (v @ s.b)[:, None],
        lambda s, v: torch.mm(v, s.w),
    ]
    way = room.pick(ways)
    return Part(
        lambda s, x: x * room.vector(way(s, x.mean(spatial)).tanh()),
        w=parameter(c, c),
        u=parameter(c, c),
        b=parameter(c),
    )


def _weight_normed(room: Room) -> nn.Module:
    """A convolution whose weight is a direction and a length."""
    conv = room.conv(int(room.rng.integers(2, 7)), 3, padding=1)
    normed: nn.Module = nn.utils.parametrizations.weight_norm(conv)
    return normed


def _recurrent(room: Room) -> nn.Module:
    """A recurrent layer over positions, from the first to the last."""
    layer = room.pick([nn.LSTM, nn.GRU])
    hidden, both = int(room.rng.integers(2, 4)) * room.scale, room.chance(0.3)
    return Part(
        lambda s, x: torch.unflatten(s.layer(tokens(x))[0].transpose(1, 2), 2, room.sides) * 2,
        layer=layer(room.channels, hidden, batch_first=True, bidirectional=both),
    )


LAYERS: dict[str, Piece] = {
    "convolution": _convolution,
    "strided": _strided,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "transposed": _transposed,
    "convolution of heads": _of_heads,
    "weight-normed": _weight_normed,
    "recurrent": _recurrent,
    "tied": _tied,
    "dense": _dense,
    "mixer": _mixer,
    "norm": _channel_norm,
    "last norm": _last_norm,
    "excited": _excited,
    "attention": _attention,
    "multihead": _multihead,
    "summed": _summed,
    "products": _products,
}
"""Pieces of which one of fewer units is the same, made narrower."""
