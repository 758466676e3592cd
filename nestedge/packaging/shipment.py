"""shipment.json, which says what a device gets, and index.json, which says it of every device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact import DESCRIPTION_FILE, Artifact
from nestedge.artifact.description import parse_artifact
from nestedge.devices.profile import DeviceProfile
from nestedge.documents import Value, json_bytes, parse_json, read_json
from nestedge.errors import IntegrityError, UsageError

INDEX_FILE = "index.json"
SHIPMENT_FILE = "shipment.json"
FORMAT = 1


@dataclass(frozen=True)
class ShippedCell:
    """One artifact of a shipment.

    Attributes:
        level: of the nested network.
        runtime: that the artifact is for.
        precision: as in "int8".
        sha256: of its artifact.json, which has those of its other files.
        size_bytes: of all its files.
    """

    level: str
    runtime: str
    precision: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """As in "small/onnx-fp32": also the folder of the artifact below the shipment's."""
        return f"{self.level}/{self.runtime}-{self.precision}"


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What one device gets.

    Attributes:
        nestedge: the version that built it.
        device: that it is for.
        model: name of the .nest.
        model_sha256: of the .nest.
        levels: that it has, in the order of the network.
        cells: its artifacts, the device's favourite runtime first.
        default: name of the cell that runs where nobody says.
    """

    nestedge: str
    device: DeviceProfile
    model: str
    model_sha256: str
    levels: tuple[str, ...]
    cells: tuple[ShippedCell, ...]
    default: str

    @property
    def document(self) -> bytes:
        """The content of shipment.json."""
        return json_bytes(_to_json(self))

    @property
    def sha256(self) -> str:
        """Of shipment.json."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def folder(self) -> str:
        """Name of its folder in a repository: that of other content is another."""
        return f"{self.device.id}-{self.sha256[:16]}"

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return len(self.document) + sum(cell.size_bytes for cell in self.cells)


@dataclass(frozen=True)
class IndexEntry:
    """Where a repository has the shipment of a device.

    Attributes:
        folder: name of its folder.
        sha256: of its shipment.json.
        size_bytes: of all its files.
    """

    folder: str
    sha256: str
    size_bytes: int


def read_shipment(folder: Path) -> Shipment:
    """The shipment in a folder; its artifacts are not looked at.

    Raises:
        UsageError: the folder has no shipment.json.
        FormatError: shipment.json is not one; the message names the field.
    """
    path = folder / SHIPMENT_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no {SHIPMENT_FILE}: get one with 'nestedge fetch'")
    return parse_shipment(read_json(path))


def read_shipped(folder: Path) -> list[Artifact]:
    """The artifacts of the shipment in a folder, in its order.

    Every artifact.json has the hash that shipment.json says; the other files are not looked at, see
    `nestedge.artifact.check_integrity`.

    Raises:
        UsageError: the folder has no shipment.json.
        FormatError: a document is not what it says it is.
        IntegrityError: an artifact.json is missing or changed.
    """
    return [_read_cell(folder, cell) for cell in read_shipment(folder).cells]


def parse_shipment(document: Value) -> Shipment:
    """The shipment in the document of a shipment.json.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    nestedge, device, model, levels, cells, default = document.versioned(
        FORMAT, "nestedge", "device", "model", "levels", "cells", "default"
    )
    name, sha256 = model.fields("name", "sha256")
    shipment = Shipment(
        nestedge=nestedge.string(),
        device=DeviceProfile.from_json(device),
        model=name.string(),
        model_sha256=sha256.sha256(),
        levels=tuple(level.name() for level in levels.elements()),
        cells=tuple(_cell(cell) for cell in cells.elements()),
        default=default.string(),
    )
    names = [cell.name for cell in shipment.cells]
    if len(set(names)) < len(names) or not names:
        raise cells.error("at least one cell, and each of them once")
    if {*shipment.levels} != {cell.level for cell in shipment.cells}:
        raise levels.error("the levels of the cells")
    if SHIPMENT_FILE in shipment.levels:
        raise levels.error(f"levels of other names than {SHIPMENT_FILE}")
    if shipment.default not in names:
        raise default.error(f"one of the cells {names}")
    return shipment


def parse_index(document: Value) -> dict[str, IndexEntry]:
    """The shipments of a repository, by device, in the document of an index.json.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    (devices,) = document.versioned(FORMAT, "devices")
    return {name: _entry(value) for name, value in devices.members().items()}


def index_bytes(entries: Mapping[str, IndexEntry]) -> bytes:
    """The content of index.json."""
    devices = {
        name: {"folder": entry.folder, "sha256": entry.sha256, "bytes": entry.size_bytes}
        for name, entry in entries.items()
    }
    return json_bytes({"format": FORMAT, "devices": devices})


def check_artifact(cell: ShippedCell, artifact: Artifact) -> None:
    """Refuses an artifact that is another cell than the shipment says.

    Raises:
        IntegrityError: it is.
    """
    if artifact.cell != cell.name:
        raise IntegrityError(f"{cell.name}: {DESCRIPTION_FILE}: is that of {artifact.cell!r}")


def _read_cell(folder: Path, cell: ShippedCell) -> Artifact:
    path = folder / cell.name / DESCRIPTION_FILE
    if not path.is_file():
        raise IntegrityError(
            f"{cell.name}: {DESCRIPTION_FILE}: missing; expected {cell.sha256}; fetch it again"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != cell.sha256:
        raise IntegrityError(
            f"{cell.name}: {DESCRIPTION_FILE}: expected sha256 {cell.sha256}, found {found}; "
            "fetch it again"
        )
    artifact = parse_artifact(parse_json(content, document=str(path)), path.parent)
    check_artifact(cell, artifact)
    return artifact


def _cell(value: Value) -> ShippedCell:
    level, runtime, precision, sha256, size_bytes = value.fields(
        "level", "runtime", "precision", "sha256", "bytes"
    )
    return ShippedCell(
        level.name(),
        runtime.name(),
        precision.name(),
        sha256=sha256.sha256(),
        size_bytes=size_bytes.integer(minimum=1),
    )


def _entry(value: Value) -> IndexEntry:
    folder, sha256, size_bytes = value.fields("folder", "sha256", "bytes")
    return IndexEntry(folder.name(), sha256.sha256(), size_bytes.integer(minimum=1))


def _to_json(shipment: Shipment) -> dict[str, object]:
    return {
        "format": FORMAT,
        "nestedge": shipment.nestedge,
        "device": shipment.device.to_json(),
        "model": {"name": shipment.model, "sha256": shipment.model_sha256},
        "levels": list(shipment.levels),
        "cells": [
            {
                "level": cell.level,
                "runtime": cell.runtime,
                "precision": cell.precision,
                "sha256": cell.sha256,
                "bytes": cell.size_bytes,
            }
            for cell in shipment.cells
        ],
        "default": shipment.default,
    }
