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
    ],
)
def test_exit_codes_are_those_promised(error: type[errors.NestedgeError], exit_code: int) -> None:
    assert issubclass(error, errors.NestedgeError)
    assert error.exit_code == exit_code


def test_a_name_unlike_any_known_one_gets_no_suggestion() -> None:
    assert errors.did_you_mean("banana", ["small", "full"]) == ""
    assert errors.did_you_mean("ful", ["small", "full"]) == "; did you mean 'full'?"
