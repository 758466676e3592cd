from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import UsageError
from nestedge.selection import Budget
from nestedge.selection.budget import accuracy_misses, byte_misses, latency_misses
from tests.selection.known import candidate


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "empty budget: give a latency, a size, a memory or a least accuracy"),
        ({"latency_ms": 0.0}, r"latency must be above 0, got 0\.0"),
        ({"size_bytes": -1}, "size must be above 0, got -1"),
        ({"memory_bytes": 0}, "memory must be above 0, got 0"),
        ({"latency_ms": float("nan")}, "latency must be above 0, got nan"),
        ({"min_accuracy": 101.0}, r"accuracy must be in 0\.\.100 percent"),
    ],
)
def test_an_impossible_budget_is_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**limits)  # type: ignore[arg-type]


def test_a_budget_is_told_with_all_its_limits() -> None:
    budget = Budget(latency_ms=8, size_bytes=4000, memory_bytes=40_000_000, min_accuracy=90)
    assert str(budget) == "latency 8 ms and size 4 kB and memory 40 MB and accuracy 90 %"


def test_a_limit_that_is_just_met_is_not_missed() -> None:
    known = candidate("x", ms=2, percent=90, size=1000, memory=2000)
    assert latency_misses(known, 2) == []
    assert byte_misses(known, Budget(size_bytes=1000, memory_bytes=2000)) == []
    assert accuracy_misses(known, 90) == []


@pytest.mark.parametrize(
    ("budget", "reasons"),
    [
        (Budget(size_bytes=800), ["size 1 kB is 25 % over"]),
        (Budget(memory_bytes=1000), ["memory 2 kB is 100 % over"]),
        (
            Budget(size_bytes=500, memory_bytes=1600),
            ["size 1 kB is 100 % over", "memory 2 kB is 25 % over"],
        ),
    ],
    ids=["size", "memory", "both"],
)
def test_bytes_over_a_limit_are_told(budget: Budget, reasons: list[str]) -> None:
    missed = byte_misses(candidate("x", size=1000, memory=2000), budget)
    assert [miss.reason for miss in missed] == reasons


def test_what_was_not_measured_is_infinitely_far_from_any_limit() -> None:
    (latency,) = latency_misses(candidate("x"), 1e9)
    (accuracy,) = accuracy_misses(candidate("x"), 0)
    assert (latency.reason, latency.share) == ("latency unmeasured", math.inf)
    assert (accuracy.reason, accuracy.share) == ("accuracy unmeasured", math.inf)


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_of_two_that_miss_a_limit_the_larger_misses_it_by_more(a: int, b: int, limit: int) -> None:
    shares = [
        [miss.share for miss in byte_misses(candidate("x", memory=m), Budget(memory_bytes=limit))]
        for m in sorted((a, b))
    ]
    assert shares == sorted(shares)
    assert all(share > 0 for found in shares for share in found)


def test_a_large_excess_is_told_in_plain_digits() -> None:
    (miss,) = byte_misses(candidate("x", size=23_000), Budget(size_bytes=1000))
    assert miss.reason == "size 23 kB is 2,200 % over"
