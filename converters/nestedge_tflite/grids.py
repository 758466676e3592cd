"""A quantised TFLite file whose weights are put on the grid that all levels of a family share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestedge.convert import LevelProgram
from nestedge.explanation import explain
from nestedge.expressions import evaluate
from nestedge.grids import Grid, family_grid
from nestedge.plugins import Array
from nestedge.quantization import in_steps
from nestedge_tflite.flatbuffer import constants, layer_operators, layers, place_of, scales_of

_SCALE_FIELD = 8
"""Where the table QuantizationParameters says that its field 2 is: the scales."""


@dataclass(frozen=True)
class WeightGrid:
    """The grid of one weight of a file.

    Attributes:
        tensor: name of the weight.
        values: int8, of the weight's shape.
        steps: what a 1 stands for, float32, one for each output channel.
        grid: what gives both.
    """

    tensor: str
    values: Array
    steps: Array
    grid: Grid


def weight_grids(model: bytes, level: LevelProgram) -> list[WeightGrid]:
    """The grids of the weights of layers, where there are any.

    Args:
        model: in single precision.
        level: what it was made from.
    """
    sources = {item.name: item.expression for item in explain(list(constants(model)), level)}
    found = {}
    for layer in layers(model):
        source = sources[layer.weight_name]
        grid = None if source is None else family_grid(source, layer.axis, level.stored)
        if grid is not None:
            values, steps = (evaluate(e, level.stored) for e in (grid.values, grid.steps))
            found[layer.weight_name] = WeightGrid(layer.weight_name, values, steps, grid)
    return list(found.values())


def put_on_grids(content: bytes, grids: Sequence[WeightGrid], *, single: bytes) -> bytes:
    """A quantised file with the whole numbers and the steps of some grids.

    The quantiser was given the ranges of the grids, so that what is replaced differs in the last
    bit of a step and in a few roundings.

    Args:
        content: the file, in which all of the weights are quantised along their channels.
        grids: of some of its weights.
        single: the file in single precision that it was made from.
    """
    patched = bytearray(content)
    # Layers may have one weight and biases of their own, and run in the order of the other file.
    biases: dict[str, list[Array | None]] = {}
    for layer in layers(single):
        biases.setdefault(layer.weight_name, []).append(layer.bias)
    by_tensor = {grid.tensor: grid for grid in grids}
    model: Any = schema.Model.GetRootAs(content, 0)
    for _, (data, weight, *rest), _ in layer_operators(model):
        grid, scales = by_tensor.get(weight.Name().decode()), scales_of(weight)
        if grid is None or scales is None or scales.shape != grid.steps.shape:
            continue
        _write(patched, place_of(model.Buffers(weight.Buffer())), grid.values)
        _write_scales(patched, weight, grid.steps)
        step, bias = scales_of(data), biases[grid.tensor].pop(0)
        if rest and step is not None and bias is not None:
            steps = step.astype(np.float32)[0] * grid.steps
            dtype = "int32" if rest[0].Type() == schema.TensorType.INT32 else "int64"
            _write(patched, place_of(model.Buffers(rest[0].Buffer())), in_steps(bias, steps, dtype))
            _write_scales(patched, rest[0], steps)
    return bytes(patched)


def _write(patched: bytearray, place: tuple[int, int] | None, array: Array) -> None:
    assert place is not None, "a weight and its bias are constants"
    offset, size = place
    assert size == array.nbytes, "whole numbers replace as many of their dtype"
    patched[offset : offset + size] = array.tobytes()


def _write_scales(patched: bytearray, tensor: Any, steps: Array) -> None:
    table = tensor.Quantization()._tab
    offset = int(table.Vector(table.Offset(_SCALE_FIELD)))
    patched[offset : offset + steps.nbytes] = steps.astype("<f4").tobytes()
