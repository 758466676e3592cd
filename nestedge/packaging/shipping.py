"""From a build folder to a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact import DESCRIPTION_FILE, Artifact, check_integrity
from nestedge.documents import read_json, write_chunks, write_synced, write_whole
from nestedge.errors import NestedgeError, UsageError, VerificationError, did_you_mean
from nestedge.folders import replaced_folder
from nestedge.matrix import Matrix, built_artifacts, read_matrix
from nestedge.packaging.checked import checked
from nestedge.packaging.filtering import CellFilter, default_cell
from nestedge.packaging.shipment import (
    INDEX_FILE,
    SHIPMENT_FILE,
    IndexEntry,
    Shipment,
    ShippedCell,
    index_bytes,
    parse_index,
    read_shipped,
)
from nestedge.packaging.source import FolderSource
from nestedge.verify import Verification, load_verifications


@dataclass(frozen=True)
class _Load:
    """A shipment and the artifacts that go into it, in the order of its cells."""

    shipment: Shipment
    artifacts: Sequence[Artifact]


def ship(
    folder: Path,
    repository: Path,
    *,
    devices: Sequence[str],
    default: Mapping[str, str] | None = None,
    only: CellFilter = CellFilter(),  # noqa: B008 - it is frozen
) -> list[Shipment]:
    """Copies the cells that were built for some devices into a repository.

    Everything is checked before anything is written; index.json, which makes the shipments
    visible, is written last. To ship the same again changes nothing. Older shipments stay: a device
    may be fetching one.

    Args:
        folder: of the build.
        repository: a folder; it is made where there is none.
        devices: ids, of those that the build is for.
        default: names of the cells that run where nobody says, by device; without one,
            `default_cell` chooses.
        only: which of the cells.

    Raises:
        UsageError: there is no such device or cell, or the repository is a file.
        IntegrityError: a file of the build is missing or changed.
        VerificationError: a cell has not passed 'nestedge verify' as it is now.
        OSError: the disk is full, or the repository cannot be written to; what it had stays.
    """
    if repository.exists() and not repository.is_dir():
        raise UsageError(f"{repository}: is a file; give a folder")
    matrix = read_matrix(folder)
    unknown = sorted({*(default or {})} - {*devices})
    if unknown:
        raise ValueError(f"default cells for {unknown}, which are not among the devices")
    loads = [
        _load(folder, matrix, device, default=(default or {}).get(device), only=only)
        for device in dict.fromkeys(devices)
    ]
    _check_verified(folder, {item.cell: item for load in loads for item in load.artifacts})
    repository.mkdir(parents=True, exist_ok=True)
    path = repository / INDEX_FILE
    old = parse_index(read_json(path)) if path.is_file() else {}
    new = dict(old)
    for load in loads:
        _write(load, repository / load.shipment.folder)
        new[load.shipment.device.id] = IndexEntry(
            load.shipment.folder, load.shipment.sha256, load.shipment.size_bytes
        )
    if new != old:
        write_whole(path, index_bytes(new))
    return [load.shipment for load in loads]


def _load(
    folder: Path, matrix: Matrix, device: str, *, default: str | None, only: CellFilter
) -> _Load:
    """What a device gets, and from where; its files are what their artifact.json says."""
    where = f"device {device!r}"
    built = [cell for cell in matrix.of_device(device) if cell.state == "built"]
    if not built:
        raise UsageError(f"{where}: {folder} has no cell for it that was built")
    chosen = only.select(built, where=where)
    names = [cell.name for cell in chosen]
    if default is not None and default not in names:
        suggestion = did_you_mean(default, names)
        raise UsageError(
            f"{where}: no cell {default!r} to run first; there are {names}{suggestion}"
        )
    artifacts = list(built_artifacts(folder, chosen).values())
    for artifact in artifacts:
        check_integrity(artifact)
    shipment = Shipment(
        nestedge=matrix.nestedge,
        device=matrix.devices[device],
        model=matrix.source.model,
        model_sha256=matrix.source.sha256,
        levels=tuple(dict.fromkeys(cell.level for cell in chosen)),
        cells=tuple(_shipped(artifact) for artifact in artifacts),
        default=default_cell(artifacts) if default is None else default,
    )
    return _Load(shipment, artifacts)


def _shipped(artifact: Artifact) -> ShippedCell:
    document = (artifact.folder / DESCRIPTION_FILE).read_bytes()
    return ShippedCell(
        artifact.level,
        artifact.runtime,
        artifact.precision,
        sha256=hashlib.sha256(document).hexdigest(),
        size_bytes=len(document) + sum(file.size_bytes for file in artifact.files.values()),
    )


def _check_verified(folder: Path, artifacts: Mapping[str, Artifact]) -> None:
    """Refuses cells that nobody has seen give what their level gives."""
    known = {(found.cell, found.runtime): found for found in load_verifications(folder)}
    missing = []
    for cell in sorted(artifacts):
        artifact = artifacts[cell]
        reason = _not_verified(artifact, known.get((cell, artifact.checked_by)))
        if reason:
            missing.append(f"{cell}: {reason}")
    if missing:
        raise VerificationError(
            f"{len(missing)} of {len(artifacts)} cells are not verified: {'; '.join(missing)}: "
            f"run 'nestedge verify {folder}', and leave out what fails"
        )


def _not_verified(artifact: Artifact, found: Verification | None) -> str:
    if found is None:
        return "never ran"
    if found.model_sha256 != artifact.files[artifact.model].sha256:
        return "was built again since"
    return "" if found.passed else f"failed, {found.reason}"


def _write(load: _Load, folder: Path) -> None:
    """Writes the folder of a shipment, unless it is there already."""
    if _is_whole(load.shipment, folder):
        return
    with replaced_folder(folder) as temporary:
        for cell, artifact in zip(load.shipment.cells, load.artifacts, strict=True):
            hashes = {name: file.sha256 for name, file in artifact.files.items()}
            source = FolderSource(artifact.folder)
            (temporary / cell.name).mkdir(parents=True)
            for name, sha256 in {**hashes, DESCRIPTION_FILE: cell.sha256}.items():
                # A build that runs at the same time may have changed what was checked.
                chunks = checked(
                    source.chunks(name, limit=cell.size_bytes),
                    sha256=sha256,
                    limit=cell.size_bytes,
                    where=f"{cell.name}: {name}",
                )
                write_chunks(temporary / cell.name / name, chunks)
        write_synced(temporary / SHIPMENT_FILE, load.shipment.document)


def _is_whole(shipment: Shipment, folder: Path) -> bool:
    """Whether a folder has all of a shipment; one that a failing disk has changed has not."""
    try:
        if (folder / SHIPMENT_FILE).read_bytes() != shipment.document:
            return False
        for artifact in read_shipped(folder):
            check_integrity(artifact)
    except (NestedgeError, FileNotFoundError, NotADirectoryError):
        return False
    return True
