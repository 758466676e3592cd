"""Runs engines by TensorRT's Python module, on the device that built them.

Needs tensorrt and numpy, and CUDA's runtime library; no CUDA package for Python.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact
from nestedge.errors import FormatError, MissingDependencyError, NestedgeError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge_tensorrt.building import engine_fingerprint, read_engine_artifact
from nestedge_tensorrt.device_run import LoadedEngine
from nestedge_tensorrt.options import EngineOptions
from nestedge_tensorrt.places import Here
from nestedge_tensorrt.probe import PROBE, read_device
from nestedge_tensorrt.store import BuiltEngine, usable_engine
from nestedge_tensorrt.verifying import size_bytes

try:
    import tensorrt as trt  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    # No extra of a package brings it to a Jetson.
    raise MissingDependencyError(
        "runtime 'tensorrt' needs TensorRT's module for Python: on a Jetson sudo apt-get install "
        "python3-libnvinfer, and an environment made with --system-site-packages; on a PC "
        "pip install tensorrt"
    ) from error


class TensorrtRuntime:
    """The runtime plug-in "tensorrt"."""

    name = "tensorrt"

    def version(self) -> str:
        """The framework and its version."""
        return f"TensorRT {trt.__version__}"

    def open(self, path: Path, *, threads: int = 1) -> TensorrtSession:  # noqa: ARG002
        """The engine that was built here from the model in a file.

        Args:
            path: of the ONNX file of an artifact; the engine lies in a folder beside it.
            threads: has no meaning on a GPU.

        Raises:
            UsageError: there is no such artifact, or no engine of it was built.
            NestedgeError: the engines that are there belong elsewhere; the message says where.
            FormatError: TensorRT does not accept the engine.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        artifact, spec = read_engine_artifact(path.parent)
        device = read_device(Here().run(PROBE).output)
        here = engine_fingerprint(
            spec, device, tensorrt=device.exact(trt.__version__), options=EngineOptions()
        )
        return TensorrtSession(artifact, *usable_engine(artifact, here))


class TensorrtSession:
    """An engine that TensorRT has loaded.

    Attributes:
        inputs: what `run` wants.
        outputs: what `run` gives.
    """

    def __init__(self, artifact: Artifact, path: Path, built: BuiltEngine) -> None:
        options = built.options
        try:
            engine = LoadedEngine(
                path.read_bytes(),
                model=str(artifact.model_path) if options.strip_weights else None,
                has_code=options.version_compatible,
            )
        except RuntimeError as error:
            raise FormatError(f"{path}: {error}") from error
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self._engine = engine
        self._path = path
        weakref.finalize(self, engine.close)
        for info in (*self.inputs, *self.outputs):
            _check(engine, info, path)
        try:
            for info in self.inputs:
                engine.use_shape(info.name, info.shape)
        except RuntimeError as error:
            raise FormatError(f"{path}: {error}: build one for a batch of 1 too") from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: TensorRT or CUDA failed while running.
        """
        check_inputs(self.inputs, inputs)
        given = {name: np.ascontiguousarray(array).tobytes() for name, array in inputs.items()}
        try:
            found = self._engine.run(given, {info.name: size_bytes(info) for info in self.outputs})
        except RuntimeError as error:
            raise NestedgeError(f"{self._path}: running failed: {error}") from error
        return {
            info.name: np.frombuffer(found[info.name], info.dtype).reshape(info.shape)
            for info in self.outputs
        }


def _check(engine: LoadedEngine, info: TensorInfo, path: Path) -> None:
    """Refuses an engine that has another tensor than its artifact says."""
    if info.name not in engine.names:
        raise FormatError(f"{path}: has no tensor {info.name!r}; there are {engine.names}")
    found = engine.shape(info.name)
    sizes = zip(found, info.shape, strict=False)
    if len(found) != len(info.shape) or any(size not in (-1, want) for size, want in sizes):
        raise FormatError(f"{path}: {info.name!r}: expected shape {info.shape}, found {found}")
