"""`nestedge report`: one page about a build folder."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.cli.text import folder_argument, json_option, print_json
from nestedge.report import write_report
from nestedge.selection import Budget, parse_duration, parse_size


@click.command()
@folder_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@click.option("--latency", help="Pick for a median latency of at most this: 8ms, 0.5s.")
@click.option("--size", help="Pick for a model file of at most this: 40MB, 512KiB.")
@click.option("--memory", help="Pick for weights and activations of at most this: 40MB.")
@click.option("--min-accuracy", type=float, help="Pick for at least this accuracy, in percent.")
@json_option
def command(
    folder: Path,
    *,
    output: Path,
    latency: str | None,
    size: str | None,
    memory: str | None,
    min_accuracy: float | None,
    as_json: bool,
) -> None:
    """Write all that is known of the artifacts in FOLDER as one HTML page that needs nothing else.

    With a budget the page has the artifact to use on every device too.
    """
    limits = (latency, size, memory, min_accuracy)
    budget = None
    if any(limit is not None for limit in limits):
        budget = Budget(
            latency_ms=None if latency is None else parse_duration(latency),
            size_bytes=None if size is None else parse_size(size),
            memory_bytes=None if memory is None else parse_size(memory),
            min_accuracy=min_accuracy,
        )
    write_report(folder, output, budget=budget)
    size_bytes = output.stat().st_size
    if as_json:
        print_json({"file": str(output), "bytes": size_bytes})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes, opens in any browser")
