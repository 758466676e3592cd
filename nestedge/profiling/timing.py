"""Times of calls, taken so that they may be compared with each other.

Clock speed and temperature drift while one measures. So everything that is to be compared is warmed
up first and then measured in rounds, each of which calls everything once, in an order drawn anew:
drift then hits all alike, instead of the one that came last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Clock = Callable[[], int]
"""A monotonic clock in nanoseconds."""

_MS = 1e-6


@dataclass(frozen=True)
class WarmUp:
    """When a call counts as warm: its last times are like those before.

    Attributes:
        window: calls whose median is compared with that of as many calls before.
        tolerance: the relative difference of the two medians below which the call is warm.
        at_most_calls: the warm-up ends after as many calls, warm or not.
        at_most_ms: and no call is begun after as much time.
    """

    window: int = 5
    tolerance: float = 0.05
    at_most_calls: int = 100
    at_most_ms: float = 2000.0


def measure_interleaved(
    callables: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    rng: np.random.Generator,
    warm_up: WarmUp | None = None,
    clock: Clock = time.perf_counter_ns,
    after_round: Callable[[], None] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """The times of every callable, in milliseconds, shape (rounds,).

    Args:
        callables: what to call, by name.
        rounds: calls of each.
        rng: draws the order within each round.
        warm_up: when each counts as warm; the default is `WarmUp()`.
        clock: a monotonic clock in nanoseconds.
        after_round: is called between rounds, to show progress.

    Raises:
        ValueError: rounds is less than one.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in callables.values():
        warm_up_call(call, warm_up or WarmUp(), clock=clock)
    names = list(callables)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            times[name].append(time_call(callables[name], clock=clock))
        if after_round is not None:
            after_round()
    return {name: np.array(taken) for name, taken in times.items()}


def warm_up_call(
    call: Callable[[], object], limits: WarmUp, *, clock: Clock = time.perf_counter_ns
) -> int:
    """Calls until the time is stable or a limit is reached; how many calls that took."""
    begun = clock()
    times: list[float] = []
    while len(times) < limits.at_most_calls and (clock() - begun) * _MS < limits.at_most_ms:
        times.append(time_call(call, clock=clock))
        if _is_stable(times, limits):
            break
    return len(times)


def time_call(call: Callable[[], object], *, clock: Clock = time.perf_counter_ns) -> float:
    """The time of one call in milliseconds."""
    begun = clock()
    call()
    return (clock() - begun) * _MS


def _is_stable(times: list[float], limits: WarmUp) -> bool:
    window = limits.window
    if len(times) < 2 * window:
        return False
    before = float(np.median(times[-2 * window : -window]))
    last = float(np.median(times[-window:]))
    return abs(last - before) <= limits.tolerance * before
