"""What is known about the artifacts that one may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nestedge.artifact import Artifact
from nestedge.profiling.measurement import Measurement
from nestedge.verify import Verification, deciding

UNVERIFIED = "not verified: run 'nestedge verify'"


@dataclass(frozen=True)
class Candidate:
    """What is known about one artifact.

    Attributes:
        cell: the artifact.
        size_bytes: of its model file.
        peak_memory_bytes: of its weights and of the activations that are alive at once.
        parameters: of its level.
        latency: measured on the device it is wanted for, or None.
        accuracy: measured anywhere, since the file is the same, or None.
        refusal: why it must not be used, whatever the budget: it failed its verification, or was
            never verified; "" where neither is so.
        note: what its verification leaves open, or "".
    """

    cell: str
    size_bytes: int
    peak_memory_bytes: int
    parameters: int
    latency: Measurement | None = None
    accuracy: Measurement | None = None
    refusal: str = ""
    note: str = ""


def candidates(
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measurement],
    *,
    verifications: Sequence[Verification],
    machine: str | None,
) -> list[Candidate]:
    """What is known about each artifact; what is known of an older build of it does not count.

    Args:
        artifacts: of one device.
        measurements: of any artifacts, taken anywhere.
        verifications: of any artifacts.
        machine: as `describe_device` calls the one whose latencies count; None where no
            measurements of the device can be had.
    """
    known = {(found.model_sha256, found.cell, found.quantity): found for found in measurements}
    found = []
    for artifact in artifacts:
        key = (artifact.files[artifact.model].sha256, artifact.cell)
        latency = known.get((*key, "latency_ms"))
        refusal, note = _verdict(artifact, verifications)
        found.append(
            Candidate(
                artifact.cell,
                size_bytes=artifact.size_bytes,
                peak_memory_bytes=artifact.peak_memory_bytes,
                parameters=artifact.parameters,
                latency=latency if latency is not None and latency.device == machine else None,
                accuracy=known.get((*key, "accuracy_percent")),
                refusal=refusal,
                note=note,
            )
        )
    return found


def _verdict(artifact: Artifact, verifications: Sequence[Verification]) -> tuple[str, str]:
    """Why an artifact must not be used, and what its verification leaves open.

    A failure in a runtime that does not decide is only told.
    """
    key = (artifact.cell, artifact.files[artifact.model].sha256)
    records = [found for found in verifications if (found.cell, found.model_sha256) == key]
    own = deciding(artifact, records)
    if not own:
        return UNVERIFIED, ""
    refusal = "; ".join(_failure(found) for found in own if not found.passed)
    # A record may leave nothing open, and several may leave the same.
    notes = dict.fromkeys(found.note for found in own if found.note)
    elsewhere = [_failure(found) for found in records if found not in own and not found.passed]
    return refusal, "; ".join([*notes, *elsewhere])


def _failure(found: Verification) -> str:
    return f"failed its verification in {found.runtime_version}: {found.reason}"
