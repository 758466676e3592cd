from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.selection import Candidate
from nestedge.selection.ranking import rank
from tests.selection.known import FULL, SMALL, candidate, measured, some_candidates


def test_the_most_accurate_is_the_best() -> None:
    ranking = rank([SMALL, FULL])
    assert ranking.chosen is FULL
    assert ranking.refused == {"small": "fits, but its accuracy of 90.00 % is lower"}
    assert (ranking.best, ranking.quantity) == (
        "the best accuracy is 95.00 % (94.75..95.25)",
        "accuracy",
    )


def test_without_all_accuracies_the_most_parameters_are_best() -> None:
    ranking = rank([SMALL, FULL, candidate("big", ms=3, parameters=500)])
    assert (ranking.chosen.cell, ranking.quantity) == ("big", "parameters")
    assert ranking.best == "accuracy unmeasured, so the most parameters: 500"
    assert ranking.refused["full"] == "fits, but has 80 parameters, fewer than 500"


def test_accuracies_of_different_data_are_not_compared() -> None:
    other = replace(SMALL, accuracy=measured("accuracy_percent", 99, 0.25, data="1" * 64))
    ranking = rank([other, FULL])
    assert ranking.chosen is FULL
    assert ranking.best.startswith("accuracies are of different data, so the most parameters")


def _tied(cell: str, *, ms: float | None = 2, size: int = 10, memory: int = 10) -> Candidate:
    return candidate(cell, ms=ms, percent=95, size=size, memory=memory)


@pytest.mark.parametrize(
    ("best", "other", "why"),
    [
        (_tied("b", ms=2, size=99), _tied("a", ms=9), "is faster"),
        (_tied("b", ms=2.2, memory=99), _tied("a", ms=2, size=11), "is smaller"),
        (_tied("b", ms=None, memory=99), _tied("a", ms=1, size=11), "is smaller"),
        (_tied("b", memory=9), _tied("a"), "takes less memory"),
        (_tied("a"), _tied("b"), "comes first by name"),
    ],
    ids=["latency", "size", "size-untimed", "memory", "name"],
)
def test_a_tie_in_accuracy_goes_by_latency_then_size_then_memory_then_name(
    best: Candidate, other: Candidate, why: str
) -> None:
    lower = candidate("lower", ms=1, percent=80, size=1, memory=1)
    for given_order in ([best, other, lower], [lower, other, best]):
        ranking = rank(given_order)
        assert ranking.chosen is best
        assert ranking.refused[other.cell] == f"fits; tied with {best.cell}, which {why}"
        assert ranking.best.endswith("; the fastest or smallest of 2 that tie")


@given(some_candidates(), st.randoms())
def test_the_order_of_candidates_does_not_matter(known: list[Candidate], random: Random) -> None:
    ranking = rank(known)
    shuffled = sorted(known, key=lambda _: random.random())
    assert rank(shuffled) == ranking
    assert ranking.refused.keys() == {c.cell for c in known} - {ranking.chosen.cell}


@given(some_candidates())
def test_none_is_surely_more_accurate_than_the_best(known: list[Candidate]) -> None:
    best = rank(known).chosen
    if all(found.accuracy is not None for found in known):
        assert best.accuracy is not None
        assert all(
            found.accuracy is not None and found.accuracy.low <= best.accuracy.high
            for found in known
        )
    else:
        assert best.parameters == max(found.parameters for found in known)
