"""What one needs to make the same files again: versions, hashes, and the commands to type."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from nestedge.matrix import Matrix
from nestedge.report.records import Records
from nestedge.selection import Budget

_FOLDER = "dist/"


@dataclass(frozen=True)
class Version:
    """A package that decides what is in the artifacts.

    Attributes:
        package: name of it.
        version: installed where they were made.
        used_for: the artifacts, by runtime and precision; all of them when empty.
    """

    package: str
    version: str
    used_for: tuple[str, ...]


@dataclass(frozen=True)
class ModelFile:
    """The model file of an artifact."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Reproduction:
    """How to make the artifacts again.

    Attributes:
        commands: lines to type in a shell.
        versions: of the packages that made them.
        files: what comes out of it.
    """

    commands: tuple[str, ...]
    versions: tuple[Version, ...]
    files: tuple[ModelFile, ...]


def reproduction(records: Records, *, budget: Budget | None) -> Reproduction:
    """How to make the artifacts of a build folder, and its report, again."""
    artifacts = records.artifacts.values()
    return Reproduction(
        commands=_commands(records, budget),
        versions=_versions(records),
        files=tuple(
            ModelFile(
                f"{found.cell}/{found.model}", found.size_bytes, found.files[found.model].sha256
            )
            for found in artifacts
        ),
    )


def _versions(records: Records) -> tuple[Version, ...]:
    """The versions that artifacts name as their makers'."""
    used: dict[tuple[str, str], list[str]] = {}
    kinds = set()
    for artifact in records.artifacts.values():
        kind = f"{artifact.runtime}-{artifact.precision}"
        kinds.add(kind)
        for package, version in artifact.producer.items():
            used.setdefault((package, version), []).append(kind)
    return tuple(
        Version(package, version, () if set(found) == kinds else tuple(sorted(set(found))))
        for (package, version), found in sorted(used.items())
    )


def _commands(records: Records, budget: Budget | None) -> tuple[str, ...]:
    matrix = records.matrix
    build = ["nestedge", "build", matrix.source.model, *_build_options(records)]
    return (
        shlex.join(["pip", "install", *_requirements(matrix)]),
        f"sha256sum {shlex.quote(matrix.source.model)}  # {matrix.source.sha256}",
        shlex.join(build),
        f"nestedge verify {_FOLDER}",
        *_profile(records),
        shlex.join(["nestedge", "report", _FOLDER, *_limits(budget), "-o", "report.html"]),
    )


def _requirements(matrix: Matrix) -> list[str]:
    """What to give to pip: the versions that decide the bytes, without the label of a build.

    "2.13.0+cpu" can be had from one index alone; "==2.13.0" accepts it wherever it is.
    """
    converters = matrix.source.converters.values()
    packages = {
        f"{package}=={version.partition('+')[0]}"
        for converter in converters
        for package, version in converter.packages.items()
    }
    return [f"nestedge[convert,report]=={matrix.nestedge}", *sorted(packages)]


def _build_options(records: Records) -> Iterator[str]:
    matrix = records.matrix
    targets = [target for device in matrix.devices.values() for target in device.targets]
    precisions = {precision for target in targets for precision in target.precisions}
    cells = matrix.cells.values()
    for device in sorted(matrix.devices):
        yield from ("-d", device)
    yield from _only("-t", [cell.runtime for cell in cells], {t.runtime for t in targets})
    yield from _only("-l", [cell.level for cell in cells], matrix.levels)
    yield from _only("-p", [cell.precision for cell in cells], precisions)
    # Data that did not come with the network came from a folder, whose name nobody kept.
    if matrix.calibration is not None and matrix.calibration != matrix.source.calibration:
        yield from ("--calibration", "CALIBRATION_FOLDER")
    limits = {found.drop.allowed for found in records.artifacts.values() if found.drop}
    if limits:
        # Where builds had several, the cells of the others are made anew.
        yield from ("--max-drop", f"{min(limits):g}", "--data", "TEST_SET.npz")
    yield from ("-o", _FOLDER)


def _only(option: str, found: Collection[str], every: Collection[str]) -> Iterator[str]:
    """What restricts a build to what was found, where that is not all."""
    if set(found) != set(every):
        for name in dict.fromkeys(found):
            yield from (option, name)


def _profile(records: Records) -> Iterator[str]:
    quantities = {found.quantity for found in records.measurements}
    threads = {found.threads for found in records.measurements}
    if not quantities:
        return
    data = " --data TEST_SET.npz" if "accuracy_percent" in quantities else ""
    for number in sorted(threads):
        yield f"nestedge profile {_FOLDER} --threads {number}{data}"


def _limits(budget: Budget | None) -> Iterator[str]:
    """The options that give a budget."""
    if budget is None:
        return
    if budget.latency_ms is not None:
        yield from ("--latency", f"{budget.latency_ms:g}ms")
    if budget.size_bytes is not None:
        yield from ("--size", f"{budget.size_bytes}B")
    if budget.memory_bytes is not None:
        yield from ("--memory", f"{budget.memory_bytes}B")
    if budget.min_accuracy is not None:
        yield from ("--min-accuracy", f"{budget.min_accuracy:g}")
