"""Pieces that move, repeat, cut and join entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs.parts import Part, Piece, Room, parameter, tokens

aten = torch.ops.aten

MOST = 8
"""Units beyond which nothing is repeated."""


def _cut_of(room: Room) -> int:
    """A number of channels that is neither none nor all."""
    return room.scale * int(room.rng.integers(1, room.units))


def _joined(parts: Any) -> Tensor:
    """Parts that do not change places, each changed in its own way."""
    return torch.cat([part * (i + 1) * 0.7 for i, part in enumerate(parts)], 1)


def _split(room: Room) -> nn.Module | None:
    if room.units < 2:
        return None
    c, at, half = room.channels, _cut_of(room), room.channels // 2
    splits: dict[str, Callable[[Tensor], Any]] = {
        "split.Tensor": lambda x: torch.split(x, at, 1),
        "split_with_sizes": lambda x: torch.split(x, [at, c - at], 1),
        "split.sizes": lambda x: aten.split.sizes(x, [at, c - at], 1),
        "tensor_split.indices": lambda x: x.tensor_split((at,), 1),
        "slice": lambda x: (x[:, :at].relu(), x[:, at:]),
        "slice from behind": lambda x: (x[:, -at:].relu(), x[:, :-at]),
        "narrow": lambda x: (aten.narrow(x, 1, at, c - at), aten.narrow(x, 1, 0, at)),
    }
    if room.units % 2 == 0:
        splits["chunk"] = lambda x: x.chunk(2, 1)
        splits["tensor_split.sections"] = lambda x: x.tensor_split(2, 1)
        splits["narrow in halves"] = lambda x: (
            aten.narrow(x, 1, half, half) + aten.narrow(x, 1, 0, half),
        )
    split, keep = splits[room.pick(sorted(splits))], room.pick(["all", "all", "first", "product"])

    def apply(_: Any, x: Tensor) -> Any:
        parts = split(x)
        if keep == "first":
            return parts[0] * 2
        if keep == "product":
            return parts[-1] * parts[0].mean(1, keepdim=True).sigmoid()
        return _joined(parts)

    return Part(apply)


def _unbound(room: Room) -> nn.Module:
    dim = room.pick(room.spatial)
    return Part(lambda _, x: torch.stack([p * (i + 1) for i, p in enumerate(x.unbind(dim))], dim))


def _repeated(room: Room) -> nn.Module | None:
    if room.units > MOST:
        return None
    c, dims = room.channels, room.dims
    ways: list[Callable[[Tensor], Any]] = [
        lambda x: x.repeat(1, 2, *[1] * dims) * 0.5,
        lambda x: x.tile((1, 2, *[1] * dims)) * 0.5,
        lambda x: x.repeat_interleave(2, 1),
        lambda x: x.repeat_interleave(2, 1, output_size=2 * c),
        lambda x: torch.cat([x, x.relu()], 1),
        lambda x: torch.stack([x, x.relu()], 1).flatten(1, 2),
    ]
    way = room.pick(ways)
    return Part(lambda _, x: way(x))


def _stacked(room: Room) -> nn.Module:
    return Part(lambda s, x: torch.stack([x, x.relu(), s.k(x)], 2).sum(2), k=room.conv(room.units))


def _longer(room: Room) -> nn.Module | None:
    if max(room.sides) > MOST:
        return None
    return Part(lambda s, x: torch.cat([x, s.k(x).relu()], 2), k=room.conv(room.units))


def _scattered(room: Room) -> nn.Module | None:
    if room.units < 2:
        return None
    at, last = _cut_of(room), room.sides[-1]
    ways: list[Callable[[Tensor], Any]] = [
        lambda x: x.slice_scatter(x[:, :at].relu(), 1, 0, at),
        lambda x: x.slice_scatter(x[..., : last // 2].relu(), x.dim() - 1, 0, last // 2 * 2, 2),
        lambda x: x.select_scatter(x.select(2, 1).relu(), 2, -1),
        lambda x: x.select_scatter(x.select(1, 0) * 2, 1, 0),
    ]
    way = room.pick(ways)
    return Part(lambda _, x: way(x))


def _taken(room: Room) -> nn.Module:
    last, side = len(room.sides) + 1, room.sides[-1]
    ids = torch.tensor([(2 * i + 1) % side for i in range(side)])
    ways: list[Callable[[Any, Tensor], Any]] = [
        lambda s, x: x.index_select(last, s.ids),
        lambda s, x: x[..., s.ids],
        lambda _, x: x[..., ::2] if side > 5 else x[..., 1:],
        lambda _, x: x + x.select(last, 1).unsqueeze(last),
        lambda _, x: x.flip(last),
        lambda _, x: x.roll((1, -1), (1 + room.dims, 2)),
    ]
    return Part(room.pick(ways), ids=ids)


def _reshaped(room: Room) -> nn.Module:
    c, sides = room.channels, room.sides
    width = room.units // room.pick(room.divisors())
    moves: list[Callable[[Tensor], Any]] = [
        lambda x: x.reshape(-1, c, *sides).flatten(2).relu().reshape(x.shape),
        lambda x: x.flatten(2).relu().reshape_as(x),
        lambda x: torch.unflatten(x, 1, (c // width, width)).relu().flatten(1, 2),
        lambda x: tokens(x).swapaxes(1, 2).movedim(1, -1).movedim((1, 2), (2, 1)).reshape(x.shape),
        lambda x: x.movedim(1, -1).relu().movedim(-1, 1),
        lambda x: x.permute(0, *range(2, x.dim()), 1).relu().movedim(-1, 1),
        lambda x: x.swapaxes(1, 2).contiguous().swapaxes(2, 1),
        lambda x: x.unsqueeze(1).squeeze(1).unsqueeze(0).squeeze((0,)),
    ]
    move = room.pick(moves)
    return Part(lambda _, x: move(x))


def _softmax_of_heads(room: Room) -> nn.Module:
    """A softmax in every head, heads and batch being one dimension."""
    c, sides, width = room.channels, room.sides, room.units // room.pick(room.divisors())

    def apply(_: Any, x: Tensor) -> Any:
        heads = x.reshape(x.shape[0] * (c // width), width, -1)
        return heads.softmax(1).reshape(x.shape[0], c, *sides) * 2

    return Part(apply)


def _vector(room: Room) -> nn.Module:
    """Numbers for every channel, in front of a gate; the last ones by a matrix."""
    c, dims = room.channels, room.dims
    spatial = room.spatial
    ways: list[Callable[[Any, Tensor], Any]] = [
        # A level of one channel still has that dimension.
        lambda s, x: x.mean(spatial, keepdim=True).squeeze() @ s.w,
        lambda s, x: x.squeeze(1).mean(spatial) @ s.w,
        lambda s, x: x.amax(spatial, keepdim=True).squeeze((1, *spatial)) @ s.w,
        lambda s, x: x.mean(spatial) @ s.w.t(),
        lambda _, x: x.mean(spatial).unsqueeze(1).squeeze(1).tanh(),
    ]
    way = room.pick(ways)
    if room.units == 1:
        # Made narrower, the network itself would lose the dimension of its one channel.
        way = ways[-1]
    return Part(lambda s, x: x * way(s, x).reshape(-1, c, *[1] * dims), w=parameter(c, c))


def _padded(room: Room) -> nn.Module | None:
    if room.units > MOST or room.units < 2:
        return None
    none, at = [0, 0] * room.dims, _cut_of(room)
    amounts = [
        [*none, at, 0],
        [*none, 0, at],
        [*none, at, at],
        [1, 1, *none[2:], 0, at],
        [*none, -at, 0],
        [-1, 0, *none[2:], 0, -at],
    ]
    amount = room.pick(amounts)
    added = room.channels + amount[-1] + amount[-2]
    return Part(lambda s, x: F.pad(x, amount) + s.p, p=parameter(added, *[1] * room.dims))


def _bordered(room: Room) -> nn.Module:
    pads, mode = [1, 1] * room.dims, room.pick(["reflect", "replicate", "circular", "constant"])
    return Part(lambda _, x: F.pad(x, pads, mode=mode)[..., :-1])


def _expanded(room: Room) -> nn.Module:
    c, rest = room.channels, [-1] * room.dims
    ways: list[Callable[[Any, Tensor], Any]] = [
        lambda s, x: x.mean(1, keepdim=True).expand(-1, c, *rest) * s.p,
        lambda _, x: x * x.mean(1, keepdim=True).sigmoid().expand_as(x),
        lambda s, x: x + s.p.expand_as(x),
        lambda s, x: s.k(x).mean((0, *room.spatial), keepdim=True).expand_as(x) + x,
    ]
    p = parameter(c, *[1] * room.dims)
    return Part(room.pick(ways), p=p, k=room.conv(room.units))


def _pixel_unshuffle(room: Room) -> nn.Module | None:
    if room.dims != 2 or room.units > 4 or any(side % 2 or side < 6 for side in room.sides):
        return None
    return nn.PixelUnshuffle(2)


def _pixel_shuffle(room: Room) -> nn.Module | None:
    if room.dims != 2 or room.units % 4 or max(room.sides) > MOST:
        return None
    return nn.PixelShuffle(2)


def _shuffled(room: Room) -> nn.Module | None:
    """Channels of several groups taken in turns, as in ShuffleNet."""
    groups = room.pick(room.divisors())
    c, sides = room.channels, room.sides
    if room.chance():
        return nn.ChannelShuffle(groups)

    def apply(_: Any, x: Tensor) -> Any:
        grouped = x.reshape(x.shape[0], groups, c // groups, *sides).transpose(1, 2)
        return grouped.reshape(x.shape[0], c, *sides)

    return Part(apply)


def _one_channel(room: Room) -> nn.Module:
    channel = int(room.rng.integers(room.channels))
    ways: list[Callable[[Tensor], Any]] = [
        lambda x: x + x.select(1, channel - room.channels).unsqueeze(1),
        lambda x: x * x[:, channel : channel + 1].tanh(),
    ]
    way = room.pick(ways)
    return Part(lambda _, x: way(x))


def _ordered(room: Room) -> nn.Module:
    """Channels in another order."""
    order = torch.arange(room.channels).flip(0)
    ways: list[Callable[[Any, Tensor], Any]] = [
        lambda s, x: x.index_select(1, s.order),
        lambda _, x: x.flip(1),
        lambda _, x: x.roll(1, 1),
        lambda _, x: torch.stack(x.unbind(1)[::-1], 1),
        lambda _, x: x[:, ::2] if room.units % 2 == 0 else x[:, ::1],
    ]
    return Part(room.pick(ways), order=order)


MOVEMENTS: dict[str, Piece] = {
    "split": _split,
    "unbound": _unbound,
    "repeated": _repeated,
    "stacked": _stacked,
    "longer": _longer,
    "scattered": _scattered,
    "taken": _taken,
    "reshaped": _reshaped,
    "vector": _vector,
    "padded": _padded,
    "bordered": _bordered,
    "expanded": _expanded,
    "pixel unshuffle": _pixel_unshuffle,
    "pixel shuffle": _pixel_shuffle,
}
"""Pieces of which one of fewer units is the same, made narrower."""

ORDER: dict[str, Piece] = {
    "shuffled": _shuffled,
    "one channel": _one_channel,
    "ordered": _ordered,
    "softmax of heads": _softmax_of_heads,
}
"""Pieces that say which channel is which: what is left of them is narrower by no such rule."""
