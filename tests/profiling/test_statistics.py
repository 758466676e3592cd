from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.profiling.statistics import (
    Summary,
    median_interval,
    proportion_interval,
    summarize,
    tie,
)

SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=30)


@given(SAMPLES)
def test_the_numbers_of_a_summary_are_in_order(samples: list[float]) -> None:
    found = summarize(samples, rng=np.random.default_rng(0))
    assert min(samples) <= found.low <= found.p50 <= found.high <= max(samples)
    assert found.p50 <= found.p90 <= max(samples)
    assert found.samples == len(samples)


@given(SAMPLES)
def test_the_order_of_samples_hardly_matters_and_the_seed_fixes_all(samples: list[float]) -> None:
    first = summarize(samples, rng=np.random.default_rng(7))
    assert summarize(samples, rng=np.random.default_rng(7)) == first
    assert summarize(sorted(samples), rng=np.random.default_rng(7)).p50 == first.p50


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    # Exponential samples, as skewed as latencies are; the true median is ln 2.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = median_interval(rng.exponential(size=40), rng=rng, resamples=500)
        held += low <= np.log(2) <= high
    assert 0.91 <= held / 300 <= 0.99


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], r"expected samples of shape \(samples,\), got shape \(0,\)"),
        ([[1.0]], r"got shape \(1, 1\)"),
        ([1.0, float("nan")], "expected finite samples"),
        ([1.0, float("inf")], "expected finite samples"),
    ],
)
def test_what_has_no_median_is_refused(samples: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(samples, rng=np.random.default_rng(0))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_holds_it_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = proportion_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high
    mirrored = proportion_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I.
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert proportion_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert proportion_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 2)])
def test_an_impossible_share_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected successes out of trials"):
        proportion_interval(*counts)


def _interval(low: float, high: float) -> Summary:
    return Summary(p50=low, p90=high, low=low, high=high, samples=1)


@pytest.mark.parametrize(
    ("a", "b", "tied"),
    [((1, 2), (3, 4), False), ((1, 2), (2, 4), True), ((1, 4), (2, 3), True)],
)
def test_overlapping_intervals_tie(
    a: tuple[float, float], b: tuple[float, float], tied: bool
) -> None:
    assert tie(_interval(*a), _interval(*b)) is tied
    assert tie(_interval(*b), _interval(*a)) is tied
