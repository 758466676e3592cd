"""Keeps what ExecuTorch's libraries write to stdout and stderr out of ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nestedge.redirection import output_to


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Sends what Python and C++ write nowhere: it is advice and progress, and no error.

    Already their import writes some lines; errors reach us as exceptions.
    """
    with Path(os.devnull).open("wb") as file, output_to(file):
        yield
