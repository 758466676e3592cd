"""Keeps what the ONNX libraries say to themselves out of our output."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops progress lines, advice and deprecation warnings; errors reach us as exceptions."""
    root = logging.getLogger()
    # A warning of the root logger makes a handler that stays, unless there is one.
    nowhere = logging.NullHandler()
    root.addHandler(nowhere)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
            root.removeHandler(nowhere)
