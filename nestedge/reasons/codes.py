"""A reason found by what a framework says, and errors that have one."""

from __future__ import annotations

import re

from nestedge.errors import CaptureError, ConversionError, Diagnosis
from nestedge.reasons.table import REASONS


def code_of(words: str, *, otherwise: str) -> str:
    """The code of the first reason that a framework's words are a sign of.

    >>> code_of("RuntimeError: Lowering not found: aten.foo.default", otherwise="unknown")
    'unsupported-operator'
    >>> code_of("KeyError: ';2'", otherwise="quantiser-failed")
    'quantiser-failed'
    """
    found = (
        r.code
        for r in REASONS.values()
        if any(re.search(sign, words, re.DOTALL) for sign in r.signs)
    )
    return next(found, otherwise)


def diagnosis(code: str, said: str, *, operator: str = "", source: str = "") -> Diagnosis:
    """What is wrong, with the remedy of the table."""
    remedy = REASONS[code].remedy
    said = said.rstrip(".").removesuffix(f"; {remedy}")
    return Diagnosis(code, said, remedy, operator, source)


def conversion_error(
    code: str, said: str, *, operator: str = "", source: str = ""
) -> ConversionError:
    """The error that a level cannot be converted, with the remedy of the table."""
    return ConversionError(diagnosis(code, said, operator=operator, source=source))


def capture_error(code: str, said: str, *, operator: str = "", source: str = "") -> CaptureError:
    """The error that a module cannot be nested, with the remedy of the table."""
    return CaptureError(diagnosis(code, said, operator=operator, source=source))
