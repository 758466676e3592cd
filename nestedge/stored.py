"""Which tensors a .nest holds: their names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from nestedge.errors import did_you_mean
from nestedge.intervals import Intervals
from nestedge.joining import Consensus
from nestedge.nesting import Nesting
from nestedge.program.graph import Program, TensorSpec
from nestedge.program.serialization import DTYPES


@dataclass(frozen=True)
class Form:
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} of shape {list(self.shape)}"


def forms_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Form]:
    """The forms of tensors that are there."""
    return {name: Form(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def expected_forms(program: Program, nesting: Nesting, *, cases: int | None) -> dict[str, Form]:
    """The forms of all tensors of a network: shared, inputs, codes and those of the levels.

    Args:
        program: of the network.
        nesting: its levels.
        cases: of its calibration data; None where it has none.
    """
    found = {
        f"shared/{name}": Form(spec.shape, spec.dtype) for name, spec in program.tensors.items()
    }
    found |= {
        f"examples/{spec.name}": Form(spec.shape_at(1), spec.dtype) for spec in program.inputs
    }
    if cases is not None:
        forms = calibration_forms(program, cases)
        found |= {f"calibration/{name}": form for name, form in forms.items()}
    for name in nesting.patterns:
        found[f"codes/{name}"] = Form(program.tensors[name].shape, torch.uint8)
    for level in nesting.names:
        for name, spec in own_specs(program, nesting, level).items():
            found[f"levels/{level}/{name}"] = Form(spec.shape, spec.dtype)
    return found


def own_specs(program: Program, nesting: Nesting, level: str) -> dict[str, TensorSpec]:
    """The tensors that a level has of its own, by name."""
    if level in nesting.consensus:
        return layer_specs(nesting.consensus[level])
    found = {}
    for name in sorted(nesting.own[level]):
        uses, spec = nesting.uses(level, name), program.tensors[name]
        if uses is not None:
            found[name] = replace(spec, shape=_cut(spec.shape, uses))
    return found


def layer_specs(consensus: Consensus) -> dict[str, TensorSpec]:
    """The tensors that a consensus has of its own, by name."""
    if consensus.layer is None:
        return {}
    dtype = DTYPES[consensus.layer.dtype]
    return {name: TensorSpec(s, dtype, "parameter") for name, s in consensus.shapes().items()}


def calibration_forms(program: Program, cases: int) -> dict[str, Form]:
    """The forms of calibration data, by input: the cases are one large batch."""
    return {spec.name: Form(spec.shape_at(cases), spec.dtype) for spec in program.inputs}


def _cut(shape: tuple[int, ...], uses: Sequence[Intervals | None]) -> tuple[int, ...]:
    return tuple(
        size if kept is None else sum(stop - start for start, stop in kept)
        for size, kept in zip(shape, uses, strict=False)
    )


def difference(expected: Mapping[str, Form], found: Mapping[str, Form]) -> str:
    """The first difference between forms in words, "" without one."""
    for name, form in expected.items():
        if name not in found:
            return f"tensor {name!r} is missing"
        if found[name] != form:
            return f"tensor {name!r}: expected {form}, found {found[name]}"
    for name in found:
        if name not in expected:
            return f"tensor {name!r} does not belong here{did_you_mean(name, expected)}"
    return ""


def branch(
    tensors: Mapping[str, torch.Tensor], prefix: str, *, specs: Mapping[str, TensorSpec]
) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it; parameters as such."""
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return typed(found, specs)


def typed(
    tensors: Mapping[str, torch.Tensor], specs: Mapping[str, TensorSpec]
) -> dict[str, torch.Tensor]:
    """The tensors, those that are parameters as such."""
    found = {}
    for name, tensor in tensors.items():
        is_parameter = specs[name].role == "parameter"
        # Gradients are of floating point only.
        trained = tensor.is_floating_point()
        found[name] = nn.Parameter(tensor, trained) if is_parameter else tensor
    return found
