"""Where every constant of an artifact comes from: proved for each file, by comparing bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np

from nestedge.convert import Constant, LevelProgram, evaluated
from nestedge.expressions import (
    Array,
    Expression,
    added,
    cast,
    evaluate,
    quantization_scale,
    reshaped,
    scaled,
    transposed,
    zeros,
)
from nestedge.forms import Form, InSteps, Rounded
from nestedge.grids import Grid
from nestedge.quantization import along, scale_of

_SAMPLE = 64


@dataclass(frozen=True)
class Steps:
    """What the whole numbers of a constant stand for; their zero point is 0.

    Attributes:
        scales: what a 1 stands for, float32: one, or one for each entry of an axis.
        axis: of the constant; None for one scale.
        factor: of a bias, the scale of its layer's input: the scales are that times the weight's.
    """

    scales: Array
    axis: int | None
    factor: float | None = None


@dataclass(frozen=True)
class FoundConstant:
    """A constant as a converter finds it in its own output.

    Attributes:
        name: in the artifact.
        offset: of its first byte in the model file.
        array: its value.
        steps: what its whole numbers stand for, where it is a weight or bias that was quantised.
    """

    name: str
    offset: int
    array: Array
    steps: Steps | None = None


def explain(
    found: Sequence[FoundConstant], level: LevelProgram, *, grids: Iterable[Grid] = ()
) -> tuple[Constant, ...]:
    """Give every constant the expression that makes its bytes, where there is one.

    A converter may store a tensor as it is, in another shape, with its dimensions in another
    order, rounded to half precision or quantised; which of these it did is found by comparing
    bytes, so that it is proved for each file.

    Args:
        found: what a file has.
        level: what the file was made from.
        grids: of the weights that have the same whole numbers in all levels.
    """
    sources = _Sources(level, tuple(grids))
    # Scales are known once something is found to be scaled by them.
    order = sorted(range(len(found)), key=lambda index: found[index].steps is None)
    expressions = {index: sources.expression_of(found[index]) for index in order}
    return tuple(
        Constant(
            name=constant.name,
            offset=constant.offset,
            size_bytes=constant.array.nbytes,
            dtype=constant.array.dtype.name,
            shape=constant.array.shape,
            expression=expressions[index],
        )
        for index, constant in enumerate(found)
    )


@dataclass(frozen=True)
class _Sources:
    """What constants may come from.

    Attributes:
        level: its tensors and their expressions.
        grids: of weights that were quantised alike in all levels.
        scales: those found so far that are not of a weight alone, by their bytes.
    """

    level: LevelProgram
    grids: tuple[Grid, ...] = ()
    scales: dict[bytes, Expression] = field(default_factory=dict)

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """The level's tensors."""
        return {name: evaluated(self.level.tensors[name]) for name in sorted(self.level.tensors)}

    @cached_property
    def by_count(self) -> Mapping[int, Sequence[str]]:
        """Names by the number of entries."""
        names: dict[int, list[str]] = {}
        for name, array in self.arrays.items():
            names.setdefault(array.size, []).append(name)
        return names

    @cached_property
    def gridded(self) -> Mapping[_Key, Expression]:
        """Weights of the grids, in whole numbers and in what these stand for."""
        known = [e for grid in self.grids for e in (grid.values, grid.weight)]
        return {_key(evaluate(e, self.level.stored)): e for e in known}

    @cached_property
    def weight_scales(self) -> Mapping[bytes, tuple[Array, Expression]]:
        """The scales that int8 weights have, one or along whichever axis, by their bytes."""
        known: dict[bytes, tuple[Array, Expression]] = {}
        for grid in self.grids:
            steps = evaluate(grid.steps, self.level.stored)
            known.setdefault(steps.tobytes(), (steps, grid.steps))
        for name, array in self.arrays.items():
            if array.dtype.kind != "f" or not array.size:
                continue
            for axis in (None, *range(array.ndim)):
                scale = scale_of(array, axis)
                expression = quantization_scale(self.level.expressions[name], axis)
                known.setdefault(scale.tobytes(), (scale, expression))
        return known

    def expression_of(self, constant: FoundConstant) -> Expression | None:
        """What gives a constant's bytes, or None."""
        if not constant.array.size:
            return None
        if _key(constant.array) in self.gridded:
            return self.gridded[_key(constant.array)]
        for form in self._forms(constant):
            expression = self._match(constant, form)
            if expression is not None:
                return expression
        return None if constant.steps else self._made(constant.array)

    def _forms(self, constant: FoundConstant) -> Iterator[Form]:
        dtype, shape, steps = constant.array.dtype, constant.array.shape, constant.steps
        if steps is None:
            yield Rounded(dtype, saturates=False)
            if dtype == np.float16:
                yield Rounded(dtype, saturates=True)
            return
        scale = self._scale(steps)
        # Quantisers divide in the precision of the weights, or in double precision.
        for precision in ("float32", "float64"):
            scales = along(steps.scales, len(shape), steps.axis).astype(precision)
            divisor = scale if precision == "float32" else cast(scale, precision)
            each = np.broadcast_to(scales, shape).ravel()
            yield InSteps(each, divisor, steps.axis, dtype.name)

    def _match(self, constant: FoundConstant, form: Form) -> Expression | None:
        """A tensor that has a constant's bytes in a form, its dimensions in whatever order."""
        wanted = constant.array
        candidates = self.by_count.get(wanted.size, [])
        # The converter's name for a constant often holds ours: with equal bytes, that one is meant.
        for name in sorted(candidates, key=lambda name: name not in constant.name):
            array, expression = self.arrays[name], self.level.expressions[name]
            if array.dtype != wanted.dtype and not _may_become(array.dtype, constant):
                continue
            for dims in _orders(array.shape, wanted.shape):
                if not _gives(form, np.transpose(array, dims), wanted):
                    continue
                if dims != tuple(range(array.ndim)):
                    expression = transposed(expression, dims)
                if tuple(array.shape[d] for d in dims) != wanted.shape:
                    expression = reshaped(expression, wanted.shape)
                return expression if array.dtype == wanted.dtype else form.expression(expression)
        return None

    def _scale(self, steps: Steps) -> Expression:
        """What gives the scales: the weight, that times a number, or nothing but numbers."""
        wanted = steps.scales.tobytes()
        if wanted in self.weight_scales:
            return self.weight_scales[wanted][1]
        if wanted not in self.scales:
            self.scales[wanted] = self._product(steps) or _numbers(steps.scales)
        return self.scales[wanted]

    def _product(self, steps: Steps) -> Expression | None:
        if steps.factor is None:
            return None
        factor = np.array([steps.factor], np.float32)
        for scale, expression in self.weight_scales.values():
            product = scale.reshape(-1) * factor
            if product.tobytes() == steps.scales.tobytes():
                flat = expression if scale.ndim else reshaped(expression, (1,))
                return scaled(flat, _numbers(factor), 0)
        return None

    def _made(self, array: Array) -> Expression | None:
        """What gives the bytes of a constant that is no tensor of the level."""
        content = array.tobytes()
        if array.dtype == np.float32 and array.size > 1:
            known = self.weight_scales.get(content)
            if known is not None:
                return known[1]
            if content in self.scales:
                return self.scales[content]
        if array.dtype.name in _ZERO_DTYPES and not any(content):
            return zeros(array.shape, array.dtype.name)
        return None


_ZERO_DTYPES = ("float16", "float32", "float64", "int8", "int32")
"""Dtypes of biases that a layer lacks, and of zero points; no shape or axis has one of these."""


def _may_become(dtype: np.dtype[Any], constant: FoundConstant) -> bool:
    """Whether a constant may be a tensor of another dtype, rounded."""
    is_float = constant.array.dtype.kind == "f"
    return dtype.kind == "f" and (is_float or constant.steps is not None)


def _gives(form: Form, array: Array, wanted: Array) -> bool:
    """Whether a form of an array has the wanted bytes."""
    # A few entries tell most arrays apart.
    few = form.of(array.flat[:_SAMPLE]).tobytes() == wanted.flat[:_SAMPLE].tobytes()
    return few and form.of(array.ravel()).tobytes() == wanted.tobytes()


_Key = tuple[str, tuple[int, ...], bytes]


def _key(array: Array) -> _Key:
    """What tells an array from all others."""
    return array.dtype.name, array.shape, array.tobytes()


def _numbers(values: Array) -> Expression:
    """Numbers written down."""
    return added(None, [float(value) for value in values.ravel()], values.dtype.name)


def _orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Orders of dimensions that give the wanted sizes, dimensions of size 1 aside."""
    identity = tuple(range(len(shape)))
    sizes = [size for size in wanted if size != 1]
    orders = permutations(identity)
    fitting = (order for order in orders if [shape[d] for d in order if shape[d] != 1] == sizes)
    return list(dict.fromkeys([identity, *fitting]))


def constants_of(
    names: Collection[str], found: Sequence[FoundConstant], level: LevelProgram
) -> dict[str, frozenset[str]]:
    """The names of the constants that are made of each of some tensors of a level.

    Args:
        names: of the tensors.
        found: what a file in single precision has.
        level: what the file was made from.
    """
    known = [(c.name, c.expression) for c in explain(found, level) if c.expression is not None]
    return {
        name: frozenset(constant for constant, e in known if _contains(e, level.expressions[name]))
        for name in names
    }


def _contains(expression: Expression, part: Expression) -> bool:
    return expression == part or any(_contains(item, part) for item in expression.inputs)


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
