"""From a repository to a device. Nothing is put in place before every byte of it is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestedge.artifact import DESCRIPTION_FILE, Artifact, FileRecord
from nestedge.artifact.description import parse_artifact
from nestedge.devices.detection import matching_profile
from nestedge.devices.profile import LOCAL
from nestedge.documents import parse_json, write_chunks, write_synced
from nestedge.errors import FormatError, IntegrityError, UsageError, did_you_mean
from nestedge.folders import replaced_folder
from nestedge.packaging.checked import checked
from nestedge.packaging.filtering import CellFilter, default_cell
from nestedge.packaging.shipment import (
    INDEX_FILE,
    SHIPMENT_FILE,
    IndexEntry,
    Shipment,
    ShippedCell,
    check_artifact,
    parse_index,
    parse_shipment,
)
from nestedge.packaging.source import Source, open_source

AUTO = "auto"
"""Stands for the device that this machine is."""

# No document comes near it, and memory holds it.
_DOCUMENT_LIMIT = 16 << 20


def fetch(
    source: str,
    *,
    device: str,
    destination: Path,
    only: CellFilter = CellFilter(),  # noqa: B008 - it is frozen
    after_each: Callable[[ShippedCell, int], None] | None = None,
) -> Shipment:
    """Copies what a repository has for a device into a folder, in place of what that had.

    Args:
        source: path or URL (file, http or https) of the repository.
        device: id, or "auto" for the known device that this machine is.
        destination: a new or empty folder, or one that was fetched before.
        only: which of the cells.
        after_each: is called with each cell that is there and the number of all, to show progress.

    Returns:
        What the folder has now; its shipment.json says only the chosen cells.

    Raises:
        UsageError: there is no repository, nothing for the device or no such cell, or the folder
            holds something else. After this and every other error it has its old content.
        FormatError: a document is not what it says it is.
        IntegrityError: a file is missing, or is not the one whose hash was recorded.
        NestedgeError: the server did not answer.
        OSError: the disk is full, or the folder cannot be written to.
    """
    destination = destination.resolve()
    _check_destination(destination)
    origin = open_source(source)
    name, entry = _find_entry(origin, device)
    content = _read_shipment(origin, entry)
    shipment = parse_shipment(parse_json(content, document=f"{source}: {SHIPMENT_FILE}"))
    _check_shipment(shipment, name, entry, size_bytes=len(content))
    cells = only.select(shipment.cells, where=f"device {name!r}")
    artifacts = []
    with replaced_folder(destination) as folder:
        for cell in cells:
            shipped = _ShippedFiles(origin, entry.folder, cell)
            artifacts.append(shipped.fetch_to(folder / cell.name))
            if after_each is not None:
                after_each(cell, len(cells))
        if not only.is_all:
            shipment = _narrowed(shipment, cells, artifacts)
            content = shipment.document
        write_synced(folder / SHIPMENT_FILE, content)
    return shipment


@dataclass(frozen=True)
class _ShippedFiles:
    """The files of one cell, in a repository.

    Attributes:
        origin: the repository.
        folder: of the shipment.
        cell: the cell.
    """

    origin: Source
    folder: str
    cell: ShippedCell

    def fetch_to(self, folder: Path) -> Artifact:
        """Writes all files into a folder; the artifact that they are."""
        limit = min(self.cell.size_bytes, _DOCUMENT_LIMIT)
        document = b"".join(self._chunks(DESCRIPTION_FILE, self.cell.sha256, limit))
        where = f"{self.cell.name}: {DESCRIPTION_FILE}"
        artifact = parse_artifact(parse_json(document, document=where), folder)
        check_artifact(self.cell, artifact)
        size_bytes = len(document) + sum(file.size_bytes for file in artifact.files.values())
        if size_bytes != self.cell.size_bytes:
            raise FormatError(
                f"{where}: expected files of {self.cell.size_bytes} bytes in all, as "
                f"{SHIPMENT_FILE} says, found {size_bytes}"
            )
        folder.mkdir(parents=True)
        for name, record in artifact.files.items():
            write_chunks(folder / name, self._file(name, record))
        write_synced(folder / DESCRIPTION_FILE, document)
        return artifact

    def _file(self, name: str, record: FileRecord) -> Iterator[bytes]:
        return self._chunks(name, record.sha256, record.size_bytes)

    def _chunks(self, name: str, sha256: str, limit: int) -> Iterator[bytes]:
        path = f"{self.folder}/{self.cell.name}/{name}"
        where = f"{self.cell.name}: {name}"
        return _checked_file(self.origin, path, sha256=sha256, limit=limit, where=where)


def _check_destination(folder: Path) -> None:
    """Refuses a folder whose content would be lost, or that the caller stands in."""
    if Path.cwd().resolve().is_relative_to(folder):
        raise UsageError(f"{folder}: you are in it, so it cannot be replaced; give another")
    if folder.is_dir():
        is_ours = (folder / SHIPMENT_FILE).is_file() or not any(folder.iterdir())
        if not is_ours:
            raise UsageError(f"{folder}: holds something else than a shipment; give a new folder")
    elif folder.exists():
        raise UsageError(f"{folder}: is a file; give a new folder")


def _find_entry(origin: Source, device: str) -> tuple[str, IndexEntry]:
    """The id of a device, and what the repository has for it."""
    try:
        content = b"".join(origin.chunks(INDEX_FILE, limit=_DOCUMENT_LIMIT))
    except FileNotFoundError as error:
        raise UsageError(
            f"{origin}: no {INDEX_FILE}, so no repository: make one with 'nestedge ship'"
        ) from error
    where = f"{origin}/{INDEX_FILE}"
    if len(content) > _DOCUMENT_LIMIT:
        raise FormatError(f"{where}: expected at most {_DOCUMENT_LIMIT} bytes, found more")
    index = parse_index(parse_json(content, document=where))
    name = matching_profile() or LOCAL if device == AUTO else device
    if name in index:
        return name, index[name]
    known = f"the repository has {sorted(index)}"
    if device == AUTO:
        found = "no known device" if name == LOCAL else repr(name)
        raise UsageError(f"{origin}: this machine is {found}; {known}: say which to fetch")
    raise UsageError(f"{origin}: nothing for device {name!r}; {known}{did_you_mean(name, index)}")


def _read_shipment(origin: Source, entry: IndexEntry) -> bytes:
    chunks = _checked_file(
        origin,
        f"{entry.folder}/{SHIPMENT_FILE}",
        sha256=entry.sha256,
        limit=min(entry.size_bytes, _DOCUMENT_LIMIT),
        where=f"{entry.folder}: {SHIPMENT_FILE}",
    )
    return b"".join(chunks)


def _checked_file(
    origin: Source, path: str, *, sha256: str, limit: int, where: str
) -> Iterator[bytes]:
    chunks = origin.chunks(path, limit=limit)
    try:
        yield from checked(chunks, sha256=sha256, limit=limit, where=where)
    except FileNotFoundError as error:
        raise IntegrityError(f"{where}: missing in {origin}; expected sha256 {sha256}") from error


def _check_shipment(shipment: Shipment, device: str, entry: IndexEntry, *, size_bytes: int) -> None:
    """Refuses a shipment that is not what the index says of it."""
    where = f"{entry.folder}: {SHIPMENT_FILE}"
    if shipment.device.id != device:
        raise FormatError(f"{where}: expected device {device!r}, found {shipment.device.id!r}")
    total = size_bytes + sum(cell.size_bytes for cell in shipment.cells)
    if total != entry.size_bytes:
        raise FormatError(
            f"{where}: expected files of {entry.size_bytes} bytes in all, as {INDEX_FILE} says, "
            f"found {total}"
        )


def _narrowed(
    shipment: Shipment, cells: Sequence[ShippedCell], artifacts: Sequence[Artifact]
) -> Shipment:
    """The shipment with some of its cells."""
    has_default = shipment.default in {cell.name for cell in cells}
    levels = {cell.level for cell in cells}
    return replace(
        shipment,
        levels=tuple(level for level in shipment.levels if level in levels),
        cells=tuple(cells),
        default=shipment.default if has_default else default_cell(artifacts),
    )
