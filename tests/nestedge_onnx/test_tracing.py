from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.errors import FormatError, MissingDependencyError
from nestedge.verify.trace import TracingRuntime
from nestedge_onnx.runtime import OnnxRuntime

_X = np.array([[1.0, -2.0]], np.float32)
_WEIGHT = np.array([[1, -1], [2, 3]], np.int8)


def _write(path: Path) -> Path:
    """A product with an 8-bit weight, and a ReLU, which onnxruntime would fuse; no names."""
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["dequantized"]),
        helper.make_node("MatMul", ["x", "dequantized"], ["product"]),
        helper.make_node("Relu", ["product"], ["relu"]),
        helper.make_node("Shape", ["relu"], ["shape"]),
        helper.make_node("Reshape", ["relu", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(_WEIGHT, "weight"),
            numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_every_value_on_the_way_is_told(tmp_path: Path) -> None:
    trace = OnnxRuntime().trace(_write(tmp_path / "model.onnx"), {"x": _X})
    product = _X @ (_WEIGHT * np.float32(0.5))
    # Sizes are whole numbers, and nothing to compare.
    assert trace.values.keys() == {"x", "product", "relu", "y"}
    assert np.array_equal(trace.values["product"], product)
    assert np.array_equal(trace.values["y"], np.maximum(product, 0))
    assert (trace.inputs, trace.outputs) == ({"x": "x"}, {"y": "y"})


def test_operators_of_constants_alone_are_part_of_their_reader(tmp_path: Path) -> None:
    trace = OnnxRuntime().trace(_write(tmp_path / "model.onnx"), {"x": _X})
    assert [found.kind for found in trace.operators] == ["MatMul", "Relu", "Shape", "Reshape"]
    product = trace.operators[0]
    assert (product.inputs, product.constants) == (("x",), ("weight", "scale"))
    assert len({found.name for found in trace.operators}) == 4


def test_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.onnx")
    content = path.read_bytes()
    OnnxRuntime().trace(path, {"x": _X})
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"no model", None], ids=["other", "missing"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.onnx: not an ONNX model"):
        OnnxRuntime().trace(path, {"x": _X})


def test_what_onnxruntime_does_not_run_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.onnx")
    with pytest.raises(FormatError, match=r"model\.onnx: cannot be traced: .*INVALID_ARGUMENT"):
        OnnxRuntime().trace(path, {"x": _X.astype(np.float64)})


def test_without_onnx_the_error_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "nestedge_onnx.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"needs onnx .*: pip install onnx$"):
        OnnxRuntime().trace(tmp_path / "model.onnx", {"x": _X})


def test_the_runtime_is_one_that_tells() -> None:
    assert isinstance(OnnxRuntime(), TracingRuntime)
