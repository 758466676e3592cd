"""Small ONNX models, and how to look into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nestedge.artifact import Artifact, reference_bytes, write_artifact
from nestedge.expressions import Array
from nestedge.plugins import TensorInfo
from nestedge_onnx.exporter import OPSET
from tests.fakes import DESCRIPTION


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


def linear_artifact(dist: Path) -> Artifact:
    """A product with a constant, as the cell small/onnx-fp32 of a build folder."""
    weight = ramp(4, 4)
    x = np.random.default_rng(0).standard_normal((2, 1, 4)).astype(np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, [1, 4])
    description = replace(
        DESCRIPTION,
        runtime="onnx",
        checked_by="onnx",
        model="model.onnx",
        inputs=(TensorInfo("x", (1, 4), "float32"),),
        outputs=(TensorInfo("y", (1, 4), "float32"),),
        preprocessing=None,
        labels=None,
    )
    files = {
        "model.onnx": model.SerializeToString(),
        "reference.safetensors": reference_bytes({"x": x}, {"y": x @ weight}),
        "constants.json": b"{}\n",
    }
    return write_artifact(dist / description.cell, description, files=files)
