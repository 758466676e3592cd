"""Runs TFLite models by LiteRT on the CPU, with XNNPACK. Needs ai-edge-litert and numpy only.

The Interpreter is used rather than CompiledModel: the latter loads accelerators whose binaries stop
with SIGILL on ARMv8.0 (Raspberry Pi 4; ai-edge-litert 2.3.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge_tflite.quiet import silenced


class LiteRtRuntime:
    """The runtime plug-in "tflite"."""

    name = "tflite"

    def version(self) -> str:
        """The framework and its version."""
        return f"ai-edge-litert {version('ai-edge-litert')}"

    def open(self, path: Path, *, threads: int = 1) -> LiteRtSession:
        """The one signature of the model in a file, on the CPU.

        Raises:
            UsageError: there is no such file.
            FormatError: LiteRT does not accept it, or it has not exactly one signature.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        try:
            with silenced():
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
            signatures = sorted(interpreter.get_signature_list())
            if len(signatures) != 1:
                raise FormatError(f"{path}: expected one signature, found {signatures}")
            return LiteRtSession(interpreter, signatures[0], path=path)
        except (ValueError, RuntimeError) as error:
            raise FormatError(f"{path}: LiteRT refuses it: {_one_line(error)}") from error


class LiteRtSession:
    """A TFLite model that LiteRT has loaded.

    Attributes:
        inputs: what `run` wants; names are those of the signature.
        outputs: what `run` gives; names are those of the signature.
    """

    def __init__(self, interpreter: Interpreter, signature: str, *, path: Path) -> None:
        self._signature = interpreter.get_signature_runner(signature)
        self._path = path
        self.inputs = _infos(self._signature.get_input_details())
        self.outputs = _infos(self._signature.get_output_details())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: LiteRT failed while running.
        """
        # LiteRT would resize the network to whatever shape it is given.
        check_inputs(self.inputs, inputs)
        try:
            return dict(self._signature(**inputs))
        except (ValueError, RuntimeError) as error:
            raise NestedgeError(f"{self._path}: running failed: {_one_line(error)}") from error


def _infos(details: Mapping[str, Mapping[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name,
            tuple(int(size) for size in detail["shape_signature"]),
            np.dtype(detail["dtype"]).name,
        )
        for name, detail in details.items()
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
