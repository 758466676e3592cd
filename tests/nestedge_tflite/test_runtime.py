from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nestedge.errors import FormatError, UsageError
from nestedge.plugins import TensorInfo
from nestedge_tflite.runtime import LiteRtRuntime
from nestedge_tflite.session import open_interpreter
from tests.nestedge_tflite.handmade import WEIGHT, write_model


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_computes_what_its_graph_says(tmp_path: Path, threads: int) -> None:
    session = LiteRtRuntime().open(write_model(tmp_path / "model.tflite"), threads=threads)
    # Names are those of the signature, not of the tensors.
    assert session.inputs == (TensorInfo("x", (1, 2), "float32"),)
    assert session.outputs == (TensorInfo("y", (1, 3), "float32"),)
    x = np.array([[1, -2]], np.float32)
    first = session.run({"x": x})
    assert first.keys() == {"y"}
    second = session.run({"x": 2 * x})
    # The first outputs must not be a view of memory that the second run writes.
    np.testing.assert_array_equal(first["y"], x @ WEIGHT.T)
    np.testing.assert_array_equal(second["y"], 2 * x @ WEIGHT.T)


def test_a_model_of_whole_numbers_takes_and_gives_what_they_stand_for(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", weights="int8", activations="int8")
    session = LiteRtRuntime().open(path)
    assert session.inputs == (TensorInfo("x", (1, 2), "float32"),)
    assert session.outputs == (TensorInfo("y", (1, 3), "float32"),)
    x = np.array([[1, -2]], np.float32)
    found = session.run({"x": x})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x @ WEIGHT.T)
    # Halves of a half, rounded to even, and what no step of the input reaches.
    rounded = session.run({"x": np.array([[0.25, 0.75]], np.float32)})["y"]
    np.testing.assert_array_equal(rounded, np.array([[0, 1]]) @ WEIGHT.T)
    beyond = session.run({"x": np.array([[1e9, 0]], np.float32)})["y"]
    np.testing.assert_array_equal(beyond, [[0, 124, 124]])


def test_inputs_that_litert_would_resize_for_are_refused(tmp_path: Path) -> None:
    session = LiteRtRuntime().open(write_model(tmp_path / "model.tflite"))
    with pytest.raises(ValueError, match=r"input 'x': expected shape \(1, 2\) .* found \(2, 2\)"):
        session.run({"x": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize("signatures", [(), ("a", "b")])
def test_a_model_without_exactly_one_signature_is_refused(
    tmp_path: Path, signatures: Sequence[str]
) -> None:
    path = write_model(tmp_path / "model.tflite", signatures=signatures)
    with pytest.raises(FormatError, match=r"model\.tflite: expected one signature, found \["):
        LiteRtRuntime().open(path)


def test_a_signature_of_several_is_opened_by_its_name(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", signatures=("large", "small"))
    session = LiteRtRuntime().open(path, signature="small")
    x = np.array([[1, -2]], np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x @ WEIGHT.T)
    with pytest.raises(
        UsageError,
        match=r"no signature 'smal'; there are \['large', 'small'\]; did you mean 'small'",
    ):
        LiteRtRuntime().open(path, signature="smal")


@pytest.mark.parametrize("kept", [0, 3, 20, 300, -8])
def test_a_truncated_model_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    path = write_model(tmp_path / "model.tflite")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"model\.tflite: LiteRT refuses it: ") as caught:
        LiteRtRuntime().open(path)
    assert "\n" not in str(caught.value)


def test_of_many_complaints_the_first_is_told(tmp_path: Path) -> None:
    def make(**_: object) -> object:
        raise ValueError("Expected 1 scale, but got 4.Tensor 1 has invalid parameters.")

    with pytest.raises(FormatError, match=r"LiteRT refuses it: Expected 1 scale, but got 4\.$"):
        open_interpreter(
            make, write_model(tmp_path / "model.tflite"), threads=1, framework="LiteRT"
        )


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.tflite: no such file"):
        LiteRtRuntime().open(tmp_path / "none.tflite")


def test_the_version_names_the_framework() -> None:
    assert LiteRtRuntime().version().startswith("ai-edge-litert 2.")
