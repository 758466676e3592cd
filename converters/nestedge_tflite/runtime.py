"""Runs TFLite models by LiteRT on the CPU, with XNNPACK. Needs ai-edge-litert and numpy only.

The Interpreter is used rather than CompiledModel: the latter loads accelerators whose binaries stop
with SIGILL on ARMv8.0 (Raspberry Pi 4; ai-edge-litert 2.3.0).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from nestedge_tflite.session import TfliteSession, open_session


class LiteRtRuntime:
    """The runtime plug-in "tflite"."""

    name = "tflite"

    def version(self) -> str:
        """The framework and its version."""
        return f"ai-edge-litert {version('ai-edge-litert')}"

    def open(self, path: Path, *, threads: int = 1) -> TfliteSession:
        """The one signature of the model in a file, on the CPU.

        Raises:
            UsageError: there is no such file.
            FormatError: LiteRT does not accept it, or it has not exactly one signature.
        """
        return open_session(Interpreter, path, threads=threads, framework="LiteRT")
