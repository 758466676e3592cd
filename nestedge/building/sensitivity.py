"""Which layers of a level suffer most from 8 bits, whatever the runtime: run one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nestedge.convert import LevelProgram, evaluated, tensor_of
from nestedge.expressions import Array, evaluate
from nestedge.grids import family_grid
from nestedge.precisions import WeightSteps
from nestedge.program.arguments import layer_weights, named_arguments, with_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, call, run
from nestedge.program.operators import TRANSPOSED_CONVOLUTION, WEIGHTED
from nestedge.quantization import along, in_steps, scale_of

CASES = 8
"""Calibration cases that layers are ranked on: an order needs fewer than ranges do."""

# What a layer reads in whole numbers; with a space, which no value or tensor has in its name.
_INPUT = Ref("rounded input")
_WEIGHT = Weight("rounded weight")

_Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Sensitivity:
    """What one layer in whole numbers costs, all others in single precision.

    Attributes:
        weight: name of the layer's weight in the level's program.
        error: mean square error of the outputs, of each relative to its own mean square, summed
            over the cases; infinite where one is no number.
    """

    weight: str
    error: float


def rank_layers(
    level: LevelProgram,
    cases: Mapping[str, Array],
    *,
    activation_bits: int = 8,
    weight_steps: WeightSteps = "family",
) -> list[Sensitivity]:
    """The layers of a level, the one that suffers most from whole numbers first.

    Of each layer alone the weight is rounded to its int8 grid, and what it reads to as many steps
    as whole numbers have in the range that it has in the cases. The network is run from there on,
    and what it gives is compared with what the level gives.

    Args:
        level: as converters get it.
        cases: by input, of shape (cases, *shape of the input at a batch of 1).
        activation_bits: of the whole numbers between layers.
        weight_steps: as `nestedge.convert.BuildSpec` has it.

    Raises:
        NestedgeError: an operator failed; the message names it and its place.
    """
    weights = layer_weights(level.program)
    errors = dict.fromkeys(weights, 0.0)
    with torch.no_grad():
        ranges = _ranges(level, cases)
        rounded = {name: _on_grid(level, name, weight_steps) for name in weights}
        for inputs in _cases(level.program, cases):
            exact = _values(level, inputs)
            for name in weights:
                steps = 2**activation_bits - 1
                errors[name] += _error(level, exact, name, rounded[name], ranges, steps=steps)
    # A stable sort: layers that lose alike stay in the order in which they run.
    return [Sensitivity(n, errors[n]) for n in sorted(weights, key=lambda name: -errors[name])]


def _cases(program: Program, cases: Mapping[str, Array]) -> Iterator[list[torch.Tensor]]:
    for index in range(min(CASES, *(len(array) for array in cases.values()))):
        yield [torch.tensor(cases[spec.name][index]) for spec in program.inputs]


def _values(level: LevelProgram, inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Every value of one run; sizes are whole numbers of Python."""
    program = level.program
    values: dict[str, Any] = {s.name: v for s, v in zip(program.inputs, inputs, strict=True)}

    def keep(node: Node, results: Sequence[object]) -> None:
        values.update(zip(map(str, node.outputs), results, strict=False))

    run(program, level.tensors, inputs, watch=keep)
    return values


def _ranges(level: LevelProgram, cases: Mapping[str, Array]) -> _Ranges:
    """The smallest and the largest number of what each layer reads, with the zero between."""
    read = {_input_of(node) for node in level.program.nodes if node.op in WEIGHTED}
    ranges: _Ranges = {}
    for inputs in _cases(level.program, cases):
        values = _values(level, inputs)
        for name in read & values.keys():
            least, most = ranges.get(name, (0.0, 0.0))
            found = values[name]
            ranges[name] = min(least, float(found.min())), max(most, float(found.max()))
    return ranges


def _input_of(node: Node) -> str:
    found = named_arguments(node, lambda leaf: leaf)["input"]
    return str(found.name)


def _on_grid(level: LevelProgram, name: str, weight_steps: WeightSteps) -> torch.Tensor:
    """What is left of a weight in int8."""
    readers = [n for n in level.program.nodes if n.op in WEIGHTED and Weight(name) in n.leaves()]
    axis = 1 if readers[0].op in TRANSPOSED_CONVOLUTION else 0
    grid = None
    if weight_steps == "family":
        grid = family_grid(level.expressions[name], axis, level.stored)
    tensor = level.tensors[name]
    if grid is not None:
        return tensor_of(evaluate(grid.weight, level.stored)).to(tensor.dtype)
    weight = evaluated(tensor)
    steps = along(scale_of(weight, axis), weight.ndim, axis)
    return tensor_of(in_steps(weight, steps, "int8") * steps).to(tensor.dtype)


def _error(
    level: LevelProgram,
    exact: Mapping[str, Any],
    name: str,
    weight: torch.Tensor,
    ranges: _Ranges,
    *,
    steps: int,
) -> float:
    """What one layer in whole numbers does to the outputs of one case.

    Args:
        level: which is run from the layer on: only what depends on it is computed again.
        exact: every value of the level for the case.
        name: of the layer's weight.
        weight: in whole numbers, times what a 1 stands for.
        ranges: of what layers read, by value.
        steps: in a range.
    """
    changed: dict[str, Any] = {}

    def look_up(leaf: Ref | Weight) -> Any:
        if isinstance(leaf, Weight):
            return weight if leaf == _WEIGHT else level.tensors[leaf.name]
        return changed.get(leaf.name, exact.get(leaf.name))

    for node in level.program.nodes:
        leaves = set(node.leaves())
        if node.op in WEIGHTED and _weight_of(node) == Weight(name):
            source = named_arguments(node, lambda leaf: leaf)["input"]
            changed[_INPUT.name] = _rounded(look_up(source), ranges.get(source.name), steps)
            node = with_arguments(node, {"input": _INPUT, "weight": _WEIGHT})
        elif not any(isinstance(leaf, Ref) and leaf.name in changed for leaf in leaves):
            continue
        results = call(node, look_up, device=None)
        changed.update(zip(map(str, node.outputs), results, strict=False))
    outputs = (ref.name for _, ref in level.program.outputs if isinstance(ref, Ref))
    return sum(_relative(changed[n], exact[n]) for n in outputs if n in changed)


def _weight_of(node: Node) -> Ref | Weight:
    found: Ref | Weight = named_arguments(node, lambda leaf: leaf)["weight"]
    return found


def _rounded(value: torch.Tensor, span: tuple[float, float] | None, steps: int) -> torch.Tensor:
    if span is None or span[0] == span[1]:
        return value
    least, most = span
    step = (most - least) / steps
    return ((value - least) / step).round().clamp(0, steps) * step + least


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Mean square error to mean square."""
    if not expected.is_floating_point():
        return 0.0
    noise = float(((found - expected).double() ** 2).mean())
    signal = float((expected.double() ** 2).mean())
    error = noise / signal if signal else noise
    return error if math.isfinite(error) else math.inf
