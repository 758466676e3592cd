"""The choice for one device of a build: what it runs, and what is known of that there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestedge.artifact import Artifact, check_integrity, find_artifacts
from nestedge.devices.detection import matching_profile
from nestedge.devices.profile import LOCAL
from nestedge.errors import UsageError
from nestedge.matrix import MATRIX_FILE, Cell, built_artifacts, read_matrix
from nestedge.profiling.measurement import Measurement, describe_device, load_measurements
from nestedge.selection.budget import Budget
from nestedge.selection.candidate import Candidate, candidates
from nestedge.selection.choice import Selection, select
from nestedge.verify import load_verifications


@dataclass(frozen=True)
class DeviceSelection:
    """The artifact to use on a device.

    Attributes:
        device: its id.
        candidates: the artifacts that it runs, by cell.
        selection: the choice among them, with notes.
        artifact: the chosen one.
    """

    device: str
    candidates: tuple[Candidate, ...]
    selection: Selection
    artifact: Artifact


def select_for_device(
    folder: Path, device: str, budget: Budget, *, root: Path = Path("/")
) -> DeviceSelection:
    """The best artifact in a build folder for a device, within a budget.

    Latencies count only where they were taken on this machine, and this machine is the device.
    Accuracies are of the file, so that it does not matter where they were taken.

    Args:
        folder: of a build; without a build.json, all artifacts in it are for "local".
        device: id of a device that it was built for; "local" is this machine.
        budget: the limits.
        root: the folder in which the files of this machine's system lie.

    Raises:
        UsageError: it was not built for the device, or `select` says why.
        IntegrityError: an artifact that was built is gone, or a file of the chosen one is changed.
        VerificationError: all artifacts of the device failed their verification.
        BudgetError: none fits the budget.
    """
    artifacts, unbuilt = _of_device(folder, device)
    if not artifacts:
        reasons = "; ".join(_unbuilt_line(cell) for cell in unbuilt) or "it runs no cell"
        raise UsageError(f"nothing is built for {device}: {reasons}")
    is_here = device == LOCAL or device == matching_profile(root)
    machine = describe_device(root / "proc/cpuinfo") if is_here else None
    measurements = load_measurements(folder)
    verifications = load_verifications(folder)
    known = candidates(artifacts, measurements, verifications=verifications, machine=machine)
    selection = select(known, budget, elsewhere=None if is_here else device)
    chosen = next(found for found in artifacts if found.cell == selection.chosen)
    check_integrity(chosen)
    notes = (
        *selection.notes,
        *_latency_notes(artifacts, measurements, known, device),
        *_accuracy_notes(known, device, machine=machine),
        *_verification_notes(known),
        *(_unbuilt_line(cell) for cell in unbuilt),
    )
    return DeviceSelection(
        device,
        candidates=tuple(known),
        selection=replace(selection, notes=notes),
        artifact=chosen,
    )


def _of_device(folder: Path, device: str) -> tuple[list[Artifact], list[Cell]]:
    """The artifacts of a device by cell, and the cells of it that have none."""
    if device == LOCAL and not (folder / MATRIX_FILE).is_file():
        return find_artifacts(folder), []
    cells = read_matrix(folder).of_device(device)
    unbuilt = [cell for cell in cells if cell.state != "built"]
    found = built_artifacts(folder, cells)
    return [found[name] for name in sorted(found)], unbuilt


def _unbuilt_line(cell: Cell) -> str:
    return f"{cell.name} is not built: {cell.state}: {cell.reason}"


def _latency_notes(
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measurement],
    known: Sequence[Candidate],
    device: str,
) -> list[str]:
    """On which machines latencies were measured that do not count."""
    hashes = {(found.cell, found.files[found.model].sha256) for found in artifacts}
    counted = {candidate.latency for candidate in known}
    others = {
        found.device
        for found in measurements
        if found.quantity == "latency_ms"
        and (found.cell, found.model_sha256) in hashes
        and found not in counted
    }
    return [f"latencies measured on {other} do not count for {device}" for other in sorted(others)]


def _accuracy_notes(known: Sequence[Candidate], device: str, *, machine: str | None) -> list[str]:
    """Where accuracies were measured, if not on the device."""
    found = {
        (candidate.accuracy.device, candidate.accuracy.runtime_version)
        for candidate in known
        if candidate.accuracy is not None and candidate.accuracy.device != machine
    }
    notes = []
    for other in sorted({where for where, _ in found}):
        versions = ", ".join(sorted(version for where, version in found if where == other))
        notes.append(f"accuracies are of the same files on {other}, by {versions}, not on {device}")
    return notes


def _verification_notes(known: Sequence[Candidate]) -> list[str]:
    """What verifications leave open, each with the cells that it is about."""
    notes = dict.fromkeys(candidate.note for candidate in known if candidate.note)
    return [
        f"{', '.join(candidate.cell for candidate in known if candidate.note == note)}: {note}"
        for note in notes
    ]
