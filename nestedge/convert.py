"""What a converter plug-in is given and gives, and where an artifact's constants come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Protocol

import numpy as np
import torch

from nestedge.expressions import (
    Array,
    Expression,
    evaluate,
    reshaped,
    to_json,
    transposed,
    zeros,
)
from nestedge.plugins import TensorInfo
from nestedge.program.graph import Program


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
        batch: the batch size that the artifact is fixed to.
    """

    precision: str = "fp32"
    batch: int = 1


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
    """

    model: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    constants: tuple[Constant, ...]
    producer: Mapping[str, str]


class Converter(Protocol):
    """A plug-in that turns a level into a file for one runtime."""

    @property
    def name(self) -> str:
        """The runtime that its artifacts are for: "onnx", "tflite"."""
        ...

    @property
    def suffix(self) -> str:
        """Of the model file, as in ".onnx"."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions it has."""
        ...

    def convert(self, level: LevelProgram, spec: BuildSpec) -> Converted:
        """The level as a model file.

        Args:
            level: batch norms behind convolutions are folded already.
            spec: precision and batch size.

        Raises:
            NestedgeError: the framework cannot express the network; the message says why.
        """
        ...


@dataclass(frozen=True)
class FoundConstant:
    """A constant as a converter finds it in its own output."""

    name: str
    offset: int
    array: Array


def explain(found: Sequence[FoundConstant], level: LevelProgram) -> tuple[Constant, ...]:
    """Give every constant the expression that makes its bytes, where there is one.

    A converter may store a tensor as it is, in another shape, or with its dimensions in another
    order; which of these it did is found by comparing bytes, so that it is proved for each file.
    """
    arrays = {name: evaluated(tensor) for name, tensor in level.tensors.items()}
    by_size: dict[int, list[str]] = {}
    for name in sorted(arrays):
        by_size.setdefault(arrays[name].nbytes, []).append(name)
    return tuple(
        Constant(
            name=constant.name,
            offset=constant.offset,
            size_bytes=constant.array.nbytes,
            dtype=constant.array.dtype.name,
            shape=constant.array.shape,
            expression=_expression(
                constant, by_size.get(constant.array.nbytes, []), arrays, level.expressions
            ),
        )
        for constant in found
    )


def tensor_of(array: Array) -> torch.Tensor:
    """An array as a contiguous tensor."""
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def evaluated(tensor: torch.Tensor) -> Array:
    """A tensor as an array."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def _expression(
    constant: FoundConstant,
    candidates: Sequence[str],
    arrays: Mapping[str, Array],
    expressions: Mapping[str, Expression],
) -> Expression | None:
    wanted = constant.array.tobytes()
    # The converter's name for a constant often holds ours: with equal bytes, that one is meant.
    for name in sorted(candidates, key=lambda name: name not in constant.name):
        array, expression = arrays[name], expressions[name]
        if array.dtype != constant.array.dtype or not wanted:
            continue
        for dims in _orders(array.shape, constant.array.shape):
            if np.transpose(array, dims).tobytes() != wanted:
                continue
            moved = expression if dims == tuple(range(array.ndim)) else transposed(expression, dims)
            same = tuple(array.shape[d] for d in dims) == constant.array.shape
            return moved if same else reshaped(moved, constant.array.shape)
    if constant.array.dtype.kind == "f" and not any(wanted):
        return zeros(constant.array.shape, constant.array.dtype.name)
    return None


def _orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Orders of dimensions that give the wanted sizes, dimensions of size 1 aside."""
    identity = tuple(range(len(shape)))
    sizes = [size for size in wanted if size != 1]
    orders = permutations(identity)
    fitting = (order for order in orders if [shape[d] for d in order if shape[d] != 1] == sizes)
    return list(dict.fromkeys([identity, *fitting]))


def reason_of(error: BaseException) -> str:
    """What went wrong in the end: the first line of the error that an error was raised from.

    Frameworks wrap their errors, some in a banner of advice.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]


def check_constants(
    constants: Sequence[Constant], model: bytes, stored: Mapping[str, Array]
) -> list[str]:
    """The names of constants whose expression does not give their bytes, from a .nest's tensors."""
    return [
        constant.name
        for constant in constants
        if constant.expression is not None
        and evaluate(constant.expression, stored).tobytes()
        != model[constant.offset : constant.offset + constant.size_bytes]
    ]
