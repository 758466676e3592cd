from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from nestedge.errors import NestedgeError
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET
from nestedge_onnx.half import to_half, with_half_weights
from nestedge_onnx.runtime import OnnxRuntime
from tests.nestedge_onnx.graphs import constants_of, counts_of, model_of, ramp


def _sum(weight: list[float]) -> onnx.ModelProto:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model_of([node], {"w": np.array(weight, np.float32)}, [len(weight)])


def test_weights_are_rounded_as_a_cast_does_and_saturate() -> None:
    # The last four are half of the smallest number and less, and a number beyond the largest.
    model = _sum([0.1, -3.0, 2e-8, 4e-8, -1e-9, 1e6])
    found = constants_of(to_half(model))["w"]
    assert found.dtype == np.float16
    expected = [0.1, -3.0, 0.0, 2.0**-24, -0.0, 65504.0]
    assert found.tobytes() == np.array(expected, np.float16).tobytes()


def test_the_model_itself_stays_as_it_is() -> None:
    model = _sum([0.1, 0.2])
    before = model.SerializeToString(deterministic=True)
    to_half(model)
    assert model.SerializeToString(deterministic=True) == before


def test_inputs_and_outputs_stay_in_single_precision(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(to_half(_sum([0.1, -3.0])).SerializeToString())
    session = OnnxRuntime().open(path)
    assert {info.dtype for info in (*session.inputs, *session.outputs)} == {"float32"}


def test_only_the_weights_that_are_named_are_stored_in_half_precision(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Mul", ["sum", "v"], ["product"]),
        helper.make_node("Sub", ["product", "w"], ["y"]),
    ]
    constants = {"w": np.array([0.1, -3.0], np.float32), "v": np.array([0.1, 1e-9], np.float32)}
    model = model_of(nodes, constants, [2])
    before = model.SerializeToString(deterministic=True)
    half = with_half_weights(model, {"w"})
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(half, full_check=True)
    found = constants_of(half)
    assert found["w"].tobytes() == constants["w"].astype(np.float16).tobytes()
    assert found["v"].tobytes() == constants["v"].tobytes()
    assert counts_of(half) == {"Add": 1, "Cast": 1, "Mul": 1, "Sub": 1}
    path = tmp_path / "half.onnx"
    path.write_bytes(half.SerializeToString())
    w = constants["w"].astype(np.float16).astype(np.float32)
    x = np.array([1.0, 2.0], np.float32)
    np.testing.assert_array_equal(
        OnnxRuntime().open(path).run({"x": x})["y"], (x + w) * constants["v"] - w
    )


@pytest.mark.parametrize("operator", ["HardSigmoid", "Relu"])
def test_onnxruntime_takes_no_activation_function_apart(operator: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node(operator, ["sum"], ["gate"]),
        helper.make_node("Mul", ["gate", "w"], ["y"]),
    ]
    model = model_of(nodes, {"w": ramp(4)}, [4])
    model.opset_import[0].version = ONNXRUNTIME_OPSET
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(to_half(model).SerializeToString(), options)
    assert counts_of(onnx.load(tmp_path / "optimised.onnx"))[operator] == 1


def test_what_cannot_be_converted_is_told() -> None:
    model = _sum([0.1, 0.2])
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(NestedgeError, match="onnxruntime cannot make fp16: "):
        to_half(model)
