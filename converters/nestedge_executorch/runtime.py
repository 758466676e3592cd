"""Runs ExecuTorch programs from Python. Needs executorch, and torch, whose tensors it takes.

A device whose program is in C++, Kotlin or Swift needs neither: it runs the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

import numpy as np
import torch

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import Array, check_inputs
from nestedge.redirection import silenced
from nestedge_executorch.signature import METHOD, from_text

with silenced():
    # The only door from Python to the number of threads.
    from executorch.extension.pybindings.portable_lib import (  # pyright: ignore[reportMissingImports]
        _threadpool_get_thread_count,
        _unsafe_reset_threadpool,
    )
    from executorch.runtime import (  # pyright: ignore[reportMissingImports]
        Program,
        Runtime,
    )


class ExecutorchRuntime:
    """The runtime plug-in "executorch"."""

    name = "executorch"
    # ExecuTorch has one pool of threads for the process, so this is known for the process too.
    _open: ClassVar[WeakSet[ExecutorchSession]] = WeakSet()

    def version(self) -> str:
        """The framework and its version."""
        return f"executorch {version('executorch')}"

    def open(self, path: Path, *, threads: int = 1) -> ExecutorchSession:
        """The program in a file, on the CPU.

        Raises:
            UsageError: there is no such file, or other programs are open with more or fewer
                threads.
            FormatError: ExecuTorch does not accept it, or it does not name its inputs.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        self._set_threads(threads, path)
        try:
            with silenced():
                program = Runtime.get().load_program(path)
                session = ExecutorchSession(program, path)
        except RuntimeError as error:
            raise FormatError(f"{path}: ExecuTorch refuses it: {_one_line(error)}") from error
        self._open.add(session)
        return session

    def _set_threads(self, threads: int, path: Path) -> None:
        with silenced():
            found = _threadpool_get_thread_count()
        if found == threads:
            return
        if self._open:
            # Programs keep a pointer to the pool that they were opened with.
            raise UsageError(
                f"{path}: ExecuTorch has one pool of threads, and programs are open with {found}; "
                f"close them before opening one with {threads}"
            )
        with silenced():
            _unsafe_reset_threadpool(threads)


class ExecutorchSession:
    """A program that ExecuTorch has loaded.

    Attributes:
        inputs: what `run` wants.
        outputs: what `run` gives.
    """

    def __init__(self, program: Program, path: Path) -> None:
        if METHOD not in program.method_names:
            raise FormatError(
                f"{path}: expected a method {METHOD!r} that names inputs and outputs, "
                f"found {sorted(program.method_names)}: nestedge did not make it"
            )
        (text,) = program.load_method(METHOD).execute([])
        self.inputs, self.outputs = from_text(text, where=str(path))
        # A method does not keep its program alive.
        self._program = program
        self._forward = program.load_method("forward")
        self._path = path

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            NestedgeError: ExecuTorch failed while running.
        """
        check_inputs(self.inputs, inputs)
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[i.name])) for i in self.inputs]
        try:
            found = self._forward.execute(tensors)
        except RuntimeError as error:
            raise NestedgeError(f"{self._path}: running failed: {_one_line(error)}") from error
        names = [info.name for info in self.outputs]
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
