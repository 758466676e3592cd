"""`nestedge train`: a recipe, from its data to a .nest."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import torch
import torch.distributed as dist

from nestedge.cli.text import json_option, print_json, table
from nestedge.errors import UsageError
from nestedge.training.checkpoints import LAST, Checkpoints
from nestedge.training.processes import is_first
from nestedge.training.progress import Progress
from nestedge.training.recipes import Recipe, Trained, read_recipe, run_recipe
from nestedge.training.tensorboard import TensorBoard

Show = Callable[[Progress], None]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    help="Folder to go on from, kept at the end; else OUTPUT.checkpoints, removed at the end.",
)
@click.option(
    "--every", type=click.IntRange(min=1), help="Steps between checkpoints; else each epoch's end."
)
@click.option("--tensorboard", type=click.Path(path_type=Path), help="Folder for TensorBoard.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Where the data is; else the recipe's root."
)
@click.option("--device", help="As torch calls it; else cuda where there is one, and cpu.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads; else as many as torch takes."
)
@json_option
def command(
    recipe: Path,
    output: Path,
    checkpoints: Path | None,
    every: int | None,
    tensorboard: Path | None,
    data: Path | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train the levels of a network as RECIPE.toml says, and write a .nest.

    The function that the recipe names is imported from the recipe's folder or from what is
    installed, and RUN. Interrupted, the same command goes on from the last checkpoint. Under
    torchrun all processes train together.
    """
    asked = read_recipe(recipe)
    asked = asked if data is None else asked.with_data(data)
    folder = checkpoints or output.with_name(f"{output.name}.checkpoints")
    with ExitStack() as stack:
        stack.enter_context(_threads(threads))
        where = stack.enter_context(_processes(device))
        shows = is_first() and not as_json
        shown: list[Show] = [stack.enter_context(_shown())] if shows else []
        if tensorboard is not None and is_first():
            shown.append(stack.enter_context(TensorBoard(tensorboard)))
        announce = _announcer(hidden=not shows)
        announce(_about_checkpoints(folder))
        trained = run_recipe(
            asked,
            output,
            device=where,
            checkpoints=Checkpoints(folder, every),
            progress=_all_of(shown),
            announce=announce,
        )
        if not is_first():
            return
    if checkpoints is None:
        shutil.rmtree(folder)
    if as_json:
        print_json(_document(trained, asked, output))
    else:
        click.echo(_text(trained, output))


def _about_checkpoints(folder: Path) -> str:
    if (folder / LAST).exists():
        return f"going on from {folder}"
    return f"checkpoints are in {folder}; interrupted, the same command goes on from there"


def _announcer(*, hidden: bool) -> Callable[[str], None]:
    def announce(line: str) -> None:
        if not hidden:
            click.echo(line, err=True)

    return announce


def _all_of(shown: list[Show]) -> Show:
    def progress(report: Progress) -> None:
        for show in shown:
            show(report)

    return progress


@contextmanager
def _shown() -> Iterator[Show]:
    """A line an epoch on stderr; on a terminal also how far the epoch is, in one line."""
    last, is_open = [(0, 0)], [False]

    def show(report: Progress) -> None:
        # The loop reports the last step of an epoch once more when its accuracies are known.
        is_evaluated = last[0] == (report.epoch, report.step)
        last[0] = (report.epoch, report.step)
        is_terminal = sys.stderr.isatty()
        is_open[0] = is_terminal and not is_evaluated
        clear = "\r\x1b[K" if is_terminal else ""
        if is_evaluated:
            found = ", ".join(f"{level} {v:.1f} %" for level, v in report.accuracies.items())
            click.echo(f"{clear}{_line(report)}  {found}", err=True)
        elif is_terminal:
            steps = "" if report.steps is None else f"/{report.steps}"
            step = f"  step {report.step}{steps}"
            click.echo(f"{clear}{_line(report)}{step}", nl=False, err=True)

    try:
        yield show
    finally:
        # What went wrong is told in a line of its own.
        click.echo("\n" if is_open[0] else "", nl=False, err=True)


def _line(report: Progress) -> str:
    left = "" if report.seconds_left is None else f"  {_duration(report.seconds_left)} left"
    return (
        f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  "
        f"rate {report.learning_rate:.2g}{left}"
    )


def _duration(seconds: float) -> str:
    """A time as one reads it.

    >>> _duration(59.6), _duration(3605), _duration(90000)
    ('1 min', '1 h 0 min', '25 h 0 min')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _processes(device: str | None) -> Iterator[str]:
    """The device of this process, inside the group of those that torchrun has started.

    Raises:
        UsageError: torch knows no such device, or it is not there.
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(wanted)
    if "WORLD_SIZE" not in os.environ:
        yield wanted
        return
    is_gpu = wanted.startswith("cuda")
    if is_gpu:
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(wanted)
    dist.init_process_group("nccl" if is_gpu else "gloo")
    try:
        yield wanted
    finally:
        dist.destroy_process_group()


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: torch cannot use it: {reason}") from error


def _document(trained: Trained, recipe: Recipe, output: Path) -> dict[str, object]:
    return {
        "file": str(output),
        "bytes": output.stat().st_size,
        "levels": {name: {"accuracy_percent": v} for name, v in trained.accuracies.items()},
        "epochs": recipe.training.epochs,
        "skipped": list(trained.skipped),
    }


def _text(trained: Trained, output: Path) -> str:
    rows = [(level, f"{accuracy:.1f} %") for level, accuracy in trained.accuracies.items()]
    return (
        f"{table(('level', 'accuracy'), rows)}\n"
        f"{output}: levels {', '.join(trained.nested.levels)}; "
        f"'nestedge inspect {output}' shows them, 'nestedge build {output}' builds them"
    )
