"""The build.json of artifacts that no build made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nestedge.artifact import Artifact
from nestedge.devices.profile import DeviceProfile, Target
from nestedge.matrix import Cell, Matrix, Source, write_matrix


def device(identity: str, targets: Mapping[str, Sequence[str]]) -> DeviceProfile:
    """A device of which only the precisions of each runtime are known."""
    found = tuple(
        Target(runtime, versions=("1.0",), precisions=tuple(precisions))
        for runtime, precisions in targets.items()
    )
    return DeviceProfile(identity, identity, "linux", targets=found, figures={}, match={})


def fake_matrix(
    dist: Path,
    artifacts: Iterable[Artifact],
    *,
    devices: Sequence[DeviceProfile],
    unbuilt: Sequence[Cell] = (),
) -> Matrix:
    """The matrix of these artifacts and of cells that were not built, written into `dist`."""
    built = [Cell(found.level, found.runtime, found.precision) for found in artifacts]
    cells = {cell.name: cell for cell in (*built, *unbuilt)}
    source = Source(
        model="net.nest",
        sha256="0" * 64,
        levels=dict.fromkeys((cell.level for cell in cells.values()), "0" * 64),
        calibration=None,
        converters={},
    )
    matrix = Matrix(
        nestedge="0.1.0",
        source=source,
        calibration=None,
        devices={found.id: found for found in devices},
        cells=cells,
    )
    write_matrix(dist, matrix)
    return matrix
