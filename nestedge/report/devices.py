"""The section of one device: its matrix, its chart, the pick for it, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.devices.profile import DeviceProfile, Figure, Target
from nestedge.errors import BudgetError, UsageError, VerificationError
from nestedge.matrix import Cell
from nestedge.report.cells import CellRow, cell_row
from nestedge.report.records import Records
from nestedge.report.tradeoff import Chart, tradeoff
from nestedge.report.wording import UNMEASURED, plural, short_count
from nestedge.selection import Budget, Candidate, select


@dataclass(frozen=True)
class Pick:
    """The artifact to use on a device, or why there is none.

    Attributes:
        budget: that it was picked for.
        chosen: its cell, or "".
        reason: why this one, or why none.
        notes: what the choice leaves open.
        reasons: why each cell is it, or is not.
    """

    budget: str
    chosen: str
    reason: str
    notes: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class LevelRows:
    """The cells of one level.

    Attributes:
        level: name of it.
        size: its parameters and multiply-accumulates; "" where nothing of it is built.
        rows: its cells.
    """

    level: str
    size: str
    rows: tuple[CellRow, ...]


@dataclass(frozen=True)
class Fact:
    """Something that is known of a device, and where from."""

    name: str
    value: str
    confidence: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DeviceSection:
    """A device.

    Attributes:
        id: of it.
        name: for people.
        kind: of device.
        targets: what it runs, in words.
        groups: its cells, by level.
        is_timed: whether latencies were measured on it.
        has_loads: whether load times were measured on it.
        pick: None without a budget.
        notes: what is to be known about the figures, a line each.
        chart: accuracy against what it costs.
        facts: with their sources.
    """

    id: str
    name: str
    kind: str
    targets: tuple[str, ...]
    groups: tuple[LevelRows, ...]
    is_timed: bool
    has_loads: bool
    pick: Pick | None
    notes: tuple[str, ...]
    chart: Chart
    facts: tuple[Fact, ...]


def device_section(
    records: Records, profile: DeviceProfile, *, budget: Budget | None
) -> DeviceSection:
    """All that the page says of a device.

    Args:
        records: of the build folder.
        profile: of the device, one that the folder was built for.
        budget: to pick an artifact for, if one is wanted.
    """
    cells, known = records.matrix.of_device(profile.id), records.known(profile.id)
    elsewhere = None if profile.id in records.here else profile.id
    pick = None if budget is None else _pick(known, budget, elsewhere=elsewhere)
    rows = [_row(records, cell, profile.id, known, pick) for cell in cells]
    figures = [row.figures for row in rows if row.figures is not None]
    return DeviceSection(
        id=profile.id,
        name=profile.name,
        kind=profile.kind,
        targets=tuple(_target_line(target) for target in profile.targets),
        groups=tuple(
            LevelRows(
                level,
                _level_size(records, level),
                tuple(row for cell, row in zip(cells, rows, strict=True) if cell.level == level),
            )
            for level in dict.fromkeys(cell.level for cell in cells)
        ),
        is_timed=any(found.latency for found in figures),
        has_loads=any(found.load for found in figures),
        pick=pick,
        notes=_notes(records, known, profile.id),
        chart=tradeoff(
            cells,
            known,
            levels=records.matrix.levels,
            picked=pick.chosen if pick else "",
        ),
        facts=_facts(profile),
    )


def _row(
    records: Records, cell: Cell, device: str, known: Mapping[str, Candidate], pick: Pick | None
) -> CellRow:
    picked = pick.chosen if pick else ""
    why = pick.reasons.get(cell.name, "") if pick else ""
    return cell_row(records, cell, device, known=known.get(cell.name), picked=picked, why=why)


def _level_size(records: Records, level: str) -> str:
    for artifact in records.artifacts.values():
        if artifact.level == level:
            return f"{plural(artifact.parameters, 'parameter')}, {short_count(artifact.macs)} MACs"
    return ""


def _pick(known: Mapping[str, Candidate], budget: Budget, *, elsewhere: str | None) -> Pick:
    try:
        found = select(list(known.values()), budget, elsewhere=elsewhere)
    except (BudgetError, UsageError, VerificationError) as error:
        return Pick(str(budget), "", str(error), (), {})
    reason = found.reasons[found.chosen]
    return Pick(str(budget), found.chosen, reason, found.notes, found.reasons)


def _notes(records: Records, known: Mapping[str, Candidate], device: str) -> tuple[str, ...]:
    """Where the figures come from, if not from the device, and what is not known."""
    timed = [found.latency for found in known.values() if found.latency is not None]
    rated = [found.accuracy for found in known.values() if found.accuracy is not None]
    checked = [found for found in records.verifications if found.cell in known]
    elsewhere = {
        found.device
        for found in records.measurements
        if found.quantity == "latency_ms" and found.cell in known and found not in timed
    }
    runs = [(t.device, f"{t.runtime_version} on {plural(t.threads, 'thread')}") for t in timed]
    return (
        *(f"Latencies are of runs on {line}." for line in _places(runs)),
        *(
            f"Latencies of these files on {machine} say nothing of {device}, and are not shown."
            for machine in sorted(elsewhere)
        ),
        *(
            f"Accuracies are of these very files, {line}."
            for line in _places(
                [(f"{found.origin} on {found.device}", found.runtime_version) for found in rated]
            )
        ),
        *(
            f"Verified on {line}."
            for line in _places([(found.device, found.runtime_version) for found in checked])
        ),
        *(
            f"{note[0].upper()}{note[1:]}: "
            f"{', '.join(name for name, found in known.items() if found.note == note)}."
            for note in dict.fromkeys(found.note for found in known.values() if found.note)
        ),
    )


def _places(runs: Sequence[tuple[str, str]]) -> list[str]:
    """Machines, each with all that ran on it.

    >>> _places([("a board", "onnx 1"), ("a board", "tflite 2"), ("a board", "onnx 1")])
    ['a board, in onnx 1 and tflite 2']
    """
    machines = sorted({machine for machine, _ in runs})
    return [
        f"{machine}, in {' and '.join(sorted({ran for at, ran in runs if at == machine}))}"
        for machine in machines
    ]


def _target_line(target: Target) -> str:
    return f"{target.runtime} {', '.join(target.versions)}: {', '.join(target.precisions)}"


def _facts(profile: DeviceProfile) -> tuple[Fact, ...]:
    runtimes = [
        Fact(f"runtime.{t.runtime}", _target_line(t), t.confidence, t.source or UNMEASURED)
        for t in profile.targets
    ]
    figures = [
        Fact(name, _value_text(figure), figure.confidence, figure.source)
        for name, figure in sorted(profile.figures.items())
    ]
    return (*figures, *runtimes)


def _value_text(figure: Figure) -> str:
    value = figure.value
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
