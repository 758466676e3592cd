"""An ONNX model with 8-bit weights, whose layers find the ranges of what they read at each run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nestedge.explanation import Steps
from nestedge.expressions import Array
from nestedge.quantization import along, in_steps, scale_of
from nestedge.reasons import conversion_error

PRODUCTS = ("Gemm", "MatMul")
CONVOLUTIONS = ("Conv", "ConvTranspose")
_WHOLE = "_quantized"
_STEPS = "_steps"
_TRANSPOSED = "_transposed"


def to_dynamic(
    model: onnx.ModelProto, layers: Collection[str] = (*PRODUCTS, *CONVOLUTIONS)
) -> onnx.ModelProto:
    """The model with int8 weights, each output of a layer with a scale of its own.

    Products with a weight are computed in 8 bits: what they read becomes uint8, with a range that
    is found at each run. Convolutions compute in single precision, of weights that are multiplied
    out when the file is loaded: onnxruntime's own 8-bit form of these, ConvInteger, is as slow as
    single precision at best, and three times as slow where convolutions are depthwise.

    Args:
        model: in single precision.
        layers: the operators whose weights are quantised.

    Raises:
        ConversionError: nothing in the model has weights that can be quantised.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    writer = _Writer({item.name: numpy_helper.to_array(item) for item in model.graph.initializer})
    del quantized.graph.node[:]
    for node in model.graph.node:
        quantized.graph.node.extend(writer.rewritten(node) if node.op_type in layers else [node])
    if not writer.added:
        said = "cannot quantise to int8-dynamic: no layer has a weight of its own"
        raise conversion_error("nothing-to-quantise", said)
    read = {name for node in quantized.graph.node for name in node.input}
    read |= {value.name for value in model.graph.output}
    kept = [item for item in model.graph.initializer if item.name in read]
    del quantized.graph.initializer[:]
    quantized.graph.initializer.extend(kept)
    for name, array in writer.added.items():
        quantized.graph.initializer.append(numpy_helper.from_array(array, name))
    return quantized


def dynamic_steps(graph: onnx.GraphProto) -> dict[str, Steps]:
    """What the whole numbers of every weight that `to_dynamic` quantised stand for, by constant."""
    constants = {item.name: item for item in graph.initializer}
    found = {}
    for name in constants:
        steps = constants.get(name.removesuffix(_WHOLE) + _STEPS)
        if name.endswith(_WHOLE) and steps is not None:
            scales = numpy_helper.to_array(steps)
            # Those of a convolution have the rank of its weight, to be multiplied with it.
            found[name] = Steps(scales.reshape(-1), 1 if scales.ndim == 1 else 0)
    return found


@dataclass
class _Writer:
    """Writes nodes anew, one after the other; lives for one model.

    Attributes:
        constants: of the model in single precision, by name.
        added: constants of the quantised one, by name.
        values: those that stand for something of the model, by that: the whole numbers of what a
            layer reads, or the weight of a convolution.
    """

    constants: Mapping[str, Array]
    added: dict[str, Array] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)

    def rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """What takes a node's place."""
        weight = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or weight.dtype != np.float32 or not weight.size:
            yield node
        elif node.op_type in CONVOLUTIONS:
            yield from self._convolution(node, weight)
        elif node.op_type in PRODUCTS and weight.ndim == 2 and _is_plain(node):
            yield from self._product(node, weight)
        else:
            yield node

    def _convolution(self, node: onnx.NodeProto, weight: Array) -> Iterator[onnx.NodeProto]:
        name = node.input[1]
        value, whole, steps = f"{name}_single", f"{name}{_WHOLE}", f"{name}{_STEPS}"
        if value not in self.values:
            self.values.add(value)
            scale = along(scale_of(weight, 0), weight.ndim, 0)
            self.added[whole] = in_steps(weight, scale, "int8")
            self.added[steps] = scale
            # Not DequantizeLinear, which onnxruntime leaves to every run.
            yield helper.make_node("Cast", [whole], [f"{name}_cast"], to=TensorProto.FLOAT)
            yield helper.make_node("Mul", [f"{name}_cast", steps], [value])
        written = onnx.NodeProto()
        written.CopyFrom(node)
        written.input[1] = value
        yield written

    def _product(self, node: onnx.NodeProto, weight: Array) -> Iterator[onnx.NodeProto]:
        """The form that onnxruntime fuses to one operator, DynamicQuantizeMatMul."""
        data, name, output = node.input[0], node.input[1], node.output[0]
        if _is_transposed(node):
            weight, name = weight.T, f"{name}{_TRANSPOSED}"
        whole, steps = f"{name}{_WHOLE}", f"{name}{_STEPS}"
        if whole not in self.added:
            scale = scale_of(weight, 1)
            self.added[whole] = np.ascontiguousarray(in_steps(weight, scale[None], "int8"))
            self.added[steps] = scale
        read = [f"{data}{part}" for part in (_WHOLE, "_scale", "_zero_point")]
        if read[0] not in self.values:
            self.values.add(read[0])
            yield helper.make_node("DynamicQuantizeLinear", [data], read)
        total, cast, scales = f"{output}_total", f"{output}_cast", f"{output}_scales"
        is_biased = len(node.input) > 2
        scaled = f"{output}_scaled" if is_biased else output
        yield helper.make_node("MatMulInteger", [read[0], whole, read[2]], [total], name=node.name)
        yield helper.make_node("Cast", [total], [cast], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [read[1], steps], [scales])
        yield helper.make_node("Mul", [cast, scales], [scaled])
        if is_biased:
            yield helper.make_node("Add", [scaled, node.input[2]], [output])


def _is_transposed(node: onnx.NodeProto) -> bool:
    return any(item.name == "transB" and item.i for item in node.attribute)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a product is that of what it reads and its weight, without factors."""
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    factors = (values.get("alpha", 1.0), values.get("beta", 1.0))
    return factors == (1.0, 1.0) and not values.get("transA")
