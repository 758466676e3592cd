"""One cell of the matrix of a device: its state, and every figure that is known of it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nestedge.artifact import Artifact
from nestedge.matrix import Cell
from nestedge.profiling.measurement import Measurement
from nestedge.report.records import Records
from nestedge.report.wording import between, decimals, error, plural, short_hash
from nestedge.selection import Candidate, format_size
from nestedge.verify import Verification, deciding

Kind = Literal["verified", "engine", "unverified", "skipped", "failed"]


@dataclass(frozen=True)
class State:
    """What became of a cell.

    Attributes:
        kind: decides its colour and its sign.
        text: in words.
        details: why, or what to do, a line each.
    """

    kind: Kind
    text: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """A measured number with what it needs to be believed.

    Attributes:
        value: the number.
        interval: its 95 % interval.
        details: how it came about, a line each.
    """

    value: str
    interval: str
    details: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What an artifact takes and gives on a device; None is what was not measured there.

    Attributes:
        size: of the model file.
        memory: that weights and activations take at once.
        accuracy: in percent.
        latency: median, in milliseconds.
        p90: of the latency, in milliseconds.
        load: median load time, in milliseconds.
    """

    size: str
    memory: str
    accuracy: Reading | None
    latency: Reading | None
    p90: str | None
    load: Reading | None


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One cell.

    Attributes:
        name: as in "small/onnx-fp32".
        runtime: that it is for.
        precision: of it.
        state: what became of it.
        figures: None where there is no artifact.
        is_picked: whether it is the one to use.
        why: it is picked, or is not; "" without a budget.
    """

    name: str
    runtime: str
    precision: str
    state: State
    figures: Figures | None
    is_picked: bool
    why: str


def cell_row(
    records: Records, cell: Cell, device: str, *, known: Candidate | None, picked: str, why: str
) -> CellRow:
    """A cell as it stands in the matrix of a device.

    Args:
        records: of the build folder.
        cell: which one.
        device: id of it.
        known: what is known of its artifact there; None where there is none.
        picked: name of the cell to use on the device, or "".
        why: this is the one, or is not, or "".
    """
    return CellRow(
        name=cell.name,
        runtime=cell.runtime,
        precision=cell.precision,
        state=_state(records, cell),
        figures=None if known is None else _figures(records, known, device),
        is_picked=cell.name == picked,
        why=why,
    )


def _state(records: Records, cell: Cell) -> State:
    if cell.state == "skipped":
        return State("skipped", "skipped", (cell.reason,))
    if cell.state == "failed":
        log = (f"log: {cell.log}",) if cell.log else ()
        return State("failed", "failed to build", (cell.reason, *log))
    artifact, found = records.artifacts[cell.name], records.verifications_of(cell)
    note = (artifact.note,) if artifact.note else ()
    if not found:
        return State("unverified", "unverified", (*note, "run 'nestedge verify'"))
    checked = (line for record in found for line in _check_lines(record, artifact))
    details = (*checked, *note)
    if not all(record.passed for record in deciding(artifact, found)):
        return State("failed", "is not its level", details)
    if artifact.is_engine_unbuilt:
        return State("engine", "engine unbuilt, unverified", details)
    return State("verified", "verified", details)


def _check_lines(found: Verification, artifact: Artifact) -> Sequence[str]:
    """What one runtime found."""
    # What ran is then not what the device will run.
    subject = "its ONNX: " if artifact.is_engine_unbuilt else ""
    comparison = "≤" if found.passed else ">"
    limit = f"max error {error(found.max_error)} {comparison} {found.tolerance:g}"
    ran = f"{found.runtime_version}, {plural(found.cases, 'case')}"
    further = [*_closeness_lines(found), *_data_lines(found), *_place_lines(found)]
    return [f"{subject}{limit}", *further, ran, *([] if found.passed else [found.reason])]


def _closeness_lines(found: Verification) -> Iterator[str]:
    figures = found.closeness
    if figures is None:
        return
    parts = (
        None if figures.cosine is None else f"cosine {figures.cosine:.5f}",
        None if figures.psnr_db is None else f"{figures.psnr_db:.1f} dB",
        None if figures.top1_agreement is None else f"top-1 {figures.top1_agreement:.0%}",
    )
    if any(parts):
        yield ", ".join(part for part in parts if part is not None)


def _data_lines(found: Verification) -> Iterator[str]:
    data = found.data
    # Beside itself a cell has nothing to lose.
    if data is None or data.exact == found.cell:
        return
    if data.exact_accuracy_percent is not None and data.agreement_percent is not None:
        gained = data.accuracy_percent - data.exact_accuracy_percent
        yield (
            f"accuracy {gained:+.2f} beside {data.exact}, same answer for "
            f"{data.agreement_percent:.2f} %, data {short_hash(data.data_sha256)}"
        )


def _place_lines(found: Verification) -> Iterator[str]:
    """The operator at which the error of what failed arises."""
    worst = None if found.localisation is None else found.localisation.operator
    if worst is not None and not found.passed:
        where = f", {worst.module}" if worst.module else ""
        yield (
            f"worst operator: {worst.kind} {worst.name}{where}: error {error(worst.input_error)} "
            f"before it, {error(worst.output_error)} behind it"
        )


def _figures(records: Records, known: Candidate, device: str) -> Figures:
    artifact, load = records.artifacts[known.cell], records.load_time(known.cell, device)
    latency, accuracy = known.latency, known.accuracy
    p90 = None
    if latency is not None and latency.p90 is not None:
        p90 = f"{latency.p90:.{decimals(latency.value)}f}"
    return Figures(
        size=format_size(known.size_bytes),
        memory=format_size(known.peak_memory_bytes),
        accuracy=None if accuracy is None else accuracy_reading(accuracy, artifact),
        latency=None if latency is None else _time(latency),
        p90=p90,
        load=None if load is None else _time(load),
    )


def accuracy_reading(found: Measurement, artifact: Artifact) -> Reading:
    """An accuracy in percent, with what ran to get it."""
    data = (f"data {short_hash(found.data_sha256)}",) if found.data_sha256 else ()
    # Which runtime ran it is told below the matrix.
    ran = ("of its ONNX",) if artifact.is_engine_unbuilt else ()
    return Reading(
        f"{found.value:.2f}",
        between(found.low, found.high, digits=2),
        (*data, *ran),
    )


def _time(found: Measurement) -> Reading:
    digits = decimals(found.value)
    return Reading(
        f"{found.value:.{digits}f}",
        between(found.low, found.high, digits=digits),
        (f"{found.origin}, {plural(found.samples, 'run')}",),
    )
