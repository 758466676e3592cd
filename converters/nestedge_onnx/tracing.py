"""Every value that an ONNX model computes on the way, by onnxruntime. Needs the package onnx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nestedge.errors import FormatError
from nestedge.plugins import Array
from nestedge.verify.trace import Trace, TracedOperator
from nestedge_onnx.providers import CPU, check_provider
from nestedge_onnx.refusals import REFUSALS, first_line


def trace_model(
    path: Path, inputs: Mapping[str, Array], *, provider: str = CPU, threads: int = 1
) -> Trace:
    """One run of a model, every operator by itself: quantised ones as their QDQ pairs say.

    Args:
        path: of the model file.
        inputs: by name, in the shapes and dtypes of the model's.
        provider: what runs it, as onnxruntime calls it.
        threads: CPU threads.

    Raises:
        FormatError: the file is no ONNX model, or onnxruntime does not run it operator by operator.
        PlacementError: the provider cannot be started.
    """
    try:
        model = onnx.load(path)
    except (DecodeError, OSError) as error:
        raise FormatError(f"{path}: not an ONNX model: {error}") from error
    operators = tuple(_operators(model.graph))
    given = {value.name for value in model.graph.output}
    names = [name for found in operators for name in found.outputs]
    outputs = [*given, *(name for name in names if name not in given)]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in outputs if name not in given
    )
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _options(threads), providers=[provider], enable_fallback=0
        )
        check_provider(session, provider)
        found = dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))
    except REFUSALS as error:
        raise FormatError(f"{path}: cannot be traced: {first_line(error)}") from error
    values = {name: np.asarray(value) for name, value in (found | dict(inputs)).items()}
    return Trace(
        operators=operators,
        # Whole numbers in between are quantised ones, or shapes and indices.
        values={
            n: v for n, v in values.items() if v.dtype.kind == "f" or n in given or n in inputs
        },
        inputs={name: name for name in inputs},
        outputs={name: name for name in given},
    )


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _operators(graph: onnx.GraphProto) -> Iterator[TracedOperator]:
    """The nodes that compute with what goes in.

    Those of constants alone, as the conversion of 8-bit weights, make a constant: whoever reads it
    reads the constants that it is made of.
    """
    sources: dict[str, tuple[str, ...]] = {i.name: (i.name,) for i in graph.initializer}
    for index, node in enumerate(graph.node):
        constants = tuple(name for read in node.input for name in sources.get(read, ()))
        values = tuple(read for read in node.input if read and read not in sources)
        if not values:
            sources.update(dict.fromkeys(node.output, constants))
            continue
        yield TracedOperator(
            kind=node.op_type,
            # Two nodes may have the same name, or none.
            name=node.name or f"{node.op_type} {index}",
            inputs=values,
            outputs=tuple(name for name in node.output if name),
            constants=constants,
        )
