"""What a build has to do: which cells are there and up to date, which are missing, which cannot be.

Everything is decided from hashes, so that a build with nothing to do never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nestedge import __version__
from nestedge.artifact import Artifact
from nestedge.building.keys import cell_key, found_artifact
from nestedge.building.pool import Pool, WorkerCrash
from nestedge.building.wanted import Request, is_limited
from nestedge.calibration import calibration_sha256
from nestedge.documents import Value, file_sha256
from nestedge.errors import NestedgeError, UsageError
from nestedge.matrix import Cell, Matrix, Source, source_from_json
from nestedge.precisions import PRECISIONS
from nestedge.profiling.labelled import read_labelled
from nestedge.reasons import REASONS, code_of

NO_CALIBRATION = "needs calibration data: give --calibration DIR, or nest with calibration inputs"


@dataclass(frozen=True)
class Plan:
    """What a build has to do.

    Attributes:
        cells: every cell asked for, built or skipped, by name.
        missing: keys of those that have to be made, by name.
        calibration_sha256: of the data that int8 is calibrated with; None where none is given.
        data_sha256: of the data that accuracy is measured on; None where no drop is limited.
    """

    cells: Mapping[str, Cell]
    missing: Mapping[str, str]
    calibration_sha256: str | None
    data_sha256: str | None


def find_source(model: Path, request: Request, before: Matrix | None, pool: Pool) -> Source:
    """What the network and the converters are: as recorded, or else as a worker finds them.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not a .nest.
        MissingDependencyError: the framework of a converter is not installed.
        IntegrityError: it is replaced while it is read.
        NestedgeError: the worker crashed.
    """
    if not model.is_file():
        raise UsageError(f"{model}: no such file")
    sha256 = file_sha256(model)
    asked = [request.converter(runtime) for runtime in request.targets()]
    recorded = before is not None and before.nestedge == __version__
    known = before.source if before and recorded and before.source.sha256 == sha256 else None
    if known and all(_is_current(known, converter) for converter in asked):
        return replace(known, model=model.name)
    described: dict[str, Any] = {"model": model.name, "sha256": sha256}
    question = {"do": "describe", "model": str(model), "sha256": sha256, "converters": asked}
    try:
        with pool.worker() as worker:
            for answer in worker.ask(question):
                described |= answer
    except WorkerCrash as crash:
        raise NestedgeError(
            f"{model}: the process that reads it ended with {crash.how}; is there enough memory?"
        ) from crash
    source = source_from_json(Value(described, "the worker's answer"))
    others = known.converters if known else {}
    return replace(source, converters={**others, **source.converters})


def make_plan(folder: Path, request: Request, source: Source) -> Plan:
    """What is missing in a build folder.

    Raises:
        UsageError: a level, runtime or precision does not exist, one that was asked for by name
            cannot be made, or a drop is limited that no cell can have.
        FormatError: the data that it is measured on is none.
    """
    data = None if request.max_drop is None else read_labelled(request.max_drop.data).sha256
    given = source.calibration.sha256 if source.calibration else None
    if request.calibration is not None:
        given = calibration_sha256(request.calibration)
    cells: dict[str, Cell] = {}
    missing: dict[str, str] = {}
    for cell in request.cells(source.levels):
        converter = request.converter(cell.runtime)
        artifact = found_artifact(folder, cell)
        calibration = _calibration_of(cell, given, artifact)
        key = _key(cell, source, request, calibration=calibration, data=data)
        reason = ""
        if cell.precision not in source.converters[converter].precisions:
            reason = f"converter {converter!r} does not have {cell.precision}"
        elif artifact is None or artifact.key != key:
            if PRECISIONS[cell.precision].is_calibrated and given is None:
                reason = f"{cell.precision} {NO_CALIBRATION}"
            else:
                missing[cell.name] = key
        cells[cell.name] = _skipped(cell, reason) if reason else cell
    for precision in request.precisions:
        _check_makable([cell for cell in cells.values() if cell.precision == precision])
    if request.max_drop is not None:
        _check_limited([cell for cell in cells.values() if is_limited(cell.precision)])
    return Plan(cells, missing, given, data)


def _skipped(cell: Cell, reason: str) -> Cell:
    code = code_of(reason, otherwise="converter-refused")
    remedy = REASONS[code].remedy
    return replace(cell, state="skipped", reason=reason, code=code, remedy=remedy)


def _check_makable(cells: Sequence[Cell]) -> None:
    """Refuses what was asked for by name where no runtime can have it, or its data is missing."""
    skipped = [cell for cell in cells if cell.reason]
    lacking = [cell for cell in skipped if cell.reason.endswith(NO_CALIBRATION)]
    if lacking or len(skipped) == len(cells):
        first = (lacking or skipped)[0]
        raise UsageError(f"{first.name}: {first.reason}")


def _check_limited(cells: Sequence[Cell]) -> None:
    """Refuses a limit where nothing can lose accuracy."""
    if not cells:
        known = [name for name in PRECISIONS if is_limited(name)]
        raise UsageError(f"--max-drop: no cell of {known} is asked for: give -p int8, or leave it")
    if all(cell.reason for cell in cells):
        raise UsageError(f"--max-drop: {cells[0].name}: {cells[0].reason}")


def _is_current(source: Source, converter: str) -> bool:
    """Whether the packages of a converter are still those that are recorded."""
    record = source.converters.get(converter)
    try:
        return record is not None and all(
            version(package) == recorded for package, recorded in record.packages.items()
        )
    except PackageNotFoundError:
        return False


def _key(
    cell: Cell, source: Source, request: Request, *, calibration: str | None, data: str | None
) -> str:
    converter = request.converter(cell.runtime)
    limit = request.max_drop if is_limited(cell.precision) else None
    return cell_key(
        cell,
        level_sha256=source.levels[cell.level],
        converter=converter,
        packages=source.converters[converter].packages,
        calibration_sha256=calibration,
        weight_steps=request.weight_steps,
        max_drop=None if limit is None else {"points": limit.points, "data": data},
    )


def _calibration_of(cell: Cell, given: str | None, artifact: Artifact | None) -> str | None:
    """The calibration data of a cell: what is given now, or what its artifact was made with."""
    if not PRECISIONS[cell.precision].is_calibrated:
        return None
    if given is None and artifact is not None and artifact.calibration is not None:
        return artifact.calibration.sha256
    return given
