"""One grid of whole numbers for a weight of all levels: int8 weights that a family shares.

A weight that each level quantises by its own largest magnitudes differs from level to level. Here
every output channel has the step that its weight has in the whole network, before a batch norm is
folded into it; a level takes its entries of those whole numbers, and its batch norm's factor goes
into the step. So the int8 weights of two levels are the same bytes wherever they have the same
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nestedge.expressions import (
    Array,
    Expression,
    cast,
    evaluate,
    quantization_scale,
    quantized,
    reshaped,
    scaled,
    signed,
    stepped,
    take,
    transposed,
)

# Half of int32: the other half is for the sum of the products.
MOST_STEPS_OF_A_BIAS = 2**30

OWN = "levels/"
"""What the names of a level's own tensors in a .nest begin with."""


@dataclass(frozen=True)
class Grid:
    """A weight in whole numbers.

    Attributes:
        values: gives them, int8, of the weight's shape.
        steps: gives what a 1 stands for, float32, one for each output channel.
        axis: of the weight, that of the output channels.
    """

    values: Expression
    steps: Expression
    axis: int

    @property
    def weight(self) -> Expression:
        """Gives the weight that they stand for, float32."""
        return scaled(cast(self.values, "float32"), self.steps, self.axis)


def family_grid(weight: Expression, axis: int, stored: Mapping[str, Array]) -> Grid | None:
    """The grid of a level's weight that all levels share; None where there is none.

    There is none for a weight that is a level's own, that a level makes of stored ones by more than
    taking entries (as once-for-all's small kernels), or whose inputs are scaled by something of the
    level's own.

    Args:
        weight: gives it in single precision.
        axis: of the weight, that of the output channels.
        stored: the tensors of the .nest.
    """
    if weight.op == "transpose":
        (source,), dims = weight.inputs, weight.attributes["dims"]
        return _moved(
            family_grid(source, dims[axis], stored), lambda e: transposed(e, tuple(dims)), axis
        )
    if weight.op == "reshape":
        (source,), shape = weight.inputs, tuple(weight.attributes["shape"])
        inner = _same_axis(evaluate(source, stored).shape, shape, axis)
        found = None if inner is None else family_grid(source, inner, stored)
        return _moved(found, lambda e: reshaped(e, shape), axis)
    if weight.op == "scale" and weight.attributes["dim"] == axis:
        source, factor = weight.inputs
        found = family_grid(source, axis, stored)
        if found is None or not _keeps_digits(found.steps, factor, stored):
            return None
        return Grid(signed(found.values, factor, axis), stepped(found.steps, factor), axis)
    steps = _steps(weight, axis)
    return None if steps is None else Grid(quantized(weight, steps, axis, "int8"), steps, axis)


def holds_bias(steps: Array, bias: Array, *, input_step: float) -> bool:
    """Whether a layer's bias fits into int32, in steps of its input's times its weight's.

    Args:
        steps: of the weight, one for each output channel.
        bias: one number for each of them.
        input_step: what a 1 of the layer's input stands for.
    """
    largest = MOST_STEPS_OF_A_BIAS * input_step * steps.astype(np.float64).ravel()
    return bool((np.abs(bias, dtype=np.float64) <= largest).all())


def _keeps_digits(steps: Expression, factor: Expression, stored: Mapping[str, Array]) -> bool:
    """Whether steps times a factor are zero or large enough for single precision."""
    factors = np.abs(evaluate(factor, stored)).astype(np.float64)
    product = evaluate(steps, stored) * factors
    return bool(((factors == 0) | (product >= np.finfo(np.float32).tiny)).all())


def _moved(found: Grid | None, move: Callable[[Expression], Expression], axis: int) -> Grid | None:
    return None if found is None else Grid(move(found.values), found.steps, axis)


def _steps(weight: Expression, axis: int) -> Expression | None:
    """The steps of a level's entries: those of the whole tensor, at the level's channels."""
    wide = _widened(weight)
    if wide is None:
        return None
    steps = quantization_scale(wide, axis)
    for intervals in _cuts(weight, axis):
        steps = take(steps, 0, intervals)
    return steps


def _widened(expression: Expression) -> Expression | None:
    """The same of all entries of the stored tensors; None where it is a level's own."""
    if expression.op == "stored":
        return None if expression.attributes["name"].startswith(OWN) else expression
    if expression.op == "take":
        return _widened(expression.inputs[0])
    if expression.op == "mask":
        # All entries, also those that no level has: which ones these are may change later.
        return _widened(expression.inputs[0])
    if expression.op not in ("scale", "batch_norm_scale", "cast"):
        return None
    inputs = [_widened(item) for item in expression.inputs]
    known = tuple(item for item in inputs if item is not None)
    is_whole = len(known) == len(inputs)
    return Expression(expression.op, known, expression.attributes) if is_whole else None


def _cuts(expression: Expression, axis: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Which entries of an axis are taken, the first choice first."""
    if expression.op == "stored":
        return
    yield from _cuts(expression.inputs[0], axis)
    if expression.op == "take" and expression.attributes["dim"] == axis:
        yield tuple((start, stop) for start, stop in expression.attributes["intervals"])


def _same_axis(shape: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """The axis that another is behind a change of shape that only adds or removes sizes of 1."""
    if [size for size in shape if size != 1] != [size for size in after if size != 1]:
        return None
    if after[axis] == 1:
        return None
    place = sum(size != 1 for size in after[:axis])
    return [index for index, size in enumerate(shape) if size != 1][place]
