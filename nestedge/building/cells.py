"""Artifacts made from a level: converted, checked against their expressions, and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nestedge import __version__
from nestedge.artifact import (
    REFERENCE_FILE,
    CalibrationRecord,
    Description,
    reference_bytes,
)
from nestedge.building.reference import CASES, reference_inputs, reference_outputs
from nestedge.calibration import Calibration, read_calibration
from nestedge.convert import BuildSpec, Converted, Converter, Exported, LevelProgram
from nestedge.cost import count_macs, count_parameters, peak_activation_bytes
from nestedge.documents import json_bytes
from nestedge.errors import NestedgeError
from nestedge.explanation import check_constants
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program, stored_tensors
from nestedge.model import NestedModel
from nestedge.plugins import TensorInfo
from nestedge.precisions import PRECISIONS, Precision, WeightSteps
from nestedge.preprocessing import Preprocessing
from nestedge.program.graph import Program
from nestedge.program.serialization import program_to_json

CONSTANTS_FILE = "constants.json"


@dataclass(frozen=True)
class Level:
    """A level, ready to be converted.

    Attributes:
        nested: the network.
        name: of the level.
        network: the level as a network of its own.
        program: the same with its batch norms folded.
    """

    nested: NestedModel
    name: str
    network: LevelProgram
    program: LevelProgram


def prepare_level(nested: NestedModel, name: str) -> Level:
    """A level, ready to be converted.

    Raises:
        UsageError: there is no such level.
    """
    network = level_program(nested, name)
    return Level(nested, name, network, fold_batch_norms(network))


@dataclass(frozen=True)
class Draft:
    """An artifact that is not on disk yet: what it is, and its files by name."""

    description: Description
    files: Mapping[str, bytes]


def draft_artifact(
    level: Level,
    exported: Exported,
    converter: Converter,
    *,
    precision: str,
    calibration: Calibration | None,
    weight_steps: WeightSteps,
    key: str,
    half_layers: Sequence[str] = (),
) -> Draft:
    """A level, converted.

    Beside the model lie a few inputs with the outputs that the level itself gives for them, run
    inside the nested network, and where every constant of the model comes from.

    Args:
        level: what to convert.
        exported: what the converter has traced of it.
        converter: makes the model.
        precision: of the model.
        calibration: the data that its ranges are taken from, where it has any.
        weight_steps: as `BuildSpec` has it.
        key: hash of all that it is made from.
        half_layers: as `BuildSpec` has it.

    Raises:
        NestedgeError: the converter cannot express the level, or says wrongly where a constant of
            it comes from.
    """
    inputs = None if calibration is None else calibration.inputs
    converted = exported.convert(BuildSpec(precision, inputs, weight_steps, tuple(half_layers)))
    _check(level, converted, converter, precision)
    reference = _reference_inputs(level.nested, inputs)
    outputs = reference_outputs(level.nested, level.name, reference)
    model = f"model{converter.suffix}"
    constants = {"format": 1, "constants": [c.to_json() for c in converted.constants]}
    files = {
        model: converted.model,
        REFERENCE_FILE: reference_bytes(_laid_out(reference, converted.channels_last), outputs),
        CONSTANTS_FILE: json_bytes(constants),
        **converted.files,
    }
    card = level.nested.card
    description = Description(
        level=level.name,
        runtime=converter.runtime,
        precision=precision,
        model=model,
        inputs=converted.inputs,
        outputs=converted.outputs,
        preprocessing=_preprocessing(card.preprocessing, converted.channels_last),
        labels=card.labels,
        tolerance=PRECISIONS[precision].tolerance,
        parameters=count_parameters(level.network.program),
        macs=count_macs(level.network.program),
        producer={"nestedge": __version__, **converted.producer},
        checked_by=converter.checked_by,
        peak_memory_bytes=_peak_memory(level.program.program, PRECISIONS[precision]),
        calibration=None if calibration is None else _record(calibration),
        key=key,
        half_layers=tuple(_module_of(weight) for weight in converted.half_layers),
    )
    return Draft(description, files)


def _module_of(weight: str) -> str:
    """What the network calls a layer: its module, or the weight itself where that has none."""
    return weight.removesuffix(".weight")


def find_calibration(nested: NestedModel, folder: Path | None) -> Calibration | None:
    """The calibration data in a folder, or where none is given that in the .nest, if any.

    Raises:
        NestedgeError: the folder has none that fits; the message names the file.
    """
    if folder is None:
        return nested.calibration
    inputs = [
        TensorInfo(spec.name, spec.shape_at(1), str(spec.dtype).removeprefix("torch."))
        for spec in nested.elastic.program.inputs
    ]
    return read_calibration(folder, inputs, preprocessing=nested.card.preprocessing)


def level_hashes(nested: NestedModel) -> dict[str, str]:
    """A hash of all that a level is made of, for every level.

    It changes with the network, with any tensor that the level may use, with the level itself and
    with what travels with it (labels, preprocessing, examples); not with other levels.
    """
    shared = hashlib.sha256(_text(program_to_json(nested.elastic.program)))
    for name, tensor in sorted(stored_tensors(nested).items()):
        if not name.startswith("levels/"):
            shared.update(name.encode() + _bytes(tensor))
    for given, example in sorted(nested.examples.items()):
        shared.update(given.encode() + _bytes(example))
    steps = nested.card.preprocessing
    shared.update(_text([nested.card.labels, None if steps is None else steps.to_json()]))
    found = {}
    for level in nested.levels:
        digest = shared.copy()
        for part in _parts_of(nested, level):
            digest.update(part)
        found[level] = digest.hexdigest()
    return found


def _parts_of(nested: NestedModel, level: str) -> Iterator[bytes]:
    """What a level has of its own: its choice, the codes of its masks, and its tensors."""
    nesting = nested.nesting
    if level in nesting.consensus:
        yield _text(asdict(nesting.consensus[level]))
        for member in nesting.members(level):
            yield from _parts_of(nested, member)
        yield from _own_parts(nested, level)
        return
    yield _text({axis: list(kept) for axis, kept in nesting.choice(level).kept.items()})
    for tensor, patterns in sorted(nesting.patterns.items()):
        yield _text([tensor, [level in pattern for pattern in patterns]])
    yield from _own_parts(nested, level)


def _own_parts(nested: NestedModel, level: str) -> Iterator[bytes]:
    for name, own in sorted(nested.own_tensors(level).items()):
        yield name.encode() + _bytes(own)


def _text(data: object) -> bytes:
    return json.dumps(data, sort_keys=True).encode()


def _bytes(tensor: torch.Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().numpy()
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()


def _check(level: Level, converted: Converted, converter: Converter, precision: str) -> None:
    wrong = check_constants(converted.constants, converted.model, level.program.stored)
    if wrong:
        raise NestedgeError(
            f"{level.name}/{converter.name}-{precision}: constants {wrong[:3]} are not what their "
            "expressions give; this is an error of the converter, please report it"
        )


def _reference_inputs(
    nested: NestedModel, calibration: Mapping[str, Array] | None
) -> Mapping[str, Array]:
    """Noise will do for floats; the ranges of int8 hold for inputs like those they came from."""
    if calibration is None:
        return reference_inputs(nested)
    return {name: array[:CASES] for name, array in calibration.items()}


def _laid_out(inputs: Mapping[str, Array], channels_last: Collection[str]) -> dict[str, Array]:
    """Cases of inputs, those of images with their channels last where the artifact has them so."""
    return {
        name: np.ascontiguousarray(np.moveaxis(array, 2, -1)) if name in channels_last else array
        for name, array in inputs.items()
    }


def _preprocessing(
    steps: Preprocessing | None, channels_last: Collection[str]
) -> Preprocessing | None:
    """How an image becomes the input of an artifact."""
    if steps is None or steps.input not in channels_last:
        return steps
    if steps.layout == "NHWC":
        raise NestedgeError(f"{steps.input!r} has its channels last already: leave out --nhwc")
    return replace(steps, layout="NHWC")


def _peak_memory(program: Program, precision: Precision) -> int:
    weights = count_parameters(program) * precision.weight_bytes
    return weights + peak_activation_bytes(program, bytes_per_float=precision.activation_bytes)


def _record(calibration: Calibration) -> CalibrationRecord:
    return CalibrationRecord(calibration.sha256, calibration.cases)
