"""Runs ONNX models by onnxruntime on the CPU. Needs onnxruntime and numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import (
    onnxruntime_pybind11_state as ort_errors,  # pyright: ignore[reportAttributeAccessIssue]
)

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}

# onnxruntime's exceptions have no base of their own.
_REFUSALS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxRuntime:
    """The runtime plug-in "onnx"."""

    name = "onnx"

    def version(self) -> str:
        """The framework and its version."""
        return f"onnxruntime {onnxruntime.__version__}"

    def open(self, path: Path, *, threads: int = 1) -> OnnxSession:
        """The model in a file, on the CPU.

        Raises:
            UsageError: there is no such file.
            FormatError: onnxruntime does not accept it.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that wait for the next run by spinning would slow what another session measures.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _REFUSALS as error:
            raise FormatError(f"{path}: onnxruntime refuses it: {_first_line(error)}") from error
        return OnnxSession(session, path)


class OnnxSession:
    """An ONNX model that onnxruntime has loaded.

    Attributes:
        inputs: what `run` wants.
        outputs: what `run` gives.
    """

    def __init__(self, session: onnxruntime.InferenceSession, path: Path) -> None:
        self.inputs = tuple(_info(node, path) for node in session.get_inputs())
        self.outputs = tuple(_info(node, path) for node in session.get_outputs())
        self._session = session
        self._path = path
        self._names = [info.name for info in self.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: onnxruntime failed while running.
        """
        check_inputs(self.inputs, inputs)
        try:
            outputs = self._session.run(self._names, dict(inputs))
        except _REFUSALS as error:
            raise NestedgeError(f"{self._path}: running failed: {_first_line(error)}") from error
        pairs = zip(self._names, outputs, strict=True)
        return {name: np.asarray(output) for name, output in pairs}


def _info(node: onnxruntime.NodeArg, path: Path) -> TensorInfo:
    if node.type not in _DTYPES:
        raise FormatError(f"{path}: {node.name!r} is a {node.type}; expected a tensor of numbers")
    # A dimension with a name instead of a size is any size.
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorInfo(node.name, shape, _DTYPES[node.type])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
