"""nestedge_onnx.products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from nestedge.expressions import Array
from nestedge_onnx.products import with_gemms
from nestedge_onnx.quantization import quantize
from tests.nestedge_onnx.graphs import counts_of, model_of, ramp

WEIGHT, BIAS = ramp(4, 4), 3 * ramp(4)


def _linear(*, bias_first: bool = False) -> list[onnx.NodeProto]:
    summands = ["b", "p"] if bias_first else ["p", "b"]
    return [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("Add", summands, ["y"], name="sum"),
    ]


def _output(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (1, 2, 3, 4)], ids=str)
def test_a_product_and_its_bias_are_one_gemm_that_computes_the_same(
    shape: tuple[int, ...], bias_first: bool
) -> None:
    model = model_of(_linear(bias_first=bias_first), {"w": WEIGHT, "b": BIAS}, shape)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    fused = with_gemms(model)

    onnx.checker.check_model(fused, full_check=True)
    counts = counts_of(fused)
    assert (counts.get("Gemm"), counts.get("MatMul"), counts.get("Add")) == (1, None, None)
    np.testing.assert_allclose(_output(fused, x), _output(model, x), rtol=1e-6, atol=1e-6)


LEFT = {
    "another sum reads the product too": (
        [*_linear(), helper.make_node("Add", ["y", "p"], ["z"])],
        {"w": WEIGHT, "b": BIAS},
    ),
    "the summand is computed": (
        [helper.make_node("Relu", ["x"], ["b"]), *_linear()],
        {"w": WEIGHT},
    ),
    "the constant is a number for all": (_linear(), {"w": WEIGHT, "b": BIAS[:1]}),
    "the weight is one of many matrices": (_linear(), {"w": WEIGHT[None], "b": BIAS}),
}


@pytest.mark.parametrize(("nodes", "constants"), LEFT.values(), ids=LEFT)
def test_what_is_no_layer_with_a_bias_is_left_alone(
    nodes: list[onnx.NodeProto], constants: dict[str, Array]
) -> None:
    model = model_of(nodes, constants, (1, 3, 4))

    assert counts_of(with_gemms(model)) == counts_of(model)


def test_onnxruntime_computes_an_8_bit_layer_with_a_bias_in_8_bits(tmp_path: Path) -> None:
    model = model_of(_linear(), {"w": WEIGHT, "b": BIAS}, (1, 3, 4))
    x = np.random.default_rng(0).standard_normal((8, 1, 3, 4)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4

    onnxruntime.InferenceSession(
        quantize(model, {"x": x}).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    counts = counts_of(onnx.load(tmp_path / "optimized.onnx"))
    assert (counts.get("QGemm"), counts.get("Gemm")) == (1, None)
