"""Kernels without the rings of zeros around them: smaller kernels, with as much less padding.

How far that goes is in `nestedge.axes.kernels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from nestedge.axes.kernels import padding_without, spare_rings
from nestedge.convert import LevelProgram
from nestedge.expressions import take
from nestedge.program import operators
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Weight


@dataclass(frozen=True)
class Rings:
    """The rings of zeros around the kernel of one convolution.

    Attributes:
        node: the convolution.
        weight: the name of its weight.
        zero: for every dimension of the kernel how many rings are zero.
        removable: how many of them can go.
        reason: why the others cannot.
    """

    node: Node
    weight: str
    zero: tuple[int, ...]
    removable: tuple[int, ...]
    reason: str

    @property
    def stuck(self) -> int:
        """How many rings are zero and stay."""
        return sum(self.zero) - sum(self.removable)


def find_rings(level: LevelProgram) -> list[Rings]:
    """The convolutions of a level that have rings of zeros."""
    program = level.program
    leaves = [leaf for node in program.nodes for leaf in node.leaves()]
    leaves += [ref for _, ref in program.outputs]
    readers = Counter(leaf.name for leaf in leaves if isinstance(leaf, Weight))
    return list(_find(level, readers))


def _find(level: LevelProgram, readers: Counter[str]) -> Iterator[Rings]:
    for node in level.program.nodes:
        if node.op not in operators.CONVOLUTION | operators.TRANSPOSED_CONVOLUTION:
            continue
        a = named_arguments(node, lambda leaf: leaf)
        if not isinstance(a["weight"], Weight):
            continue
        name = a["weight"].name
        zero = zero_rings(level.tensors[name])
        where = node.scope or "the network"
        removable = tuple(map(min, zero, spare_rings(a, len(zero))))
        reason = f"{where} has less padding than they reach, so that its input would need cropping"
        if readers[name] > 1:
            removable, reason = (0,) * len(zero), f"{where} shares its weight"
        if any(zero):
            yield Rings(node, name, zero, removable, reason)


def zero_rings(weight: torch.Tensor) -> tuple[int, ...]:
    """For every dimension of a kernel how many of its rings are zero; a tap or two always stay.

    Args:
        weight: of a convolution, shape (channels, channels, *kernel).

    >>> zero_rings(torch.tensor([[[0.0, 0.0, 3.0, 0.0, 0.0, 0.0]]]))
    (2,)
    """
    found = []
    for dim in range(2, weight.dim()):
        taps = (weight != 0).movedim(dim, 0).flatten(1).any(dim=1)
        rings = (taps | taps.flip(0))[: (len(taps) - 1) // 2].tolist()
        found.append(rings.index(True) if any(rings) else len(rings))
    return tuple(found)


def without_rings(level: LevelProgram) -> tuple[LevelProgram, dict[str, tuple[int, ...]]]:
    """The level without the rings of zeros that can go.

    Returns:
        The level, and the size of every kernel that is smaller now, by the name of its weight.
    """
    found = {rings.node.outputs: rings for rings in find_rings(level) if any(rings.removable)}
    if not found:
        return level, {}
    tensors, expressions = dict(level.tensors), dict(level.expressions)
    specs = dict(level.program.tensors)
    for rings in found.values():
        name = rings.weight
        for dim, count in enumerate(rings.removable, start=2):
            if count:
                kept = (count, tensors[name].shape[dim] - count)
                tensors[name] = tensors[name].narrow(dim, count, kept[1] - kept[0]).contiguous()
                expressions[name] = take(expressions[name], dim, (kept,))
        specs[name] = replace(specs[name], shape=tuple(tensors[name].shape))
    nodes = tuple(
        _with_less_padding(node, found[node.outputs]) if node.outputs in found else node
        for node in level.program.nodes
    )
    program = replace(level.program, nodes=nodes, tensors=specs)
    sizes = {rings.weight: specs[rings.weight].shape[2:] for rings in found.values()}
    smaller = replace(level, program=program, tensors=tensors, expressions=expressions)
    return smaller, sizes


def _with_less_padding(node: Node, rings: Rings) -> Node:
    a = named_arguments(node, lambda leaf: leaf)
    return with_arguments(node, {"padding": padding_without(a, rings.removable)})
