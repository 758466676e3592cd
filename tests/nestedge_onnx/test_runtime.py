from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.artifact import reference_bytes, write_artifact
from nestedge.errors import FormatError, UsageError
from nestedge.plugins import TensorInfo
from nestedge.verify import verify_artifact
from nestedge_onnx.runtime import OnnxRuntime
from tests.fakes import DESCRIPTION

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def _write(path: Path, *, batch: int | str = 1, operator: str = "MatMul") -> Path:
    node = helper.make_node(operator, ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_computes_what_its_graph_says(tmp_path: Path, threads: int) -> None:
    session = OnnxRuntime().open(_write(tmp_path / "model.onnx"), threads=threads)
    assert session.inputs == (TensorInfo("x", (1, 2), "float32"),)
    assert session.outputs == (TensorInfo("y", (1, 3), "float32"),)
    x = np.array([[1, -2]], np.float32)
    outputs = session.run({"x": x})
    assert outputs.keys() == {"y"}
    np.testing.assert_array_equal(outputs["y"], x @ WEIGHT)


def test_a_dimension_with_a_name_is_any_size(tmp_path: Path) -> None:
    session = OnnxRuntime().open(_write(tmp_path / "model.onnx", batch="n"))
    assert session.inputs[0].shape == (-1, 2)
    assert session.run({"x": np.zeros((5, 2), np.float32)})["y"].shape == (5, 3)


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    session = OnnxRuntime().open(_write(tmp_path / "model.onnx"))
    with pytest.raises(ValueError, match=r"input 'x': expected shape \(1, 2\) .* found \(2, 2\)"):
        session.run({"x": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match="no input 'z'"):
        session.run({"z": np.zeros((1, 2), np.float32)})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _text(path: Path) -> None:
    path.write_text("this is no model")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _unknown_operator(path: Path) -> None:
    _write(path, operator="NoSuchOperator")


@pytest.mark.parametrize("damage", [_cut, _text, _empty, _unknown_operator])
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, damage: object) -> None:
    path = _write(tmp_path / "model.onnx")
    assert callable(damage)
    damage(path)
    with pytest.raises(FormatError, match=r"model\.onnx: onnxruntime refuses it: ") as caught:
        OnnxRuntime().open(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.onnx: no such file"):
        OnnxRuntime().open(tmp_path / "none.onnx")


def test_the_version_names_the_framework() -> None:
    assert OnnxRuntime().version().startswith("onnxruntime 1.")


def test_an_artifact_that_onnxruntime_runs_is_verified(tmp_path: Path) -> None:
    model = _write(tmp_path / "model.onnx").read_bytes()
    x = np.random.default_rng(0).standard_normal((4, 1, 2)).astype(np.float32)
    description = replace(
        DESCRIPTION,
        runtime="onnx",
        model="model.onnx",
        inputs=(TensorInfo("x", (1, 2), "float32"),),
        outputs=(TensorInfo("y", (1, 3), "float32"),),
        preprocessing=None,
        labels=None,
    )
    for factor, passed in ((1.0, True), (1.001, False)):
        reference = reference_bytes({"x": x}, {"y": (x @ WEIGHT * factor).astype(np.float32)})
        artifact = write_artifact(
            tmp_path / description.cell,
            description,
            files={"model.onnx": model, "reference.safetensors": reference},
        )
        assert verify_artifact(artifact, OnnxRuntime()).passed is passed


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    # An import hook looks at the environment at the moment onnxruntime is first asked for.
    program = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Spy())
import nestedge_onnx.runtime
assert "torch" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["1"]
