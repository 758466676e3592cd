"""`nestedge run`: an artifact on an image or on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from nestedge.artifact import Artifact, check_integrity, read_artifact
from nestedge.cli.text import json_option, print_json, table, threads_option
from nestedge.documents import read_arrays, write_arrays
from nestedge.errors import FormatError, MissingDependencyError, UsageError
from nestedge.plugins import Array, load_runtime

_ARRAYS = (".npy", ".npz")
_TOP = 5


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Writes all outputs: .npz.")
@threads_option
@json_option
def command(artifact: Path, data: Path, output: Path | None, threads: int, as_json: bool) -> None:
    """Run the ARTIFACT in a folder on DATA: an image, a .npy, or a .npz with the inputs' names."""
    if output is not None and output.suffix != ".npz":
        raise UsageError(f"{output}: expected a name that ends in .npz")
    found = read_artifact(artifact)
    check_integrity(found)
    inputs = _read_inputs(found, data)
    session = load_runtime(found.runtime).open(found.model_path, threads=threads)
    outputs = session.run(inputs)
    if output is not None:
        write_arrays(output, outputs)
    if as_json:
        print_json(_to_json(found, outputs))
    else:
        click.echo(_text(found, outputs))


def _read_inputs(artifact: Artifact, path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.suffix not in _ARRAYS:
        return artifact.batch(_read_image(artifact, path))
    arrays = read_arrays(path)
    return artifact.batch(arrays[""]) if arrays.keys() == {""} else arrays


def _read_image(artifact: Artifact, path: Path) -> Array:
    steps = artifact.preprocessing
    if steps is None:
        raise UsageError(f"{artifact.cell}: says no preprocessing for images; give a .npy")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError("images need pillow: pip install 'nestedge[image]'") from error
    mode = "L" if steps.colour == "GRAY" else "RGB"
    try:
        with Image.open(path) as image:
            # A palette is only another way to store the same colours.
            pixels = image.convert("RGB") if image.mode == "P" and mode == "RGB" else image
            if pixels.mode != mode:
                raise UsageError(
                    f"{path}: expected an image of mode {mode}, found {pixels.mode}; convert it"
                )
            return np.asarray(pixels, dtype=np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise FormatError(f"{path}: not an image: {error}") from error
    except OSError as error:
        # Pillow's word for a truncated file.
        raise FormatError(f"{path}: {error}") from error


def _classes(artifact: Artifact, outputs: Mapping[str, Array]) -> list[tuple[str, float]]:
    """The labels with the highest scores, best first; none where the artifact has no labels."""
    labels = artifact.labels or ()
    fitting = [array for array in outputs.values() if array.size == len(labels)]
    if not labels or len(fitting) != 1:
        return []
    scores = fitting[0].astype(np.float64).reshape(-1)
    best = np.argsort(-scores, kind="stable")[:_TOP]
    return [(labels[index], float(scores[index])) for index in best]


def _to_json(artifact: Artifact, outputs: Mapping[str, Array]) -> dict[str, object]:
    classes = _classes(artifact, outputs)
    return {
        "cell": artifact.cell,
        "labels": [{"label": label, "score": _finite(score)} for label, score in classes],
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


def _text(artifact: Artifact, outputs: Mapping[str, Array]) -> str:
    classes = _classes(artifact, outputs)
    if classes:
        return table(("label", "score"), [(label, f"{score:.5g}") for label, score in classes])
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
