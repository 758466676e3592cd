"""What verbs print, and the options that they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Gives a verb the flag --json, as the argument `as_json`."""
    text = "Print one JSON document and nothing else."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def threads_option(command: Command) -> Command:
    """Gives a verb the option --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="CPU threads of the runtimes.",
    )(command)


def provider_option(command: Command) -> Command:
    """Gives a verb the option --provider."""
    return click.option(
        "--provider",
        help="Execution provider of onnxruntime, as in cuda; without it, the CPU.",
    )(command)


def calibration_option(command: Command) -> Command:
    """Gives a verb the option --calibration."""
    return click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        help="Folder of images, .npy or .npz that int8 takes its ranges from; else those in MODEL.",
    )(command)


def cell_options(command: Command) -> Command:
    """Gives a verb --target, --level and --precision: which of the cells there are."""
    for option in reversed(
        (
            click.option(
                "-t", "--target", "runtimes", multiple=True, help="Runtime; all when not given."
            ),
            click.option(
                "-l", "--level", "levels", multiple=True, help="Level; all when not given."
            ),
            click.option("-p", "--precision", "precisions", multiple=True, help="As in int8; all."),
        )
    ):
        command = option(command)
    return command


def folder_argument(command: Command) -> Command:
    """Gives a verb the argument FOLDER: of a build, of a level, or of one artifact."""
    return click.argument("folder", type=click.Path(path_type=Path))(command)


def print_json(document: object) -> None:
    """Prints a document on one line of stdout.

    Raises:
        ValueError: it holds a NaN or an infinity, which JSON has not.
    """
    click.echo(json.dumps(document, allow_nan=False, sort_keys=True))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns, two spaces apart; columns of numbers are aligned to the right.

    >>> print(table(["cell", "ms"], [["small/onnx-fp32", "9.1"], ["full/onnx-fp32", "10.2"]]))
    cell               ms
    small/onnx-fp32   9.1
    full/onnx-fp32   10.2
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(rows) and all(map(_is_number, column[1:])) for column in columns]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@contextmanager
def progress(label: str, length: int = 1, *, hidden: bool) -> Iterator[Callable[..., None]]:
    """A bar with the time left on stderr, where that is a terminal.

    What is given advances it by one step, and takes the number of steps where that is known only
    once the work has begun.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda _=length: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def advance(steps: int = length) -> None:
            bar.length = steps
            bar.update(1)

        yield advance


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in ("", "-")
    return True
