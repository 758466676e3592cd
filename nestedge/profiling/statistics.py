"""Numbers that stand for samples, each with how far it can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of (1 + CONFIDENCE) / 2


class Interval(Protocol):
    """Anything that lies between two bounds."""

    @property
    def low(self) -> float:
        """The lower bound."""
        ...

    @property
    def high(self) -> float:
        """The upper bound."""
        ...


@dataclass(frozen=True)
class Summary:
    """Samples in five numbers.

    Attributes:
        p50: the median.
        p90: nine in ten samples are at most this.
        low: lower end of the 95 % interval of the median.
        high: upper end of it.
        samples: how many there were.
    """

    p50: float
    p90: float
    low: float
    high: float
    samples: int


def summarize(samples: npt.ArrayLike, *, rng: np.random.Generator) -> Summary:
    """Median, p90 and the interval of the median.

    Raises:
        ValueError: there are no samples, or one of them is not finite.

    >>> summarize([2.0, 2.0, 2.0], rng=np.random.default_rng(0))
    Summary(p50=2.0, p90=2.0, low=2.0, high=2.0, samples=3)
    """
    array = _checked(samples)
    low, high = median_interval(array, rng=rng)
    p50, p90 = np.percentile(array, (50, 90))
    return Summary(float(p50), float(p90), low, high, len(array))


def median_interval(
    samples: npt.ArrayLike, *, rng: np.random.Generator, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % bootstrap percentile interval of the median.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: the median of many
    resamples of the samples, drawn with replacement; the interval is cut off at their quantiles.

    Args:
        samples: shape (samples,).
        rng: draws the resamples.
        resamples: how many are drawn.

    Raises:
        ValueError: there are no samples, or one of them is not finite.
    """
    array = _checked(samples)
    drawn = rng.integers(0, len(array), size=(resamples, len(array)))
    medians = np.median(array[drawn], axis=1)
    tail = (1 - CONFIDENCE) / 2
    # Only order statistics: interpolating between two medians could leave the range by a rounding.
    low, high = np.quantile(medians, (tail, 1 - tail), method="nearest")
    median = float(np.median(array))
    # With very few samples the quantiles may miss the median that they are an interval of.
    return min(float(low), median), max(float(high), median)


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share, as of the correctly classified.

    Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927). Unlike
    the normal approximation it stays within 0..1 and is right near both ends.

    Raises:
        ValueError: there are no trials, or more successes than trials.

    >>> [round(bound, 3) for bound in proportion_interval(9, 10)]
    [0.596, 0.982]
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"expected successes out of trials, got {successes} out of {trials}")
    share, z2 = successes / trials, _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = _NORMAL_QUANTILE * math.sqrt(spread) / (1 + z2 / trials)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def tie(a: Interval, b: Interval) -> bool:
    """Whether two intervals overlap: what was measured does not tell the two apart."""
    return a.low <= b.high and b.low <= a.high


def _checked(samples: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected samples of shape (samples,), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("expected finite samples, got NaN or infinity")
    return array
