"""A level from the user's own module: what it lacks is absent or zero, at the full size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.graphs.mixing import MIXING
from benchmarks.graphs.presence import Told, Value, run_present
from nestedge.axes.blocks import Stage
from nestedge.axes.parallel import Group
from nestedge.intervals import entries
from nestedge.model import NestedModel
from nestedge.program.capture import capture
from nestedge.tree import named


@dataclass(frozen=True)
class Expected:
    """What a level is to give.

    Attributes:
        present: with everything that the level lacks absent.
        told: where zero is not the same as absent.
        zeroed: what the user's own module gives with zeros; None where zero is not the same.
    """

    present: tuple[Tensor, ...]
    told: Told
    zeroed: tuple[Tensor, ...] | None


def tensors_of(output: Any) -> tuple[Tensor, ...]:
    """The tensors that a network gives, in order."""
    return tuple(output.values()) if isinstance(output, Mapping) else (output,)


def expected_of(module: nn.Module, nested: NestedModel, level: str, x: Tensor) -> Expected:
    """What a level of a network is to give, by its own module."""
    values = level_values(nested, level)
    copied = copy.deepcopy(module)
    stored = dict(copied.state_dict(keep_vars=True))
    with torch.no_grad():
        for name in stored.keys() & values.keys():
            stored[name].data = values[name].numbers
    stages, groups = nested.elastic.stages, nested.elastic.groups
    dropped = [path for row in stages for path in _left_out(nested, level, row, row.blocks)]
    for path in dropped:
        copied.get_submodule(path).register_forward_hook(lambda _, args, __: args[0])
    silent = [path for row in groups for path in _left_out(nested, level, row, row.branches)]
    for path in silent:
        # Made anew, they are no channels of the branch: those are absent.
        copied.get_submodule(path).register_forward_hook(_zeros)
    program = nested.elastic.program
    if dropped or silent:
        captured = capture(copied, (x,))
        program = captured.program
        for name in program.tensors.keys() - values.keys():
            values[name] = _whole(captured.tensors[name])
        # What a trace makes of a constant may have another name.
        for name in program.tensors.keys() - stored.keys():
            values[name] = _whole(captured.tensors[name])
    with torch.no_grad():
        present, told = run_present(program, values, [x], MIXING)
        zeroed = None if told.uneven else tensors_of(copied(x))
    return Expected(present, told, zeroed)


def _zeros(module: nn.Module, args: Any, given: Tensor) -> Tensor:  # noqa: ARG001
    return given.new_zeros(given.shape)


def _whole(numbers: Tensor) -> Value:
    return Value(numbers.detach(), torch.ones(numbers.shape, dtype=torch.float64))


def level_values(nested: NestedModel, level: str) -> dict[str, Value]:
    """Every stored tensor at its full size, zero where the level lacks it, and what is present.

    Structure is absent; a weight that only a mask lacks is a zero that is present.
    """
    own, codes = nested.own_tensors(level), named(nested.codes)
    found: dict[str, Value] = {}
    for name, tensor in named(nested.shared).items():
        shape, uses = tensor.shape, nested.nesting.uses(level, name)
        kept = [np.ones(n, dtype=bool) for n in shape]
        if uses is not None:
            kept = [
                np.ones(n, dtype=bool) if part is None else entries(part, n)
                for n, part in zip(shape, uses, strict=True)
            ]
        presence = torch.from_numpy(_box(kept, shape)) & (uses is not None)
        numbers = tensor.detach().clone()
        if name in own:
            numbers[presence] = own[name].detach().reshape(-1)
        elif name in codes:
            used = [level in levels for levels in nested.nesting.patterns[name]]
            numbers = numbers * torch.tensor(used)[codes[name].long()]
        found[name] = Value(numbers * presence, presence.double())
    return found


def _box(kept: list[np.ndarray[Any, Any]], shape: torch.Size) -> np.ndarray[Any, Any]:
    box = np.ones(shape, dtype=bool)
    for dim, row in enumerate(kept):
        view = [1] * len(shape)
        view[dim] = len(row)
        box &= row.reshape(view)
    return box


def _left_out(
    nested: NestedModel, level: str, row: Stage | Group, paths: Sequence[str]
) -> Iterator[str]:
    """The modules of a row that a level leaves out, but for those that are concatenated.

    What these make is absent like a channel.
    """
    live = nested.nesting.live(level)[row.name]
    for path, is_kept in zip(paths, live, strict=True):
        if not is_kept and path in row.removable and not row.removable[path].pieces:
            yield path
