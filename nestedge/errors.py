"""What can go wrong in the world, each with the exit code that the command line gives it.

A slip of a Python caller is a ValueError or a TypeError instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NestedgeError(Exception):
    """Base of every error that nestedge raises about files, devices and budgets.

    Attributes:
        exit_code: what a process that ends on this error returns.
    """

    exit_code = 1


class UsageError(NestedgeError):
    """Something was asked for that does not exist or cannot be."""

    exit_code = 2


class FormatError(NestedgeError):
    """A file is not what it says it is: truncated, unknown fields, an unknown operator."""

    exit_code = 2


class MissingDependencyError(NestedgeError):
    """A package is needed that is not installed; the message holds the line to type."""

    exit_code = 2


class VerificationError(NestedgeError):
    """An artifact does not compute what its level computes."""

    exit_code = 3


class BudgetError(NestedgeError):
    """No level fits the budget."""

    exit_code = 5


class IntegrityError(NestedgeError):
    """A file is not the one whose hash was recorded."""

    exit_code = 6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: a suggestion, or nothing.

    >>> did_you_mean("smal", ["small", "full"])
    "; did you mean 'small'?"
    >>> did_you_mean("xyz", ["small", "full"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
