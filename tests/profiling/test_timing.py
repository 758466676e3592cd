from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat

import numpy as np
import pytest

from nestedge.profiling.timing import WarmUp, measure_interleaved, time_call, warm_up_call

NO_WARM_UP = WarmUp(at_most_calls=0)


class FakeClock:
    """A clock that only calls made by `taking` move."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def taking(self, times_ms: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.now += round(next(times_ms) * 1e6)

        return call


def test_a_time_is_in_milliseconds() -> None:
    clock = FakeClock()
    assert time_call(clock.taking(iter([2.5])), clock=clock) == pytest.approx(2.5)


def test_a_stable_call_is_warm_after_two_windows() -> None:
    clock = FakeClock()
    assert warm_up_call(clock.taking(repeat(1.0)), WarmUp(window=4), clock=clock) == 8


def test_the_warm_up_goes_on_until_the_times_are_stable() -> None:
    clock = FakeClock()
    times = chain([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], repeat(1.0))
    calls = warm_up_call(clock.taking(times), WarmUp(window=2), clock=clock)
    # The windows are like each other once both lie in the stable part.
    assert calls == 12


@pytest.mark.parametrize(
    ("limits", "calls"),
    [(WarmUp(at_most_calls=17), 17), (WarmUp(at_most_ms=10.0), 4), (NO_WARM_UP, 0)],
    ids=["calls", "time", "none"],
)
def test_a_call_that_never_gets_stable_is_not_waited_for(limits: WarmUp, calls: int) -> None:
    clock = FakeClock()
    growing = (1.5**index for index in range(1, 1000))
    assert warm_up_call(clock.taking(growing), limits, clock=clock) == calls


def test_rounds_call_everything_once_in_shuffled_order() -> None:
    order: list[str] = []
    names = ["a", "b", "c", "d"]
    rounds = 20
    measure_interleaved(
        {name: partial(order.append, name) for name in names},
        rounds=rounds,
        rng=np.random.default_rng(0),
        warm_up=NO_WARM_UP,
    )
    blocks = [tuple(order[start : start + 4]) for start in range(0, 4 * rounds, 4)]
    assert len(order) == 4 * rounds
    assert all(sorted(block) == names for block in blocks)
    assert len(set(blocks)) > rounds // 2


def test_drift_hits_all_alike() -> None:
    # The device slows down by half over the measurement; measured one after the other, the second
    # of two equal calls would look 25 % slower.
    clock = FakeClock()
    calls = 400
    drift = iter(np.linspace(1.0, 1.5, calls))
    call = clock.taking(drift)
    times = measure_interleaved(
        {"a": call, "b": call},
        rounds=calls // 2,
        rng=np.random.default_rng(0),
        warm_up=NO_WARM_UP,
        clock=clock,
    )
    assert np.median(times["a"]) == pytest.approx(np.median(times["b"]), rel=0.01)


def test_everything_is_warm_before_the_first_round_and_progress_is_told() -> None:
    clock = FakeClock()
    order: list[str] = []

    def call(name: str) -> Callable[[], None]:
        tick = clock.taking(repeat(1.0))

        def called() -> None:
            order.append(name)
            tick()

        return called

    times = measure_interleaved(
        {"a": call("a"), "b": call("b")},
        rounds=3,
        rng=np.random.default_rng(0),
        warm_up=WarmUp(window=2),
        clock=clock,
        after_round=lambda: order.append("|"),
    )
    assert "".join(order[:8]) == "aaaabbbb"
    assert [sorted(part) for part in "".join(order[8:]).split("|")] == [["a", "b"]] * 3 + [[]]
    assert {name: found.tolist() for name, found in times.items()} == {
        "a": [1.0] * 3,
        "b": [1.0] * 3,
    }


def test_no_rounds_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        measure_interleaved({}, rounds=0, rng=np.random.default_rng(0))
