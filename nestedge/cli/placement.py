"""`nestedge placement`: how much of each artifact runs on the accelerator, and what does not."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.artifact import check_integrity, find_artifacts
from nestedge.cli.text import folder_argument, json_option, print_json, table, threads_option
from nestedge.errors import UsageError
from nestedge.placement import (
    Placement,
    Placements,
    check_share,
    place_folder,
    placement_from_log,
)
from nestedge.placement.description import counted
from nestedge.plugins import load_runtime


@click.command()
@folder_argument
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="What trtexec, benchmark_model, logcat or onnxruntime printed where FOLDER's one "
    "artifact ran; without it, the runtimes here are asked.",
)
@click.option(
    "--accelerator",
    help="XNNPACK, an execution provider as in cuda, DLA; without it, that which the runtime uses.",
)
@click.option(
    "--require",
    "share",
    type=click.FloatRange(0, 1),
    help="Share of the MACs that must run on the accelerator, as in 0.98.",
)
@click.option(
    "--runtime",
    help="The runtime that is asked, and only of those that it opens; without it, each by its own.",
)
@threads_option
@json_option
def command(
    folder: Path,
    log: Path | None,
    accelerator: str | None,
    share: float | None,
    runtime: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Tell where the operators of the artifacts in FOLDER run: on the accelerator, or elsewhere.

    Operators that an accelerator lacks run on the processor without a word, and each break between
    two partitions moves data to it and back. Exit code 4: less than --require is on the
    accelerator.
    """
    if log is None:
        placements = place_folder(folder, runtime=runtime, accelerator=accelerator, threads=threads)
    else:
        placements = _from_log(folder, log, runtime=runtime, accelerator=accelerator)
    if as_json:
        print_json(_document(placements))
    else:
        click.echo(_text(placements))
    if share is not None:
        check_share(placements, share)


def _from_log(
    folder: Path, log: Path, *, runtime: str | None, accelerator: str | None
) -> Placements:
    """The placement of the one artifact in a folder, by a log."""
    artifacts = find_artifacts(folder)
    if len(artifacts) > 1:
        example = artifacts[0].folder
        raise UsageError(
            f"{folder}: has {len(artifacts)} artifacts, and a log is of one: name its folder, as "
            f"in {example}"
        )
    (artifact,) = artifacts
    check_integrity(artifact)
    plugin = load_runtime(runtime or artifact.checked_by)
    placement = placement_from_log(artifact, plugin, log, accelerator=accelerator)
    return Placements({artifact.cell: placement}, {})


def _document(placements: Placements) -> dict[str, object]:
    return {
        "placements": [
            {"cell": cell, **placement.to_json()} for cell, placement in placements.found.items()
        ],
        "untold": [{"cell": cell, "reason": reason} for cell, reason in placements.untold.items()],
    }


def _text(placements: Placements) -> str:
    header = ("cell", "accelerator", "share", "of", "partitions", "elsewhere", "by")
    rows = [_row(cell, placement) for cell, placement in placements.found.items()]
    rows += [(cell, "-", "-", "", "-", reason, "") for cell, reason in placements.untold.items()]
    return table(header, rows)


def _row(cell: str, placement: Placement) -> tuple[str, ...]:
    partitions = placement.partitions
    return (
        cell,
        placement.accelerator,
        f"{placement.share:.1%}",
        placement.unit,
        "-" if partitions is None else str(partitions),
        counted(placement.elsewhere),
        placement.source,
    )
