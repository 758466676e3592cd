"""`nestedge pick`: the best artifact for a device within a budget, and why not the others."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.cli.budget import budget_options, parse_budget
from nestedge.cli.text import folder_argument, json_option, print_json, table
from nestedge.devices.profile import LOCAL
from nestedge.profiling.measurement import Measurement
from nestedge.selection import Candidate, DeviceSelection, format_size, select_for_device


@click.command()
@folder_argument
@click.option(
    "-d",
    "--device",
    default=LOCAL,
    show_default=True,
    help="A device that FOLDER was built for; local is this machine.",
)
@budget_options
@json_option
def command(
    folder: Path,
    *,
    device: str,
    latency: str | None,
    size: str | None,
    memory: str | None,
    min_accuracy: float | None,
    as_json: bool,
) -> None:
    """Choose from the artifacts in FOLDER by what 'nestedge profile' measured.

    Only artifacts that 'nestedge verify' passed are chosen. Latencies count only where they were
    measured on the device. Exit code 5: none fits the budget. 3: all failed their verification.
    """
    budget = parse_budget(latency=latency, size=size, memory=memory, min_accuracy=min_accuracy)
    found = select_for_device(folder, device, budget)
    if as_json:
        print_json(_document(found))
        return
    click.echo(_table(found))
    for line in _measured_on(found):
        click.echo(line)
    for note in found.selection.notes:
        click.echo(f"note: {note}")
    click.echo(f"for {device} and a budget of {budget}: {found.artifact.folder}")


def _document(found: DeviceSelection) -> dict[str, object]:
    return {
        "device": found.device,
        "chosen": found.selection.chosen,
        "folder": str(found.artifact.folder),
        "candidates": [
            _candidate_document(candidate, found.selection.reasons[candidate.cell])
            for candidate in found.candidates
        ],
        "notes": list(found.selection.notes),
    }


def _candidate_document(candidate: Candidate, reason: str) -> dict[str, object]:
    latency, accuracy = candidate.latency, candidate.accuracy
    return {
        "cell": candidate.cell,
        "latency_ms": None if latency is None else latency.value,
        "accuracy_percent": None if accuracy is None else accuracy.value,
        "size_bytes": candidate.size_bytes,
        "peak_memory_bytes": candidate.peak_memory_bytes,
        "reason": reason,
    }


def _table(found: DeviceSelection) -> str:
    header = ("cell", "p50 ms", "accuracy %", "size", "memory", "reason")
    rows = [
        (
            candidate.cell,
            _number(candidate.latency),
            _number(candidate.accuracy),
            format_size(candidate.size_bytes),
            format_size(candidate.peak_memory_bytes),
            found.selection.reasons[candidate.cell],
        )
        for candidate in found.candidates
    ]
    return table(header, rows)


def _measured_on(found: DeviceSelection) -> list[str]:
    machines = {known.latency.device for known in found.candidates if known.latency is not None}
    return [f"latencies measured on {machine}" for machine in sorted(machines)]


def _number(measurement: Measurement | None) -> str:
    return "unmeasured" if measurement is None else f"{measurement.value:.4g}"
