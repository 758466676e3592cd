"""Whether a cell on disk is the one that would be made now: a hash of all that it is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from nestedge import __version__
from nestedge.artifact import (
    DESCRIPTION_FILE,
    Artifact,
    check_integrity,
    read_artifact,
)
from nestedge.documents import json_bytes
from nestedge.errors import FormatError, IntegrityError
from nestedge.matrix import Cell

TOLERANCES: Mapping[str, float] = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.1}
"""Largest error of an artifact, relative to the largest reference value, by precision."""


def cell_key(
    cell: Cell,
    *,
    level_sha256: str,
    converter: str,
    packages: Mapping[str, str],
    calibration_sha256: str | None,
) -> str:
    """A hash of all that an artifact is made from: with the same key it is the same bytes.

    Args:
        cell: which artifact.
        level_sha256: of all that its level is made of.
        converter: that makes it.
        packages: installed versions of those that decide what the converter writes.
        calibration_sha256: of the data that its ranges are taken from, where it has any.
    """
    return hashlib.sha256(
        json_bytes(
            {
                "nestedge": __version__,
                "cell": cell.name,
                "level": level_sha256,
                "converter": converter,
                "packages": dict(packages),
                "tolerance": TOLERANCES[cell.precision],
                "calibration": calibration_sha256,
            }
        )
    ).hexdigest()


def found_artifact(folder: Path, cell: Cell) -> Artifact | None:
    """The artifact of a cell in a build folder, whole; None where there is none, or a damaged one.

    One that is damaged is as good as none here: it will be built again.
    """
    path = folder / cell.name
    if not (path / DESCRIPTION_FILE).is_file():
        return None
    try:
        artifact = read_artifact(path)
        check_integrity(artifact)
    except (FormatError, IntegrityError):
        return None
    return artifact
