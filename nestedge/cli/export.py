"""`nestedge export`: one level as one plain file."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.building.cells import find_calibration
from nestedge.building.plain import convert_level, exported_bytes
from nestedge.cli.text import calibration_option, json_option, print_json
from nestedge.convert import BuildSpec
from nestedge.documents import write_whole
from nestedge.errors import UsageError
from nestedge.nestfile import load
from nestedge.plugins import converters, runtimes

PT2 = ".pt2"
"""torch.export's own format, with a dynamic batch."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("level")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write; its ending says the format.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Batch size; .pt2 has any.",
)
@click.option("-p", "--precision", default="fp32", show_default=True, help="fp32, fp16 or int8.")
@calibration_option
@json_option
def command(
    model: Path,
    level: str,
    output: Path,
    batch: int,
    precision: str,
    calibration: Path | None,
    as_json: bool,
) -> None:
    """Write LEVEL of MODEL.nest as one plain file, as in `-o small.onnx`."""
    target = _target(output)
    _check_options(target, batch=batch, precision=precision)
    nested = load(model)
    if target == PT2:
        content = exported_bytes(nested, level)
    else:
        data = find_calibration(nested, calibration) if precision == "int8" else None
        spec = BuildSpec(precision, None if data is None else data.inputs)
        content = convert_level(nested, level, target, spec=spec, batch=batch)
    write_whole(output, content)
    if as_json:
        print_json({"level": level, "format": target, "file": str(output), "bytes": len(content)})
    else:
        click.echo(f"{output}: level {level!r}, {len(content):,} bytes")


def _check_options(target: str, *, batch: int, precision: str) -> None:
    if target == PT2 and precision != "fp32":
        raise UsageError(f"{PT2} has fp32 only; give no --precision")
    if precision == "int8" and batch != 1:
        raise UsageError("calibration data has a batch of 1: give no --batch for int8")


def _target(output: Path) -> str:
    """The format of files of this ending.

    Raises:
        UsageError: no converter writes it.
    """
    if output.suffix == PT2:
        return PT2
    # A format that is compiled on the device has no plain file that a runtime opens.
    endings = {f".{name}": name for name in converters() if name in runtimes()}
    if output.suffix not in endings:
        raise UsageError(f"{output}: expected an ending of {sorted([PT2, *endings])}")
    return endings[output.suffix]
