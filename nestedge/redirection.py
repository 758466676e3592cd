"""Where what this process writes to stdout and stderr goes, C++ libraries included."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def output_to(file: BinaryIO) -> Iterator[None]:
    """A block in which what Python and C++ write to stdout and stderr goes to an open file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for saved, descriptor in zip(kept, (1, 2), strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """A block in which what Python and C++ write to stdout and stderr goes nowhere.

    For libraries that have no switch for their progress and advice, and whose errors are
    exceptions.
    """
    with Path(os.devnull).open("wb") as file, output_to(file):
        yield
