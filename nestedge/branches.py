"""Branches that add nothing: of a sum with zero, what is left is the other summand.

A residual block is dead when its branch is zero for every input. Not some channels of it go then,
but the whole branch and its addition; a shortcut that is a layer of its own stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from nestedge.convert import LevelProgram
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Ref, bypassed, without_dead_nodes
from nestedge.program.shapes import trace_shapes

Known = Mapping[str, torch.Tensor | None]
"""The values of a level, NaN where they depend on the input; None where they are no numbers."""


def without_silent_branches(
    level: LevelProgram, known: Known
) -> tuple[LevelProgram, tuple[str, ...]]:
    """The level without the branches that are zero for every input.

    Returns:
        The level, the tensors that only they read still in it, and for every addition that went
        the path of its module.
    """
    silent = {
        node.output: (node, kept) for node in level.program.nodes for kept in _kept(node, known)
    }
    if silent:
        # Known values are of a batch of 1, which hides what is broadcast along the batch.
        values = trace_shapes(level.program, batch=2)
        silent = {
            name: (node, kept)
            for name, (node, kept) in silent.items()
            if _alike(values[name], values[kept.name])
        }
    if not silent:
        return level, ()
    instead = {name: kept for name, (_, kept) in silent.items()}
    program = without_dead_nodes(bypassed(level.program, instead))
    scopes = tuple(node.scope or name for name, (node, _) in silent.items())
    return replace(level, program=program), scopes


def _kept(node: Node, known: Known) -> list[Ref]:
    """The operand that a sum is, where the other one is always zero."""
    if node.op not in ("aten.add.Tensor", "aten.sub.Tensor"):
        return []
    a = named_arguments(node, lambda leaf: leaf)
    one, other = a["self"], a["other"]
    if isinstance(one, Ref) and _is_zero(other, known):
        return [one]
    is_plain_sum = node.op == "aten.add.Tensor" and a["alpha"] == 1
    return [other] if is_plain_sum and isinstance(other, Ref) and _is_zero(one, known) else []


def _is_zero(leaf: Any, known: Known) -> bool:
    value = known.get(leaf.name) if isinstance(leaf, Ref) else None
    return value is not None and bool((value == 0).all())


def _alike(result: Any, kept: Any) -> bool:
    """Whether a sum neither broadcasts the operand that is kept nor changes its dtype."""
    return bool(result.shape == kept.shape and result.dtype == kept.dtype)
