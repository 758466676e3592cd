"""The arguments of a node by the names that the operator's schema gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from nestedge.program.graph import Node, Program, Ref, Weight, substitute
from nestedge.program.operators import WEIGHTED, resolve


def named_arguments(node: Node, look_up: Callable[[Ref | Weight], Any]) -> dict[str, Any]:
    """The arguments of a node by their name in the operator's schema, defaults included."""
    names, defaults = _schema(node.op)
    found = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    return {name: _listed(substitute(found[name], look_up)) for name in names if name in found}


def schema_names(op: str) -> tuple[str, ...]:
    """The argument names of an operator, in order."""
    return _schema(op)[0]


@cache
def _schema(op: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    schema = resolve(op)._schema  # type: ignore[attr-defined]
    names = tuple(argument.name for argument in schema.arguments)
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return names, defaults


def _listed(argument: Any) -> Any:
    return [_listed(item) for item in argument] if isinstance(argument, tuple) else argument


def layer_weights(program: Program) -> tuple[str, ...]:
    """The stored weights of convolutions and linear layers, in the order in which they run."""
    found = (
        named_arguments(node, lambda leaf: leaf)["weight"]
        for node in program.nodes
        if node.op in WEIGHTED
    )
    return tuple(dict.fromkeys(leaf.name for leaf in found if isinstance(leaf, Weight)))


def with_arguments(node: Node, changes: Mapping[str, Any]) -> Node:
    """The node with some arguments, named as in the operator's schema, replaced."""
    names = schema_names(node.op)
    args, kwargs = list(node.args), dict(node.kwargs)
    for name, value in changes.items():
        position = names.index(name)
        if position < len(args):
            args[position] = value
        else:
            kwargs[name] = value
    return replace(node, args=tuple(args), kwargs=kwargs)
