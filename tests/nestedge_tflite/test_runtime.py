from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from nestedge.errors import FormatError, UsageError
from nestedge.plugins import TensorInfo
from nestedge_tflite.runtime import LiteRtRuntime

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


def _write(path: Path, *, signatures: Sequence[str] = ("serving_default",)) -> Path:
    """A model of one fully connected layer, put together by the schema alone."""
    content = np.frombuffer(WEIGHT.tobytes(), np.uint8)
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT(), _with(schema.BufferT(), data=content)]
    model.operatorCodes = [
        _with(
            schema.OperatorCodeT(),
            builtinCode=schema.BuiltinOperator.FULLY_CONNECTED,
            deprecatedBuiltinCode=schema.BuiltinOperator.FULLY_CONNECTED,
            version=1,
        )
    ]
    layer = _with(
        schema.OperatorT(),
        opcodeIndex=0,
        inputs=np.array([0, 1, -1], np.int32),
        outputs=np.array([2], np.int32),
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=schema.FullyConnectedOptionsT(),
    )
    graph = _with(
        schema.SubGraphT(),
        name="main",
        tensors=[_tensor("in", [1, 2]), _tensor("w", [3, 2], buffer=1), _tensor("out", [1, 3])],
        inputs=np.array([0], np.int32),
        outputs=np.array([2], np.int32),
        operators=[layer],
    )
    model.subgraphs = [graph]
    model.signatureDefs = [
        _with(
            schema.SignatureDefT(),
            signatureKey=key,
            subgraphIndex=0,
            inputs=[_with(schema.TensorMapT(), name="x", tensorIndex=0)],
            outputs=[_with(schema.TensorMapT(), name="y", tensorIndex=2)],
        )
        for key in signatures
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: str, shape: list[int], *, buffer: int = 0) -> Any:
    return _with(
        schema.TensorT(),
        name=name,
        shape=np.array(shape, np.int32),
        type=schema.TensorType.FLOAT32,
        buffer=buffer,
    )


def _with(table: Any, **values: object) -> Any:
    for name, value in values.items():
        setattr(table, name, value)
    return table


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_computes_what_its_graph_says(tmp_path: Path, threads: int) -> None:
    session = LiteRtRuntime().open(_write(tmp_path / "model.tflite"), threads=threads)
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


def test_inputs_that_litert_would_resize_for_are_refused(tmp_path: Path) -> None:
    session = LiteRtRuntime().open(_write(tmp_path / "model.tflite"))
    with pytest.raises(ValueError, match=r"input 'x': expected shape \(1, 2\) .* found \(2, 2\)"):
        session.run({"x": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize("signatures", [(), ("a", "b")])
def test_a_model_without_exactly_one_signature_is_refused(
    tmp_path: Path, signatures: Sequence[str]
) -> None:
    path = _write(tmp_path / "model.tflite", signatures=signatures)
    with pytest.raises(FormatError, match=r"model\.tflite: expected one signature, found \["):
        LiteRtRuntime().open(path)


@pytest.mark.parametrize("kept", [0, 3, 20, 300, -8])
def test_a_truncated_model_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    path = _write(tmp_path / "model.tflite")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"model\.tflite: LiteRT refuses it: ") as caught:
        LiteRtRuntime().open(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.tflite: no such file"):
        LiteRtRuntime().open(tmp_path / "none.tflite")


def test_the_version_names_the_framework() -> None:
    assert LiteRtRuntime().version().startswith("ai-edge-litert 2.")
