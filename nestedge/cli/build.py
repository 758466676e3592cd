"""`nestedge build`: every level for every runtime."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.artifact import Artifact
from nestedge.build import build
from nestedge.cli.text import json_option, print_json, progress, table
from nestedge.nestfile import load
from nestedge.plugins import converters


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("dist"),
    show_default=True,
    help="Folder of artifacts.",
)
@click.option("-t", "--target", "targets", multiple=True, help="Runtime; all when not given.")
@click.option("-l", "--level", "levels", multiple=True, help="Level; all when not given.")
@json_option
def command(
    model: Path, output: Path, targets: tuple[str, ...], levels: tuple[str, ...], as_json: bool
) -> None:
    """Write an artifact of every level of MODEL.nest for every runtime."""
    nested = load(model)
    wanted_targets, wanted_levels = targets or converters(), levels or nested.levels
    for level in wanted_levels:
        nested.nesting.choice(level)
    cells = len(wanted_targets) * len(wanted_levels)
    with progress("building", cells, hidden=as_json) as advance:
        built = build(
            nested,
            output,
            targets=wanted_targets,
            levels=wanted_levels,
            after_each=lambda _: advance(),
        )
    if as_json:
        print_json(
            [{"cell": a.cell, "folder": str(a.folder), "bytes": a.size_bytes} for a in built]
        )
    else:
        click.echo(_text(built))


def _text(built: list[Artifact]) -> str:
    rows = [(a.cell, f"{a.size_bytes:,}", f"{a.parameters:,}", str(a.model_path)) for a in built]
    return table(("cell", "bytes", "parameters", "file"), rows)
