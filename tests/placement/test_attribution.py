from __future__ import annotations

import pytest

from nestedge.placement import Operator
from nestedge.placement.attribution import Entry, attributed

OPERATORS = (
    Operator("Conv", "/a/Conv", 10),
    Operator("Relu", "/a/Relu", 0),
    Operator("Conv", "/b/Conv", 20),
    Operator("Flatten", "/Flatten", 0),
    Operator("Gemm", "/fc/Gemm", 30),
)


def _wheres(entries: list[tuple[str, str]], rest: str | None = None) -> list[str | None] | None:
    """Where each operator is, with None for those left out; None where one cannot be found."""
    found = attributed(OPERATORS, [Entry("", text, where) for text, where in entries], rest=rest)
    if found is None:
        return None
    places = {placed.name: placed.where for placed in found}
    return [places.get(operator.name) for operator in OPERATORS]


def test_an_entry_may_hold_several_operators() -> None:
    entries = [("/a/Conv + /a/Relu", "GPU"), ("PWN(/b/Conv), /fc/Gemm", "GPU")]
    # A reshape that no entry names was folded into another.
    assert _wheres(entries) == ["GPU", "GPU", "GPU", None, "GPU"]


def test_a_piece_holds_all_between_its_first_and_last_operator() -> None:
    entries = [("{ForeignNode[/a/Conv.../Flatten]}", "DLA"), ("/fc/Gemm", "GPU")]
    assert _wheres(entries) == ["DLA", "DLA", "DLA", "DLA", "GPU"]


def test_an_operator_within_a_piece_that_has_a_layer_of_its_own_is_there() -> None:
    entries = [("{ForeignNode[/a/Conv.../fc/Gemm]}", "DLA"), ("POOL: /b/Conv", "GPU")]
    assert _wheres(entries) == ["DLA", "DLA", "GPU", "DLA", "DLA"]


def test_the_smallest_piece_around_an_operator_holds_it() -> None:
    entries = [
        ("{ForeignNode[/a/Conv.../fc/Gemm]}", "DLA"),
        ("{ForeignNode[/b/Conv.../Flatten]}", "GPU"),
    ]
    assert _wheres(entries) == ["DLA", "DLA", "GPU", "GPU", "DLA"]


def test_a_piece_of_one_operator_is_that_operator() -> None:
    entries = [("{ForeignNode[/a/Conv]}", "DLA"), ("/b/Conv", "GPU"), ("/fc/Gemm", "GPU")]
    assert _wheres(entries) == ["DLA", None, "GPU", None, "GPU"]


@pytest.mark.parametrize(
    "text",
    ["reshape_after_/fc/Gemm", "/fc/Gemm_copy", "/x/fc/Gemm", "{ForeignNode[w.../fc/Gemm]}"],
)
def test_a_name_within_another_name_is_not_the_operator(text: str) -> None:
    assert _wheres([("/a/Conv", "GPU"), ("/b/Conv", "GPU"), (text, "GPU")]) is None


def test_what_no_entry_names_is_where_the_rest_is() -> None:
    found = _wheres([("/fc/Gemm", "CPU")], rest="TRT")
    assert found == ["TRT", "TRT", "TRT", "TRT", "CPU"]
