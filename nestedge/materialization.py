"""A level as a network of its own: physically smaller, and exactly what the level computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch.export import ExportedProgram

from nestedge.axes.outputs import with_outputs
from nestedge.convert import LevelProgram, tensor_of
from nestedge.errors import UsageError
from nestedge.expressions import Array, Expression, evaluate, masked, stored, take
from nestedge.harvest import Harvest, harvest
from nestedge.intervals import Intervals
from nestedge.model import NestedModel
from nestedge.program.emit import emit
from nestedge.program.graph import Program
from nestedge.tree import named
from nestedge.voting import join_programs

_Value = TypeVar("_Value")


def stored_tensors(nested: NestedModel) -> dict[str, torch.Tensor]:
    """Every tensor of a nested network under the name that a .nest stores it by.

    Raises:
        UsageError: some tensors are functions of others still, as while it trains.
    """
    if len(nested.views):
        raise UsageError(
            "the network still computes some weights from others, as scale factors in training: "
            "fold them into the weights first"
        )
    found = {f"shared/{name}": tensor for name, tensor in named(nested.shared).items()}
    found |= {f"codes/{name}": tensor for name, tensor in named(nested.codes).items()}
    for level in nested.levels:
        own = nested.own_tensors(level)
        found |= {f"levels/{level}/{name}": tensor for name, tensor in own.items()}
    return {name: tensor.detach() for name, tensor in found.items()}


def stored_arrays(nested: NestedModel) -> dict[str, Array]:
    """The same as numpy arrays that share memory with the tensors where they can."""
    return {name: tensor.cpu().numpy() for name, tensor in stored_tensors(nested).items()}


def expression_of(nested: NestedModel, level: str, tensor: str) -> Expression:
    """How a level's tensor comes from the stored ones."""
    uses = nested.nesting.uses(level, tensor) or ()
    is_own = tensor in nested.nesting.own[level]
    own, shared = stored(f"levels/{level}/{tensor}"), stored(f"shared/{tensor}")
    if tensor not in nested.nesting.patterns:
        return own if is_own else _taken(shared, uses)
    patterns = nested.nesting.patterns[tensor]
    used = tuple(code for code, levels in enumerate(patterns) if level in levels)
    codes = stored(f"codes/{tensor}")
    if is_own:
        return masked(own, _taken(codes, uses), used)
    return _taken(masked(shared, codes, used), uses)


def _taken(expression: Expression, uses: Sequence[Intervals | None]) -> Expression:
    for dim, intervals in enumerate(uses):
        if intervals is not None:
            expression = take(expression, dim, intervals)
    return expression


def level_program(nested: NestedModel, level: str) -> LevelProgram:
    """A level as a program of its own, without the channels that its element masks leave dead.

    Raises:
        UsageError: there is no such level.
    """
    return harvest_level(nested, level).level


def harvest_level(nested: NestedModel, level: str) -> Harvest:
    """A level as a program of its own, and what its element masks let go of it.

    Raises:
        UsageError: there is no such level.
    """
    if level in nested.nesting.consensus:
        return _joined(nested, level)
    return _harvest(nested, level, nested.plan(level).program)


def _harvest(nested: NestedModel, level: str, program: Program) -> Harvest:
    used = program.used_tensors()
    expressions = {name: expression_of(nested, level, name) for name in sorted(used)}
    arrays = stored_arrays(nested)
    tensors = {name: tensor_of(evaluate(e, arrays)) for name, e in expressions.items()}
    cut = LevelProgram(program, tensors, expressions, arrays)
    # Structure that is absent is gone already; only a mask leaves weights that are zero.
    is_masked = nested.nesting.is_masked(level)
    return harvest(cut) if is_masked else Harvest(cut, {}, (), ())


def _joined(nested: NestedModel, level: str) -> Harvest:
    """A consensus as one program, and what its members' element masks let go of them."""
    consensus = nested.nesting.consensus[level]
    found = {
        member: _harvest(
            nested, member, with_outputs(nested.plan(member).program, [consensus.output])
        )
        for member in consensus.members
    }
    arrays = stored_arrays(nested)
    own = {name: stored(f"levels/{level}/{name}") for name in consensus.shapes()}
    programs = {member: harvest.level.program for member, harvest in found.items()}
    joined = LevelProgram(
        join_programs(programs, consensus),
        tensors={
            **_below({member: harvest.level.tensors for member, harvest in found.items()}),
            **{name: tensor_of(evaluate(e, arrays)) for name, e in own.items()},
        },
        expressions={
            **_below({member: harvest.level.expressions for member, harvest in found.items()}),
            **own,
        },
        stored=arrays,
    )
    return Harvest(
        joined,
        removed=_below({member: harvest.removed for member, harvest in found.items()}),
        folded=tuple(f"{m}/{layer}" for m, harvest in found.items() for layer in harvest.folded),
        stayed=tuple(
            replace(stayed, axis=f"{m}/{stayed.axis}")
            for m, harvest in found.items()
            for stayed in harvest.stayed
        ),
        kernels=_below({member: harvest.kernels for member, harvest in found.items()}),
        branches=tuple(f"{m}/{path}" for m, harvest in found.items() for path in harvest.branches),
    )


def _below(found: Mapping[str, Mapping[str, _Value]]) -> dict[str, _Value]:
    """What is found of every member, with the member's name in front of its names."""
    return {f"{m}/{name}": value for m, names in found.items() for name, value in names.items()}


def materialize(nested: NestedModel, level: str) -> ExportedProgram:
    """A level as an exported program that is physically smaller.

    `materialize(nested, level).module()(x)` equals running the nested network at the level.

    Raises:
        UsageError: there is no such level.
    """
    physical = level_program(nested, level)
    return emit(physical.program, physical.tensors)


def state_dict(nested: NestedModel, level: str) -> dict[str, torch.Tensor]:
    """A level's parameters and buffers under their original names.

    They load with `strict=True` into the user's own class at the level's widths. Tensors of
    blocks that the level leaves out are absent. Those of a consensus stand behind the names of its
    members: "small/conv1.weight".

    Raises:
        UsageError: there is no such level.
    """
    if level in nested.nesting.consensus:
        own = nested.own_tensors(level)
        members = nested.nesting.members(level)
        return {
            **_below({member: state_dict(nested, member) for member in members}),
            **{name: tensor.detach().clone() for name, tensor in own.items()},
        }
    specs = nested.elastic.program.tensors
    arrays = stored_arrays(nested)
    found = {
        name: tensor_of(evaluate(expression_of(nested, level, name), arrays)).clone()
        for name, spec in specs.items()
        if spec.role != "constant" and nested.nesting.uses(level, name) is not None
    }
    tied = {alias: found[name] for alias, name in nested.aliases.items() if name in found}
    return {**found, **tied}
