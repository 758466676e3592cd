"""Reads TFLite files by their schema: inputs, outputs, constants, operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestedge.convert import Converted, LevelProgram
from nestedge.explanation import FoundConstant, Steps, explain
from nestedge.grids import Grid
from nestedge.plugins import Array, TensorInfo

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.FLOAT64: "float64",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
}

# The axis of the output channels in the weight of a layer that has a bias of its own.
_CHANNELS = {
    schema.BuiltinOperator.CONV_2D: 0,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    schema.BuiltinOperator.FULLY_CONNECTED: 0,
}

_CASTS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Layer:
    """A product of an activation and a weight.

    Attributes:
        data: name of the tensor that it reads.
        weight_name: of its weight's tensor.
        weight: its value.
        axis: of the weight, that of the output channels.
        bias: one number for each output channel, where it has one.
        output: name of the tensor that it gives.
    """

    data: str
    weight_name: str
    weight: Array
    axis: int
    bias: Array | None
    output: str


def described(
    content: bytes,
    level: LevelProgram,
    *,
    producer: Mapping[str, str],
    grids: Iterable[Grid] = (),
) -> Converted:
    """What a converter gives: a file with what is in it.

    Args:
        content: of the file; its signature names inputs and outputs as the network does.
        level: what the file was made from.
        producer: versions of the packages that made it, by name.
        grids: of the weights that have the same whole numbers in all levels.
    """
    infos = signature(content)
    return Converted(
        model=content,
        inputs=tuple(infos[item.name] for item in level.program.inputs),
        outputs=tuple(infos[name] for name, _ in level.program.outputs),
        constants=explain(list(constants(content)), level, grids=grids),
        producer=producer,
    )


def signature(content: bytes) -> dict[str, TensorInfo]:
    """Inputs, then outputs, under the names that the first signature of a file gives them.

    Whole numbers that stand for others, by a scale, are float32: a session takes and gives those.
    """
    model: Any = schema.Model.GetRootAs(content, 0)
    graph, names = model.Subgraphs(0), model.SignatureDefs(0)
    entries = [names.Inputs(i) for i in range(names.InputsLength())]
    entries += [names.Outputs(i) for i in range(names.OutputsLength())]
    infos = {}
    for entry in entries:
        tensor = graph.Tensors(entry.TensorIndex())
        name = entry.Name().decode()
        dtype = _DTYPES[tensor.Type()] if scales_of(tensor) is None else "float32"
        infos[name] = TensorInfo(name, _shape(tensor), dtype)
    return infos


def constants(content: bytes) -> Iterator[FoundConstant]:
    """Every constant tensor of a file with the place of its bytes."""
    model: Any = schema.Model.GetRootAs(content, 0)
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        factors = _factors(graph)
        for position in range(graph.TensorsLength()):
            tensor = graph.Tensors(position)
            found = _constant(content, model, tensor)
            if found is not None:
                yield replace(found, steps=_steps(tensor, factors.get(position)))


def operators(content: bytes) -> set[int]:
    """The kinds of operators in a file, as numbers of `schema.BuiltinOperator`."""
    model: Any = schema.Model.GetRootAs(content, 0)
    return set(_kinds(model))


def operators_by_kind(content: bytes) -> Counter[str]:
    """How many operators there are of each kind."""
    return Counter(kind for kind, _ in _outputs(content))


def float_operators(content: bytes) -> Counter[str]:
    """How many operators of each kind give numbers in single precision, casts aside."""
    is_float = schema.TensorType.FLOAT32
    return Counter(k for k, dtype in _outputs(content) if dtype == is_float and k not in _CASTS)


def layers(content: bytes) -> Iterator[Layer]:
    """The layers of the first graph of a file in single precision, in the order they run in."""
    model: Any = schema.Model.GetRootAs(content, 0)
    for axis, (data, weight, *biases), output in layer_operators(model):
        found = _constant(content, model, weight)
        (bias,) = [_constant(content, model, tensor) for tensor in biases] or [None]
        # What is computed is in no layer's weight: the product of two activations.
        if found is not None:
            yield Layer(
                data=data.Name().decode(),
                weight_name=found.name,
                weight=found.array,
                axis=axis,
                bias=None if bias is None else bias.array,
                output=output.Name().decode(),
            )


def layer_operators(model: Any) -> Iterator[tuple[int, list[Any], Any]]:
    """Of every operator with a weight and a bias: the weight's channel axis, and its tensors.

    Data, weight and, where there is one, bias; then the output; in the order they run in.
    """
    graph, kinds = model.Subgraphs(0), _kinds(model)
    for operator in _operators(graph):
        axis = _CHANNELS.get(kinds[operator.OpcodeIndex()])
        if axis is not None:
            # A bias that a layer lacks is left out, or -1.
            positions = [int(position) for position in operator.InputsAsNumpy() if position >= 0]
            inputs = [graph.Tensors(position) for position in positions]
            yield axis, inputs, graph.Tensors(operator.Outputs(0))


def check_outputs(content: bytes) -> None:
    """Refuses a file whose signature gives something else than its graph does.

    Raises:
        ValueError: naming the outputs of the signature that the graph does not give.
    """
    model: Any = schema.Model.GetRootAs(content, 0)
    names, given = model.SignatureDefs(0), model.Subgraphs(0).OutputsAsNumpy().tolist()
    outputs = [names.Outputs(i) for i in range(names.OutputsLength())]
    lost = [item.Name().decode() for item in outputs if item.TensorIndex() not in given]
    if lost:
        raise ValueError(f"outputs {lost} are lost; is one value given under several names?")


def _outputs(content: bytes) -> Iterator[tuple[str, int]]:
    """The kind of every operator, and the type of its first output."""
    model: Any = schema.Model.GetRootAs(content, 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    kinds = _kinds(model)
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for operator in _operators(graph):
            dtype = graph.Tensors(operator.Outputs(0)).Type()
            yield names[kinds[operator.OpcodeIndex()]], dtype


def _kinds(model: Any) -> list[int]:
    codes = (model.OperatorCodes(i) for i in range(model.OperatorCodesLength()))
    # The older of the two fields holds numbers up to 127 only.
    return [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]


def _constant(content: bytes, model: Any, tensor: Any) -> FoundConstant | None:
    """The constant that a tensor is, or None where it is computed."""
    place = place_of(model.Buffers(tensor.Buffer()))
    if place is None or tensor.Type() not in _DTYPES:
        return None
    offset, size = place
    array = np.frombuffer(content[offset : offset + size], _DTYPES[tensor.Type()])
    return FoundConstant(tensor.Name().decode(), offset, array.reshape(_shape(tensor)))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()


def place_of(buffer: Any) -> tuple[int, int] | None:
    """Offset and size of a buffer's bytes, or None where it has none."""
    if not buffer.DataIsNone():
        # Field 0 of the table Buffer is its data: a vector whose start is the offset.
        table = buffer._tab
        return int(table.Vector(table.Offset(4))), buffer.DataLength()
    # ai-edge-quantizer writes the bytes of larger models behind the flatbuffer.
    return (buffer.Offset(), buffer.Size()) if buffer.Size() else None


def _steps(tensor: Any, factor: float | None) -> Steps | None:
    """What the whole numbers of a quantised weight or bias stand for."""
    scales = scales_of(tensor)
    if scales is None or tensor.Quantization().ZeroPointAsNumpy().any():
        return None
    axis = tensor.Quantization().QuantizedDimension() if len(scales) > 1 else None
    return Steps(scales, axis, factor)


def scales_of(tensor: Any) -> Array | None:
    """What a 1 of a quantised tensor stands for: one number, or one for each channel."""
    table = tensor.Quantization()
    return np.array(table.ScaleAsNumpy()) if table is not None and table.ScaleLength() else None


def _factors(graph: Any) -> dict[int, float]:
    """The scale of their layer's input, for the positions of biases: third of a layer's inputs."""
    factors = {}
    for operator in _operators(graph):
        if operator.InputsLength() == 3 and min(operator.Inputs(0), operator.Inputs(2)) >= 0:
            scales = scales_of(graph.Tensors(operator.Inputs(0)))
            if scales is not None:
                factors[operator.Inputs(2)] = float(scales[0])
    return factors


def _operators(graph: Any) -> Iterator[Any]:
    return (graph.Operators(index) for index in range(graph.OperatorsLength()))
