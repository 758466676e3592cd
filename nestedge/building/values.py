"""Every value that a level computes on the way, run by torch: what artifacts are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nestedge.building.cells import prepare_level
from nestedge.convert import evaluated
from nestedge.expressions import Array
from nestedge.model import NestedModel
from nestedge.program.graph import Node, is_weight, run
from nestedge.verify import Trace, TracedOperator


def level_values(nested: NestedModel, level: str, inputs: Mapping[str, Array]) -> Trace:
    """One run of a level with its batch norms folded, as converters get it.

    Args:
        nested: the network.
        level: which level.
        inputs: by name, of one case: as the network takes them, or with the channels last.

    Raises:
        UsageError: there is no such level.
        NestedgeError: an operator failed; the message names it and its place.
    """
    prepared = prepare_level(nested, level).program
    program = prepared.program
    # Sizes are whole numbers of Python.
    values: dict[str, Any] = {}
    for spec in program.inputs:
        shape = spec.shape_at(len(inputs[spec.name]))
        values[spec.name] = torch.tensor(_channels_first(inputs[spec.name], shape))

    def keep(node: Node, results: Sequence[object]) -> None:
        pairs = zip(node.outputs, results, strict=False)
        values.update({name: result for name, result in pairs if name is not None})

    given = [values[spec.name] for spec in program.inputs]
    with torch.no_grad():
        run(program, prepared.tensors, given, watch=keep)
    return Trace(
        operators=tuple(_operator(node) for node in program.nodes),
        values={
            name: evaluated(value)
            for name, value in values.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        },
        inputs={spec.name: spec.name for spec in program.inputs},
        outputs={name: ref.name for name, ref in program.outputs},
    )


def _channels_first(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape == shape:
        return array
    moved = np.moveaxis(array, -1, 1)
    if moved.shape != shape:
        raise ValueError(f"expected an input of shape {shape}, found {array.shape}")
    return np.ascontiguousarray(moved)


def _operator(node: Node) -> TracedOperator:
    leaves = list(node.leaves())
    outputs = tuple(name for name in node.outputs if name is not None)
    return TracedOperator(
        kind=node.op,
        name=outputs[0] if outputs else node.op,
        inputs=tuple(leaf.name for leaf in leaves if not is_weight(leaf)),
        outputs=outputs,
        constants=tuple(leaf.name for leaf in leaves if is_weight(leaf)),
        module=node.scope,
    )
