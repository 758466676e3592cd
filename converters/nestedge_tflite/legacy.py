"""Runs TFLite models by tflite-runtime on the CPU. Needs that, Python below 3.12 and numpy 1 only.

It is ai-edge-litert's predecessor, for systems that the latter has no build for. Of some files it
computes something else than LiteRT does without a word, so its artifacts want to be verified on it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

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


class LegacyRuntime:
    """The runtime plug-in "tflite-legacy"."""

    name = "tflite-legacy"
    reads = "tflite"

    def version(self) -> str:
        """The framework and its version."""
        return f"tflite-runtime {version('tflite-runtime')}"

    def open(self, path: Path, *, threads: int = 1) -> TfliteSession:
        """The one signature of the model in a file, on the CPU.

        Raises:
            UsageError: there is no such file.
            FormatError: tflite-runtime does not accept it, or it has not exactly one signature.
        """
        return open_session(Interpreter, path, threads=threads, framework="tflite-runtime")
