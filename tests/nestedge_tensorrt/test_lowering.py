from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge_tensorrt.lowering import lowered

X = np.random.default_rng(0).standard_normal((2, 3, 7, 8)).astype(np.float32)


def _model(node: onnx.NodeProto, constants: dict[str, Sequence[int] | Array]) -> onnx.ModelProto:
    """One operator that reads x, and constants."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        for name, value in constants.items()
    }
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return shape_inference.infer_shapes(model)


def _run(model: onnx.ModelProto) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(None, {"x": X})]


NODES: dict[str, tuple[onnx.NodeProto, dict[str, Sequence[int] | Array]]] = {
    "mean over given axes": (
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
        {"axes": [2, 3]},
    ),
    "maximum over a negative axis": (
        helper.make_node("ReduceMax", ["x", "axes"], ["y"]),
        {"axes": [-1]},
    ),
    "norm over everything": (helper.make_node("ReduceL2", ["x"], ["y"]), {}),
    "sum, which has had its axes as an input for long": (
        helper.make_node("ReduceSum", ["x", "axes"], ["y"]),
        {"axes": [1]},
    ),
    "parts of given sizes": (
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        {"sizes": [1, 2]},
    ),
    "equal parts": (
        helper.make_node("Split", ["x"], ["a", "b", "c", "d"], axis=-1, num_outputs=4),
        {},
    ),
    "parts of which the last is smaller": (
        helper.make_node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3),
        {},
    ),
    "padding": (
        helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect"),
        {"pads": [0, 0, 1, 2, 0, 0, 2, 1]},
    ),
    "resizing": (
        helper.make_node(
            "Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=0,
            keep_aspect_ratio_policy="stretch",
        ),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "what did not change": (helper.make_node("Relu", ["x"], ["y"]), {}),
}  # fmt: skip


@pytest.mark.parametrize(("node", "constants"), NODES.values(), ids=NODES)
def test_an_operator_computes_the_same_in_the_older_opset(
    node: onnx.NodeProto, constants: dict[str, Sequence[int] | Array]
) -> None:
    model = _model(node, constants)
    lower = lowered(model)
    assert [(item.domain, item.version) for item in lower.opset_import] == [("", 17)]
    assert lower.ir_version == 8
    onnx.checker.check_model(lower, full_check=True)
    for found, expected in zip(_run(lower), _run(model), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_axes_of_a_reduction_are_an_attribute_and_no_constant() -> None:
    lower = lowered(_model(*NODES["mean over given axes"]))
    (node,) = lower.graph.node
    assert list(node.input) == ["x"]
    assert {item.name: helper.get_attribute_value(item) for item in node.attribute} == {
        "keepdims": 0,
        "axes": [2, 3],
    }
    assert not lower.graph.initializer


def test_the_model_itself_stays_as_it_was() -> None:
    model = _model(*NODES["mean over given axes"])
    before = model.SerializeToString()
    lowered(model)
    assert model.SerializeToString() == before


REFUSED: dict[str, tuple[onnx.NodeProto, dict[str, Sequence[int] | Array], str]] = {
    "an operator of opset 18": (
        helper.make_node("Mish", ["x"], ["y"], "the_node"),
        {},
        r"Mish \('the_node'\): it needs an opset above 17",
    ),
    "computed axes": (
        helper.make_node("ReduceMean", ["x", "y0"], ["y"], "mean"),
        {},
        r"ReduceMean \('mean'\): its input 'y0' is computed",
    ),
    "a reduction of nothing": (
        helper.make_node("ReduceMax", ["x"], ["y"], noop_with_empty_axes=1),
        {},
        "it reduces no axis",
    ),
    "padding of some axes": (
        helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"]),
        {"pads": [1, 1], "axes": [2]},
        "it names the axes that it pads",
    ),
    "smooth resizing": (
        helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1),
        {"scales": np.array([1, 1, 0.5, 0.5], np.float32)},
        "Resize .*: it smooths",
    ),
    "resizing of some axes": (
        helper.make_node("Resize", ["x", "", "scales"], ["y"], axes=[2, 3]),
        {"scales": np.array([0.5, 0.5], np.float32)},
        "Resize .*: it smooths, names its axes",
    ),
    "a scatter that takes the maximum": (
        helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], reduction="max"),
        {"i": np.zeros(X.shape, np.int64)},
        "it has a reduction",
    ),
}


@pytest.mark.parametrize(("node", "constants", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_older_opset_lacks_is_refused(
    node: onnx.NodeProto, constants: dict[str, Sequence[int] | Array], message: str
) -> None:
    with pytest.raises(NestedgeError, match=f"^TensorRT cannot parse .*{message}"):
        lowered(_model(node, constants))
