from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestedge.errors import FormatError, UsageError
from nestedge.verify.trace import TracingRuntime
from nestedge_tflite.runtime import LiteRtRuntime
from tests.nestedge_tflite.handmade import OUTPUT_STEPS, WEIGHT, write_model

_X = np.array([[1.0, -2.0]], np.float32)


def test_every_value_is_told_by_the_names_of_the_signature(tmp_path: Path) -> None:
    trace = LiteRtRuntime().trace(write_model(tmp_path / "model.tflite"), {"x": _X})
    assert np.array_equal(trace.values[trace.inputs["x"]], _X)
    assert np.array_equal(trace.values[trace.outputs["y"]], _X @ WEIGHT.T)


def test_operators_have_their_constants(tmp_path: Path) -> None:
    trace = LiteRtRuntime().trace(write_model(tmp_path / "model.tflite"), {"x": _X})
    (layer,) = trace.operators
    assert layer.kind == "FULLY_CONNECTED"
    assert (layer.inputs, layer.outputs) == ((trace.inputs["x"],), (trace.outputs["y"],))
    (weight,) = layer.constants
    assert weight not in trace.values


def test_whole_numbers_are_told_as_what_they_stand_for(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", weights="int8", activations="int8")
    trace = LiteRtRuntime().trace(path, {"x": _X})
    found = LiteRtRuntime().open(path).run({"x": _X})["y"]
    assert np.allclose(trace.values[trace.outputs["y"]], found)
    assert np.allclose(trace.values[trace.inputs["x"]], _X)
    steps = trace.values[trace.outputs["y"]].astype(np.float64) / OUTPUT_STEPS[0]
    assert np.allclose(steps, np.rint(steps))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(UsageError, match=r"model\.tflite: no such file"):
        LiteRtRuntime().trace(path, {"x": _X})
    path.write_bytes(b"no model")
    with pytest.raises(FormatError, match=r"model\.tflite: LiteRT refuses it"):
        LiteRtRuntime().trace(path, {"x": _X})


def test_a_file_of_several_levels_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", signatures=("full", "small"))
    with pytest.raises(FormatError, match=r"expected one signature, found \['full', 'small'\]"):
        LiteRtRuntime().trace(path, {"x": _X})


def test_an_input_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"input 'x': expected shape \(1, 2\)"):
        LiteRtRuntime().trace(path, {"x": _X[:, :1]})


def test_the_runtime_is_one_that_tells() -> None:
    assert isinstance(LiteRtRuntime(), TracingRuntime)
