"""`nestedge report`: one page about a build folder."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.cli.budget import budget_options, parse_budget
from nestedge.cli.text import folder_argument, json_option, print_json
from nestedge.report import write_report


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
@budget_options
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
    budget = None
    if (latency, size, memory, min_accuracy) != (None, None, None, None):
        budget = parse_budget(latency=latency, size=size, memory=memory, min_accuracy=min_accuracy)
    write_report(folder, output, budget=budget)
    size_bytes = output.stat().st_size
    if as_json:
        print_json({"file": str(output), "bytes": size_bytes})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes, opens in any browser")
