"""A level as a network of its own: physically smaller, and exactly what the level computes."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from nestedge.convert import LevelProgram, tensor_of
from nestedge.errors import UsageError
from nestedge.expressions import Array, Expression, evaluate, masked, stored, take
from nestedge.harvest import Harvest, harvest
from nestedge.model import NestedModel
from nestedge.program.emit import emit
from nestedge.tree import named


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
    if tensor in nested.nesting.own[level]:
        return stored(f"levels/{level}/{tensor}")
    expression = stored(f"shared/{tensor}")
    if tensor in nested.nesting.patterns:
        patterns = nested.nesting.patterns[tensor]
        used = tuple(code for code, levels in enumerate(patterns) if level in levels)
        expression = masked(expression, stored(f"codes/{tensor}"), used)
    for dim, intervals in enumerate(nested.nesting.uses(level, tensor) or ()):
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
    program = nested.plan(level).program
    used = program.used_tensors()
    expressions = {name: expression_of(nested, level, name) for name in sorted(used)}
    arrays = stored_arrays(nested)
    tensors = {name: tensor_of(evaluate(e, arrays)) for name, e in expressions.items()}
    cut = LevelProgram(program, tensors, expressions, arrays)
    # Structure that is absent is gone already; only a mask leaves weights that are zero.
    is_masked = nested.nesting.is_masked(level)
    return harvest(cut) if is_masked else Harvest(cut, {}, (), ())


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
    blocks that the level leaves out are absent.

    Raises:
        UsageError: there is no such level.
    """
    specs = nested.elastic.program.tensors
    arrays = stored_arrays(nested)
    found = {
        name: tensor_of(evaluate(expression_of(nested, level, name), arrays)).clone()
        for name, spec in specs.items()
        if spec.role != "constant" and nested.nesting.uses(level, name) is not None
    }
    tied = {alias: found[name] for alias, name in nested.aliases.items() if name in found}
    return {**found, **tied}
