"""Small ONNX models, and how to look into them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nestedge.expressions import Array
from nestedge_onnx.exporter import OPSET


def model_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], shape: Sequence[int]
) -> onnx.ModelProto:
    """A model from "x" to "y", both of one shape and of float32."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    """The constants of a model by name."""
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def makers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value, by the value's name."""
    return {name: node for node in model.graph.node for name in node.output}


def counts_of(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator there are."""
    kinds = [node.op_type for node in model.graph.node]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def ramp(*shape: int) -> Array:
    """Numbers from -1 to 1, ascending."""
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
