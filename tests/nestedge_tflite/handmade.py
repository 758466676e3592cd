"""TFLite files put together by the schema alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)

BIAS = np.array([7, 8, 9], np.float32)

INPUT_STEPS = (0.5, -1)
"""Scale and zero point of an input of whole numbers."""

OUTPUT_STEPS = (1.0, 3)
"""Those of an output."""


def write_model(
    path: Path,
    *,
    signatures: Sequence[str] = ("serving_default",),
    output: str = "y",
    operator: int = schema.BuiltinOperator.FULLY_CONNECTED,
    weights: str = "float32",
    activations: str = "float32",
    bias: Sequence[int] = (),
) -> Path:
    """Writes a model of one fully connected layer, "x" of shape (1, 2) in and (1, 3) out.

    Args:
        path: where to.
        signatures: keys of its signatures.
        output: the name of its output.
        operator: what the layer says it is.
        weights: dtype of its weight.
        activations: dtype of its input and output.
        bias: shape of its bias, whose numbers are BIAS; none without one.
    """
    content = np.frombuffer(WEIGHT.astype(weights).tobytes(), np.uint8)
    model = schema.ModelT()
    model.version = 3
    model.description = "handmade"
    numbers = np.frombuffer(BIAS.tobytes(), np.uint8)
    data = [_with(schema.BufferT(), data=array) for array in (content, numbers)]
    model.buffers = [schema.BufferT(), *data]
    model.operatorCodes = [
        _with(
            schema.OperatorCodeT(),
            builtinCode=operator,
            deprecatedBuiltinCode=operator,
            version=1,
        )
    ]
    layer = _with(
        schema.OperatorT(),
        opcodeIndex=0,
        inputs=np.array([0, 1, 3 if bias else -1], np.int32),
        outputs=np.array([2], np.int32),
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=schema.FullyConnectedOptionsT(),
    )
    graph = _with(
        schema.SubGraphT(),
        name="main",
        tensors=[
            _tensor("in", [1, 2], activations, INPUT_STEPS),
            _tensor("w", [3, 2], weights, (1.0, 0), buffer=1),
            _tensor("out", [1, 3], activations, OUTPUT_STEPS),
            _tensor("b", list(bias), "float32", (1.0, 0), buffer=2),
        ][: 4 if bias else 3],
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
            outputs=[_with(schema.TensorMapT(), name=output, tensorIndex=2)],
        )
        for key in signatures
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(
    name: str, shape: list[int], dtype: str, steps: tuple[float, int], *, buffer: int = 0
) -> Any:
    tensor = _with(
        schema.TensorT(),
        name=name,
        shape=np.array(shape, np.int32),
        type=getattr(schema.TensorType, dtype.upper()),
        buffer=buffer,
    )
    if dtype == "float32":
        return tensor
    scale, zero_point = steps
    quantization = _with(
        schema.QuantizationParametersT(),
        scale=np.array([scale], np.float32),
        zeroPoint=np.array([zero_point], np.int64),
    )
    return _with(tensor, quantization=quantization)


def _with(table: Any, **values: object) -> Any:
    for name, value in values.items():
        setattr(table, name, value)
    return table
