"""`nestedge export`: one level as one plain file, or several levels as one."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click

from nestedge.building.cells import find_calibration
from nestedge.building.plain import convert_level, convert_levels, exported_bytes
from nestedge.cli.text import calibration_option, json_option, print_json
from nestedge.convert import BuildSpec
from nestedge.diagnosis import diagnose
from nestedge.documents import write_whole
from nestedge.errors import ConversionError, UsageError
from nestedge.nestfile import load
from nestedge.plugins import converters, engine_builders, runtimes
from nestedge.precisions import PRECISIONS
from nestedge.redirection import output_to

PT2 = ".pt2"
"""torch.export's own format, with a dynamic batch."""
_ENDINGS = {"executorch": ".pte", "onnx-ort": ".ort", "openvino": ""}
"""Of the converters whose files do not end in their name; "" for a format of several files."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("levels", metavar="LEVEL...", nargs=-1, required=True)
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
@click.option(
    "-p",
    "--precision",
    type=click.Choice(tuple(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Of weights and arithmetic.",
)
@click.option("--nhwc", is_flag=True, help="A .tflite takes images with their channels last.")
@calibration_option
@json_option
def command(
    model: Path,
    levels: tuple[str, ...],
    output: Path,
    batch: int,
    precision: str,
    nhwc: bool,
    calibration: Path | None,
    as_json: bool,
) -> None:
    """Write LEVEL of MODEL.nest as one plain file, as in `-o small.onnx`.

    Several levels as one .tflite have a signature each and share the tensors that are the same,
    as those of levels that differ in depth alone.
    """
    target = _target(output)
    _check_options(target, batch=batch, precision=precision, levels=levels)
    if nhwc and target != "tflite":
        raise UsageError(f"{output}: --nhwc is for a .tflite")
    nested = load(model)
    if target == PT2:
        content = exported_bytes(nested, levels[0])
    else:
        # Ranges are each level's: several levels in one file have no use for calibration data.
        needs_data = PRECISIONS[precision].is_calibrated and len(levels) == 1
        data = find_calibration(nested, calibration) if needs_data else None
        spec = BuildSpec(precision, None if data is None else data.inputs)
        name = "tflite-nhwc" if nhwc else target
        with _told(output, as_json=as_json):
            if len(levels) == 1:
                content = convert_level(nested, levels[0], name, spec=spec, batch=batch)
            else:
                content = convert_levels(nested, levels, name, spec=spec, batch=batch)
    write_whole(output, content)
    _tell(levels, target, output, size_bytes=len(content), as_json=as_json)


@contextmanager
def _told(output: Path, *, as_json: bool) -> Iterator[None]:
    """A conversion, what it prints kept for a log beside the output, which is written if it fails.

    Raises:
        ConversionError: it fails, whatever the framework raised.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with output_to(log):
                yield
        except (UsageError, OSError):
            raise
        except Exception as error:
            why = diagnose(error, None)
            log.seek(0)
            path = output.with_name(f"{output.name}.log")
            write_whole(path, log.read() + traceback.format_exc().encode())
            if as_json:
                print_json({"state": "failed", "log": str(path), **asdict(why)})
            raise ConversionError(replace(why, remedy=f"{why.remedy}; log: {path}")) from error


def _tell(
    levels: Sequence[str], target: str, output: Path, *, size_bytes: int, as_json: bool
) -> None:
    if as_json:
        named = {"level": levels[0]} if len(levels) == 1 else {"levels": list(levels)}
        print_json({**named, "format": target, "file": str(output), "bytes": size_bytes})
    else:
        names = " and ".join(repr(level) for level in levels)
        noun = "level" if len(levels) == 1 else "levels"
        click.echo(f"{output}: {noun} {names}, {size_bytes:,} bytes")


def _check_options(target: str, *, batch: int, precision: str, levels: Sequence[str]) -> None:
    if len(set(levels)) != len(levels):
        raise UsageError(f"levels {list(levels)}: give each once")
    if target == PT2 and len(levels) > 1:
        raise UsageError(f"{PT2} has one level, found {list(levels)}: give one")
    if target == PT2 and precision != "fp32":
        raise UsageError(f"{PT2} has fp32 only; give no --precision")
    if PRECISIONS[precision].is_calibrated and batch != 1:
        raise UsageError(f"calibration data has a batch of 1: give no --batch for {precision}")


def _target(output: Path) -> str:
    """The format of files of this ending.

    Raises:
        UsageError: no converter writes it.
    """
    if output.suffix == PT2:
        return PT2
    # A format that is compiled on the device has no plain file that a runtime opens.
    plain = set(runtimes()) - set(engine_builders())
    writers = [name for name in converters() if name in plain or name in _ENDINGS]
    endings = {_ENDINGS.get(name, f".{name}"): name for name in writers}
    endings.pop("", None)
    if output.suffix not in endings:
        raise UsageError(f"{output}: expected an ending of {sorted([PT2, *endings])}")
    return endings[output.suffix]
