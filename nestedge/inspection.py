"""What the levels of a nested network are: sizes, order, tiles, and where a width is wasted.

Hardware works on 8, 16 or 32 channels at once, and a layer with fewer takes as long as the next
multiple. Which one it is depends on runtime and precision:

- TensorRT lays channels out in vectors and pads the last one: 8 for fp16 (kHWC8), 16 for fp16 on a
  DLA (kCHW16), 32 for int8 (kCHW32); docs.nvidia.com/deeplearning/tensorrt, "Data Format
  Descriptions".
- XNNPACK, which LiteRT runs on a CPU, computes a tile of outputs and drops what is beyond the last
  channel: 8 for fp32 on 64-bit Arm (f32-gemm 6x8), 16 for int8 with dot products (4x16c4) or matrix
  instructions (4x16c8); the second number in the names of its kernels, github.com/google/XNNPACK.

So 8 is the least that is worth keeping to, and what `nest` rounds to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nestedge.cost import count_macs, count_parameters
from nestedge.harvest import Stayed
from nestedge.materialization import harvest_level
from nestedge.model import NestedModel
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Program, Weight
from nestedge.program.operators import CONVOLUTION, TRANSPOSED_CONVOLUTION

VECTOR = 8
"""Channels that vector units and tensor cores work on at once, at least."""


@dataclass(frozen=True)
class WastedWidth:
    """A layer that would take no longer if it were wider.

    Attributes:
        layer: the path of its module.
        axis: what the level chose the width of; several where they lie side by side.
        width: its number of outputs.
        padded: the next multiple of what hardware works on at once.
        wasted: the share of the padded outputs that is none.
    """

    layer: str
    axis: str
    width: int
    padded: int
    wasted: float


@dataclass(frozen=True)
class LevelReport:
    """One level.

    Attributes:
        parameters: weights and biases.
        macs: multiply-accumulates of one run with a batch of 1.
        inside: the levels that have everything it uses.
        blocks: for every stage the blocks it keeps, of how many.
        wasted: layers whose number of outputs is a level's choice and no multiple of what
            hardware works on at once.
        removed: channels, heads or groups that element masks left dead and that are gone, by axis.
        kernels: the size of kernels that lost rings of zeros, by the name of the weight.
        branches: modules whose branch was always zero and is gone.
        stayed: constant ones that could not go, and why.
    """

    parameters: int
    macs: int
    inside: tuple[str, ...]
    blocks: Mapping[str, tuple[int, int]]
    wasted: tuple[WastedWidth, ...]
    removed: Mapping[str, int]
    kernels: Mapping[str, tuple[int, ...]]
    branches: tuple[str, ...]
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
        multiple: of channels that hardware works on at once, which widths were compared with.
    """

    levels: Mapping[str, LevelReport]
    axes: Mapping[str, tuple[int, ...]]
    tiles: int
    stored_parameters: int
    is_chain: bool
    multiple: int


def inspect(nested: NestedModel, *, multiple: int = VECTOR) -> Inspection:
    """Describe a nested network.

    That a level is inside another is a comparison of their intervals of every axis and of the
    codes of their element masks; what they use of every tensor follows (see `Nesting.contains`).

    Args:
        nested: the network.
        multiple: how many channels the hardware works on at once: 8, 16 or 32, as this module says.

    Raises:
        ValueError: the multiple is below 1.
    """
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    nesting = nested.nesting
    order = nesting.order()
    return Inspection(
        levels={
            level: _level(
                nested,
                level,
                inside=tuple(large for small, large in order if small == level),
                multiple=multiple,
            )
            for level in nested.levels
        },
        axes={n: nesting.segments[n] for n, axis in nesting.axes.items() if axis.kind == "width"},
        tiles=sum(nesting.tiles(tensor) for tensor in nesting.tensors),
        stored_parameters=sum(parameter.numel() for parameter in nested.parameters()),
        is_chain=nesting.is_chain(),
        multiple=multiple,
    )


def _level(
    nested: NestedModel, level: str, *, inside: tuple[str, ...], multiple: int
) -> LevelReport:
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
        wasted=tuple(_wasted(program, nested, multiple)),
        removed=harvest.removed,
        kernels=harvest.kernels,
        branches=harvest.branches,
        stayed=harvest.stayed,
    )


def _wasted(program: Program, nested: NestedModel, multiple: int) -> Iterator[WastedWidth]:
    for node in program.nodes:
        if node.op not in CONVOLUTION | TRANSPOSED_CONVOLUTION | {"aten.linear.default"}:
            continue
        weight = named_arguments(node, lambda leaf: leaf)["weight"]
        if not isinstance(weight, Weight):
            continue
        dim = 1 if node.op in TRANSPOSED_CONVOLUTION else 0
        runs = nested.nesting.tensors[weight.name].dims[dim]
        axes = dict.fromkeys(run.axis for run in runs if run.axis is not None)
        width = program.tensors[weight.name].shape[dim]
        padded = -(-width // multiple) * multiple
        # Outputs that no level has fewer of (a network's classes) are nobody's choice.
        if axes and width < padded:
            layer = node.scope or weight.name
            yield WastedWidth(layer, " + ".join(axes), width, padded, 1 - width / padded)
