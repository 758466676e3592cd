"""The best of several candidates, and what each of the others lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.profiling.statistics import tie
from nestedge.selection.candidate import Candidate


@dataclass(frozen=True)
class Ranking:
    """The best of several candidates.

    Attributes:
        chosen: the best.
        best: what it is the best in, in words.
        refused: why each other one is not the best, by cell.
        quantity: what they were ranked by, "accuracy" or "parameters".
    """

    chosen: Candidate
    best: str
    refused: Mapping[str, str]
    quantity: str


@dataclass(frozen=True)
class _Leaders:
    """Those that cannot be told apart from the best.

    Attributes:
        tied: they.
        refused: why each other one is not among them, by cell.
        best: what the best is, in words.
        quantity: what they were ranked by.
    """

    tied: Sequence[Candidate]
    refused: Mapping[str, str]
    best: str
    quantity: str


def rank(candidates: Sequence[Candidate]) -> Ranking:
    """The best of at least one candidate.

    The most accurate is best; where the accuracy of one is unmeasured, or they were measured on
    different data, the one of most parameters. Of those that the intervals do not tell apart from
    the best, the fastest is taken if all of them were timed; of the equally fast the one of the
    smallest file, then of the least memory, then the first by name.
    """
    leaders = _leaders(sorted(candidates, key=lambda candidate: candidate.cell))
    chosen, slower = _break_tie(leaders.tied)
    refused = dict(leaders.refused)
    for other in leaders.tied:
        if other is not chosen:
            why = "is faster" if other in slower else _smaller(chosen, other)
            refused[other.cell] = f"fits; tied with {chosen.cell}, which {why}"
    best = leaders.best
    if len(leaders.tied) > 1:
        best += f"; the fastest or smallest of {len(leaders.tied)} that tie"
    return Ranking(chosen, best, refused, leaders.quantity)


def _leaders(candidates: Sequence[Candidate]) -> _Leaders:
    measured = [(c, c.accuracy) for c in candidates if c.accuracy is not None]
    if len(measured) < len(candidates):
        return _leaders_by_parameters(candidates, "accuracy unmeasured")
    if len({accuracy.data_sha256 for _, accuracy in measured}) > 1:
        return _leaders_by_parameters(candidates, "accuracies are of different data")
    best = max((accuracy for _, accuracy in measured), key=lambda accuracy: accuracy.value)
    return _Leaders(
        tied=[candidate for candidate, accuracy in measured if tie(accuracy, best)],
        refused={
            candidate.cell: f"fits, but its accuracy of {accuracy.value:.2f} % is lower"
            for candidate, accuracy in measured
            if not tie(accuracy, best)
        },
        best=f"the best accuracy is {best.value:.2f} % ({best.low:.2f}..{best.high:.2f})",
        quantity="accuracy",
    )


def _leaders_by_parameters(candidates: Sequence[Candidate], why: str) -> _Leaders:
    most = max(candidate.parameters for candidate in candidates)
    return _Leaders(
        tied=[candidate for candidate in candidates if candidate.parameters == most],
        refused={
            candidate.cell: f"fits, but has {candidate.parameters} parameters, fewer than {most}"
            for candidate in candidates
            if candidate.parameters != most
        },
        best=f"{why}, so the most parameters: {most}",
        quantity="parameters",
    )


def _break_tie(tied: Sequence[Candidate]) -> tuple[Candidate, Sequence[Candidate]]:
    """The fastest, then smallest, and those that are slower than the fastest."""
    measured = [(c, c.latency) for c in tied if c.latency is not None]
    slower: list[Candidate] = []
    if len(measured) == len(tied):
        fastest = min((latency for _, latency in measured), key=lambda latency: latency.value)
        slower = [candidate for candidate, latency in measured if not tie(latency, fastest)]
    remaining = [candidate for candidate in tied if candidate not in slower]
    return min(remaining, key=lambda c: (c.size_bytes, c.peak_memory_bytes, c.cell)), slower


def _smaller(chosen: Candidate, other: Candidate) -> str:
    if chosen.size_bytes < other.size_bytes:
        return "is smaller"
    if chosen.peak_memory_bytes < other.peak_memory_bytes:
        return "takes less memory"
    return "comes first by name"
