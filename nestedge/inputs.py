"""The inputs of a call: as the user gives them, as the program takes them, as calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nestedge.calibration import Calibration, check_finite, sha256_of_arrays
from nestedge.convert import tensor_of
from nestedge.errors import UsageError
from nestedge.plugins import Array
from nestedge.program.graph import InputSpec, Program
from nestedge.program.structure import flatten
from nestedge.stored import calibration_forms, difference, forms_of


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs from a tensor, a tuple or list, or a dict of keyword inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def input_tensors(
    program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[torch.Tensor]:
    """The input tensors of a call, in the order of the program's inputs.

    Raises:
        UsageError: the inputs are not nested like the example inputs, or one has another shape.
    """
    tensors = flatten(program.arguments, _bind(program, args, kwargs))
    for spec, tensor in zip(program.inputs, tensors, strict=True):
        # A size other than the traced one would fail far from here, or worse, would not.
        sizes = zip(spec.shape, tensor.shape, strict=False)
        fits = all(wanted in (None, size) for wanted, size in sizes)
        if tensor.dim() != len(spec.shape) or not fits:
            expected = ["batch" if size is None else size for size in spec.shape]
            raise UsageError(
                f"input {spec.name!r}: expected shape {expected}, found {list(tensor.shape)}; "
                "nest it once more for another size"
            )
    return tensors


def _bind(program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    structure = program.arguments
    if len(args) > len(structure.keys):
        raise UsageError(f"expected inputs {list(structure.keys)}, found {len(args)}")
    given = dict(zip(structure.keys, args, strict=False))
    if twice := sorted(given.keys() & kwargs.keys()):
        raise UsageError(f"inputs {twice} are given twice, by position and by name")
    fixed = {
        key: item.value
        for key, item in zip(structure.keys, structure.items, strict=True)
        if item.kind == "constant"
    }
    return {**fixed, **given, **kwargs}


def calibration_from(program: Program, inputs: Any) -> Calibration:
    """Calibration data from inputs as they are given to `nest`, with many cases.

    Raises:
        UsageError: they do not fit the network, or hold a number that is not finite.
    """
    args, kwargs = as_call(inputs)
    try:
        tensors = input_tensors(program, args, kwargs)
    except UsageError as error:
        raise UsageError(f"calibration: {error}") from error
    names = [spec.name for spec in program.inputs]
    return calibration_of(program, dict(zip(names, tensors, strict=True)))


def calibration_of(program: Program, tensors: Mapping[str, torch.Tensor]) -> Calibration:
    """Calibration data from one large batch of inputs.

    An input without a batch axis is given once, as in any call, and is the same in every case.

    Args:
        program: what takes them.
        tensors: by the names of its inputs.

    Raises:
        UsageError: an input is missing or of another shape, dtype or number of cases than the
            others, is of a dtype that numpy lacks, or holds a number that is not finite.
    """
    batched = [tensors[s.name] for s in program.inputs if None in s.shape and s.name in tensors]
    cases = next((size for tensor in batched for size in tensor.shape[:1]), 1)
    if wrong := difference(calibration_forms(program, cases), forms_of(tensors)):
        raise UsageError(f"calibration: {wrong}")
    if cases == 0:
        raise UsageError("calibration: expected at least one case along axis 0, found none")
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:
            raise UsageError(f"calibration: input {name!r} is of bfloat16, which numpy lacks")
    # Copies, because the user's tensors may change.
    arrays: dict[str, Array] = {n: t.detach().cpu().numpy().copy() for n, t in tensors.items()}
    try:
        check_finite(arrays)
        inputs = {spec.name: _by_case(arrays[spec.name], spec, cases) for spec in program.inputs}
    except ValueError as error:
        raise UsageError(f"calibration: {error}") from error
    return Calibration(inputs, sha256_of_arrays(arrays))


def _by_case(array: Array, spec: InputSpec, cases: int) -> Array:
    shape = (cases, *spec.shape_at(1))
    # A fixed input is repeated as a view, which takes no memory.
    return array.reshape(shape) if None in spec.shape else np.broadcast_to(array, shape)


def calibration_tensors(program: Program, calibration: Calibration) -> dict[str, torch.Tensor]:
    """The tensors that `calibration_of` makes the same calibration data from."""
    found = {}
    for spec in program.inputs:
        array = calibration.inputs[spec.name]
        once = array if None in spec.shape else array[:1]
        # torch takes no view that cannot be written to.
        found[spec.name] = tensor_of(once.reshape(spec.shape_at(calibration.cases)).copy())
    return found
