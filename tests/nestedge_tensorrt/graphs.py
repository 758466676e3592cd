"""Small models of the opset that is shipped, and what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from nestedge.expressions import Array


def shipped_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    *,
    shape: Sequence[int],
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from "x" to what its last node gives, of float32."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def outputs_of(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(None, dict(inputs))]


def numbers(*shape: int, seed: int = 0) -> Array:
    """Numbers like the values between layers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
