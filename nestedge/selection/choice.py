"""The best candidate within a budget, and the reason for every other one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.errors import BudgetError, NestedgeError, UsageError, VerificationError
from nestedge.selection.budget import (
    Budget,
    Miss,
    accuracy_misses,
    byte_misses,
    latency_misses,
)
from nestedge.selection.candidate import UNVERIFIED, Candidate
from nestedge.selection.ranking import rank


@dataclass(frozen=True)
class Selection:
    """The artifact to use.

    Attributes:
        chosen: its cell.
        reasons: why it was chosen, and why each other one was not, by cell.
        notes: what the choice leaves open, a line each.
    """

    chosen: str
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()


def select(
    candidates: Sequence[Candidate], budget: Budget, *, elsewhere: str | None = None
) -> Selection:
    """The best candidate within the budget, as `nestedge.selection.ranking.rank` orders them.

    Candidates that failed their verification, or were never verified, are never chosen. Latency is
    judged by its median, and one that is unmeasured misses any limit. Only where none is measured
    on a device elsewhere, the limit cannot be judged: it is left out, and a note says so.

    Args:
        candidates: artifacts of the device.
        budget: the limits.
        elsewhere: id of the device; None where it is this machine, which can be measured.

    Raises:
        UsageError: there are no candidates, or none is verified.
        VerificationError: all of them failed their verification.
        BudgetError: none fits; the message names the nearest and by how much it misses.
    """
    if not candidates:
        raise UsageError("nothing to select from")
    # In one order, so that equal ones do not take turns.
    candidates = sorted(candidates, key=lambda candidate: candidate.cell)
    usable = [candidate for candidate in candidates if not candidate.refusal]
    if not usable:
        raise _none_usable(candidates)
    unjudged = _unjudged(usable, budget, elsewhere)
    latency_ms = None if unjudged else budget.latency_ms
    misses = {c.cell: _misses(c, budget, latency_ms=latency_ms) for c in usable}
    fitting = [candidate for candidate in usable if not misses[candidate.cell]]
    refused = {c.cell: c.refusal for c in candidates if c.refusal}
    if not fitting:
        raise BudgetError("; ".join([_none_fits(misses, budget), *_left_out(refused), *unjudged]))
    ranking = rank(fitting)
    missing = {cell: "; ".join(miss.reason for miss in misses[cell]) for cell in misses}
    reasons = missing | refused | dict(ranking.refused)
    chosen = ranking.chosen.cell
    reasons[chosen] = f"chosen: {len(fitting)} of {len(usable)} fit; {ranking.best}"
    notes = [
        f"{line}; picked by {ranking.quantity}, file size and peak memory" for line in unjudged
    ]
    return Selection(chosen, {cell: reasons[cell] for cell in sorted(reasons)}, tuple(notes))


def _unjudged(usable: Sequence[Candidate], budget: Budget, elsewhere: str | None) -> list[str]:
    """That the latency limit cannot be judged, or nothing where it can."""
    is_measured = any(candidate.latency is not None for candidate in usable)
    # Here it can be measured, so that no limit is met before it is.
    if budget.latency_ms is None or is_measured or elsewhere is None:
        return []
    return [f"latency limit of {budget.latency_ms:g} ms not applied: unmeasured on {elsewhere}"]


def _misses(candidate: Candidate, budget: Budget, *, latency_ms: float | None) -> list[Miss]:
    return [
        *latency_misses(candidate, latency_ms),
        *byte_misses(candidate, budget),
        *accuracy_misses(candidate, budget.min_accuracy),
    ]


def _none_fits(misses: Mapping[str, Sequence[Miss]], budget: Budget) -> str:
    def distance(cell: str) -> tuple[float, str]:
        return max(miss.share for miss in misses[cell]), cell

    nearest = min(misses, key=distance)
    reason = "; ".join(miss.reason for miss in misses[nearest])
    message = f"none of {len(misses)} fits {budget}"
    if distance(nearest)[0] == math.inf:
        return f"{message}: {nearest}: {reason}; measure with 'nestedge profile'"
    return f"{message}; the nearest is {nearest}: {reason}"


def _left_out(refused: Mapping[str, str]) -> list[str]:
    """Those that were not even compared with the budget, or nothing where there are none."""
    return [f"not compared: {cell}: {reason}" for cell, reason in refused.items()]


def _none_usable(candidates: Sequence[Candidate]) -> NestedgeError:
    unverified = [found for found in candidates if found.refusal == UNVERIFIED]
    if unverified:
        cells = ", ".join(found.cell for found in unverified)
        return UsageError(f"none of {len(candidates)} may be used: {cells}: {UNVERIFIED}")
    reasons = "; ".join(f"{found.cell}: {found.refusal}" for found in candidates)
    return VerificationError(f"none of {len(candidates)} may be used: {reasons}")
