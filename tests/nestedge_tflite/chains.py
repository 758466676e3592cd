"""TFLite files of one operator after the other, put together by the schema alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Shape = Sequence[int]


@dataclass(frozen=True)
class Link:
    """An operator that reads what the one before it gives.

    Attributes:
        kind: its name in the schema.
        shape: of what it gives.
        weights: shapes of its constants, all of zeros.
        options: the name of its table of options in the schema.
        values: of the fields of that.
    """

    kind: str
    shape: Shape
    weights: Sequence[Shape] = ()
    options: str | None = None
    values: tuple[tuple[str, int], ...] = ()


def dense(inputs: int, outputs: int) -> Link:
    """A fully connected layer for one row."""
    return Link("FULLY_CONNECTED", (1, outputs), [(outputs, inputs)], "FullyConnectedOptions")


def write_chain(path: Path, links: Sequence[Link], *, shape: Shape) -> Path:
    """Writes a model of single precision that takes one input of a shape.

    Args:
        path: where to.
        links: in the order in which they run; a link of several inputs reads the data first.
        shape: of the input.
    """
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    tensors = [_tensor("x", shape)]
    operators = []
    data = 0
    for index, link in enumerate(links):
        weights = []
        for number, weight in enumerate(link.weights):
            content = np.zeros(int(np.prod(weight)) * 4, np.uint8)
            model.buffers.append(_with(schema.BufferT(), data=content))
            weights.append(len(tensors))
            buffer = len(model.buffers) - 1
            tensors.append(_tensor(f"weight{index}.{number}", weight, buffer=buffer))
        tensors.append(_tensor(f"{link.kind.lower()}{index}", link.shape))
        operators.append(_operator(index, link, [data, *weights], len(tensors) - 1))
        data = len(tensors) - 1
        code = getattr(schema.BuiltinOperator, link.kind)
        model.operatorCodes.append(
            _with(
                schema.OperatorCodeT(),
                builtinCode=code,
                deprecatedBuiltinCode=min(code, 127),
                version=1,
            )
        )
    graph = _with(
        schema.SubGraphT(),
        name="main",
        tensors=tensors,
        inputs=np.array([0], np.int32),
        outputs=np.array([data], np.int32),
        operators=operators,
    )
    model.subgraphs = [graph]
    model.signatureDefs = [
        _with(
            schema.SignatureDefT(),
            signatureKey="serving_default",
            subgraphIndex=0,
            inputs=[_with(schema.TensorMapT(), name="x", tensorIndex=0)],
            outputs=[_with(schema.TensorMapT(), name="y", tensorIndex=data)],
        )
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _operator(index: int, link: Link, inputs: Sequence[int], output: int) -> Any:
    operator = _with(
        schema.OperatorT(),
        opcodeIndex=index,
        inputs=np.array(inputs, np.int32),
        outputs=np.array([output], np.int32),
    )
    if link.options is not None:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, link.options)
        operator.builtinOptions = _with(getattr(schema, f"{link.options}T")(), **dict(link.values))
    return operator


def _tensor(name: str, shape: Shape, *, buffer: int = 0) -> Any:
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
