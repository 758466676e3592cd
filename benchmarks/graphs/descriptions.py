"""What a random network is made of, as a seed or a search draws it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.graphs.elementwise import ELEMENTWISE
from benchmarks.graphs.elementwise import ORDER as ORDER_ELEMENTWISE
from benchmarks.graphs.elementwise import WHOLE as WHOLE_ELEMENTWISE
from benchmarks.graphs.layers import LAYERS
from benchmarks.graphs.movements import MOVEMENTS, ORDER
from benchmarks.graphs.parts import Piece
from benchmarks.graphs.places import PLACES
from benchmarks.graphs.reductions import COMBINED
from benchmarks.graphs.reductions import WHOLE as WHOLE_REDUCTIONS

SCALABLE: dict[str, Piece] = {
    **LAYERS,
    **COMBINED,
    **MOVEMENTS,
    **PLACES,
    **ELEMENTWISE,
}
"""Pieces of which one of fewer units is the same, made narrower."""
PIECES: dict[str, Piece] = {
    **SCALABLE,
    **ORDER,
    **ORDER_ELEMENTWISE,
    **WHOLE_REDUCTIONS,
    **WHOLE_ELEMENTWISE,
}
"""Every piece by name."""

WEIGHTS: dict[str, int] = {
    "convolution": 6,
    "transposed": 9,
    "norm": 8,
    "last norm": 3,
    "summed": 3,
    "scalar": 3,
    "attention": 6,
    "split": 13,
    "reshaped": 9,
    "vector": 4,
    "taken": 8,
    "repeated": 7,
    "created": 5,
    "tables": 5,
    "meshed": 3,
    "numbers": 7,
    "indexed": 5,
    "scattered": 4,
    "expanded": 3,
    "patches": 3,
    "sampled": 2,
    "products": 3,
    "looked up": 14,
    "folded": 2,
    "pooled": 11,
    "recurrent": 3,
    "weight-normed": 2,
    "shuffled": 4,
    "pixel shuffle": 5,
    "pixel unshuffle": 6,
}
"""How often pieces come up that stand for several operators, or rarely fit; others once."""
ALWAYS = ("changed", "pair", "reduced", "beside a constant", "resampled")
"""Pieces of which every network has one: they are dozens of operators."""

STRIDES = (1, 7, 11, 13)
"""A network has a piece of each of so many walks through all."""

Way = Literal["sum", "concat", "gate", "stage", "dense stage"]
PLANAR = {"pixel shuffle", "pixel unshuffle", "patches", "sampled", "indices", "folded"}
"""Pieces of two spatial dimensions only."""
WAYS: tuple[Way, ...] = ("sum", "concat", "gate", "stage", "dense stage")


@dataclass(frozen=True)
class Step:
    """One piece, and the number that decides its sizes."""

    piece: str
    number: int


@dataclass(frozen=True)
class Junction:
    """Two branches that meet, or a row of residual blocks.

    Attributes:
        way: how they meet.
        branches: what each is; of a stage the first is the body of every block, and there are as
            many blocks as there are branches and one.
        number: decides what is left open.
    """

    way: Way
    branches: tuple[tuple[Step, ...], ...]
    number: int


@dataclass(frozen=True)
class Description:
    """What a random network is made of.

    Attributes:
        dims: spatial dimensions.
        units: of the stem.
        scale: channels of one unit.
        side: of the inputs.
        steps: between stem and head.
        head: what gives the outputs.
        seed: of the weights, the inputs, and the levels.
    """

    dims: int
    units: int
    scale: int
    side: int
    steps: tuple[Step | Junction, ...]
    head: Literal["map", "pooled", "flat", "two"]
    seed: int

    @property
    def is_scalable(self) -> bool:
        """Whether the network of fewer units is the same network made narrower."""
        return all(
            step.piece in SCALABLE
            for item in self.steps
            for step in ((item,) if isinstance(item, Step) else sum(item.branches, ()))
        )


def describe(seed: int) -> Description:
    """The description that a seed stands for; every piece comes up in turn."""
    rng = np.random.default_rng(seed)
    names = _weighted(SCALABLE if rng.random() < 0.5 else PIECES)
    steps: list[Step | Junction] = [
        _junction(rng, names) if rng.random() < 0.2 else _step(rng, names)
        for _ in range(int(rng.integers(1, 4)))
    ]
    every = _weighted(PIECES)
    turns = [every[(step * seed + step) % len(every)] for step in STRIDES]
    for piece in (*turns, *ALWAYS):
        step = Step(piece, int(rng.integers(2**31)))
        steps.insert(int(rng.integers(len(steps) + 1)), step)
    dims = 2 if not PLANAR.isdisjoint(turns[:2]) else int(rng.choice([1, 2, 3]))
    head: Sequence[Literal["map", "pooled", "flat", "two"]] = ("map", "pooled", "flat", "two")
    return Description(
        dims=dims,
        units=int(rng.integers(2, 7)),
        scale=int(rng.choice([2, 2, 3])),
        side=int(rng.choice({1: [6, 8], 2: [4, 6], 3: [4]}[dims])),
        steps=tuple(steps),
        head=head[int(rng.integers(4))],
        seed=seed,
    )


def _weighted(pieces: Iterable[str]) -> list[str]:
    return [name for name in pieces for _ in range(WEIGHTS.get(name, 1))]


def _step(rng: np.random.Generator, names: Sequence[str]) -> Step:
    return Step(names[int(rng.integers(len(names)))], int(rng.integers(2**31)))


def _junction(rng: np.random.Generator, names: Sequence[str]) -> Junction:
    branches = tuple(
        tuple(_step(rng, names) for _ in range(int(rng.integers(1, 3)))) for _ in range(2)
    )
    return Junction(WAYS[int(rng.integers(len(WAYS)))], branches, int(rng.integers(2**31)))
