"""A build: what is missing is made by workers, what is there stays."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nestedge import __version__
from nestedge.artifact import CalibrationRecord, read_artifact
from nestedge.building.planning import Plan, find_source, make_plan
from nestedge.building.pool import Job, Pool, run_jobs
from nestedge.building.wanted import Request
from nestedge.errors import Diagnosis, FormatError, NestedgeError, UsageError
from nestedge.matrix import MATRIX_FILE, Cell, Matrix, Source, read_matrix, write_matrix
from nestedge.precisions import PRECISIONS

LOCK_FILE = ".lock"
# With a dot, which no level has in its name.
LOG_FOLDER = "build.logs"


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        matrix: every cell of the folder.
        asked: those that this build was asked for, by name.
        made: names of those that were not there, or not up to date.
    """

    matrix: Matrix
    asked: Mapping[str, Cell]
    made: frozenset[str]


def build(
    model: Path,
    folder: Path,
    request: Request,
    *,
    processes: int = 1,
    after_each: Callable[[Cell, int], None] | None = None,
) -> Built:
    """Build the cells of a network that some devices have.

    Artifacts are written to `folder/<level>/<runtime>-<precision>`. One that is there, whole, and
    made from the same things stays; so a second build makes what is missing and nothing else,
    whatever ended the first. One whose converter fails does not stop the others. Cells of other
    devices that an earlier build of the same network made stay in build.json.

    Args:
        model: a .nest.
        folder: is made if need be.
        request: devices, and what of theirs.
        processes: how many convert at a time; each takes about 1 GB.
        after_each: is called with every cell that is finished, and how many are to be made; never
            by two threads at once.

    Raises:
        UsageError: a level, runtime or precision does not exist, or one that was asked for by name
            cannot be made; or another build is writing to the folder.
        FormatError: the .nest is not one.
        IntegrityError: the .nest or the calibration data is replaced in the meantime.
        NestedgeError: the disk is full; what was built by then stays, and need not be built again.
        OSError: the folder cannot be written to.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    with _space_told(folder), _locked(folder), _workers() as pool:
        _remove_leftovers(folder)
        before = _matrix(folder)
        source = find_source(model, request, before, pool)
        plan = make_plan(folder, request, source)
        cells = dict(plan.cells)

        def finish(cell: Cell) -> None:
            cells[cell.name] = cell
            if after_each is not None:
                after_each(cell, len(plan.missing))

        jobs = _jobs(model, folder, request, plan, sha256=source.sha256)
        for job in jobs:
            (folder / job.request["log"]).unlink(missing_ok=True)
        run_jobs(
            jobs,
            pool,
            processes=processes,
            after_each=lambda job, answer: finish(_finished(plan, job, answer)),
        )
        matrix = _matrix_after(before, source, request, cells, folder)
        write_matrix(folder, matrix)
        _remove_logs(folder, keep={cell.log for cell in matrix.cells.values()})
    return Built(matrix, cells, frozenset(plan.missing))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            yield
    except Timeout as error:
        raise UsageError(f"{folder}: another build is writing to it; wait for it") from error


@contextmanager
def _space_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NestedgeError(
            f"{folder}: the disk is full; what is built stays: free some space and build again"
        ) from error


@contextmanager
def _workers() -> Iterator[Pool]:
    pool = Pool()
    try:
        yield pool
    finally:
        pool.stop()


def _remove_leftovers(folder: Path) -> None:
    """Removes what a killed build was in the middle of writing; the lock says that none is."""
    for pattern in ("*/.*.tmp", "*/.*.old", f".{MATRIX_FILE}.*.tmp"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _remove_logs(folder: Path, *, keep: Set[str]) -> None:
    """Removes what was printed where nothing went wrong, now or before an earlier build ended."""
    logs = folder / LOG_FOLDER
    for log in logs.glob("*"):
        if f"{LOG_FOLDER}/{log.name}" not in keep:
            log.unlink()
    # One that holds the log of a failure stays.
    with suppress(OSError):
        logs.rmdir()


def _matrix(folder: Path) -> Matrix | None:
    """What an earlier build has left; one that cannot be read is made anew."""
    try:
        return read_matrix(folder)
    except (UsageError, FormatError):
        return None


def _jobs(model: Path, folder: Path, request: Request, plan: Plan, *, sha256: str) -> list[Job]:
    """The cells to make, by level and converter."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, key in plan.missing.items():
        cell = plan.cells[name]
        steps = request.weight_steps
        item = {"cell": name, "precision": cell.precision, "weight_steps": steps, "key": key}
        groups.setdefault((cell.level, request.converter(cell.runtime)), []).append(item)
    return [
        Job(
            {
                "do": "make",
                "model": str(model),
                "sha256": sha256,
                "folder": str(folder),
                "level": level,
                "converter": converter,
                "calibration": None if request.calibration is None else str(request.calibration),
                "calibration_sha256": plan.calibration_sha256,
                "max_drop": _max_drop(request, plan),
                "log": f"{LOG_FOLDER}/{level}.{converter}.log",
            },
            cells,
        )
        for (level, converter), cells in groups.items()
    ]


def _max_drop(request: Request, plan: Plan) -> dict[str, Any] | None:
    limit = request.max_drop
    if limit is None:
        return None
    return {"points": limit.points, "data": str(limit.data), "sha256": plan.data_sha256}


def _finished(plan: Plan, job: Job, answer: Mapping[str, Any]) -> Cell:
    """A cell after its job."""
    if "made" in answer:
        return plan.cells[answer["made"]]
    cell = plan.cells[answer["failed"]]
    parts = {name: answer[name] for name in ("code", "said", "remedy", "operator", "source")}
    return cell.failed(Diagnosis(**parts), log=job.request["log"])


def _matrix_after(
    before: Matrix | None,
    source: Source,
    request: Request,
    asked: Mapping[str, Cell],
    folder: Path,
) -> Matrix:
    """What the folder has now: of the same network also what was built for other devices."""
    same = before if before and before.source.levels == source.levels else None
    cells = {**(same.cells if same else {}), **asked}
    return Matrix(
        nestedge=__version__,
        source=source,
        calibration=_calibration(folder, cells),
        devices={
            **(same.devices if same else {}),
            **{device.id: device for device in request.devices},
        },
        cells=cells,
    )


def _calibration(folder: Path, cells: Mapping[str, Cell]) -> CalibrationRecord | None:
    """The data that the cells with ranges were calibrated with."""
    for cell in cells.values():
        if PRECISIONS[cell.precision].is_calibrated and cell.state == "built":
            with suppress(UsageError, FormatError):
                return read_artifact(folder / cell.name).calibration
    return None
