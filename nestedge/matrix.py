"""build.json: which cells a build folder has, for which devices, and why some are not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from nestedge.artifact import DESCRIPTION_FILE, Artifact, CalibrationRecord, read_artifact
from nestedge.devices.profile import DeviceProfile
from nestedge.documents import Value, json_bytes, read_json, write_whole
from nestedge.errors import Diagnosis, IntegrityError, UsageError, did_you_mean

MATRIX_FILE = "build.json"
FORMAT = 2

_PARTS = ("code", "operator", "source", "remedy")

State = Literal["built", "skipped", "failed"]


@dataclass(frozen=True)
class Cell:
    """One level for one runtime in one precision.

    Attributes:
        level: of the nested network.
        runtime: that its artifact is for.
        precision: as in "int8".
        state: what became of it.
        reason: why there is no artifact, and what to do; "" where there is one.
        log: what its converter printed before it failed: a path below the build folder, or "".
        code: of the reason, in `nestedge.reasons`; "" where there is an artifact.
        operator: that the converter fails on, or "".
        source: where that stands in the user's network, or "".
        remedy: what to do; the end of the reason too.
    """

    level: str
    runtime: str
    precision: str
    state: State = "built"
    reason: str = ""
    log: str = ""
    code: str = ""
    operator: str = ""
    source: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        """As in "small/onnx-fp32": also the folder of the artifact below the build folder."""
        return f"{self.level}/{self.runtime}-{self.precision}"

    def failed(self, why: Diagnosis, *, log: str) -> Cell:
        """The cell with the reason why it could not be made."""
        parts = {"code": why.code, "operator": why.operator, "source": why.source}
        return replace(self, state="failed", reason=why.line, log=log, remedy=why.remedy, **parts)


@dataclass(frozen=True)
class ConverterRecord:
    """What a build needs to know of a converter, without importing it.

    Attributes:
        precisions: that it has.
        packages: the installed versions of those that decide what it writes.
    """

    precisions: tuple[str, ...]
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a build was made from, as hashes: with the same ones, nothing has to be built.

    Attributes:
        model: name of the .nest.
        sha256: of the .nest.
        levels: hash of all that a level is made of, by level, in the order of the network.
        calibration: the data for it in the .nest, if there is some.
        converters: those that were asked, by name.
    """

    model: str
    sha256: str
    levels: Mapping[str, str]
    calibration: CalibrationRecord | None
    converters: Mapping[str, ConverterRecord]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The cells of a build folder.

    Attributes:
        nestedge: the version that built it.
        source: what it was built from.
        calibration: the data that int8 cells were calibrated with, if there was any.
        devices: the devices it was built for, by id.
        cells: every cell that one of them asked for, by name.
    """

    nestedge: str
    source: Source
    calibration: CalibrationRecord | None
    devices: Mapping[str, DeviceProfile]
    cells: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the network, in its order."""
        return tuple(self.source.levels)

    def of_device(self, device: str) -> tuple[Cell, ...]:
        """The cells of one device: levels in the network's order, then as its profile has them.

        Raises:
            UsageError: it was not built for such a device.
        """
        if device not in self.devices:
            raise UsageError(
                f"not built for device {device!r}; built for {sorted(self.devices)}"
                f"{did_you_mean(device, self.devices)}"
            )
        wanted = [
            f"{level}/{target.runtime}-{precision}"
            for level in self.levels
            for target in self.devices[device].targets
            for precision in target.precisions
        ]
        return tuple(self.cells[name] for name in wanted if name in self.cells)


def read_matrix(folder: Path) -> Matrix:
    """The matrix of a build folder.

    Raises:
        UsageError: it has none.
        FormatError: build.json is not one; the message names the field.
    """
    path = folder / MATRIX_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no {MATRIX_FILE}: make one with 'nestedge build'")
    document = read_json(path)
    # Format 1 had no codes.
    version = document.version(FORMAT, 1)
    nestedge, source, calibration, devices, cells = document.versioned(
        version, "nestedge", "source", "calibration", "devices", "cells"
    )
    found = [_cell(item, version=version) for item in cells.elements()]
    profiles = [DeviceProfile.from_json(item) for item in devices.elements()]
    return Matrix(
        nestedge=nestedge.string(),
        source=source_from_json(source),
        calibration=_calibration(calibration),
        devices={profile.id: profile for profile in profiles},
        cells={cell.name: cell for cell in found},
    )


def built_artifacts(folder: Path, cells: Iterable[Cell]) -> dict[str, Artifact]:
    """The artifacts of those of the cells that were built, by name, in their order.

    What else lies in a build folder, as from an older network, is not looked at.

    Raises:
        IntegrityError: one is gone, or is another than build.json says.
        FormatError: an artifact.json is not one; the message names the field.
    """
    found = {}
    for name in (cell.name for cell in cells if cell.state == "built"):
        if not (folder / name / DESCRIPTION_FILE).is_file():
            raise IntegrityError(f"{folder / name}: no artifact, though it was built; build again")
        artifact = read_artifact(folder / name)
        if artifact.cell != name:
            raise IntegrityError(
                f"{folder / name}: expected the artifact {name!r}, found {artifact.cell!r}; "
                "build again"
            )
        found[name] = artifact
    return found


def write_matrix(folder: Path, matrix: Matrix) -> None:
    """Writes build.json, whole.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    write_whole(folder / MATRIX_FILE, json_bytes(_to_json(matrix)))


def _to_json(matrix: Matrix) -> dict[str, object]:
    return {
        "format": FORMAT,
        "nestedge": matrix.nestedge,
        "source": source_to_json(matrix.source),
        "calibration": _record_json(matrix.calibration),
        "devices": [matrix.devices[name].to_json() for name in sorted(matrix.devices)],
        "cells": [asdict(cell) for _, cell in sorted(matrix.cells.items())],
    }


def source_to_json(source: Source) -> dict[str, object]:
    """The JSON object that `source_from_json` reads."""
    return {
        "model": source.model,
        "sha256": source.sha256,
        # A list, since the order of levels is the network's.
        "levels": [{"name": name, "sha256": sha} for name, sha in source.levels.items()],
        "calibration": _record_json(source.calibration),
        "converters": {
            name: {"precisions": list(found.precisions), "packages": dict(found.packages)}
            for name, found in source.converters.items()
        },
    }


def _record_json(record: CalibrationRecord | None) -> dict[str, object] | None:
    return None if record is None else record.to_json()


def source_from_json(value: Value) -> Source:
    """The source in a JSON object.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    model, sha256, levels, calibration, converters = value.fields(
        "model", "sha256", "levels", "calibration", "converters"
    )
    pairs = [item.fields("name", "sha256") for item in levels.elements()]
    return Source(
        model=model.string(),
        sha256=sha256.sha256(),
        levels={name.name(): sha.sha256() for name, sha in pairs},
        calibration=_calibration(calibration),
        converters={name: _converter(item) for name, item in converters.members().items()},
    )


def _converter(value: Value) -> ConverterRecord:
    precisions, packages = value.fields("precisions", "packages")
    return ConverterRecord(
        tuple(item.name() for item in precisions.elements()),
        {name: version.string() for name, version in packages.members().items()},
    )


def _calibration(value: Value) -> CalibrationRecord | None:
    given = value.optional()
    return None if given is None else CalibrationRecord.from_json(given)


def _cell(value: Value, *, version: int) -> Cell:
    level, runtime, precision, state, reason, log, *parts = value.fields(
        *("level", "runtime", "precision", "state", "reason", "log"),
        *(_PARTS if version > 1 else ()),
    )
    return Cell(
        level.name(),
        runtime.name(),
        precision.name(),
        state=state.choice("built", "skipped", "failed"),
        reason=reason.string(),
        log=log.string(),
        **{name: part.string() for name, part in zip(_PARTS, parts, strict=False)},
    )
