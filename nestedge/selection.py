"""Which artifact to use within a budget, and why none of the others."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.artifact import Artifact
from nestedge.errors import BudgetError, UsageError
from nestedge.profiling.measure import Measurement
from nestedge.profiling.statistics import tie

_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)\s*")


@dataclass(frozen=True)
class Budget:
    """What an artifact may cost and must give; at least one of the three.

    Attributes:
        latency_ms: the median latency is at most this.
        size_bytes: the model file is at most this.
        min_accuracy: the accuracy is at least this, in percent.
    """

    latency_ms: float | None = None
    size_bytes: int | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        limits = (self.latency_ms, self.size_bytes, self.min_accuracy)
        if all(limit is None for limit in limits):
            raise UsageError("empty budget: give a latency, a size or a least accuracy")
        for name, limit in (("latency", self.latency_ms), ("size", self.size_bytes)):
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
        if self.min_accuracy is not None:
            limits.append(f"accuracy {self.min_accuracy:g} %")
        return " and ".join(limits)


@dataclass(frozen=True)
class Candidate:
    """What is known about one artifact.

    Attributes:
        cell: the artifact.
        size_bytes: of its model file.
        parameters: of its level.
        latency: measured, or None.
        accuracy: measured, or None.
    """

    cell: str
    size_bytes: int
    parameters: int
    latency: Measurement | None = None
    accuracy: Measurement | None = None


@dataclass(frozen=True)
class Selection:
    """The artifact to use.

    Attributes:
        chosen: its cell.
        reasons: why it was chosen, and why each other one was not, by cell.
    """

    chosen: str
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class _Miss:
    """By how much a candidate misses one constraint.

    Attributes:
        reason: in words.
        share: relative to the constraint; inf where the quantity was not measured.
    """

    reason: str
    share: float


@dataclass(frozen=True)
class _Ranking:
    """How good the candidates are that fit.

    Attributes:
        tied: those that cannot be told apart from the best.
        refused: why each other one is not among them, by cell.
        best: what the best is, in words.
    """

    tied: Sequence[Candidate]
    refused: Mapping[str, str]
    best: str


def parse_duration(text: str) -> float:
    """A duration in milliseconds.

    Raises:
        UsageError: it is not a number with a unit, or not above zero.

    >>> parse_duration("8ms"), parse_duration("0.5 s")
    (8.0, 500.0)
    """
    return _parse_quantity(text, "duration", _MILLISECONDS)


def parse_size(text: str) -> int:
    """A size in bytes; kB, MB and GB count in thousands, KiB, MiB and GiB in 1024.

    Raises:
        UsageError: it is not a number with a unit, or not above zero.

    >>> parse_size("40MB"), parse_size("512KiB")
    (40000000, 524288)
    """
    return math.floor(_parse_quantity(text, "size", _BYTES))


def format_size(size_bytes: int) -> str:
    """A size as people read it.

    >>> format_size(950), format_size(1_234_567)
    ('950 B', '1.235 MB')
    """
    for unit in ("GB", "MB", "kB"):
        if size_bytes >= _BYTES[unit]:
            return f"{size_bytes / _BYTES[unit]:.4g} {unit}"
    return f"{size_bytes} B"


def candidates(
    artifacts: Sequence[Artifact], measurements: Sequence[Measurement]
) -> list[Candidate]:
    """What is known about each artifact; what was measured of an older build of it is not."""
    known = {(found.model_sha256, found.cell, found.quantity): found for found in measurements}

    def find(artifact: Artifact, quantity: str) -> Measurement | None:
        return known.get((artifact.files[artifact.model].sha256, artifact.cell, quantity))

    return [
        Candidate(
            artifact.cell,
            size_bytes=artifact.size_bytes,
            parameters=artifact.parameters,
            latency=find(artifact, "latency_ms"),
            accuracy=find(artifact, "accuracy_percent"),
        )
        for artifact in artifacts
    ]


def select(candidates: Sequence[Candidate], budget: Budget) -> Selection:
    """The best candidate within the budget.

    Latency is judged by its median. Among those that fit, the most accurate is best; where the
    accuracy of one is unmeasured, or they were measured on different data, the one of most
    parameters. Candidates that the intervals do not tell apart from the best are tied with it; of
    these the fastest is chosen, and of the equally fast the smallest.

    Raises:
        UsageError: there are no candidates.
        BudgetError: none fits; the message names the nearest and by how much it misses.
    """
    if not candidates:
        raise UsageError("nothing to select from")
    # In one order, so that equal ones do not take turns.
    candidates = sorted(candidates, key=lambda candidate: candidate.cell)
    misses = {candidate.cell: _misses(candidate, budget) for candidate in candidates}
    fitting = [candidate for candidate in candidates if not misses[candidate.cell]]
    if not fitting:
        raise BudgetError(_none_fits(misses, budget))
    reasons = {
        cell: "; ".join(miss.reason for miss in found) for cell, found in misses.items() if found
    }
    ranking = _rank(fitting)
    chosen = _fastest_smallest(ranking.tied)
    for candidate in fitting:
        reasons[candidate.cell] = ranking.refused.get(
            candidate.cell, f"fits; tied with {chosen.cell}, which is faster or smaller"
        )
    reasons[chosen.cell] = f"chosen: {len(fitting)} of {len(candidates)} fit; {ranking.best}"
    if len(ranking.tied) > 1:
        reasons[chosen.cell] += f"; the fastest or smallest of {len(ranking.tied)} that tie"
    return Selection(chosen.cell, {cell: reasons[cell] for cell in sorted(reasons)})


def _misses(candidate: Candidate, budget: Budget) -> list[_Miss]:
    found = []
    latency, accuracy = candidate.latency, candidate.accuracy
    if budget.latency_ms is not None:
        if latency is None:
            found.append(_Miss("latency unmeasured", math.inf))
        elif latency.value > budget.latency_ms:
            share = latency.value / budget.latency_ms - 1
            found.append(_Miss(f"latency {latency.value:.3g} ms is {_percent(share)} over", share))
    if budget.size_bytes is not None and candidate.size_bytes > budget.size_bytes:
        share = candidate.size_bytes / budget.size_bytes - 1
        size = format_size(candidate.size_bytes)
        found.append(_Miss(f"size {size} is {_percent(share)} over", share))
    if budget.min_accuracy is not None:
        if accuracy is None:
            found.append(_Miss("accuracy unmeasured", math.inf))
        elif accuracy.value < budget.min_accuracy:
            points = budget.min_accuracy - accuracy.value
            reason = f"accuracy {accuracy.value:.2f} % is {points:.2f} points short"
            found.append(_Miss(reason, points / budget.min_accuracy))
    return found


def _none_fits(misses: Mapping[str, Sequence[_Miss]], budget: Budget) -> str:
    def distance(cell: str) -> tuple[float, str]:
        return max(miss.share for miss in misses[cell]), cell

    nearest = min(misses, key=distance)
    reason = "; ".join(miss.reason for miss in misses[nearest])
    message = f"none of {len(misses)} fits {budget}"
    if distance(nearest)[0] == math.inf:
        return f"{message}: {nearest}: {reason}; measure with 'nestedge profile'"
    return f"{message}; the nearest is {nearest}: {reason}"


def _rank(fitting: Sequence[Candidate]) -> _Ranking:
    measured = [(c, c.accuracy) for c in fitting if c.accuracy is not None]
    if len(measured) < len(fitting):
        return _rank_by_parameters(fitting, "accuracy unmeasured")
    if len({accuracy.data_sha256 for _, accuracy in measured}) > 1:
        return _rank_by_parameters(fitting, "accuracies are of different data")
    best = max((accuracy for _, accuracy in measured), key=lambda accuracy: accuracy.value)
    return _Ranking(
        tied=[candidate for candidate, accuracy in measured if tie(accuracy, best)],
        refused={
            candidate.cell: f"fits, but its accuracy of {accuracy.value:.2f} % is lower"
            for candidate, accuracy in measured
            if not tie(accuracy, best)
        },
        best=f"the best accuracy is {best.value:.2f} % ({best.low:.2f}..{best.high:.2f})",
    )


def _rank_by_parameters(fitting: Sequence[Candidate], why: str) -> _Ranking:
    most = max(candidate.parameters for candidate in fitting)
    return _Ranking(
        tied=[candidate for candidate in fitting if candidate.parameters == most],
        refused={
            candidate.cell: f"fits, but has {candidate.parameters} parameters, fewer than {most}"
            for candidate in fitting
            if candidate.parameters != most
        },
        best=f"{why}, so the most parameters: {most}",
    )


def _fastest_smallest(tied: Sequence[Candidate]) -> Candidate:
    measured = [(c, c.latency) for c in tied if c.latency is not None]
    remaining = list(tied)
    if len(measured) == len(tied):
        fastest = min((latency for _, latency in measured), key=lambda latency: latency.value)
        remaining = [candidate for candidate, latency in measured if tie(latency, fastest)]
    return min(remaining, key=lambda candidate: (candidate.size_bytes, candidate.cell))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _parse_quantity(text: str, noun: str, units: Mapping[str, float]) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2) not in units:
        known = ", ".join(units)
        raise UsageError(f"{noun} {text!r}: expected a number and a unit of {known}")
    number = float(match.group(1)) * units[match.group(2)]
    if not 0 < number < math.inf:
        raise UsageError(f"{noun} {text!r}: expected more than 0")
    return number
