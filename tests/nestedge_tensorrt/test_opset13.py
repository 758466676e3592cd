from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from nestedge.errors import ConversionError
from nestedge.expressions import Array
from nestedge_tensorrt.opset13 import downgraded
from nestedge_tensorrt.parser import OLDEST_OPERATORS, first_version
from tests.nestedge_tensorrt.graphs import numbers, outputs_of, shipped_model
from tests.nestedge_tensorrt.networks import NETWORKS, shipped

SHAPE = (2, 3, 7, 8)
NODES: dict[str, tuple[onnx.NodeProto, Mapping[str, Array]]] = {
    "layer norm over the last axis": (
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], epsilon=1e-3),
        {"scale": numbers(8, seed=1), "bias": numbers(8, seed=2)},
    ),
    "layer norm from an axis on, without a bias": (
        helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=2),
        {"scale": numbers(7, 8, seed=1)},
    ),
    "hard swish": (helper.make_node("HardSwish", ["x"], ["y"]), {}),
    "reciprocal": (helper.make_node("Reciprocal", ["x"], ["y"]), {}),
    "reshape without zeros": (
        helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1),
        {"shape": np.array([2, -1, 8], np.int64)},
    ),
    "batch norm": (
        helper.make_node("BatchNormalization", ["x", "a", "b", "m", "v"], ["y"], training_mode=0),
        {"a": numbers(3, seed=1), "b": numbers(3), "m": numbers(3), "v": numbers(3) ** 2},
    ),
    "scatter": (
        helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], reduction="none"),
        {"i": np.zeros(SHAPE, np.int64)},
    ),
    "linear resize": (
        helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear"),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "a relu": (helper.make_node("Relu", ["x"], ["y"]), {}),
    "parts": (
        helper.make_node("Split", ["x", "sizes"], ["a", "y"], axis=1),
        {"sizes": np.array([1, 2], np.int64)},
    ),
}


@pytest.mark.parametrize(("node", "constants"), NODES.values(), ids=NODES)
def test_an_operator_computes_the_same_in_opset_13(
    node: onnx.NodeProto, constants: Mapping[str, Array]
) -> None:
    model = shipped_model([node], constants, shape=SHAPE)
    before = model.SerializeToString()
    lower = downgraded(model)
    assert model.SerializeToString() == before
    _check_old(lower)
    x = {"x": numbers(*SHAPE)}
    for found, expected in zip(outputs_of(lower, x), outputs_of(model, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same_in_opset_13(name: str, precision: str) -> None:
    case, file = shipped(name, precision)
    model = onnx.load_from_string(file)
    lower = downgraded(model)
    _check_old(lower)
    assert first_version(lower, ()) == "8.2"
    for found, expected in zip(
        outputs_of(lower, case.inputs), outputs_of(model, case.inputs), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


def _check_old(lower: onnx.ModelProto) -> None:
    assert [(item.domain, item.version) for item in lower.opset_import] == [("", 13)]
    assert lower.ir_version == 7
    onnx.checker.check_model(lower, full_check=True)
    assert {node.op_type for node in lower.graph.node} <= OLDEST_OPERATORS


REFUSED: dict[str, tuple[onnx.NodeProto, Mapping[str, Array], str]] = {
    "an operator that is newer": (
        helper.make_node("Trilu", ["x"], ["y"], "the_node"),
        {},
        r"Trilu \('the_node'\): TensorRT before 8\.5 has no such operator",
    ),
    "a reshape to nothing": (
        helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1),
        {"shape": np.array([0, -1], np.int64)},
        "Reshape .*it makes a dimension of nothing",
    ),
    "a scatter that adds": (
        helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], reduction="add"),
        {"i": np.zeros(SHAPE, np.int64)},
        "opset 13, that of TensorRT 8.2, has no 'reduction'",
    ),
    "a part of a shape": (
        helper.make_node("Shape", ["x"], ["y"], start=1),
        {},
        "has no part of a shape",
    ),
    "cubic resizing": (
        helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="cubic"),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        "by the nearest or linearly, not cubic",
    ),
    "the mean of a layer norm": (
        helper.make_node("LayerNormalization", ["x", "scale"], ["y", "mean"]),
        {"scale": numbers(8)},
        "its mean or its deviation is read",
    ),
    "sequences first": (
        helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=2, layout=1),
        {"w": numbers(1, 6, 3), "r": numbers(1, 6, 2)},
        "has no 'layout'",
    ),
}


@pytest.mark.parametrize(("node", "constants", "message"), REFUSED.values(), ids=REFUSED)
def test_what_opset_13_lacks_is_refused_by_its_operator(
    node: onnx.NodeProto, constants: Mapping[str, Array], message: str
) -> None:
    shape = (4, 2, 3) if node.op_type == "GRU" else SHAPE
    model = shipped_model([node], constants, shape=shape)
    with pytest.raises(ConversionError, match=f"^TensorRT cannot parse .*{message}") as caught:
        downgraded(model)
    assert caught.value.diagnosis.code == "unparsable-by-tensorrt"
    assert caught.value.diagnosis.operator == node.op_type
