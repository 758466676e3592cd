"""Runs .onnx and .ort files by onnxruntime. Needs onnxruntime and numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from nestedge.errors import FormatError, MissingDependencyError, NestedgeError, UsageError
from nestedge.placement import Operator, Placement
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge.verify import Trace
from nestedge_onnx.placement import file_operators, measured_placement
from nestedge_onnx.providers import CPU, check_provider, provider_named
from nestedge_onnx.refusals import REFUSALS, first_line

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


class OnnxRuntime:
    """The runtime plug-in "onnx".

    Args:
        provider: what runs a model, as onnxruntime calls it; operators that it lacks run on the
            CPU. None is the CPU alone, which goes without saying.
    """

    name = "onnx"

    def __init__(self, provider: str | None = None) -> None:
        self._provider = provider

    def on_provider(self, name: str) -> OnnxRuntime:
        """This plug-in on another execution provider, as in "cuda".

        Raises:
            UsageError: onnxruntime has no such provider here; the message names those it has.
        """
        return OnnxRuntime(provider_named(name))

    def version(self) -> str:
        """The framework and its version, and the provider where one was asked for."""
        provider = "" if self._provider is None else f" ({self._provider})"
        return f"onnxruntime {onnxruntime.__version__}{provider}"

    def open(self, path: Path, *, threads: int = 1) -> OnnxSession:
        """The model in a file, ready to run.

        Args:
            path: an .onnx or .ort file.
            threads: of the CPU.

        Raises:
            UsageError: there is no such file.
            FormatError: onnxruntime does not accept it.
            PlacementError: the provider cannot be started.
        """
        asked = self._provider or CPU
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
                str(path), options, providers=[asked], enable_fallback=0
            )
        except REFUSALS as error:
            raise FormatError(f"{path}: onnxruntime refuses it: {first_line(error)}") from error
        check_provider(session, asked)
        return OnnxSession(session, path)

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """One run of a model that tells every value on the way, optimisations off.

        Raises:
            MissingDependencyError: the package onnx is not installed.
            FormatError: the file is no ONNX model, or onnxruntime does not run it so.
            PlacementError: the provider cannot be started.
        """
        try:
            # Nothing else on a device needs the package onnx.
            from nestedge_onnx.tracing import trace_model
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "runtime 'onnx' needs onnx to tell the values in between: pip install onnx"
            ) from error
        return trace_model(path, inputs, provider=self._provider or CPU, threads=threads)

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        """Where onnxruntime runs the nodes of a model; see `nestedge.placement`.

        Raises:
            UsageError: there is no such file, or no such provider here.
            FormatError: onnxruntime does not accept the file.
            NestedgeError: it fails to run it, or cannot start the provider.
        """
        # A provider that is asked for here is named by the placement itself.
        asked = self._provider or CPU if accelerator is None else provider_named(accelerator)
        source = OnnxRuntime().version()
        return measured_placement(path, accelerator=asked, threads=threads, source=source)

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The nodes of a model as its file has them.

        Raises:
            UsageError: there is no such file.
            FormatError: onnxruntime does not accept the file.
            NestedgeError: it fails to run it.
        """
        return file_operators(path)


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
        except REFUSALS as error:
            raise NestedgeError(f"{self._path}: running failed: {first_line(error)}") from error
        pairs = zip(self._names, outputs, strict=True)
        return {name: np.asarray(output) for name, output in pairs}


def _info(node: onnxruntime.NodeArg, path: Path) -> TensorInfo:
    if node.type not in _DTYPES:
        raise FormatError(f"{path}: {node.name!r} is a {node.type}; expected a tensor of numbers")
    # A dimension with a name instead of a size is any size.
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorInfo(node.name, shape, _DTYPES[node.type])
