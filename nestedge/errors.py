"""What can go wrong in the world, each with the exit code that the command line gives it.

A slip of a Python caller is a ValueError or a TypeError instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


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


class PlacementError(NestedgeError):
    """An artifact runs elsewhere than asked: too much of it on the processor."""

    exit_code = 4


class BudgetError(NestedgeError):
    """No level fits the budget."""

    exit_code = 5


class IntegrityError(NestedgeError):
    """A file is not the one whose hash was recorded."""

    exit_code = 6


@dataclass(frozen=True)
class Diagnosis:
    """Why a network cannot be converted, in parts.

    Attributes:
        code: of the reason, as in "unsupported-operator"; `nestedge.reasons` has the table.
        said: what failed, and the first line of the framework's own words that says why.
        remedy: what to do.
        operator: that it fails on, by its ATen name or the target's; "" where none is known.
        source: where that stands in the user's network: module, class and line; "" as above.
    """

    code: str
    said: str
    remedy: str
    operator: str = ""
    source: str = ""

    @property
    def line(self) -> str:
        """All but the code, in one line.

        >>> Diagnosis("x", "no form of it", "leave it out", "aten.sin.default", "head (Head)").line
        'no form of it (aten.sin.default in head (Head)); leave it out'
        """
        operator = "" if self.operator in self.said else self.operator
        place = " in ".join(part for part in (operator, self.source) if part)
        return f"{self.said}{f' ({place})' if place else ''}; {self.remedy}"


class ConversionError(NestedgeError):
    """A level cannot be had in a format or precision.

    Attributes:
        diagnosis: why, in parts.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(f"{diagnosis.line} [{diagnosis.code}]")
        self.diagnosis = diagnosis


class CaptureError(UsageError):
    """A module cannot be nested as it is written.

    Attributes:
        diagnosis: why, in parts.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(f"{diagnosis.line} [{diagnosis.code}]")
        self.diagnosis = diagnosis


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: a suggestion, or nothing.

    >>> did_you_mean("smal", ["small", "full"])
    "; did you mean 'small'?"
    >>> did_you_mean("xyz", ["small", "full"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
