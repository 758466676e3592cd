"""Runs OpenVINO models on the CPU. Needs openvino and numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge_openvino.refusal import refusal

_START = 64


class OpenvinoRuntime:
    """The runtime plug-in "openvino"."""

    name = "openvino"

    def version(self) -> str:
        """The framework and its version."""
        return f"openvino {version('openvino')}"

    def open(self, path: Path, *, threads: int = 1) -> OpenvinoSession:
        """The model in a .xml file and the .bin of the same name beside it, on the CPU.

        Arithmetic is that of the file: by itself OpenVINO computes float32 in bfloat16 where the
        processor has that.

        Raises:
            UsageError: there is no such file.
            FormatError: OpenVINO does not accept it.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        with path.open("rb") as file:
            if not file.read(_START).lstrip().startswith(b"<"):
                # OpenVINO would try it as every other format that it reads, some of which print.
                raise FormatError(f"{path}: OpenVINO refuses it: Expected its XML")
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            # It would bind the caller's thread to a core, which all that it runs later shares.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            return OpenvinoSession(_core().compile_model(path, "CPU", settings), path)
        except RuntimeError as error:
            raise FormatError(f"{path}: OpenVINO refuses it: {refusal(error)}") from error


class OpenvinoSession:
    """A model that OpenVINO has compiled.

    Attributes:
        inputs: what `run` wants.
        outputs: what `run` gives.
    """

    def __init__(self, model: openvino.CompiledModel, path: Path) -> None:
        self.inputs = _infos(model.inputs)
        self.outputs = _infos(model.outputs)
        self._request = model.create_infer_request()
        self._path = path

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: OpenVINO failed while running.
        """
        # OpenVINO would convert dtypes without a word.
        check_inputs(self.inputs, inputs)
        try:
            found = self._request.infer(dict(inputs))
        except RuntimeError as error:
            raise NestedgeError(f"{self._path}: running failed: {refusal(error)}") from error
        names = [info.name for info in self.outputs]
        return {name: np.asarray(found[index]) for index, name in enumerate(names)}


@cache
def _core() -> openvino.Core:
    """OpenVINO's devices, once for the process.

    Every core that compiles puts a stack for signals in place, and gives back the one that it found
    when it goes: of two that go in the order in which they came, the second gives back one that is
    gone, and the next signal that Python handles ends the process.
    """
    return openvino.Core()


def _infos(ports: Iterable[openvino.ConstOutput]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            port.any_name,
            # A dimension of any size has no length.
            tuple(d.get_length() if d.is_static else -1 for d in port.partial_shape),
            port.element_type.to_dtype().name,
        )
        for port in ports
    )
