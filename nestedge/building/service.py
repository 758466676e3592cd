"""What a worker does: describe a network, and make cells of it."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from nestedge.artifact import write_artifact
from nestedge.building.cells import (
    Draft,
    Level,
    draft_artifact,
    find_calibration,
    level_hashes,
    prepare_level,
)
from nestedge.building.checks import check_numbers, check_opens, check_quantisable
from nestedge.building.fallback import Limit, draft_within, find_limit
from nestedge.building.sensitivity import rank_layers
from nestedge.building.wanted import is_limited
from nestedge.calibration import Calibration
from nestedge.convert import Converter, Exported, mixed_precisions
from nestedge.diagnosis import diagnose
from nestedge.documents import file_sha256
from nestedge.errors import Diagnosis, IntegrityError, NestedgeError
from nestedge.model import NestedModel
from nestedge.nestfile import load
from nestedge.plugins import load_converter, load_runtime
from nestedge.precisions import PRECISIONS
from nestedge.profiling.labelled import LabelledData, read_labelled
from nestedge.program.graph import Program
from nestedge.redirection import output_to

Answer = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Why a converter did not do its part."""

    diagnosis: Diagnosis

    def answer(self, cell: str) -> Answer:
        """What is told of a cell that fails so."""
        return {"failed": cell, **asdict(self.diagnosis)}


class Service:
    """Answers the requests of one build, keeping what it has loaded between them."""

    def __init__(self) -> None:
        # Sums in one order, whatever the number of cores and of workers.
        torch.set_num_threads(1)
        self._nested: dict[str, NestedModel] = {}
        self._levels: dict[str, Level] = {}
        self._calibrations: dict[str | None, Calibration | None] = {}
        self._labelled: dict[str, LabelledData] = {}
        self._limits: dict[str, Limit] = {}

    def serve(self, request: Answer) -> Iterator[Answer]:
        """The answers to one request.

        Raises:
            NestedgeError: what is asked for does not exist.
            IntegrityError: the .nest or the calibration data is not the planned one.
            OSError: the disk is full, or the folder cannot be written to.
        """
        return self._describe(request) if request["do"] == "describe" else self._make(request)

    def _describe(self, request: Answer) -> Iterator[Answer]:
        nested = self._network(request)
        stored = nested.calibration
        record = None if stored is None else {"sha256": stored.sha256, "cases": stored.cases}
        yield {
            "levels": [{"name": name, "sha256": sha} for name, sha in level_hashes(nested).items()],
            "calibration": record,
            "converters": {name: _described(name) for name in request["converters"]},
        }

    def _make(self, request: Answer) -> Iterator[Answer]:
        """Cells of one level and one converter; the level is traced once."""
        nested = self._network(request)
        converter, folder = load_converter(request["converter"]), Path(request["folder"])
        calibration = self._calibration(nested, request)
        log = folder / request["log"]
        with _logged(log):
            level = attempt(partial(self._level, nested, request["level"]))
            limit = None if isinstance(level, Failure) else self._limit(level, request)
            program = None if isinstance(level, Failure) else level.program.program
            exported = level if isinstance(level, Failure) else _export(converter, level)
        for item in request["cells"]:
            yield {"begun": item["cell"]}
            if isinstance(level, Failure):
                yield level.answer(item["cell"])
                continue
            if isinstance(exported, Failure):
                yield exported.answer(item["cell"])
                continue
            with _logged(log):
                making = partial(draft, item, level, exported, converter, calibration, limit)
                made = attempt(making, program)
            if isinstance(made, Failure):
                yield made.answer(item["cell"])
            else:
                yield _written(made, folder, item["cell"])

    def _level(self, nested: NestedModel, name: str) -> Level:
        if name not in self._levels:
            # One at a time: the levels of a large network would not fit into memory together.
            level = prepare_level(nested, name)
            check_numbers(level)
            self._levels = {name: level}
        return self._levels[name]

    def _limit(self, level: Level, request: Answer) -> Limit | None:
        """What the cells of a level may lose, where that is limited and one can lose anything."""
        asked = request["max_drop"]
        if asked is None or not any(is_limited(item["precision"]) for item in request["cells"]):
            return None
        path = asked["data"]
        if path not in self._labelled:
            data = read_labelled(Path(path))
            _check_same(f"data: {path}", data.sha256, planned=asked["sha256"])
            self._labelled = {path: data}
        if level.name not in self._limits:
            found = find_limit(level, self._labelled[path], points=asked["points"])
            self._limits[level.name] = found
        return self._limits[level.name]

    def _network(self, request: Answer) -> NestedModel:
        path, sha256 = request["model"], request["sha256"]
        if path not in self._nested:
            nested = load(path)
            # After it was read: one that has been replaced since the plan, or meanwhile, shows.
            _check_same(path, file_sha256(Path(path)), planned=sha256)
            self._nested = {path: nested}
        return self._nested[path]

    def _calibration(self, nested: NestedModel, request: Answer) -> Calibration | None:
        folder = request["calibration"]
        if folder not in self._calibrations:
            found = find_calibration(nested, None if folder is None else Path(folder))
            if found is not None:
                planned = request["calibration_sha256"]
                _check_same(f"calibration: {folder}", found.sha256, planned=planned)
            self._calibrations = {folder: found}
        return self._calibrations[folder]


def _written(made: Draft, folder: Path, cell: str) -> Answer:
    try:
        write_artifact(folder / cell, made.description, files=made.files)
    except NestedgeError as error:
        return Failure(diagnose(error, None)).answer(cell)
    return {"made": cell}


def _check_same(what: str, found: str, *, planned: str) -> None:
    """Refuses what is not what the cells were planned, and will be named, by."""
    if found != planned:
        raise IntegrityError(
            f"{what}: changed during the build: expected sha256 {planned}, found {found}; "
            "build again"
        )


def _described(name: str) -> Answer:
    converter = load_converter(name)
    packages = {package: version(package) for package in converter.packages}
    # One that runs a program from outside says which version that has.
    told: Callable[[], str] | None = getattr(converter, "version", None)
    if told is not None:
        packages[name] = told()
    return {"precisions": list(converter.precisions), "packages": packages}


def draft(
    item: Answer,
    level: Level,
    exported: Exported,
    converter: Converter,
    calibration: Calibration | None,
    limit: Limit | None,
) -> Draft:
    """The artifact of a cell, which the runtime that is to run it opens.

    Raises:
        NestedgeError: the converter cannot make it, the runtime does not open it, or it loses more
            accuracy than it may.
    """
    precision = item["precision"]
    check_quantisable(level, precision)
    given = calibration if PRECISIONS[precision].is_calibrated else None

    def make(half_layers: Sequence[str]) -> Draft:
        made = draft_artifact(
            level,
            exported,
            converter,
            precision=precision,
            calibration=given,
            weight_steps=item["weight_steps"],
            key=item["key"],
            half_layers=half_layers,
        )
        check_opens(made, runtime=converter.checked_by)
        return made

    if limit is None or given is None or not is_limited(precision):
        return make(())

    def ranked() -> list[str]:
        if precision not in mixed_precisions(converter):
            return []
        bits = 8 * PRECISIONS[precision].activation_bytes
        found = rank_layers(
            level.program,
            given.inputs,
            activation_bits=bits,
            weight_steps=item["weight_steps"],
        )
        return [layer.weight for layer in found]

    return draft_within(limit, make, ranked=ranked, runtime=load_runtime(converter.checked_by))


def _export(converter: Converter, level: Level) -> Exported | Failure:
    return attempt(partial(converter.export, level.program), level.program.program)


def attempt(action: Callable[[], Result], program: Program | None = None) -> Result | Failure:
    """What an action gives, or why it does not: whatever a framework raises fails one cell.

    Args:
        action: what to do.
        program: of the level, in which the operator that fails is looked up.

    Raises:
        OSError: the disk is full, so that the next cell would fail as well.
    """
    try:
        return action()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        traceback.print_exc()
        return Failure(diagnose(error, program))


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Sends what Python and C++ write to stdout and stderr to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file, output_to(file):
        yield
