"""`nestedge pick`: the best artifact within a budget, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from nestedge.artifact import find_artifacts
from nestedge.cli.text import folder_argument, json_option, print_json, table
from nestedge.profiling.measure import Measurement, load_measurements
from nestedge.selection import (
    Budget,
    Candidate,
    Selection,
    candidates,
    format_size,
    parse_duration,
    parse_size,
    select,
)


@click.command()
@folder_argument
@click.option("--latency", help="The median latency is at most this: 8ms, 0.5s.")
@click.option("--size", help="The model file is at most this: 40MB, 512KiB.")
@click.option("--min-accuracy", type=float, help="The accuracy is at least this, in percent.")
@json_option
def command(
    folder: Path,
    latency: str | None,
    size: str | None,
    min_accuracy: float | None,
    as_json: bool,
) -> None:
    """Choose from the artifacts in FOLDER by what 'nestedge profile' measured.

    Exit code 5: none fits the budget.
    """
    budget = Budget(
        latency_ms=None if latency is None else parse_duration(latency),
        size_bytes=None if size is None else parse_size(size),
        min_accuracy=min_accuracy,
    )
    known = candidates(find_artifacts(folder), load_measurements(folder))
    selection = select(known, budget)
    if as_json:
        print_json({"chosen": selection.chosen, "reasons": dict(selection.reasons)})
        return
    click.echo(_text(known, selection))
    click.echo(f"for {budget}: {folder / selection.chosen}")


def _text(known: Sequence[Candidate], selection: Selection) -> str:
    header = ("cell", "p50 ms", "accuracy %", "size", "reason")
    rows = [
        (
            candidate.cell,
            _number(candidate.latency),
            _number(candidate.accuracy),
            format_size(candidate.size_bytes),
            selection.reasons[candidate.cell],
        )
        for candidate in known
    ]
    devices = sorted({found.latency.device for found in known if found.latency is not None})
    return "\n".join([table(header, rows), *(f"measured on {device}" for device in devices)])


def _number(measurement: Measurement | None) -> str:
    return "unmeasured" if measurement is None else f"{measurement.value:.4g}"
