"""Runs TFLite models by LiteRT on the CPU, with XNNPACK. Needs ai-edge-litert and numpy only.

The Interpreter is used rather than CompiledModel: the latter loads accelerators whose binaries stop
with SIGILL on ARMv8.0 (Raspberry Pi 4; ai-edge-litert 2.3.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from nestedge.placement import Operator, Placement
from nestedge.plugins import Array
from nestedge.verify import Trace
from nestedge_tflite.placement import file_operators, measured_placement
from nestedge_tflite.session import TfliteSession, open_session
from nestedge_tflite.tracing import trace_model


class LiteRtRuntime:
    """The runtime plug-in "tflite"."""

    name = "tflite"

    def version(self) -> str:
        """The framework and its version."""
        return f"ai-edge-litert {version('ai-edge-litert')}"

    def open(self, path: Path, *, threads: int = 1, signature: str | None = None) -> TfliteSession:
        """One signature of the model in a file, on the CPU.

        Args:
            path: of the file.
            threads: CPU threads.
            signature: which one, where the file has one for each of several levels.

        Raises:
            UsageError: there is no such file, or no such signature in it.
            FormatError: LiteRT does not accept it, or it has several signatures, or none.
        """
        return open_session(
            Interpreter, path, threads=threads, framework="LiteRT", signature=signature
        )

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """One run of a model that tells every value on the way, by LiteRT's own kernels.

        Raises:
            UsageError: there is no such file.
            FormatError: LiteRT does not accept it, or it has not exactly one signature.
            ValueError: an input is missing, unknown, or of another shape or dtype.
        """
        make = partial(
            Interpreter,
            # XNNPACK would keep what it computes on the way to itself.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        return trace_model(make, path, inputs, threads=threads, framework="LiteRT")

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        """Which operators of a model XNNPACK runs; see `nestedge.placement`.

        Raises:
            UsageError: there is no such file, or the accelerator is another.
            FormatError: LiteRT does not accept the file.
        """
        return measured_placement(
            Interpreter, path, accelerator=accelerator, threads=threads, source=self.version()
        )

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The operators of a model as its file has them.

        Raises:
            UsageError: there is no such file.
            FormatError: LiteRT does not accept the file.
        """
        return file_operators(Interpreter, path, source=self.version())
