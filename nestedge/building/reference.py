"""The inputs and outputs that every artifact carries, to be checked against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nestedge.expressions import Array
from nestedge.model import NestedModel
from nestedge.program.graph import InputSpec
from nestedge.program.structure import flatten, rebuild

CASES = 4


def reference_inputs(nested: NestedModel, *, cases: int = CASES, seed: int = 0) -> dict[str, Array]:
    """A few inputs of every kind that the network takes.

    The first case is the example that the network was nested with, the others are noise of its
    mean and spread; inputs of whole numbers (indices, which may not be just any) repeat it.

    Returns:
        For every input an array of shape (cases, *shape at a batch of 1).
    """
    rng = np.random.default_rng(seed)
    return {
        spec.name: np.stack([_case(nested.examples[spec.name], spec, i, rng) for i in range(cases)])
        for spec in nested.elastic.program.inputs
    }


def _case(example: torch.Tensor, spec: InputSpec, index: int, rng: np.random.Generator) -> Array:
    array: Array = np.broadcast_to(example.cpu().numpy(), spec.shape_at(1))
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
    program = nested.plan(level).program
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
