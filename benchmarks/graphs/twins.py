"""The level of one channel a unit beside the network that is made of so many."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.graphs.levels import shared_level
from benchmarks.graphs.networks import BATCH, build
from benchmarks.graphs.subjects import (
    TOLERANCE,
    PropertyError,
    Record,
    Subject,
    added,
    error_of,
    run,
    within,
)
from nestedge.materialization import state_dict
from nestedge.program.capture import capture
from nestedge.program.graph import Program
from nestedge.program.shapes import trace_shapes

SHARE = "share"


def check_twin(subject: Subject, record: Record) -> float | str:
    """The level of one channel a unit, and the network that is made of so many.

    Returns:
        The error; or why there is no such level, where dependences keep more of an axis.
    """
    nested, description = subject.nested, subject.description
    axes = nested.nesting.axes
    if any(axis.size % description.scale for axis in axes.values() if axis.kind == "width"):
        return "axes of other sizes"
    level = shared_level(axes, description.scale)
    if not added(nested, SHARE, level, record):
        return "refused"
    if _scales(nested.plan(SHARE).program) != _scales(nested.elastic.program):
        return "attention scaled by the full width"
    twin = build(description, scale=1)
    tensors = state_dict(nested, SHARE)
    shapes = {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}
    if shapes.keys() != tensors.keys():
        raise PropertyError(f"{SHARE}: expected {sorted(shapes)}, found {sorted(tensors)}")
    if any(shapes[name] != tuple(tensor.shape) for name, tensor in tensors.items()):
        return "tensors of other sizes"
    twin.load_state_dict(tensors, strict=True)
    with nested.at(SHARE):
        level_outputs = run(nested, subject.x)
    error = error_of(level_outputs, run(twin, subject.x))
    if not error <= TOLERANCE:
        # Heads cut from both directions of a recurrent layer hold other channels of a narrower one.
        captured = capture(twin, (subject.x,)).program
        if _sizes(captured) != _sizes(nested.plan(SHARE).program):
            return "values of other sizes"
    return within(error, f"{SHARE}: the twin")


def _sizes(program: Program) -> list[list[int]]:
    """The sizes of all values."""
    values = trace_shapes(program, batch=BATCH).values()
    return sorted(list(value.shape) for value in values if isinstance(value, torch.Tensor))


def _scales(program: Program) -> list[Any]:
    """The scale of every attention; without one it follows the width."""
    return [n.kwargs.get("scale") for n in program.nodes if "scaled_dot_product" in n.op]
