"""A quantised ONNX model whose weights are put on the grid that all levels of a family share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from nestedge.convert import BuildSpec, LevelProgram
from nestedge.explanation import FoundConstant, explain
from nestedge.expressions import Array, evaluate
from nestedge.grids import Grid, family_grid, holds_bias
from nestedge.quantization import in_steps

_WHOLE = "_quantized"
"""What onnxruntime's quantiser puts behind the name of a weight that it made whole numbers of."""


@dataclass(frozen=True)
class _Bias:
    """The bias of a quantised layer: its value, and the scale of what the layer reads."""

    name: str
    value: Array
    input_scale: float


@dataclass(frozen=True)
class _Weight:
    """A weight that is quantised along an axis, and the biases of the layers that read it."""

    name: str
    constant: str
    scale: str
    axis: int
    biases: tuple[_Bias, ...]


def on_family_grids(
    model: onnx.ModelProto, level: LevelProgram, spec: BuildSpec, *, single: onnx.ModelProto
) -> list[Grid]:
    """`put_on_grids` where it is asked for: of a model with ranges from calibration."""
    return put_on_grids(model, level, single=single) if spec.is_on_family_grids else []


def put_on_grids(
    model: onnx.ModelProto, level: LevelProgram, *, single: onnx.ModelProto
) -> list[Grid]:
    """Puts the weights of a quantised model on their family's grids, in place; the grids.

    A weight that no other level has, and one whose bias needs a wider step than its grid has (that
    of a channel that is all but switched off), keeps the steps that the quantiser gave it.

    Args:
        model: with QuantizeLinear/DequantizeLinear pairs.
        level: what it was made from.
        single: the same model in single precision.
    """
    stored = level.stored
    values = {item.name: numpy_helper.to_array(item) for item in single.graph.initializer}
    found = explain([FoundConstant(name, 0, value) for name, value in values.items()], level)
    sources = {constant.name: constant.expression for constant in found}
    constants = {item.name: item for item in model.graph.initializer}
    grids = []
    for weight in _weights(model.graph, values):
        source = sources[weight.name]
        grid = None if source is None else family_grid(source, weight.axis, stored)
        if grid is None:
            continue
        steps = evaluate(grid.steps, stored)
        if not all(holds_bias(steps, b.value, input_step=b.input_scale) for b in weight.biases):
            continue
        is_whole = weight.constant != weight.name
        value = evaluate(grid.values if is_whole else grid.weight, stored)
        _replace(constants[weight.constant], value)
        _replace(constants[weight.scale], steps)
        for bias in weight.biases:
            scale = (np.float32(bias.input_scale) * steps).astype(np.float32)
            _replace(constants[f"{bias.name}{_WHOLE}"], in_steps(bias.value, scale, "int32"))
            _replace(constants[f"{bias.name}{_WHOLE}_scale"], scale)
        grids.append(grid)
    return grids


def _weights(graph: onnx.GraphProto, single: Mapping[str, Array]) -> Iterator[_Weight]:
    """The weights of layers that are quantised along an axis."""
    constants = {item.name: item for item in graph.initializer}
    biases = _biases(graph, single)
    for node in graph.node:
        name = node.input[0].removesuffix(_WHOLE) if node.input else ""
        is_pair = node.op_type == "QuantizeLinear" and name in single
        is_whole = node.op_type == "DequantizeLinear" and node.input[0] != name and name in single
        if not (is_pair or is_whole) or node.input[0] not in constants:
            continue
        if is_whole and constants[node.input[0]].data_type != onnx.TensorProto.INT8:
            continue
        if len(constants[node.input[1]].dims) != 1:
            continue
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        output = _dequantized(graph, node)
        rank = single[name].ndim
        yield _Weight(name, node.input[0], node.input[1], axis % rank, biases.get(output, ()))


def _dequantized(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """The name of the value that layers read: that of the DequantizeLinear behind the node."""
    if node.op_type == "DequantizeLinear":
        return str(node.output[0])
    return next(str(n.output[0]) for n in graph.node if n.input and n.input[0] == node.output[0])


def _biases(graph: onnx.GraphProto, single: Mapping[str, Array]) -> dict[str, tuple[_Bias, ...]]:
    """The quantised biases of the layers that read each value as their weight."""
    constants = {item.name: item for item in graph.initializer}
    pairs = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    found: dict[str, tuple[_Bias, ...]] = {}
    for node in graph.node:
        if len(node.input) < 3 or not {*node.input[:3]} <= pairs.keys():
            continue
        data, weight, bias = (pairs[name] for name in node.input[:3])
        name = bias.input[0].removesuffix(_WHOLE)
        scale = constants.get(data.input[1])
        if name in single and scale is not None:
            of = _Bias(name, single[name], float(numpy_helper.to_array(scale)))
            found[weight.output[0]] = (*found.get(weight.output[0], ()), of)
    return found


def _replace(constant: onnx.TensorProto, value: Array) -> None:
    constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), constant.name))
