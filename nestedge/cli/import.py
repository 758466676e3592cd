"""`nestedge import`: a checkpoint of somebody else's nested or pruned network as a .nest."""

# A verb's module has the verb's name, and is imported by it.
# ruff: noqa: N999

from __future__ import annotations

import sys
from pathlib import Path

import click
from torch import Tensor, nn

from nestedge.cli.text import json_option, print_json
from nestedge.errors import UsageError
from nestedge.importing import (
    fold_pruning,
    from_masks,
    from_matformer,
    from_slimmable,
    from_supernet,
    load_plain,
    read_checkpoint,
)
from nestedge.importing.files import (
    build_model,
    example_input,
    read_mask_file,
    read_subnets,
    read_widths,
    single_widths,
)
from nestedge.importing.pruning import unpruned
from nestedge.model import NestedModel

FORMATS = ("masks", "slimmable", "matformer", "supernet")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "factory",
    required=True,
    metavar="MODULE:FUNCTION",
    help="Function that makes the plain torch.nn.Module. Its code is run; the checkpoint's is not.",
)
@click.option(
    "--example",
    "examples",
    multiple=True,
    required=True,
    metavar="SHAPE[:DTYPE]",
    help="An input, as 1,3,32,32 or 1,16:int64; once for each.",
)
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default="masks", help="What it is a file of."
)
@click.option(
    "--masks",
    "mask_file",
    type=click.Path(path_type=Path),
    help="For masks: .npz or .safetensors of 'level/tensor'. Else the zeros of the weights count.",
)
@click.option(
    "--levels",
    "level_file",
    type=click.Path(path_type=Path),
    help="For all other formats: JSON with what each level is.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@json_option
def command(
    checkpoint: Path,
    factory: str,
    examples: tuple[str, ...],
    kind: str,
    mask_file: Path | None,
    level_file: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Write CHECKPOINT (.safetensors, or .pt with tensors only) as a .nest of several levels.

    The function that --model names is imported from the current folder or from what is installed,
    and RUN. Of CHECKPOINT only tensors are read.
    """
    _check_files(kind, mask_file, level_file)
    inputs = tuple(example_input(text) for text in examples)
    tensors = read_checkpoint(checkpoint)
    click.echo(f"running the code of {factory}", err=True)
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = build_model(factory)
    finally:
        sys.path.remove(str(Path.cwd()))
    if kind in ("masks", "matformer"):
        model = unpruned(model)
        load_plain(model, fold_pruning(tensors))
    if kind == "masks":
        nested = from_masks(model, inputs, read_mask_file(mask_file) if mask_file else None)
    else:
        assert level_file is not None, "checked above"
        nested = _with_levels(kind, model, inputs, tensors, level_file)
    nested.save(output)
    _tell(nested, kind, output, as_json=as_json)


def _check_files(kind: str, mask_file: Path | None, level_file: Path | None) -> None:
    """Refuses a file that the format has no use for, or lacks."""
    if kind == "masks":
        if level_file is not None:
            raise UsageError("--levels is for other formats; for masks give --masks, or neither")
        return
    if mask_file is not None:
        raise UsageError(f"--masks is for --format masks; for {kind} give --levels")
    if level_file is None:
        raise UsageError(f"--format {kind} needs --levels: a JSON file with what each level is")


def _with_levels(
    kind: str,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    tensors: dict[str, Tensor],
    level_file: Path,
) -> NestedModel:
    if kind == "slimmable":
        return from_slimmable(model, inputs, tensors, single_widths(read_widths(level_file)))
    if kind == "matformer":
        return from_matformer(model, inputs, read_widths(level_file))
    return from_supernet(model, inputs, tensors, read_subnets(level_file))


def _tell(nested: NestedModel, kind: str, output: Path, *, as_json: bool) -> None:
    levels = list(nested.levels)
    if as_json:
        print_json(
            {
                "file": str(output),
                "format": kind,
                "levels": levels,
                "bytes": output.stat().st_size,
                "recalibrate": kind == "supernet",
            }
        )
        return
    click.echo(f"{output}: levels {', '.join(levels)}; 'nestedge inspect {output}' shows them")
    if kind == "supernet":
        click.echo("give every level batch-norm statistics next: nestedge.recalibrate")
