"""What is known of a build folder, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact import Artifact, check_integrity
from nestedge.devices.detection import matching_profile
from nestedge.devices.profile import LOCAL
from nestedge.matrix import Cell, Matrix, built_artifacts, read_matrix
from nestedge.profiling.measurement import Measurement, describe_device, load_measurements
from nestedge.selection import Candidate, candidates
from nestedge.verify import Verification, load_verifications


@dataclass(frozen=True, kw_only=True)
class Records:
    """What is known of a build folder.

    Attributes:
        folder: of the build.
        root: the folder in which the files of this machine's system lie.
        machine: this one, as measurements call it.
        here: ids of the devices that this machine is.
        matrix: which cells there are.
        artifacts: those of the matrix, by cell.
        measurements: of these very artifacts.
        verifications: of these very artifacts.
    """

    folder: Path
    root: Path
    machine: str
    here: frozenset[str]
    matrix: Matrix
    artifacts: Mapping[str, Artifact]
    measurements: Sequence[Measurement]
    verifications: Sequence[Verification]

    def known(self, device: str) -> dict[str, Candidate]:
        """What is known of the artifacts that a device runs, on that device, by cell.

        Latencies count where `nestedge pick` lets them: on this machine, if it is the device.
        """
        cells = self.matrix.of_device(device)
        artifacts = [self.artifacts[cell.name] for cell in cells if cell.state == "built"]
        machine = self.machine if device in self.here else None
        found = candidates(
            artifacts, self.measurements, verifications=self.verifications, machine=machine
        )
        return {candidate.cell: candidate for candidate in found}

    def verifications_of(self, cell: Cell) -> list[Verification]:
        """The results of a cell, those of the runtime that it was built to be checked by first."""
        own = self.artifacts[cell.name].checked_by
        found = [record for record in self.verifications if record.cell == cell.name]
        return sorted(found, key=lambda record: (record.runtime != own, record.runtime))

    def load_time(self, cell: str, device: str) -> Measurement | None:
        """How long an artifact took to load on a device, if that was measured."""
        for found in self.measurements:
            if (found.cell, found.quantity) == (cell, "load_ms"):
                is_here = device in self.here and found.device == self.machine
                return found if is_here else None
        return None


def read_records(folder: Path, *, root: Path = Path("/")) -> Records:
    """What is known of a build folder; what was found of older files than those in it is not.

    Args:
        folder: of a build.
        root: the folder in which the files of this machine's system lie.

    Raises:
        UsageError: the folder has no build.json.
        FormatError: one of its documents is not what it says.
        IntegrityError: an artifact is gone, or a file is not the one that was built.
    """
    matrix = read_matrix(folder)
    artifacts = built_artifacts(folder, [matrix.cells[name] for name in sorted(matrix.cells)])
    for artifact in artifacts.values():
        check_integrity(artifact)
    hashes = {(name, found.files[found.model].sha256) for name, found in artifacts.items()}
    return Records(
        folder=folder,
        root=root,
        machine=describe_device(root / "proc/cpuinfo"),
        here=frozenset(name for name in (LOCAL, matching_profile(root)) if name),
        matrix=matrix,
        artifacts=artifacts,
        measurements=[
            found
            for found in load_measurements(folder)
            if (found.cell, found.model_sha256) in hashes
        ],
        verifications=[
            found
            for found in load_verifications(folder)
            if (found.cell, found.model_sha256) in hashes
        ],
    )
