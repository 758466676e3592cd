"""What the levels of a nested network are: sizes, order, tiles, and where a width is wasted.

Hardware works on 8, 16 or 32 channels at once, and a layer with fewer takes as long as the next
multiple. Which one it is depends on device, runtime and precision, and a device's profile says it
with its source (see `nestedge.devices.widths`):

- TensorRT lays channels out in vectors and pads the last one, of 8 for fp16 (kHWC8) and of 32 for
  int8 (kCHW32);
- XNNPACK, which LiteRT runs on a CPU, computes a tile of outputs and drops what is beyond the last
  channel, on 64-bit Arm of 8 for fp32 and of 16 for int8.

So 8 is the least that is worth keeping to, and what `nest` rounds to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nestedge.cost import count_macs, count_parameters
from nestedge.harvest import Stayed
from nestedge.layouts import Axis, TensorLayout
from nestedge.materialization import harvest_level
from nestedge.model import NestedModel
from nestedge.nesting import Choice
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
        axis: what the level chose the width of; several with " + " where they lie side by side,
            and with " x " where one is inside another.
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
        finer: for every kernel the taps along a side, for every head width the channels of a head,
            for every row of branches the branches that it keeps, of how many, where not all.
        wasted: layers whose number of outputs is a level's choice and no multiple of what
            hardware works on at once.
        removed: channels, heads or groups that element masks left dead and that are gone, by axis.
        kernels: the size of kernels that lost rings of zeros, by the name of the weight.
        branches: modules whose branch was always zero and is gone.
        outputs: the names of what it returns.
        stayed: constant ones that could not go, and why.
    """

    parameters: int
    macs: int
    inside: tuple[str, ...]
    blocks: Mapping[str, tuple[int, int]]
    finer: Mapping[str, tuple[int, int]]
    wasted: tuple[WastedWidth, ...]
    removed: Mapping[str, int]
    kernels: Mapping[str, tuple[int, ...]]
    branches: tuple[str, ...]
    outputs: tuple[str, ...]
    stayed: tuple[Stayed, ...]


@dataclass(frozen=True)
class Inspection:
    """A nested network.

    Attributes:
        levels: by name.
        outputs: the names of what it returns outside its levels.
        axes: for every axis but depths and outputs its breakpoints, in units from 0 to its size.
        tiles: into how many tiles its segments cut the weights.
        stored_parameters: weights and biases that are stored, level-specific ones included.
        is_chain: whether of any two levels one lies in the other.
        multiple: of channels that hardware works on at once, which widths were compared with.
    """

    levels: Mapping[str, LevelReport]
    outputs: tuple[str, ...]
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
        multiple: how many channels the hardware works on at once: 8, 16 or 32, as for a device
            `nestedge.devices.widths.width_multiple` says.

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
        outputs=_outputs(nested.elastic.program),
        axes={
            name: nesting.segments[name]
            for name, axis in nesting.axes.items()
            if axis.kind not in ("depth", "outputs")
        },
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
    nesting = nested.nesting
    # A consensus has no axes of its own: what its members have of them is said of these.
    is_joined = level in nesting.consensus
    choice, axes = (Choice(), {}) if is_joined else (nesting.choice(level), nesting.axes)
    kept = {name: _kept(choice, name, axis) for name, axis in axes.items()}
    blocks = {name: kept[name] for name, axis in axes.items() if axis.kind == "depth"}
    finer = {
        name: (some, of)
        for name, (some, of) in kept.items()
        if some < of and axes[name].kind in ("head_width", "kernel", "branches")
    }
    return LevelReport(
        parameters=count_parameters(program),
        macs=count_macs(program),
        inside=inside,
        blocks=blocks,
        finer=finer,
        wasted=() if is_joined else tuple(_wasted(program, nested, multiple)),
        removed=harvest.removed,
        kernels=harvest.kernels,
        branches=harvest.branches,
        outputs=_outputs(program),
        stayed=harvest.stayed,
    )


def _outputs(program: Program) -> tuple[str, ...]:
    return tuple(name for name, _ in program.outputs)


def _kept(choice: Choice, name: str, axis: Axis) -> tuple[int, int]:
    """How many units of an axis a level keeps, of how many: of a kernel taps along a side."""
    units = sum(stop - start for start, stop in choice.intervals(name, axis.size))
    size = axis.unit if axis.kind == "kernel" else 1
    return axis.base + size * units, axis.base + size * axis.size


def _wasted(program: Program, nested: NestedModel, multiple: int) -> Iterator[WastedWidth]:
    for node in program.nodes:
        if node.op not in CONVOLUTION | TRANSPOSED_CONVOLUTION | {"aten.linear.default"}:
            continue
        weight = named_arguments(node, lambda leaf: leaf)["weight"]
        if not isinstance(weight, Weight):
            continue
        dim = 1 if node.op in TRANSPOSED_CONVOLUTION else 0
        axes = _choosing(nested.nesting.tensors[weight.name], dim)
        width = program.tensors[weight.name].shape[dim]
        padded = -(-width // multiple) * multiple
        # Outputs that no level has fewer of (a network's classes) are nobody's choice.
        if axes and width < padded:
            layer = node.scope or weight.name
            yield WastedWidth(layer, axes, width, padded, 1 - width / padded)


def _choosing(layout: TensorLayout, dim: int) -> str:
    """The axes by which levels choose from a dimension; none where every level has it whole."""
    rows = [
        dict.fromkeys(run.axis for run in row if run.axis is not None)
        for row in tuple(layout.covers())[dim]
    ]
    return " x ".join(" + ".join(axes) for axes in rows if axes)
