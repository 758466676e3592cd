"""`nestedge run`: one cell on an image or on arrays."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from nestedge.artifact import Artifact
from nestedge.cli.text import json_option, print_json, provider_option, table, threads_option
from nestedge.documents import read_arrays, write_arrays
from nestedge.errors import UsageError
from nestedge.images import read_image
from nestedge.plugins import Array
from nestedge.runtime import NestedRuntime, best_labels

_ARRAYS = (".npy", ".npz")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-l", "--level", help="Level; without it that of the default cell.")
@click.option("-r", "--runtime", help="Runtime plug-in; without it the one that a cell is for.")
@click.option("-p", "--precision", help="As in int8.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Writes all outputs: .npz.")
@provider_option
@threads_option
@json_option
def command(
    folder: Path,
    data: Path,
    *,
    level: str | None,
    runtime: str | None,
    precision: str | None,
    output: Path | None,
    provider: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Run what is in FOLDER on DATA: an image, a .npy, or a .npz with the inputs' names.

    FOLDER is one that was fetched, that of a build, or that of one artifact. Exit code 6: a file is
    not the one that was built. 3: another runtime than the cell is for, or a provider, does not
    give what its level gives. 4: the provider cannot be started.
    """
    if output is not None and output.suffix != ".npz":
        raise UsageError(f"{output}: expected a name that ends in .npz")
    opened = NestedRuntime(
        folder,
        level=level,
        runtime=runtime,
        precision=precision,
        provider=provider,
        threads=threads,
    )
    inputs = _read_inputs(opened.artifact, data)
    try:
        outputs = opened.run(inputs)
    except ValueError as error:
        raise UsageError(f"{data}: {error}") from error
    if output is not None:
        write_arrays(output, outputs)
    if as_json:
        print_json(_to_json(opened.artifact, outputs))
    else:
        click.echo(_text(opened.artifact, outputs))


def _read_inputs(artifact: Artifact, path: Path) -> dict[str, Array] | Array:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.suffix in _ARRAYS:
        arrays = read_arrays(path)
        return arrays[""] if arrays.keys() == {""} else arrays
    if artifact.preprocessing is None:
        raise UsageError(f"{artifact.cell}: says no preprocessing for images; give a .npy")
    return read_image(path, artifact.preprocessing)


def _to_json(artifact: Artifact, outputs: dict[str, Array]) -> dict[str, object]:
    labels = best_labels(artifact, outputs)
    return {
        "cell": artifact.cell,
        "labels": [{"label": found.label, "score": _finite(found.score)} for found in labels],
        "outputs": {name: _summary(array) for name, array in outputs.items()},
    }


def _summary(array: Array) -> dict[str, object]:
    numbers = array.astype(np.float64)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "min": _finite(numbers.min()),
        "max": _finite(numbers.max()),
        "mean": _finite(numbers.mean()),
    }


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _text(artifact: Artifact, outputs: dict[str, Array]) -> str:
    labels = best_labels(artifact, outputs)
    if labels:
        scores = [(found.label, f"{found.score:.5g}") for found in labels]
        return table(("label", "score"), scores)
    header = ("output", "shape", "dtype", "min", "max", "mean")
    rows = [
        (
            name,
            "x".join(map(str, array.shape)) or "scalar",
            array.dtype.name,
            *(f"{number:.5g}" for number in (array.min(), array.max(), array.mean())),
        )
        for name, array in outputs.items()
    ]
    return table(header, rows)
