"""TFLite models in whichever package has the interpreter; all have the same interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge_tflite.quiet import silenced


class SignatureRunner(Protocol):
    """Runs one signature of a model."""

    def __call__(self, **inputs: Array) -> Mapping[str, Array]:
        """The outputs by name."""
        ...

    def get_input_details(self) -> Mapping[str, Mapping[str, Any]]:
        """What every input is like."""
        ...

    def get_output_details(self) -> Mapping[str, Mapping[str, Any]]:
        """What every output is like."""
        ...


class Interpreter(Protocol):
    """TensorFlow Lite's interpreter."""

    def allocate_tensors(self) -> None:
        """Get memory for the tensors."""
        ...

    def get_signature_list(self) -> Mapping[str, Any]:
        """The signatures by key."""
        ...

    def get_signature_runner(self, signature_key: str) -> SignatureRunner:
        """The runner of one signature."""
        ...


class TfliteSession:
    """A TFLite model that an interpreter has loaded.

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
            NestedgeError: the interpreter failed while running.
        """
        # The interpreter would resize the network to whatever shape it is given.
        check_inputs(self.inputs, inputs)
        try:
            return dict(self._signature(**inputs))
        except (ValueError, RuntimeError) as error:
            raise NestedgeError(f"{self._path}: running failed: {_one_line(error)}") from error


def open_session(
    make: Callable[..., Interpreter], path: Path, *, threads: int, framework: str
) -> TfliteSession:
    """The one signature of the model in a file, on the CPU.

    Args:
        make: the class of the interpreter.
        path: of the file.
        threads: CPU threads.
        framework: how messages call it.

    Raises:
        UsageError: there is no such file.
        FormatError: the framework does not accept it, or it has not exactly one signature.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        with silenced():
            interpreter = make(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        signatures = sorted(interpreter.get_signature_list())
        if len(signatures) != 1:
            raise FormatError(f"{path}: expected one signature, found {signatures}")
        return TfliteSession(interpreter, signatures[0], path=path)
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: {framework} refuses it: {_one_line(error)}") from error


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
