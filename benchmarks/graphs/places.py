"""Pieces about places: patches, samples by a grid, coordinates, tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs.parts import Part, Piece, Room, op, parameter, untied

aten = torch.ops.aten

MOST = 8
"""Units beyond which no patches are made."""


def _patches(room: Room) -> nn.Module | None:
    if room.dims != 2 or room.units > 4 or max(room.sides) > 6:
        return None
    height, width = room.sides
    return Part(
        lambda _, x: torch.unflatten(F.unfold(x, (2, 3), padding=1), 2, (height + 1, width))[
            :, :, 1:
        ]
    )


def _places(x: Tensor) -> Tensor:
    row = torch.linspace(-1, 1, 4, dtype=x.dtype)
    grid = torch.stack(torch.meshgrid(row, row, indexing="ij"), -1)
    return grid.expand(x.shape[0], 4, 4, 2)


def _sampled(room: Room) -> nn.Module | None:
    if room.dims != 2:
        return None
    return op(lambda x: F.grid_sample(x, _places(x), align_corners=False))(room)


def _meshed(room: Room) -> nn.Module | None:
    """Positions made of a number for every channel and one for every row."""
    side, rest = room.sides[0], [1] * (room.dims - 1)

    def apply(s: Any, x: Tensor) -> Any:
        first = aten.meshgrid.default([s.down, s.right])
        second = torch.meshgrid(s.right, s.down, indexing="xy")
        third = torch.meshgrid(s.down, s.right, indexing="ij")
        grid = first[0] * first[1] + second[0] * third[1]
        return x + grid.reshape(-1, side, *rest)

    return Part(apply, down=parameter(room.channels), right=parameter(side))


def _tables(room: Room) -> nn.Module:
    """Rows of a table by number, added at every position of the first spatial dimension."""
    c, side = room.channels, room.sides[0]
    rest = [1] * (room.dims - 1)
    ids = torch.tensor([(3 * i + 1) % 7 for i in range(side)])
    ways: list[Callable[[Any], Tensor]] = [
        lambda s: s.table(s.ids),
        lambda s: s.rows[s.ids],
        lambda s: s.cube[s.ids, :, s.ids],
        lambda s: s.rows.index_select(0, s.ids),
    ]
    way = room.pick(ways)
    return Part(
        lambda s, x: x + way(s).t().reshape(-1, side, *rest),
        table=nn.Embedding(7, c),
        rows=parameter(7, c),
        cube=parameter(7, c, 7),
        ids=ids,
    )


def _looked_up(room: Room) -> nn.Module:
    """Entries of the last dimension by their order, or by numbers that every channel has."""
    c, side, dim = room.channels, room.sides[-1], room.dims + 1
    count, rest = c * math.prod(room.sides[:-1]), room.sides[:-1]
    rows = torch.tensor([(i + j) % side for i in range(count) for j in range(3, 0, -1)])
    ids = rows.reshape(1, c, *rest, 3)

    def expanded(s: Any, x: Tensor) -> Any:
        return s.ids.expand(x.shape[0], *s.ids.shape[1:])

    ways: list[Callable[[Any, Tensor], Any]] = [
        lambda _, x: x.sort(dim)[0],
        lambda _, x: x.topk(min(3, side), dim)[0],
        lambda _, x: untied(x, dim).argsort(dim).to(x.dtype) * 0.2 + x,
        lambda s, x: x.gather(dim, expanded(s, x)),
        lambda s, x: x.scatter(dim, expanded(s, x)[..., :1], 0.5),
        lambda s, x: x.scatter(dim, expanded(s, x), x.relu()),
        lambda s, x: x.scatter_add(dim, expanded(s, x), x.tanh()),
        lambda _, x: x.diff(dim=dim),
        lambda _, x: x.unfold(dim, 2, 1).flatten(-2),
    ]
    return Part(room.pick(ways), ids=ids)


def _outer(room: Room) -> nn.Module:
    shape = (room.channels, room.sides[0], *[1] * (room.dims - 1))
    return Part(
        lambda s, x: x + torch.outer(s.down, s.right).reshape(shape),
        down=parameter(room.channels),
        right=parameter(room.sides[0]),
    )


def _folded(room: Room) -> nn.Module | None:
    """Patches of an image, and the image that they add up to."""
    if room.dims != 2 or room.units > MOST:
        return None
    sides = room.sides

    def apply(_: Any, x: Tensor) -> Any:
        patches = F.unfold(x, (2, 3), padding=1).tanh()
        return F.fold(patches, sides, (2, 3), padding=1) * 0.4

    return Part(apply)


PLACES: dict[str, Piece] = {
    "patches": _patches,
    "sampled": _sampled,
    "meshed": _meshed,
    "tables": _tables,
    "looked up": _looked_up,
    "outer": _outer,
    "folded": _folded,
}
"""Pieces of which one of fewer units is the same, made narrower."""
