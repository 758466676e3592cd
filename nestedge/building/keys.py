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
from nestedge.precisions import PRECISIONS, WeightSteps


def cell_key(
    cell: Cell,
    *,
    level_sha256: str,
    converter: str,
    packages: Mapping[str, str],
    calibration_sha256: str | None,
    weight_steps: WeightSteps,
    max_drop: Mapping[str, object] | None = None,
) -> str:
    """A hash of all that an artifact is made from: with the same key it is the same bytes.

    Args:
        cell: which artifact.
        level_sha256: of all that its level is made of.
        converter: that makes it.
        packages: installed versions of those that decide what the converter writes.
        calibration_sha256: of the data that its ranges are taken from, where it has any.
        weight_steps: whose weights decide the steps of int8 ones.
        max_drop: what it may lose on which data, where that is limited.
    """
    precision = PRECISIONS[cell.precision]
    return hashlib.sha256(
        json_bytes(
            {
                "nestedge": __version__,
                "cell": cell.name,
                "level": level_sha256,
                "converter": converter,
                "packages": dict(packages),
                "tolerance": precision.tolerance,
                "calibration": calibration_sha256,
                "weight_steps": weight_steps if precision.is_calibrated else None,
                # Without a limit the key is the one that it has always been.
                **({} if max_drop is None else {"max_drop": dict(max_drop)}),
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
