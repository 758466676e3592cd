from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from nestedge.errors import ConversionError
from nestedge.expressions import Array
from nestedge.verify import relative_error
from nestedge_onnx.dynamic import PRODUCTS, dynamic_steps, to_dynamic
from nestedge_onnx.runtime import OnnxRuntime
from tests.nestedge_onnx.graphs import constants_of, counts_of, model_of, ramp

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((6, 6)).astype(np.float32) * ramp(6) * 9
BIAS = RNG.standard_normal(6).astype(np.float32)
KERNEL = RNG.standard_normal((6, 6, 3, 3)).astype(np.float32)

LAYERS: dict[str, tuple[onnx.NodeProto, list[int]]] = {
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["y"]), [1, 4, 6]),
    "Gemm": (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), [1, 6]),
    "Gemm of a transposed weight": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
        [1, 6],
    ),
    "Conv": (helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4), [1, 6, 5, 5]),
    "ConvTranspose": (
        helper.make_node("ConvTranspose", ["x", "k"], ["y"], pads=[1] * 4),
        [1, 6, 5, 5],
    ),
}


def _model(nodes: Sequence[onnx.NodeProto], shape: Sequence[int]) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    every = {"w": WEIGHT, "b": BIAS, "k": KERNEL}
    return model_of(nodes, {name: array for name, array in every.items() if name in read}, shape)


def _run(model: onnx.ModelProto, x: Array, path: Path) -> Array:
    path.write_bytes(model.SerializeToString())
    return OnnxRuntime().open(path).run({"x": x})["y"]


@pytest.mark.parametrize(("node", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_layer_computes_nearly_the_same_from_weights_of_8_bits(
    node: onnx.NodeProto, shape: list[int], tmp_path: Path
) -> None:
    model = _model([node], shape)
    made = to_dynamic(model)
    onnx.checker.check_model(made, full_check=True)
    x = RNG.standard_normal(shape).astype(np.float32)
    found, expected = (_run(each, x, tmp_path / "model.onnx") for each in (made, model))
    assert 0 < relative_error(found, expected) < 0.03
    large = [array for array in constants_of(made).values() if array.ndim > 1 and array.size > 6]
    assert [array.dtype for array in large] == [np.int8]


@pytest.mark.parametrize("form", ["MatMul", "Gemm", "Gemm of a transposed weight"])
def test_onnxruntime_makes_one_operator_of_a_product(form: str, tmp_path: Path) -> None:
    node, shape = LAYERS[form]
    path = tmp_path / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(to_dynamic(_model([node], shape)).SerializeToString(), options)
    counts = counts_of(onnx.load(path))
    assert counts["DynamicQuantizeMatMul"] == 1
    assert set(counts) <= {"DynamicQuantizeMatMul", "Add"}


def test_onnxruntime_multiplies_a_convolutions_weights_out_once(tmp_path: Path) -> None:
    node, shape = LAYERS["Conv"]
    path = tmp_path / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(to_dynamic(_model([node], shape)).SerializeToString(), options)
    assert counts_of(onnx.load(path)) == {"Conv": 1}


def test_steps_are_of_output_channels() -> None:
    node, shape = LAYERS["Gemm of a transposed weight"]
    made = to_dynamic(_model([node], shape))
    ((name, steps),) = dynamic_steps(made.graph).items()
    assert steps.axis == 1
    np.testing.assert_allclose(steps.scales, np.abs(WEIGHT).max(1) / 127, rtol=1e-6)
    whole = constants_of(made)[name]
    assert (
        np.abs(whole.T * steps.scales[:, None] - WEIGHT) <= steps.scales[:, None] * 0.5001
    ).all()


def test_readers_of_one_value_share_its_8_bits_and_one_weight_is_stored_once() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["left"]),
        helper.make_node("MatMul", ["x", "w"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["y"]),
    ]
    made = to_dynamic(_model(nodes, [1, 6]))
    assert counts_of(made)["DynamicQuantizeLinear"] == 1
    assert sum(array.dtype == np.int8 for array in constants_of(made).values()) == 1


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5),
        helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
        helper.make_node("MatMul", ["w", "x"], ["y"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ],
    ids=["a factor", "a transposed operand", "the weight on the left", "no layer"],
)
def test_where_nothing_has_that_form_it_is_told(node: onnx.NodeProto) -> None:
    with pytest.raises(ConversionError, match=r"no layer has a weight .*\[nothing-to-quantise\]"):
        to_dynamic(_model([node], [6, 6]))


def test_layers_that_were_not_named_keep_their_weights() -> None:
    node, shape = LAYERS["Conv"]
    product = helper.make_node("MatMul", ["c", "v"], ["y"])
    product_of = helper.make_node("Conv", ["x", "k"], ["c"], pads=[1] * 4)
    model = _model([node], shape)
    del model.graph.node[:]
    model.graph.node.extend([product_of, product])
    model.graph.initializer.append(onnx.numpy_helper.from_array(KERNEL[:5, :5, 0, 0].copy(), "v"))
    constants = constants_of(to_dynamic(model, PRODUCTS))
    assert constants["k"].tobytes() == KERNEL.tobytes()
    assert constants["v_quantized"].dtype == np.int8


def test_the_model_itself_stays_as_it_is() -> None:
    node, shape = LAYERS["Conv"]
    model = _model([node], shape)
    before = model.SerializeToString(deterministic=True)
    to_dynamic(model)
    assert model.SerializeToString(deterministic=True) == before
