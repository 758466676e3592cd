"""Artifacts of a nested network: every level for every target, in a folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from nestedge import __version__
from nestedge.artifact import REFERENCE_FILE, Artifact, Description, reference_bytes, write_artifact
from nestedge.convert import BuildSpec, Converter, LevelProgram, check_constants
from nestedge.cost import count_macs, count_parameters
from nestedge.documents import json_bytes
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program, materialize
from nestedge.model import NestedModel
from nestedge.plugins import load_converter
from nestedge.program.graph import InputSpec
from nestedge.program.structure import flatten, rebuild

CONSTANTS_FILE = "constants.json"
TOLERANCES = {"fp32": 1e-5}
"""Largest error of an artifact, relative to the largest reference value, by precision."""


def build(
    nested: NestedModel,
    folder: Path,
    *,
    targets: Sequence[str] = ("onnx", "tflite"),
    levels: Sequence[str] | None = None,
    spec: BuildSpec | None = None,
    after_each: Callable[[Artifact], None] | None = None,
) -> list[Artifact]:
    """Build the artifacts of some levels for some targets.

    Beside each model lie a few inputs with the outputs that the level itself gives for them, run
    inside the nested network, and where every constant of the model comes from.

    Args:
        nested: the network.
        folder: artifacts are written to `folder/<level>/<target>-<precision>`.
        targets: names of converters.
        levels: which levels; all when None.
        spec: precision and batch size.
        after_each: called with every artifact when it is on disk.

    Raises:
        UsageError: a level or target does not exist.
        NestedgeError: a converter cannot express a level.
        OSError: the folder cannot be written to.
    """
    spec = spec or BuildSpec()
    converters = [load_converter(name) for name in targets]
    built = []
    for level in levels if levels is not None else nested.levels:
        network = level_program(nested, level)
        for converter in converters:
            artifact = _build_cell(nested, level, network, converter, spec, folder)
            if after_each is not None:
                after_each(artifact)
            built.append(artifact)
    return built


def convert_level(
    nested: NestedModel, level: str, target: str, *, spec: BuildSpec | None = None
) -> bytes:
    """One level as the bytes of one plain model file.

    Raises:
        UsageError: the level or target does not exist.
        NestedgeError: the converter cannot express the level.
    """
    converter = load_converter(target)
    network = fold_batch_norms(level_program(nested, level))
    return converter.convert(network, spec or BuildSpec()).model


def exported_bytes(nested: NestedModel, level: str) -> bytes:
    """One level as the bytes of a file that torch.export.load reads.

    Raises:
        UsageError: the level does not exist.
    """
    content = io.BytesIO()
    torch.export.save(materialize(nested, level), content)
    return content.getvalue()


def _build_cell(
    nested: NestedModel,
    level: str,
    network: LevelProgram,
    converter: Converter,
    spec: BuildSpec,
    folder: Path,
) -> Artifact:
    converted = converter.convert(fold_batch_norms(network), spec)
    wrong = check_constants(converted.constants, converted.model, network.stored)
    if wrong:
        raise NestedgeError(
            f"{level}/{converter.name}-{spec.precision}: constants {wrong[:3]} are not what their "
            "expressions give; this is an error of the converter, please report it"
        )
    inputs = reference_inputs(nested, batch=spec.batch)
    model = f"model{converter.suffix}"
    constants = {"format": 1, "constants": [c.to_json() for c in converted.constants]}
    files = {
        model: converted.model,
        REFERENCE_FILE: reference_bytes(inputs, reference_outputs(nested, level, inputs)),
        CONSTANTS_FILE: json_bytes(constants),
    }
    description = Description(
        level=level,
        runtime=converter.name,
        precision=spec.precision,
        model=model,
        inputs=converted.inputs,
        outputs=converted.outputs,
        preprocessing=nested.card.preprocessing,
        labels=nested.card.labels,
        tolerance=TOLERANCES[spec.precision],
        parameters=count_parameters(network.program),
        macs=count_macs(network.program, batch=spec.batch),
        producer={"nestedge": __version__, **converted.producer},
    )
    return write_artifact(
        folder / level / f"{converter.name}-{spec.precision}", description, files=files
    )


def reference_inputs(
    nested: NestedModel, *, batch: int = 1, cases: int = 4, seed: int = 0
) -> dict[str, Array]:
    """A few inputs of every kind that the network takes.

    The first case is the example that the network was nested with, the others are noise of its
    mean and spread; inputs of whole numbers (indices, which may not be just any) repeat it.

    Returns:
        For every input an array of shape (cases, *shape at the batch size).
    """
    rng = np.random.default_rng(seed)
    return {
        spec.name: np.stack(
            [_case(nested.examples[spec.name], spec, batch, i, rng) for i in range(cases)]
        )
        for spec in nested.elastic.program.inputs
    }


def _case(
    example: torch.Tensor, spec: InputSpec, batch: int, index: int, rng: np.random.Generator
) -> Array:
    array: Array = np.broadcast_to(example.cpu().numpy(), spec.shape_at(batch))
    if index == 0 or not example.is_floating_point():
        return array
    spread = float(array.std()) or 1.0
    noise = float(array.mean()) + spread * rng.standard_normal(array.shape)
    return noise.astype(array.dtype)


def reference_outputs(
    nested: NestedModel, level: str, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """What a level gives for reference inputs, run inside the nested network in evaluation mode.

    Args:
        nested: the network.
        level: which level.
        inputs: by name, of shape (cases, *shape of the input).

    Returns:
        For every output an array of shape (cases, *shape of the output).
    """
    program = nested.elastic.program
    found: dict[str, list[Array]] = {name: [] for name, _ in program.outputs}
    was_training = nested.training
    nested.eval()
    try:
        for index in range(len(next(iter(inputs.values())))):
            leaves = [torch.tensor(inputs[spec.name][index]) for spec in program.inputs]
            arguments = rebuild(program.arguments, iter(leaves))
            with nested.at(level), torch.no_grad():
                results = flatten(program.results, nested(**arguments))
            for name, value in zip(found, results, strict=True):
                found[name].append(value.cpu().numpy())
    finally:
        nested.train(was_training)
    return {name: np.stack(arrays) for name, arrays in found.items()}
