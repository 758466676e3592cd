"""Which entries of a network's values do not depend on its input, and what they are.

A channel whose incoming weights are all zero still has a value: what bias and batch norm make of
zero. Here a program is run with NaN for everything unknown, so that what is not NaN is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from nestedge.convert import LevelProgram
from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Ref, Weight, call
from nestedge.program.shapes import trace_shapes

_ELEMENTWISE = (operators.UNARY | operators.JOIN) - operators.COMPARISON
_TRANSPARENT = operators.MOVEMENT | {"aten.cat.default", "aten.stack.default", "aten.pad.default"}
_MEANS = {"aten.mean.default", "aten.mean.dim"}
_PRODUCTS = operators.CONVOLUTION | {"aten.linear.default"}


def known_values(level: LevelProgram) -> dict[str, torch.Tensor | None]:
    """Every value of a level at a batch of 1, NaN where it depends on the input.

    Returns:
        By name, in float64; None for values that are not floating-point numbers.
    """
    return _Run(level).run()


@dataclass
class _Run:
    """One pass over a level's program; lives for one call of `run`."""

    level: LevelProgram
    values: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, torch.Tensor | None]:
        program = self.level.program
        shapes = trace_shapes(program, batch=1)
        for spec in program.inputs:
            self.values[spec.name] = _unknown(shapes[spec.name])
        for node in program.nodes:
            metas = [shapes[name] if name else None for name in node.outputs]
            for name, value in zip(node.outputs, self._results(node, metas), strict=False):
                if name is not None:
                    self.values[name] = value
        return {name: v for name, v in self.values.items() if not isinstance(v, int)}

    def _results(self, node: Node, metas: list[Any]) -> tuple[Any, ...]:
        if node.op in operators.SYMBOLIC:
            return (metas[0],)
        unknown = tuple(None if meta is None else _unknown(meta) for meta in metas)
        operands = [self._value(leaf) for leaf in node.leaves()]
        if any(value is None for value in operands) or unknown[0] is None:
            return unknown
        evaluate = _evaluation(node.op)
        return unknown if evaluate is None else evaluate(node, self._value)

    def _value(self, leaf: Ref | Weight) -> Any:
        if isinstance(leaf, Ref):
            return self.values[leaf.name]
        tensor = self.level.tensors[leaf.name]
        return tensor.double() if tensor.is_floating_point() else None


def _unknown(meta: Any) -> torch.Tensor | None:
    if not isinstance(meta, torch.Tensor) or not meta.is_floating_point():
        return None
    return torch.full(tuple(meta.shape), math.nan, dtype=torch.float64)


LookUp = Callable[[Ref | Weight], Any]


def _evaluation(op: str) -> Callable[[Node, LookUp], tuple[Any, ...]] | None:
    if op in _PRODUCTS:
        return _product
    if op == "aten.mul.Tensor":
        return _multiplication
    if op in _ELEMENTWISE:
        return _elementwise
    if op in _TRANSPARENT | _MEANS or op == "aten.batch_norm.default":
        return lambda node, look_up: call(node, look_up, device=None)
    if op in operators.SPATIAL:
        return _resampled
    return None


def _known_zero(value: Any) -> Any:
    return torch.nan_to_num(value, nan=0.0) if isinstance(value, torch.Tensor) else value


def _is_unknown(value: Any) -> Any:
    return value.isnan().double() if isinstance(value, torch.Tensor) else value


def _product(node: Node, look_up: LookUp) -> tuple[Any, ...]:
    """A linear map: unknown where an unknown entry meets a weight that is not zero."""
    (result,) = call(node, lambda leaf: _known_zero(look_up(leaf)), device=None)
    a = named_arguments(node, lambda leaf: leaf)

    def reach(leaf: Ref | Weight) -> Any:
        value = look_up(leaf)
        if leaf == a["bias"]:
            return torch.zeros_like(value)
        return (value != 0).double() if leaf == a["weight"] else _is_unknown(value)

    (reached,) = call(node, reach, device=None)
    return (result.masked_fill(reached > 0, math.nan),)


def _multiplication(node: Node, look_up: LookUp) -> tuple[Any, ...]:
    """A product: a zero stays zero whatever it meets."""
    (result,) = call(node, look_up, device=None)
    (zeros,) = call(node, lambda leaf: (look_up(leaf) != 0).double(), device=None)
    return (result.masked_fill(zeros == 0, 0.0),)


def _elementwise(node: Node, look_up: LookUp) -> tuple[Any, ...]:
    (result,) = call(node, look_up, device=None)
    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        return (None,)
    # Some kernels' minimum and maximum drop a NaN.
    for leaf in node.leaves():
        result = result.masked_fill(look_up(leaf).isnan().expand(result.shape), math.nan)
    return (result,)


def _resampled(node: Node, look_up: LookUp) -> tuple[Any, ...]:
    results = call(node, lambda leaf: _known_zero(look_up(leaf)), device=None)
    reached = call(node, lambda leaf: _is_unknown(look_up(leaf)), device=None)
    value = results[0].masked_fill(reached[0] > 0, math.nan)
    return (value, *(None for _ in results[1:]))


def constant_along(value: torch.Tensor, dim: int) -> torch.Tensor:
    """The constant that each entry of a dimension is, NaN where it is not one: shape (size,)."""
    rows = value.movedim(dim, 0).reshape(value.shape[dim], -1)
    same = (rows == rows[:, :1]).all(dim=1)
    return rows[:, 0].masked_fill(~same, math.nan)
