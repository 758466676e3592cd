"""Runs TFLite models by tflite-runtime on the CPU. Needs that, Python below 3.12 and numpy 1 only.

It is ai-edge-litert's predecessor, for systems that the latter has no build for. Files of
int8-dynamic and of int16x8 it may compute wrongly without a word, so they are refused; what else it
runs wants to be verified on it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nestedge.errors import FormatError
from nestedge.placement import Operator, Placement
from nestedge_tflite.placement import file_operators, measured_placement
from nestedge_tflite.session import TfliteSession, open_session

try:
    from tflite_runtime.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    if sys.version_info >= (3, 12):
        raise ImportError("tflite-runtime has no build for Python 3.12 or later") from error
    raise

if int(np.__version__.partition(".")[0]) > 1:
    # Its library loads all the same, and stops at the first model: "_ARRAY_API not found".
    raise ImportError(
        f"tflite-runtime is built for numpy 1, found numpy {np.__version__}: "
        "pip install 'nestedge[tflite-legacy]'"
    )

_LAYERS = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Of what a layer of weights of 8 bits reads: seen to be wrong in linear layers, by up to 300 %.
_WRONG = {np.dtype(np.float32): "int8-dynamic", np.dtype(np.int16): "int16x8"}


class LegacyRuntime:
    """The runtime plug-in "tflite-legacy"."""

    name = "tflite-legacy"
    reads = "tflite"

    def version(self) -> str:
        """The framework and its version."""
        return f"tflite-runtime {version('tflite-runtime')}"

    def open(self, path: Path, *, threads: int = 1, signature: str | None = None) -> TfliteSession:
        """One signature of the model in a file, on the CPU.

        Args:
            path: of the file.
            threads: CPU threads.
            signature: which one, where the file has one for each of several levels.

        Raises:
            UsageError: there is no such file, or no such signature in it.
            FormatError: tflite-runtime does not accept it, or computes it wrongly, or it has
                several signatures, or none.
        """
        return open_session(
            _opened, path, threads=threads, framework="tflite-runtime", signature=signature
        )

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        """Which operators of a model XNNPACK runs; see `nestedge.placement`.

        Raises:
            UsageError: there is no such file, or the accelerator is another.
            FormatError: tflite-runtime does not accept the file, or computes it wrongly.
        """
        return measured_placement(
            _opened, path, accelerator=accelerator, threads=threads, source=self.version()
        )

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The operators of a model as its file has them.

        Raises:
            UsageError: there is no such file.
            FormatError: tflite-runtime does not accept the file, or computes it wrongly.
        """
        return file_operators(_opened, path, source=self.version())


def _opened(model_path: str, num_threads: int) -> Any:
    """The interpreter of a file that it computes rightly.

    Raises:
        FormatError: weights of 8 bits meet activations of other kinds in it.
    """
    interpreter = Interpreter(model_path=model_path, num_threads=num_threads)
    dtypes = {item["index"]: np.dtype(item["dtype"]) for item in interpreter.get_tensor_details()}
    # No public method tells operators; this one is in every build of 2.14, the last version.
    for operator in interpreter._get_ops_details():
        data, weight = (dtypes.get(index) for index in [*operator["inputs"], -1, -1][:2])
        if operator["op_name"] in _LAYERS and data in _WRONG and weight == np.int8:
            raise FormatError(
                f"{model_path}: tflite-runtime computes {_WRONG[data]} wrongly: run it by "
                "ai-edge-litert, or build int8"
            )
    return interpreter
