"""Artifacts in folders: written whole, found, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from nestedge.artifact.description import (
    DESCRIPTION_FILE,
    REFERENCE_FILE,
    Artifact,
    Description,
    FileRecord,
    description_json,
    parse_artifact,
)
from nestedge.artifact.reference import parse_reference
from nestedge.documents import file_sha256, json_bytes, parse_json, read_json, write_synced
from nestedge.errors import FormatError, IntegrityError, UsageError, did_you_mean
from nestedge.folders import replaced_folder


def write_artifact(
    folder: Path, description: Description, *, files: Mapping[str, bytes]
) -> Artifact:
    """Writes an artifact, in place of the one that may be there.

    A crash on the way leaves the old artifact, or in the instant of the swap none, and never half
    of one: see `nestedge.folders.replaced_folder`.

    Args:
        folder: of the artifact; its parents are made.
        description: what it is.
        files: content by name: the model, reference.safetensors and what else belongs to it.

    Raises:
        FormatError: the description or a file's name is one that could not be read back.
        OSError: the disk is full, or the folder cannot be written to.
    """
    records = {
        name: FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in files.items()
    }
    document = json_bytes(description_json(description, records))
    # What cannot be read back is not written.
    artifact = parse_artifact(parse_json(document, document=str(folder / DESCRIPTION_FILE)), folder)
    parse_reference(artifact, files[REFERENCE_FILE])
    with replaced_folder(folder) as temporary:
        for name, content in {**files, DESCRIPTION_FILE: document}.items():
            write_synced(temporary / name, content)
    return artifact


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder; its files are not looked at, see `check_integrity`.

    Raises:
        UsageError: the folder holds no artifact.
        FormatError: artifact.json is not one; the message names the field.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        around = (*_description_files(folder.parent), *_description_files(folder.parent.parent))
        near = {str(found.parent) for found in around}
        remedy = did_you_mean(str(folder), near) or "; make some with 'nestedge build'"
        raise UsageError(f"no artifact at {folder}{remedy}")
    return parse_artifact(read_json(path), folder)


def find_artifacts(folder: Path) -> list[Artifact]:
    """The artifacts in a build folder, in that of a level, or in that of one artifact, by cell.

    Raises:
        UsageError: there are none.
        FormatError: an artifact.json is not one, or two claim to be the same cell.
    """
    found = [parse_artifact(read_json(path), path.parent) for path in _description_files(folder)]
    if not found:
        state = "holds no artifact" if folder.is_dir() else "no such folder"
        if folder.is_file():
            state = "is a file, not the folder of a build"
        raise UsageError(f"{folder}: {state}: make some with 'nestedge build'")
    by_cell: dict[str, Artifact] = {}
    for artifact in found:
        other = by_cell.setdefault(artifact.cell, artifact)
        if other is not artifact:
            raise FormatError(
                f"{artifact.folder / DESCRIPTION_FILE}: cell {artifact.cell!r} is also at "
                f"{other.folder}; remove one of the two"
            )
    return [by_cell[cell] for cell in sorted(by_cell)]


def check_integrity(artifact: Artifact) -> None:
    """Compares every file with its recorded hash.

    Raises:
        IntegrityError: a file is missing or changed; the message has cell, file and both hashes.
    """
    for name, record in sorted(artifact.files.items()):
        path = artifact.folder / name
        if not path.is_file():
            raise IntegrityError(
                f"{artifact.cell}: {name}: missing; expected sha256 {record.sha256}; "
                "build or fetch it again"
            )
        found = file_sha256(path)
        if found != record.sha256:
            raise IntegrityError(
                f"{artifact.cell}: {name}: expected sha256 {record.sha256}, found {found}; "
                "build or fetch it again"
            )


def _description_files(folder: Path) -> list[Path]:
    patterns = (DESCRIPTION_FILE, f"*/{DESCRIPTION_FILE}", f"*/*/{DESCRIPTION_FILE}")
    found = (path for pattern in patterns for path in folder.glob(pattern))
    # A folder whose name has a leading dot is what an interrupted write left.
    return sorted(p for p in found if p.is_file() and not _is_hidden(p.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
