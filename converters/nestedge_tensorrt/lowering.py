"""From the opset that torch.onnx writes to the one that every TensorRT from 8.5 on parses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from nestedge.expressions import Array
from nestedge_onnx.shapes import shapes_of
from nestedge_tensorrt.parser import OPERATORS, unparsable

OPSET = 17
"""The newest that TensorRT 8.5 and 8.6 parse, those of JetPack 5 and 6.0."""

IR_VERSION = 8
"""Of ONNX 1.12, which brought opset 17 and which the parser of TensorRT 8.5 is built with."""


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of opset 18, in opset 17.

    Opset 18 moved the axes of reductions from an attribute into an input, which the parser of
    TensorRT 8.5 does not look at: it would reduce all axes without a word.

    Raises:
        NestedgeError: an operator has no such form.
    """
    lower = onnx.ModelProto()
    lower.CopyFrom(model)
    for node in lower.graph.node:
        if node.op_type in _LOWERINGS:
            # What a node reads is looked up in the model as it was: half lowered it is neither.
            lower.graph.initializer.extend(_LOWERINGS[node.op_type](node, model))
        elif defs.get_schema(node.op_type, 18, node.domain).since_version > OPSET:
            raise unparsable(node, f"it needs an opset above {OPSET}")
    read = {name for node in lower.graph.node for name in node.input}
    kept = [item for item in lower.graph.initializer if item.name in read]
    del lower.graph.initializer[:]
    lower.graph.initializer.extend(kept)
    del lower.opset_import[:]
    lower.opset_import.append(helper.make_opsetid("", OPSET))
    lower.ir_version = IR_VERSION
    return lower


def _lower_reduction(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.TensorProto]:
    axes = constant(node, model, 1)
    if axes is not None and axes.size:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.ravel()]))
    elif integer(node, "noop_with_empty_axes", 0):
        raise unparsable(node, "it reduces no axis")
    del node.input[1:]
    drop(node, "noop_with_empty_axes")
    return []


def _lower_split(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.TensorProto]:
    count = integer(node, "num_outputs", 0)
    drop(node, "num_outputs")
    if not count:
        return []
    # Equal parts, of which the last may be smaller; opset 17 wants their sizes then.
    size = shapes_of(model)[node.input[0]][integer(node, "axis", 0)]
    part = -(-size // count)
    sizes = np.array([*[part] * (count - 1), size - part * (count - 1)], np.int64)
    name = f"{node.output[0]}_sizes"
    del node.input[1:]
    node.input.append(name)
    return [numpy_helper.from_array(sizes, name)]


def _lower_pad(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.TensorProto]:
    if constant(node, model, 3) is not None:
        raise unparsable(node, "it names the axes that it pads")
    del node.input[3:]
    return []


def _lower_resize(node: onnx.NodeProto, _: onnx.ModelProto) -> list[onnx.TensorProto]:
    names = {item.name: item for item in node.attribute}
    policy = names["keep_aspect_ratio_policy"].s if "keep_aspect_ratio_policy" in names else b""
    if integer(node, "antialias", 0) or "axes" in names or policy not in (b"", b"stretch"):
        raise unparsable(node, "it smooths, names its axes, or keeps the aspect ratio")
    drop(node, "antialias", "keep_aspect_ratio_policy")
    return []


def _lower_scatter(node: onnx.NodeProto, _: onnx.ModelProto) -> list[onnx.TensorProto]:
    if any(item.name == "reduction" and item.s != b"none" for item in node.attribute):
        raise unparsable(node, "it has a reduction")
    return []


_LOWERINGS: dict[str, Callable[[onnx.NodeProto, onnx.ModelProto], list[onnx.TensorProto]]] = {
    **{
        operator: _lower_reduction
        for operator in sorted(OPERATORS)
        if operator.startswith("Reduce") and operator != "ReduceSum"
    },
    "Split": _lower_split,
    "Pad": _lower_pad,
    "Resize": _lower_resize,
    "ScatterElements": _lower_scatter,
    "ScatterND": _lower_scatter,
}
"""For each operator that opset 18 changed, what rewrites a node and gives the constants it adds."""


def constant(node: onnx.NodeProto, model: onnx.ModelProto, index: int) -> Array | None:
    """The value of an optional input; None where the node has none."""
    name = node.input[index] if index < len(node.input) else ""
    if not name:
        return None
    for item in model.graph.initializer:
        if item.name == name:
            return numpy_helper.to_array(item)
    raise unparsable(node, f"its input {name!r} is computed; it must be a constant")


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An attribute of a node."""
    found = [int(item.i) for item in node.attribute if item.name == name]
    return found[0] if found else default


def drop(node: onnx.NodeProto, *names: str) -> None:
    """Takes attributes from a node."""
    kept = [item for item in node.attribute if item.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
