"""`nestedge engine`: what a device compiles for itself, built and verified there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.artifact import read_artifact
from nestedge.cli.text import json_option, print_json, table
from nestedge.documents import write_whole
from nestedge.engines import EngineBuilder, EngineReport, EngineRequest
from nestedge.errors import UsageError
from nestedge.plugins import load_engine_builder

_ON = click.option(
    "--on", metavar="URL", help="Device behind ssh, as in ssh://user@jetson; else this machine."
)
_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Build the engines that TensorRT runs, and verify them, on the device that they are for."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_TYPED = click.option(
    "--strongly-typed", is_flag=True, help="Compute in the model's types; TensorRT 9."
)
_BATCH = click.option(
    "--batch",
    "batches",
    metavar="MIN:OPT:MAX",
    help="Batch sizes that it takes: the least, the one it is fastest at, the most.",
)


@command.command("build")
@_FOLDER
@_ON
@click.option(
    "--by",
    type=click.Choice(["trtexec", "python"]),
    default="trtexec",
    show_default=True,
    help="What builds it on the device.",
)
@_TYPED
@click.option("--dla", "dla_core", type=click.IntRange(min=0), help="DLA core that takes layers.")
@click.option("--version-compatible", is_flag=True, help="Later versions load it; TensorRT 8.6.")
@click.option("--strip-weights", is_flag=True, help="Weights stay in the model; TensorRT 10.")
@_BATCH
@click.option(
    "--workspace", "workspace_mib", type=click.IntRange(min=1), help="MiB that kernels may have."
)
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of timings that builds share.",
)
@json_option
def build(
    folder: Path,
    on: str | None,
    by: str,
    strongly_typed: bool,
    dla_core: int | None,
    version_compatible: bool,
    strip_weights: bool,
    batches: str | None,
    workspace_mib: int | None,
    timing_cache: Path | None,
    as_json: bool,
) -> None:
    """Build the engine of the artifact in FOLDER, where it is to run; it stays in FOLDER/engines.

    What the TensorRT there lacks is refused, with the reason.
    """
    request = EngineRequest(
        on=on,
        by=by,
        strongly_typed=strongly_typed,
        dla_core=dla_core,
        version_compatible=version_compatible,
        strip_weights=strip_weights,
        workspace_mib=workspace_mib,
        timing_cache=timing_cache,
        batches=_sizes(batches),
    )
    _print([_builder(folder).build(folder, request)], as_json)


@command.command("model")
@_FOLDER
@click.option("--tensorrt", "version", required=True, help="Version of TensorRT, as in 8.2.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("model.onnx"),
    show_default=True,
    help="File that is written.",
)
@_TYPED
@_BATCH
def model(
    folder: Path, version: str, output: Path, strongly_typed: bool, batches: str | None
) -> None:
    """Write the model of the artifact in FOLDER as build would send it to a device with TensorRT.

    What it says is the line that builds the engine there, in the folder of the file.
    """
    request = EngineRequest(strongly_typed=strongly_typed, batches=_sizes(batches))
    found = _builder(folder).model(folder, request, version=version)
    write_whole(output, found.content)
    click.echo(f"{output}: {found.form}\n{found.line}")


@command.command("verify")
@_FOLDER
@_ON
@json_option
def verify(folder: Path, on: str | None, as_json: bool) -> None:
    """Run the reference inputs of the artifact in FOLDER in its engine, where that was built.

    Exit code 3: the engine is not its level.
    """
    _print([_builder(folder).verify(folder, on=on)], as_json)


@command.command("list")
@_FOLDER
@json_option
def list_engines(folder: Path, as_json: bool) -> None:
    """List the engines of the artifact in FOLDER, and what each belongs to."""
    _print(_builder(folder).engines(folder), as_json)


def _sizes(text: str | None) -> tuple[int, int, int] | None:
    """The three numbers of MIN:OPT:MAX; None where it is not given."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+):(\d+)", text)
    if found is None:
        raise UsageError(f"--batch: expected MIN:OPT:MAX, as in 1:4:8, found {text!r}")
    least, best, most = map(int, found.groups())
    return least, best, most


def _builder(folder: Path) -> EngineBuilder:
    return load_engine_builder(read_artifact(folder).runtime)


def _print(reports: Sequence[EngineReport], as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(report), "folder": str(report.folder)} for report in reports])
        return
    if not reports:
        click.echo("no engine was built")
    for report in reports:
        click.echo(f"{report.folder}: {report.state}")
        rows = [(name, value or "-") for name, value in report.fingerprint.items()]
        rows += [("build_s", "-" if report.build_seconds is None else f"{report.build_seconds:g}")]
        rows += [("max_error", "-" if report.max_error is None else f"{report.max_error:.2e}")]
        click.echo(table(("", ""), rows))
