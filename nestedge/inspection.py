"""What the levels of a nested network are: sizes, order, tiles, and where a width is wasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nestedge.cost import count_macs, count_parameters
from nestedge.harvest import Stayed
from nestedge.materialization import harvest_level
from nestedge.model import NestedModel
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Program, Weight
from nestedge.program.operators import CONVOLUTION

VECTOR = 8
"""Channels that vector units and tensor cores work on at once, at least."""


@dataclass(frozen=True)
class LevelReport:
    """One level.

    Attributes:
        parameters: weights and biases.
        macs: multiply-accumulates of one run with a batch of 1.
        inside: the levels that have everything it uses.
        blocks: for every stage the blocks it keeps, of how many.
        wasted: layers whose number of outputs is no multiple of `VECTOR`, with that number: they
            take as long as the next multiple.
        removed: channels, heads or groups that element masks left dead and that are gone, by axis.
        stayed: constant ones that could not go, and why.
    """

    parameters: int
    macs: int
    inside: tuple[str, ...]
    blocks: Mapping[str, tuple[int, int]]
    wasted: Mapping[str, int]
    removed: Mapping[str, int]
    stayed: tuple[Stayed, ...]


@dataclass(frozen=True)
class Inspection:
    """A nested network.

    Attributes:
        levels: by name.
        axes: for every width axis its size in units and its breakpoints.
        tiles: into how many tiles its segments cut the weights.
        stored_parameters: weights and biases that are stored, level-specific ones included.
        is_chain: whether of any two levels one lies in the other.
    """

    levels: Mapping[str, LevelReport]
    axes: Mapping[str, tuple[int, ...]]
    tiles: int
    stored_parameters: int
    is_chain: bool


def inspect(nested: NestedModel) -> Inspection:
    """Describe a nested network.

    That a level is inside another is a comparison of their intervals of every axis and of the
    codes of their element masks; what they use of every tensor follows (see `Nesting.contains`).
    """
    nesting = nested.nesting
    order = nesting.order()
    return Inspection(
        levels={
            level: _level(nested, level, tuple(large for small, large in order if small == level))
            for level in nested.levels
        },
        axes={n: nesting.segments[n] for n, axis in nesting.axes.items() if axis.kind == "width"},
        tiles=sum(nesting.tiles(tensor) for tensor in nesting.tensors),
        stored_parameters=sum(parameter.numel() for parameter in nested.parameters()),
        is_chain=nesting.is_chain(),
    )


def _level(nested: NestedModel, level: str, inside: tuple[str, ...]) -> LevelReport:
    harvest = harvest_level(nested, level)
    program = harvest.level.program
    choice, axes = nested.nesting.choice(level), nested.nesting.axes
    blocks = {
        name: (sum(stop - start for start, stop in choice.intervals(name, axis.size)), axis.size)
        for name, axis in axes.items()
        if axis.kind == "depth"
    }
    return LevelReport(
        parameters=count_parameters(program),
        macs=count_macs(program),
        inside=inside,
        blocks=blocks,
        wasted=_wasted(program, nested),
        removed=harvest.removed,
        stayed=harvest.stayed,
    )


def _wasted(program: Program, nested: NestedModel) -> dict[str, int]:
    found = {}
    for node in program.nodes:
        if node.op not in CONVOLUTION | {"aten.linear.default"}:
            continue
        weight = named_arguments(node, lambda leaf: leaf)["weight"]
        if not isinstance(weight, Weight):
            continue
        outputs = program.tensors[weight.name].shape[0]
        elastic = bool(nested.nesting.tensors[weight.name].dims[0])
        if elastic and outputs % VECTOR:
            found[node.scope or weight.name] = outputs
    return found
