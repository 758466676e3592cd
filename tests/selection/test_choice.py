from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nestedge.errors import BudgetError, UsageError, VerificationError
from nestedge.selection import Budget, Candidate, select
from nestedge.selection.candidate import UNVERIFIED
from tests.selection.known import FULL, SMALL, candidate, some_candidates


def test_the_most_accurate_that_fits_is_chosen() -> None:
    assert select([SMALL, FULL], Budget(latency_ms=10)).chosen == "full"
    selection = select([SMALL, FULL], Budget(latency_ms=6))
    assert selection.chosen == "small"
    assert selection.reasons["full"] == "latency 9 ms is 50 % over"
    assert selection.reasons["small"].startswith("chosen: 1 of 2 fit; the best accuracy is 90.00 %")
    assert selection.notes == ()


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(size_bytes=4000), "size 8 kB is 100 % over"),
        (Budget(memory_bytes=8000), "memory 16 kB is 100 % over"),
        (Budget(latency_ms=6, size_bytes=4000), "latency 9 ms is 50 % over; size 8 kB is 100 %"),
    ],
)
def test_every_limit_that_is_missed_is_told(budget: Budget, reason: str) -> None:
    assert select([SMALL, FULL], budget).reasons["full"].startswith(reason)


def test_an_unmeasured_latency_meets_no_limit_where_another_is_measured() -> None:
    unmeasured = candidate("full", percent=99)
    for elsewhere in (None, "pixel-8"):
        selection = select([SMALL, unmeasured], Budget(latency_ms=10), elsewhere=elsewhere)
        assert selection.chosen == "small"
        assert selection.reasons["full"] == "latency unmeasured"
        assert selection.notes == ()


def test_here_the_latency_has_to_be_measured_before_a_limit_is_met() -> None:
    with pytest.raises(BudgetError, match=r"full: latency unmeasured; measure with 'nestedge prof"):
        select([candidate("full", percent=99)], Budget(latency_ms=10))


def test_on_a_device_without_measurements_the_limit_is_left_out_and_that_is_said() -> None:
    timeless = [replace(SMALL, latency=None), replace(FULL, latency=None)]
    selection = select(timeless, Budget(latency_ms=8), elsewhere="pixel-8")
    assert selection.chosen == "full"
    (note,) = selection.notes
    assert note == (
        "latency limit of 8 ms not applied: unmeasured on pixel-8; "
        "picked by accuracy, file size and peak memory"
    )
    selection = select(timeless, Budget(latency_ms=8, memory_bytes=8000), elsewhere="pixel-8")
    assert selection.chosen == "small"
    with pytest.raises(BudgetError, match=r"; latency limit of 8 ms not applied: unmeasured on pi"):
        select(timeless, Budget(latency_ms=8, memory_bytes=1), elsewhere="pixel-8")


def test_an_unmeasured_accuracy_meets_no_least_accuracy() -> None:
    with pytest.raises(BudgetError, match="full: accuracy unmeasured"):
        select([candidate("full", ms=1)], Budget(min_accuracy=1), elsewhere="pixel-8")


def test_what_is_not_verified_or_failed_is_not_chosen() -> None:
    failed = replace(FULL, refusal="failed its verification in fake 1.0: error 1")
    selection = select([SMALL, failed], Budget(latency_ms=10))
    assert selection.chosen == "small"
    assert selection.reasons["full"] == "failed its verification in fake 1.0: error 1"
    assert selection.reasons["small"].startswith("chosen: 1 of 1 fit")
    with pytest.raises(BudgetError) as caught:
        select([SMALL, replace(FULL, refusal=UNVERIFIED)], Budget(size_bytes=500))
    assert str(caught.value) == (
        "none of 1 fits size 500 B; the nearest is small: size 1 kB is 100 % over; "
        "not compared: full: not verified: run 'nestedge verify'"
    )


def test_where_nothing_may_be_used_the_error_says_what_to_do() -> None:
    failed, unverified = replace(SMALL, refusal="failed: x"), replace(FULL, refusal=UNVERIFIED)
    with pytest.raises(UsageError, match=r"^none of 2 may be used: full: not verified: run 'nest"):
        select([failed, unverified], Budget(latency_ms=10))
    with pytest.raises(VerificationError, match=r"^none of 1 may be used: small: failed: x$"):
        select([failed], Budget(latency_ms=10))


def test_where_none_fits_the_nearest_and_its_distance_are_named() -> None:
    with pytest.raises(BudgetError) as caught:
        select([SMALL, FULL], Budget(latency_ms=1.6, size_bytes=4000))
    assert str(caught.value) == (
        "none of 2 fits latency 1.6 ms and size 4 kB; "
        "the nearest is small: latency 2 ms is 25 % over"
    )
    with pytest.raises(BudgetError, match=r"full: accuracy 95\.00 % is 2\.50 points short"):
        select([SMALL, FULL], Budget(min_accuracy=97.5))


def test_nothing_to_select_from_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to select from"):
        select([], Budget(latency_ms=1))


BUDGETS = st.builds(
    Budget,
    latency_ms=st.floats(1, 99),
    size_bytes=st.none() | st.integers(1, 100),
    memory_bytes=st.none() | st.integers(1, 100),
    min_accuracy=st.none() | st.floats(0, 100),
)


def _fits(known: Candidate, budget: Budget) -> bool:
    """Whether a candidate may be used and is within a budget, but for the latency."""
    least = budget.min_accuracy
    return (
        not known.refusal
        and (budget.size_bytes is None or known.size_bytes <= budget.size_bytes)
        and (budget.memory_bytes is None or known.peak_memory_bytes <= budget.memory_bytes)
        and (least is None or (known.accuracy is not None and known.accuracy.value >= least))
    )


def _is_fast(known: Candidate, budget: Budget) -> bool:
    assert budget.latency_ms is not None
    return known.latency is not None and known.latency.value <= budget.latency_ms


@given(some_candidates(), BUDGETS)
def test_what_is_chosen_fits_and_everyone_has_a_reason(
    known: list[Candidate], budget: Budget
) -> None:
    assume(not all(found.refusal for found in known))
    fitting = {c.cell for c in known if _fits(c, budget) and _is_fast(c, budget)}
    if not fitting:
        with pytest.raises(BudgetError):
            select(known, budget)
        return
    selection = select(known, budget)
    assert selection.chosen in fitting
    assert selection.reasons.keys() == {found.cell for found in known}
    assert [reason.startswith("chosen") for reason in selection.reasons.values()].count(True) == 1
    assert selection.notes == ()
    assert select(known[::-1], budget) == selection


@given(some_candidates(st.none()), BUDGETS, st.sampled_from(["pixel-8", "jetson-orin-nano-8gb"]))
def test_without_measurements_the_rest_of_the_budget_is_kept_and_a_note_names_the_device(
    known: list[Candidate], budget: Budget, device: str
) -> None:
    assume(not all(found.refusal for found in known))
    fitting = {found.cell for found in known if _fits(found, budget)}
    if not fitting:
        with pytest.raises(BudgetError, match=f"not applied: unmeasured on {device}"):
            select(known, budget, elsewhere=device)
        return
    selection = select(known, budget, elsewhere=device)
    assert selection.chosen in fitting
    assert [f"not applied: unmeasured on {device};" in note for note in selection.notes] == [True]
    assert select(known[::-1], budget, elsewhere=device) == selection
