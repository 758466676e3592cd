"""The shape of every value of a program, from running it on tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nestedge.program.graph import Node, Program, Ref, Weight, call
from nestedge.program.operators import COMPARISON, NORMALISATION, UNARY

# torch works the shapes of these out in Python, by far the slowest of all.
_CASTS = {"aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default"}
_UNCHANGED = (UNARY | NORMALISATION) - COMPARISON - _CASTS


def trace_shapes(program: Program, *, batch: int) -> dict[str, Any]:
    """A meta tensor for every value of a program, or an int for every size.

    Args:
        program: what to trace.
        batch: the batch size of its inputs.

    Raises:
        NestedgeError: an operator does not take the shapes that it is given.
    """
    meta = torch.device("meta")
    values: dict[str, Any] = {
        spec.name: torch.empty(spec.shape_at(batch), dtype=spec.dtype, device=meta)
        for spec in program.inputs
    }
    weights = {
        name: torch.empty(spec.shape, dtype=spec.dtype, device=meta)
        for name, spec in program.tensors.items()
    }

    def look_up(leaf: Ref | Weight) -> Any:
        return weights[leaf.name] if isinstance(leaf, Weight) else values[leaf.name]

    for node in program.nodes:
        results = _unchanged(node, look_up) or call(node, look_up, device=meta)
        values.update({n: v for n, v in zip(node.outputs, results, strict=False) if n is not None})
    return values


def _unchanged(node: Node, look_up: Callable[[Ref | Weight], Any]) -> tuple[Any, ...]:
    """The operand of an operator that changes neither shape nor dtype; else nothing."""
    if node.op not in _UNCHANGED:
        return ()
    operand = look_up(next(node.leaves()))
    return (operand,) if operand.is_floating_point() else ()
