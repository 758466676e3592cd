"""TFLite models in whichever package has the interpreter; all have the same interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nestedge.errors import FormatError, NestedgeError, UsageError, did_you_mean
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge.redirection import silenced


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


@dataclass(frozen=True)
class Steps:
    """What the whole numbers of an input or output stand for.

    Attributes:
        scale: what a 1 stands for.
        zero_point: the whole number that stands for zero.
        dtype: of the whole numbers.
    """

    scale: float
    zero_point: int
    dtype: str

    def quantized(self, array: Array) -> Array:
        """The whole numbers nearest to some numbers."""
        limits = np.iinfo(self.dtype)
        steps = np.rint(array.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        whole: Array = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return whole

    def dequantized(self, array: Array) -> Array:
        """What whole numbers stand for."""
        found: Array = (array.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return found


class TfliteSession:
    """A TFLite model that an interpreter has loaded.

    Where the file has whole numbers for inputs and outputs, it takes and gives what they stand for.

    Attributes:
        inputs: what `run` wants; names are those of the signature.
        outputs: what `run` gives; names are those of the signature.
    """

    def __init__(self, interpreter: Interpreter, signature: str, *, path: Path) -> None:
        self._signature = interpreter.get_signature_runner(signature)
        self._path = path
        given, found = self._signature.get_input_details(), self._signature.get_output_details()
        self._given, self._found = _steps(given), _steps(found)
        self.inputs = _infos(given, self._given)
        self.outputs = _infos(found, self._found)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: the interpreter failed while running.
        """
        # The interpreter would resize the network to whatever shape it is given.
        check_inputs(self.inputs, inputs)
        given = dict(inputs) | {n: s.quantized(inputs[n]) for n, s in self._given.items()}
        try:
            outputs = dict(self._signature(**given))
        except (ValueError, RuntimeError) as error:
            raise NestedgeError(f"{self._path}: running failed: {_one_line(error)}") from error
        return outputs | {n: s.dequantized(outputs[n]) for n, s in self._found.items()}


def open_session(
    make: Callable[..., Interpreter],
    path: Path,
    *,
    threads: int,
    framework: str,
    signature: str | None = None,
) -> TfliteSession:
    """One signature of the model in a file, on the CPU.

    Args:
        make: the class of the interpreter.
        path: of the file.
        threads: CPU threads.
        framework: how messages call it.
        signature: which one, as a file of several levels has one for each; None for the only one.

    Raises:
        UsageError: there is no such file, or no such signature in it.
        FormatError: the framework does not accept it, or it has several signatures, or none.
    """
    interpreter = open_interpreter(make, path, threads=threads, framework=framework)
    try:
        chosen = _chosen(sorted(interpreter.get_signature_list()), signature, path=path)
        return TfliteSession(interpreter, chosen, path=path)
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: {framework} refuses it: {_one_line(error)}") from error


def open_interpreter(make: Callable[..., Any], path: Path, *, threads: int, framework: str) -> Any:
    """An interpreter of a file, with memory for its tensors.

    Args:
        make: the class of the interpreter.
        path: of the file.
        threads: CPU threads.
        framework: how messages call it.

    Raises:
        UsageError: there is no such file.
        FormatError: the framework does not accept it.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        with silenced():
            interpreter = make(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: {framework} refuses it: {_one_line(error)}") from error
    return interpreter


def _chosen(signatures: Sequence[str], wanted: str | None, *, path: Path) -> str:
    if wanted is None and len(signatures) != 1:
        remedy = ": open one by its name" if signatures else ""
        raise FormatError(f"{path}: expected one signature, found {list(signatures)}{remedy}")
    if wanted is not None and wanted not in signatures:
        suggestion = did_you_mean(wanted, signatures)
        raise UsageError(
            f"{path}: no signature {wanted!r}; there are {list(signatures)}{suggestion}"
        )
    return signatures[0] if wanted is None else wanted


def _steps(details: Mapping[str, Mapping[str, Any]]) -> dict[str, Steps]:
    """What the whole numbers stand for, by name, where they stand for others."""
    # A scale of 0 is that of a tensor that is not quantised.
    return {
        name: Steps(scale, zero_point, np.dtype(detail["dtype"]).name)
        for name, detail in details.items()
        for scale, zero_point in [detail["quantization"]]
        if scale > 0
    }


def _infos(
    details: Mapping[str, Mapping[str, Any]], steps: Mapping[str, Steps]
) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name,
            tuple(int(size) for size in detail["shape_signature"]),
            "float32" if name in steps else np.dtype(detail["dtype"]).name,
        )
        for name, detail in details.items()
    )


def _one_line(error: Exception) -> str:
    """The first complaint: there may be one for every tensor, with no space between them."""
    return re.split(r"(?<=\.)(?=[A-Z])", " ".join(str(error).split()))[0]
