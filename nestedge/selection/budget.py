"""What an artifact may cost and must give, and by how much one misses that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nestedge.errors import UsageError
from nestedge.selection.candidate import Candidate
from nestedge.selection.quantities import format_size


@dataclass(frozen=True)
class Budget:
    """What an artifact may cost and must give; at least one of the four.

    Attributes:
        latency_ms: the median latency is at most this.
        size_bytes: the model file is at most this.
        memory_bytes: weights and activations take at most this at once.
        min_accuracy: the accuracy is at least this, in percent.
    """

    latency_ms: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        limits = {
            "latency": self.latency_ms,
            "size": self.size_bytes,
            "memory": self.memory_bytes,
        }
        if self.min_accuracy is None and all(limit is None for limit in limits.values()):
            raise UsageError("empty budget: give a latency, a size, a memory or a least accuracy")
        for name, limit in limits.items():
            if limit is not None and not 0 < limit < math.inf:
                raise UsageError(f"{name} must be above 0, got {limit}")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 100:
            raise UsageError(f"accuracy must be in 0..100 percent, got {self.min_accuracy}")

    def __str__(self) -> str:
        limits = []
        if self.latency_ms is not None:
            limits.append(f"latency {self.latency_ms:g} ms")
        if self.size_bytes is not None:
            limits.append(f"size {format_size(self.size_bytes)}")
        if self.memory_bytes is not None:
            limits.append(f"memory {format_size(self.memory_bytes)}")
        if self.min_accuracy is not None:
            limits.append(f"accuracy {self.min_accuracy:g} %")
        return " and ".join(limits)


@dataclass(frozen=True)
class Miss:
    """By how much a candidate misses one limit.

    Attributes:
        reason: in words.
        share: relative to the limit; inf where the quantity was not measured.
    """

    reason: str
    share: float


def latency_misses(candidate: Candidate, limit_ms: float | None) -> list[Miss]:
    """Whether the median latency of a candidate is above a limit; one unmeasured misses any."""
    if limit_ms is None:
        return []
    if candidate.latency is None:
        return [Miss("latency unmeasured", math.inf)]
    value = candidate.latency.value
    if value <= limit_ms:
        return []
    share = value / limit_ms - 1
    return [Miss(f"latency {value:.3g} ms is {_percent(share)} over", share)]


def byte_misses(candidate: Candidate, budget: Budget) -> list[Miss]:
    """Which limits of bytes a candidate is above."""
    limits = (
        ("size", candidate.size_bytes, budget.size_bytes),
        ("memory", candidate.peak_memory_bytes, budget.memory_bytes),
    )
    found = []
    for name, used, limit in limits:
        if limit is not None and used > limit:
            share = used / limit - 1
            found.append(Miss(f"{name} {format_size(used)} is {_percent(share)} over", share))
    return found


def accuracy_misses(candidate: Candidate, least: float | None) -> list[Miss]:
    """Whether the accuracy of a candidate is below the least; one unmeasured misses any."""
    if least is None:
        return []
    if candidate.accuracy is None:
        return [Miss("accuracy unmeasured", math.inf)]
    points = least - candidate.accuracy.value
    if points <= 0:
        return []
    reason = f"accuracy {candidate.accuracy.value:.2f} % is {points:.2f} points short"
    return [Miss(reason, points / least)]


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.3g} %" if percent < 1000 else f"{percent:,.0f} %"
