from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.artifact import Artifact
from nestedge.errors import BudgetError, UsageError
from nestedge.profiling.measurement import Measurement
from nestedge.selection import (
    Budget,
    Candidate,
    candidates,
    format_size,
    parse_duration,
    parse_size,
    select,
)
from tests.fakes import fake_build, measurement


def _measured(quantity: str, value: float, width: float, *, data: str = "0" * 64) -> Measurement:
    return Measurement(
        cell="x",
        model_sha256="0" * 64,
        quantity=quantity,
        value=value,
        p90=None,
        low=value - width,
        high=value + width,
        samples=1,
        origin="measured",
        device="a test",
        runtime_version="fake 1.0",
        threads=1,
        data_sha256=data if quantity == "accuracy_percent" else None,
    )


def _candidate(
    cell: str,
    *,
    ms: float | None = None,
    percent: float | None = None,
    size: int = 1000,
    parameters: int = 10,
    width: float = 0.25,
) -> Candidate:
    return Candidate(
        cell,
        size_bytes=size,
        parameters=parameters,
        latency=None if ms is None else _measured("latency_ms", ms, width),
        accuracy=None if percent is None else _measured("accuracy_percent", percent, width),
    )


SMALL = _candidate("small", ms=2, percent=90, size=1000, parameters=10)
FULL = _candidate("full", ms=9, percent=95, size=8000, parameters=80)


@pytest.mark.parametrize(
    ("text", "ms"), [("8ms", 8.0), ("0.5s", 500.0), (" 250 us ", 0.25), (".5ms", 0.5)]
)
def test_durations_are_read(text: str, ms: float) -> None:
    assert parse_duration(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["8", "ms", "8 m", "-8ms", "0ms", "1e3ms", "nan ms", "", "8ms x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"duration .*: expected"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("40MB", 40_000_000), ("512KiB", 524_288), ("1.5 kB", 1500), ("1GiB", 2**30), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["40", "40mb", "40Mb", "MB", "0MB", "-1MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"size .*: expected"):
        parse_size(text)


@given(st.integers(1, 10**12))
def test_a_size_is_read_as_it_is_shown(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.001)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "empty budget: give a latency, a size or a least accuracy"),
        ({"latency_ms": 0.0}, r"latency must be above 0, got 0\.0"),
        ({"size_bytes": -1}, "size must be above 0, got -1"),
        ({"latency_ms": float("nan")}, "latency must be above 0, got nan"),
        ({"min_accuracy": 101.0}, r"accuracy must be in 0\.\.100 percent"),
    ],
)
def test_an_impossible_budget_is_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**limits)  # type: ignore[arg-type]


def test_the_most_accurate_that_fits_is_chosen() -> None:
    assert select([SMALL, FULL], Budget(latency_ms=10)).chosen == "full"
    selection = select([SMALL, FULL], Budget(latency_ms=6))
    assert selection.chosen == "small"
    assert selection.reasons["full"] == "latency 9 ms is 50 % over"
    assert selection.reasons["small"].startswith("chosen: 1 of 2 fit; the best accuracy is 90.00 %")


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(size_bytes=4000), "size 8 kB is 100 % over"),
        (Budget(latency_ms=6, size_bytes=4000), "latency 9 ms is 50 % over; size 8 kB is 100 %"),
    ],
)
def test_every_constraint_that_is_missed_is_told(budget: Budget, reason: str) -> None:
    assert select([SMALL, FULL], budget).reasons["full"].startswith(reason)


def test_a_limit_that_is_just_met_fits() -> None:
    assert select([SMALL], Budget(latency_ms=2, size_bytes=1000, min_accuracy=90)).chosen == "small"


def test_an_unmeasured_latency_meets_no_latency_budget() -> None:
    unmeasured = _candidate("full", percent=99)
    selection = select([SMALL, unmeasured], Budget(latency_ms=10))
    assert selection.chosen == "small"
    assert selection.reasons["full"] == "latency unmeasured"
    with pytest.raises(BudgetError, match=r"full: latency unmeasured; measure with 'nestedge prof"):
        select([unmeasured], Budget(latency_ms=10))


def test_an_unmeasured_accuracy_meets_no_least_accuracy() -> None:
    with pytest.raises(BudgetError, match="full: accuracy unmeasured"):
        select([_candidate("full", ms=1)], Budget(min_accuracy=1))


def test_without_all_accuracies_the_most_parameters_are_chosen() -> None:
    big = _candidate("big", ms=3, parameters=500)
    selection = select([SMALL, FULL, big], Budget(latency_ms=10))
    assert selection.chosen == "big"
    assert selection.reasons["big"].endswith("accuracy unmeasured, so the most parameters: 500")
    assert selection.reasons["full"] == "fits, but has 80 parameters, fewer than 500"


def test_accuracies_of_different_data_are_not_compared() -> None:
    other = replace(SMALL, accuracy=_measured("accuracy_percent", 99, 0.25, data="1" * 64))
    selection = select([other, FULL], Budget(latency_ms=10))
    assert selection.chosen == "full"
    assert "accuracies are of different data" in selection.reasons["full"]


def test_of_those_that_tie_in_accuracy_the_fastest_is_chosen() -> None:
    slow = _candidate("slow", ms=9, percent=95.3, size=10)
    fast = _candidate("fast", ms=2, percent=95.0, size=1000)
    selection = select([slow, fast, _candidate("bad", ms=1, percent=80)], Budget(latency_ms=10))
    assert selection.chosen == "fast"
    assert selection.reasons["slow"] == "fits; tied with fast, which is faster or smaller"
    assert selection.reasons["bad"] == "fits, but its accuracy of 80.00 % is lower"
    assert selection.reasons["fast"].endswith("the fastest or smallest of 2 that tie")


def test_of_the_equally_fast_the_smallest_is_chosen() -> None:
    large = _candidate("large", ms=2.0, percent=95, size=1000)
    small = _candidate("small", ms=2.2, percent=95, size=10)
    assert select([large, small], Budget(latency_ms=10)).chosen == "small"


def test_without_all_latencies_the_smallest_of_a_tie_is_chosen() -> None:
    timed = _candidate("timed", ms=1, percent=95, size=1000)
    untimed = _candidate("untimed", percent=95, size=10)
    assert select([timed, untimed], Budget(size_bytes=2000)).chosen == "untimed"


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


MAYBE = st.none() | st.floats(1, 99)


@st.composite
def some_candidates(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(1, 6))
    return [
        _candidate(
            f"level{index}",
            ms=draw(MAYBE),
            percent=draw(MAYBE),
            size=draw(st.integers(1, 100)),
            parameters=draw(st.integers(1, 5)),
            width=draw(st.floats(0, 5)),
        )
        for index in range(count)
    ]


@given(some_candidates(), st.floats(1, 99), st.integers(1, 100))
def test_what_is_chosen_fits_and_everyone_has_a_reason(
    known: list[Candidate], latency_ms: float, size_bytes: int
) -> None:
    fitting = {
        candidate.cell
        for candidate in known
        if candidate.latency is not None
        and candidate.latency.value <= latency_ms
        and candidate.size_bytes <= size_bytes
    }
    budget = Budget(latency_ms=latency_ms, size_bytes=size_bytes)
    if not fitting:
        with pytest.raises(BudgetError):
            select(known, budget)
        return
    selection = select(known, budget)
    assert selection.chosen in fitting
    assert selection.reasons.keys() == {candidate.cell for candidate in known}
    assert [reason.startswith("chosen") for reason in selection.reasons.values()].count(True) == 1
    assert select(known[::-1], budget) == selection


def test_candidates_of_equal_accuracy_give_the_same_in_any_order(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    sure = measurement(small, "accuracy_percent", 90.0, width=0.0)
    unsure = measurement(full, "accuracy_percent", 90.0, width=5.0)
    known, budget = _known([small, full], [sure, unsure]), Budget(size_bytes=10**9)
    assert select(known, budget) == select(known[::-1], budget)


def test_measurements_of_an_older_build_do_not_count(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    latency = measurement(small, "latency_ms", 2.0, width=0.5)
    stale = replace(measurement(full, "latency_ms", 3.0, width=0.5), model_sha256="0" * 64)
    known = {found.cell: found for found in _known([small, full], [latency, stale])}
    assert known[small.cell].latency == latency
    assert known[full.cell].latency is None
    assert known[small.cell].size_bytes == small.model_path.stat().st_size


def _known(artifacts: list[Artifact], measurements: list[Measurement]) -> list[Candidate]:
    return candidates(artifacts, measurements)
