"""The page as data: everything on it, as text and as positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nestedge.artifact import Artifact, CalibrationRecord
from nestedge.profiling.measurement import Measurement
from nestedge.report.cells import Kind, Reading, accuracy_reading
from nestedge.report.devices import DeviceSection, device_section
from nestedge.report.records import Records
from nestedge.report.reproduction import Reproduction, reproduction
from nestedge.report.wording import count, plural, precision_rank, short_count
from nestedge.selection import Budget

_LABELS_SHOWN = 20
_WORDS: dict[Kind, str] = {
    "verified": "verified",
    "engine": "engine unbuilt",
    "unverified": "unverified",
    "skipped": "skipped",
    "failed": "failed",
}


@dataclass(frozen=True)
class LevelRow:
    """A level: its name, its parameters and multiply-accumulates, and what it is made of."""

    name: str
    parameters: str
    macs: str
    sha256: str


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies on one data set.

    Attributes:
        data_sha256: of the data set.
        samples: how many it has.
        columns: runtime and precision of each.
        rows: a level each, and its accuracies in the order of the columns; None is unmeasured.
    """

    data_sha256: str
    samples: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Reading | None, ...]], ...]


@dataclass(frozen=True)
class Tally:
    """How many cells are in a state."""

    kind: Kind
    text: str
    number: int


@dataclass(frozen=True)
class Report:
    """The page.

    Attributes:
        model: name of the .nest.
        sha256: of the .nest.
        nestedge: the version that built.
        machines: what was measured on which of them, in words.
        calibration: which data int8 was calibrated with, in words.
        labels: names of the classes, in words; "" where there are none.
        tally: of the cells, each counted once, however many devices run it.
        levels: in the order of the network.
        accuracies: a table for each data set.
        devices: this machine first, then in the order of their ids.
        budget: that artifacts were picked for, or "".
        reproduction: how to make the artifacts again.
    """

    model: str
    sha256: str
    nestedge: str
    machines: tuple[str, ...]
    calibration: tuple[str, ...]
    labels: str
    tally: tuple[Tally, ...]
    levels: tuple[LevelRow, ...]
    accuracies: tuple[AccuracyTable, ...]
    devices: tuple[DeviceSection, ...]
    budget: str
    reproduction: Reproduction


def report_data(records: Records, *, budget: Budget | None) -> Report:
    """All that the page says.

    Args:
        records: of the build folder.
        budget: to pick an artifact for on each device, if one is wanted.
    """
    matrix = records.matrix
    # What was measured comes before what was not.
    ids = sorted(matrix.devices, key=lambda name: (name not in records.here, name))
    devices = tuple(device_section(records, matrix.devices[name], budget=budget) for name in ids)
    return Report(
        model=matrix.source.model,
        sha256=matrix.source.sha256,
        nestedge=matrix.nestedge,
        machines=_machines(records.measurements),
        calibration=_calibration(records),
        labels=_labels(list(records.artifacts.values())),
        tally=_tally(devices),
        levels=tuple(_level_row(records, level) for level in matrix.levels),
        accuracies=tuple(_accuracy_tables(records)),
        devices=devices,
        budget="" if budget is None else str(budget),
        reproduction=reproduction(records, budget=budget),
    )


def _machines(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """Where anything was measured, and by which runtimes."""
    runtimes: dict[str, set[str]] = {}
    for found in measurements:
        runtimes.setdefault(found.device, set()).add(found.runtime_version)
    return tuple(f"{name}: {', '.join(sorted(runtimes[name]))}" for name in sorted(runtimes))


def _calibration(records: Records) -> tuple[str, ...]:
    """The data that artifacts were calibrated with, which may be older than the last build's."""
    used = {found.calibration for found in records.artifacts.values()} - {None}
    if not used and records.matrix.calibration is not None:
        used = {records.matrix.calibration}
    return tuple(sorted(_calibration_line(record) for record in used if record is not None))


def _calibration_line(record: CalibrationRecord) -> str:
    return f"{plural(record.cases, 'case')}, sha256 {record.sha256}"


def _labels(artifacts: Sequence[Artifact]) -> str:
    labels = next((found.labels for found in artifacts if found.labels), ())
    if not labels:
        return ""
    more = len(labels) - _LABELS_SHOWN
    rest = f" and {count(more)} more" if more > 0 else ""
    return f"{count(len(labels))}: {', '.join(labels[:_LABELS_SHOWN])}{rest}"


def _tally(devices: Sequence[DeviceSection]) -> tuple[Tally, ...]:
    kinds = {
        row.name: row.state.kind
        for device in devices
        for group in device.groups
        for row in group.rows
    }
    numbers = Counter(kinds.values())
    return tuple(Tally(kind, text, numbers[kind]) for kind, text in _WORDS.items())


def _level_row(records: Records, level: str) -> LevelRow:
    sha256 = records.matrix.source.levels[level]
    for artifact in records.artifacts.values():
        if artifact.level == level:
            macs = short_count(artifact.macs)
            return LevelRow(level, count(artifact.parameters), macs, sha256)
    return LevelRow(level, "unknown: nothing is built", "unknown", sha256)


def _accuracy_tables(records: Records) -> Iterator[AccuracyTable]:
    """A table for each data set, of the artifacts that were measured on it."""
    by_data: dict[str, dict[str, Measurement]] = {}
    for found in records.measurements:
        if found.quantity == "accuracy_percent":
            by_data.setdefault(found.data_sha256 or "", {})[found.cell] = found
    for data_sha256, measured in sorted(by_data.items()):
        artifacts = [records.artifacts[cell] for cell in measured]
        kinds = {(found.runtime, found.precision) for found in artifacts}
        columns = sorted(kinds, key=lambda kind: (kind[0], precision_rank(kind[1])))
        yield AccuracyTable(
            data_sha256=data_sha256,
            samples=" or ".join(count(n) for n in sorted({m.samples for m in measured.values()})),
            columns=tuple(columns),
            rows=tuple(
                (level, tuple(_accuracy(records, measured, level, kind) for kind in columns))
                for level in records.matrix.levels
            ),
        )


def _accuracy(
    records: Records, measured: Mapping[str, Measurement], level: str, kind: tuple[str, str]
) -> Reading | None:
    cell = f"{level}/{kind[0]}-{kind[1]}"
    found = measured.get(cell)
    return None if found is None else accuracy_reading(found, records.artifacts[cell])
