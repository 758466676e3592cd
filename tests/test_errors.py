from __future__ import annotations

import pytest

from nestedge import errors


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.NestedgeError, 1),
        (errors.UsageError, 2),
        (errors.FormatError, 2),
        (errors.MissingDependencyError, 2),
        (errors.VerificationError, 3),
        (errors.BudgetError, 5),
        (errors.IntegrityError, 6),
        (errors.PlacementError, 4),
        (errors.ConversionError, 1),
        (errors.CaptureError, 2),
    ],
)
def test_exit_codes_are_those_promised(error: type[errors.NestedgeError], exit_code: int) -> None:
    assert issubclass(error, errors.NestedgeError)
    assert error.exit_code == exit_code


def test_an_error_with_a_diagnosis_is_one_line_that_ends_in_the_code() -> None:
    why = errors.Diagnosis("x-y", "it failed", "leave it out", "aten.sin.default", "head (Head)")
    line = "it failed (aten.sin.default in head (Head)); leave it out"
    assert why.line == line
    assert str(errors.ConversionError(why)) == str(errors.CaptureError(why)) == f"{line} [x-y]"


def test_an_operator_that_is_named_already_is_not_named_again() -> None:
    why = errors.Diagnosis("x", "no form of aten.sin.default", "leave it out", "aten.sin.default")
    assert why.line == "no form of aten.sin.default; leave it out"


def test_a_name_unlike_any_known_one_gets_no_suggestion() -> None:
    assert errors.did_you_mean("banana", ["small", "full"]) == ""
    assert errors.did_you_mean("ful", ["small", "full"]) == "; did you mean 'full'?"
