"""`nestedge profile`: latency, load time and accuracy of artifacts on this device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nestedge.artifact import find_artifacts
from nestedge.cli.text import (
    folder_argument,
    json_option,
    print_json,
    progress,
    provider_option,
    table,
    threads_option,
)
from nestedge.errors import UsageError
from nestedge.profiling.labelled import read_labelled
from nestedge.profiling.measure import (
    Measurement,
    measure_accuracies,
    profile_folder,
    save_measurements,
)


@click.command()
@folder_argument
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Runs of each artifact, in rounds of shuffled order.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the runs.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A .npz of 'inputs' and 'labels': measures the accuracy too.",
)
@click.option(
    "--runtime",
    help="The runtime that runs them, and only those that it opens; without it, each by its own.",
)
@provider_option
@threads_option
@json_option
def command(
    folder: Path,
    rounds: int,
    seed: int,
    data: Path | None,
    runtime: str | None,
    provider: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Measure the artifacts in FOLDER on this device, and keep the results in measurements.json.

    Everything is warmed up, then run in rounds of shuffled order, so that drift hits all alike.
    Artifacts whose engine only another device can build get an accuracy, but no latency. Exit
    code 4: the provider cannot be started.
    """
    # First, since data that does not fit must not show after minutes of measuring.
    accuracies = []
    if data is not None:
        accuracies = _accuracies(folder, data, runtime=runtime, provider=provider, threads=threads)
    with progress("measuring", rounds, hidden=as_json) as advance:
        measurements = profile_folder(
            folder,
            rounds=rounds,
            seed=seed,
            runtime=runtime,
            provider=provider,
            threads=threads,
            after_round=advance,
        )
    measurements += accuracies
    if not measurements:
        raise UsageError(
            f"{folder}: every artifact needs an engine that only its device can build: no latency "
            "to measure here; give --data to measure accuracies"
        )
    measurements.sort(key=lambda measurement: (measurement.cell, measurement.quantity))
    path = save_measurements(folder, measurements)
    if as_json:
        print_json([asdict(measurement) for measurement in measurements])
        return
    click.echo(_text(measurements))
    for artifact in find_artifacts(folder):
        if artifact.is_engine_unbuilt:
            click.echo(f"{artifact.cell}: no latency: its engine can only be built on the device")
    first = measurements[0]
    click.echo(f"on {first.device}, threads: {first.threads}; kept in {path}")


def _accuracies(
    folder: Path, path: Path, *, runtime: str | None, provider: str | None, threads: int
) -> list[Measurement]:
    """The accuracy of every artifact on the test set in a file."""
    data = read_labelled(path)
    try:
        return measure_accuracies(
            folder,
            inputs=data.inputs,
            labels=data.labels,
            runtime=runtime,
            provider=provider,
            threads=threads,
        )
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _text(measurements: list[Measurement]) -> str:
    header = ("cell", "quantity", "median", "95 % interval", "p90", "samples", "runtime")
    rows = [
        (
            measurement.cell,
            measurement.quantity,
            f"{measurement.value:.4g}",
            f"{measurement.low:.4g}..{measurement.high:.4g}",
            "-" if measurement.p90 is None else f"{measurement.p90:.4g}",
            str(measurement.samples),
            measurement.runtime_version,
        )
        for measurement in measurements
    ]
    return table(header, rows)
