"""What a converter plug-in is given and gives, and where an artifact's constants come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from nestedge.errors import UsageError, did_you_mean
from nestedge.expressions import Array, Expression, to_json
from nestedge.plugins import TensorInfo
from nestedge.precisions import PRECISIONS, WeightSteps
from nestedge.program.arguments import layer_weights
from nestedge.program.graph import Program
from nestedge.reasons import conversion_error

_MOST_BYTES = 2**31


@dataclass(frozen=True)
class LevelProgram:
    """A level as a network of its own.

    Attributes:
        program: with every size the level's.
        tensors: every tensor that the program reads, at the level's size.
        expressions: how each tensor comes from the stored ones.
        stored: the tensors of the .nest, by the names that expressions use.
    """

    program: Program
    tensors: Mapping[str, torch.Tensor]
    expressions: Mapping[str, Expression]
    stored: Mapping[str, Array]


@dataclass(frozen=True)
class BuildSpec:
    """What is asked of a converter.

    Attributes:
        precision: of weights and arithmetic; a converter names those it has.
        calibration: representative inputs that the ranges of int8 are taken from, by name, each of
            shape (cases, *shape of the artifact's input).
        weight_steps: what a 1 of an int8 weight stands for: in all levels of a family the same but
            for the factor of a batch norm, so that they have the same whole numbers, or for each
            "level" what suits its own largest weights.
        half_layers: names of weights of the level's program, in an 8-bit precision: the layers
            that read them compute in floating point, with their weights in half precision.
    """

    precision: str = "fp32"
    calibration: Mapping[str, Array] | None = None
    weight_steps: WeightSteps = "family"
    half_layers: tuple[str, ...] = ()

    @property
    def is_on_family_grids(self) -> bool:
        """Whether int8 weights have the steps of the family; those without ranges never do."""
        return self.weight_steps == "family" and PRECISIONS[self.precision].is_calibrated


@dataclass(frozen=True)
class Constant:
    """One constant of an artifact.

    Attributes:
        name: in the artifact.
        offset: of its first byte in the model file.
        size_bytes: how many bytes it has there.
        dtype: numpy's name.
        shape: as the artifact has it.
        expression: gives its bytes from the tensors of the .nest; None where the converter made
            it (a shape, an axis, a padding).
    """

    name: str
    offset: int
    size_bytes: int
    dtype: str
    shape: tuple[int, ...]
    expression: Expression | None

    def to_json(self) -> dict[str, Any]:
        """The constant as JSON data."""
        return {
            "name": self.name,
            "offset": self.offset,
            "bytes": self.size_bytes,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "expression": None if self.expression is None else to_json(self.expression),
        }


@dataclass(frozen=True)
class Converted:
    """What a converter made.

    Attributes:
        model: the bytes of the model file.
        inputs: what the artifact takes, in the order of the program's inputs.
        outputs: what it gives, in the order of the program's outputs.
        constants: every constant in it.
        producer: versions of the packages that made it, by name.
        files: what else belongs to the artifact, by name.
        channels_last: names of the inputs that are images with their channels last, where the
            network has them behind the batch.
        half_layers: names of the weights that stayed in half precision: those asked for, and those
            of layers that have to compute in floating point with them.
    """

    model: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    constants: tuple[Constant, ...]
    producer: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    channels_last: tuple[str, ...] = ()
    half_layers: tuple[str, ...] = ()


class Exported(Protocol):
    """A level that a converter has traced, which is most of its work; every precision follows."""

    def convert(self, spec: BuildSpec) -> Converted:
        """The level in a precision.

        Raises:
            UsageError: the converter has no such precision, int8 lacks calibration data, or no
                layer of the precision can stay in half precision.
            NestedgeError: the framework cannot quantise the network; the message says why.
        """
        ...


class Converter(Protocol):
    """A plug-in that turns a level into files for one runtime.

    One that runs a program from outside also has `version() -> str`, which names the program and
    its version, and raises MissingDependencyError where it is missing. One whose 8-bit files may
    have layers in half precision has `mixed: tuple[str, ...]`, the precisions of these files.
    """

    @property
    def name(self) -> str:
        """Of the plug-in."""
        ...

    @property
    def runtime(self) -> str:
        """The runtime that its artifacts are for: "onnx", "tflite", "tensorrt"."""
        ...

    @property
    def checked_by(self) -> str:
        """The runtime plug-in that opens its model files.

        It is `runtime`, but where that compiles the model on the device and nowhere else.
        """
        ...

    @property
    def suffix(self) -> str:
        """Of the model file, as in ".onnx"."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions it has."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions whose versions decide what it writes."""
        ...

    def export(self, level: LevelProgram, *, batch: int = 1) -> Exported:
        """A level, traced.

        Args:
            level: batch norms behind convolutions are folded already.
            batch: the batch size that its artifacts are fixed to.

        Raises:
            NestedgeError: the framework cannot express the network; the message says why.
        """
        ...


def check_spec(converter: Converter, spec: BuildSpec) -> None:
    """Refuses what a converter cannot make.

    Raises:
        UsageError: it has no such precision, int8 lacks calibration data, or no layer of the
            precision can stay in half precision.
    """
    if spec.precision not in converter.precisions:
        raise UsageError(
            f"{converter.name}: no precision {spec.precision!r}; it has {converter.precisions}"
        )
    if PRECISIONS[spec.precision].is_calibrated and not spec.calibration:
        raise UsageError(
            f"{converter.name}: {spec.precision} needs calibration data: give --calibration"
        )
    known = mixed_precisions(converter)
    if spec.half_layers and spec.precision not in known:
        raise UsageError(
            f"{converter.name}: layers can stay in half precision in {known}, found "
            f"{spec.precision!r}: leave out half_layers"
        )


def mixed_precisions(converter: Converter) -> tuple[str, ...]:
    """The 8-bit precisions in which a converter can leave layers in half precision."""
    found: tuple[str, ...] = getattr(converter, "mixed", ())
    return found


def check_half_layers(level: LevelProgram, spec: BuildSpec) -> None:
    """Refuses layers to be left in half precision that the level does not have.

    Raises:
        UsageError: the level has no such weight.
        ConversionError: half precision cannot hold one of the weights.
    """
    unknown = sorted(set(spec.half_layers) - level.tensors.keys())
    if unknown:
        known = layer_weights(level.program)
        raise UsageError(
            f"half_layers: the level has no weight {unknown[0]!r}; those of its layers are "
            f"{list(known)}{did_you_mean(unknown[0], known)}"
        )
    _check_half(level, spec.half_layers)


def check_half(level: LevelProgram) -> None:
    """Refuses a level with a weight that half precision cannot hold.

    Buffers are let through: a mask's "minus infinity" may become the largest number there is.

    Raises:
        ConversionError: naming the weight; it would become infinite, or another number.
    """
    _check_half(level, level.program.used_tensors())


def _check_half(level: LevelProgram, names: Collection[str]) -> None:
    most = torch.finfo(torch.float16).max
    for name in sorted(names):
        tensor = level.tensors[name]
        if level.program.tensors[name].role != "parameter" or not tensor.is_floating_point():
            continue
        largest = float(tensor.abs().max())
        if largest > most:
            said = f"{name!r}: fp16 holds numbers up to {most:.0f}, found {largest:g}"
            raise conversion_error("out-of-range-for-fp16", said)


def check_size(level: LevelProgram, file: str) -> None:
    """Refuses a level whose weights do not fit into one file of the target.

    Args:
        level: in single precision, which the other precisions are made from.
        file: what kind, as in "an ONNX file".

    Raises:
        ConversionError: it has 2 GiB of weights or more, which no protobuf can.
    """
    tensors = [level.tensors[name] for name in level.program.used_tensors()]
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if found >= _MOST_BYTES:
        said = f"{file} holds less than {_MOST_BYTES:,} bytes, the weights have {found:,}"
        raise conversion_error("file-too-large", said)


def tensor_of(array: Array) -> torch.Tensor:
    """An array as a contiguous tensor."""
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def evaluated(tensor: torch.Tensor) -> Array:
    """A tensor as an array."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def reason_of(error: BaseException) -> str:
    """What went wrong in the end: the first line of the error that an error was raised from.

    Frameworks wrap their errors, some in a banner of advice.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]
