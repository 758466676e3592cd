"""Inverted residual blocks and the channels inside them.

Sandler et al., 2018, arXiv:1801.04381.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.nesting import Nesting
from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Ref, Weight

_BETWEEN = operators.UNARY | {"aten.batch_norm.default"}
_SQUEEZE = 4
"""Once-for-all squeezes to a quarter of the channels."""


@dataclass(frozen=True)
class Expansion:
    """The channels inside one inverted residual block.

    Attributes:
        depthwise: the weight of its depthwise convolution.
        shape: of that weight.
        entering: channels that enter the block.
        axis: of the channels inside.
        squeezed: the axis of its squeeze-excite layer and its size; None without such a layer.
    """

    depthwise: str
    shape: tuple[int, ...]
    entering: int
    axis: str
    squeezed: tuple[str, int] | None

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.axis

    @property
    def kernel(self) -> int:
        """Of the depthwise convolution."""
        return self.shape[-1]

    def widths(self, expand: float, *, divisor: int, where: str) -> dict[str, int]:
        """The units of its axes at an expand ratio.

        Raises:
            UsageError: the ratio leaves nothing, or is more than the model has; or the squeezed
                channels of the model are not a quarter of those inside.
        """
        size = self.shape[0]
        units = make_divisible(self.entering * expand, divisor)
        if isinstance(expand, bool) or not 0 < units <= size:
            raise UsageError(
                f"{where}: expand {expand!r} of {self.entering} channels is {units}, and the model "
                f"has {size}"
            )
        if self.squeezed is None:
            return {self.axis: units}
        name, squeezed = self.squeezed
        expected = make_divisible(size // _SQUEEZE, divisor)
        if squeezed != expected:
            raise UsageError(
                f"axis {name!r}: expected {expected} squeezed channels of {size} inside the "
                f"block, as once-for-all has, found {squeezed}"
            )
        return {self.axis: units, name: make_divisible(units // _SQUEEZE, divisor)}


def make_divisible(channels: float, divisor: int) -> int:
    """The nearest multiple of a divisor that is at least 0.9 of the channels.

    As in MobileNet's reference code, halves of a multiple are rounded up; the channels are rounded
    to whole ones first, halves to even, as once-for-all does.

    >>> make_divisible(24 * 3, 8), make_divisible(18, 8), make_divisible(11, 8)
    (72, 24, 16)
    """
    whole = round(channels)
    rounded = max(divisor, math.floor(whole + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * whole else rounded


def find_expansions(nested: NestedModel) -> list[Expansion]:
    """The expanding blocks of a network in the order in which they run.

    One is a 1x1 convolution, a batch norm, an activation, and a depthwise convolution. A block
    without the first convolution has no channels of its own.

    Raises:
        UsageError: several axes could be a block's squeezed channels.
    """
    program, nesting = nested.elastic.program, nested.nesting
    made = {name: node for node in program.nodes for name in node.outputs if name is not None}
    found = []
    for node in program.nodes:
        weight = _depthwise(node, nested)
        first = None if weight is None else _before(node, made)
        if weight is None or first is None:
            continue
        axis = _only_axis(nesting, weight, 0)
        expanding = _arguments(first)["weight"].name
        is_pointwise = all(size == 1 for size in program.tensors[expanding].shape[2:])
        if axis is None or not is_pointwise or _only_axis(nesting, expanding, 0) != axis:
            continue
        found.append(
            Expansion(
                depthwise=weight,
                shape=program.tensors[weight].shape,
                entering=program.tensors[expanding].shape[1],
                axis=axis,
                squeezed=_squeezed(nesting, axis, skip=expanding),
            )
        )
    return found


def _arguments(node: Node) -> dict[str, Any]:
    return named_arguments(node, lambda leaf: leaf)


def _depthwise(node: Node, nested: NestedModel) -> str | None:
    """The weight of a depthwise convolution; None for any other node."""
    if node.op not in operators.CONVOLUTION:
        return None
    a = _arguments(node)
    if not isinstance(a["weight"], Weight):
        return None
    outputs, inputs = nested.elastic.program.tensors[a["weight"].name].shape[:2]
    return a["weight"].name if inputs == 1 and a["groups"] == outputs > 1 else None


def _before(node: Node, made: dict[str, Node]) -> Node | None:
    """The plain convolution that a convolution follows, but for norms and activations."""
    value = _arguments(node)["input"]
    while isinstance(value, Ref) and value.name in made:
        before = made[value.name]
        a = _arguments(before)
        if before.op in operators.CONVOLUTION:
            plain = a["groups"] == 1 and isinstance(a["weight"], Weight)
            return before if plain else None
        if before.op not in _BETWEEN:
            return None
        value = a["input"] if "input" in a else a["self"]
    return None


def _only_axis(nesting: Nesting, tensor: str, dim: int) -> str | None:
    """The axis of a dimension that is one axis and nothing else."""
    runs = nesting.tensors[tensor].dims[dim]
    return runs[0].axis if len(runs) == 1 else None


def _squeezed(nesting: Nesting, axis: str, *, skip: str) -> tuple[str, int] | None:
    """The axis between the layers of a block's squeeze-excite: they read and write the block's."""
    found = set(_gates(nesting, axis, skip=skip))
    if len(found) > 1:
        raise UsageError(
            f"block with the channels {axis!r}: any of {sorted(found)} could be its squeezed ones"
        )
    return next(((name, nesting.axes[name].size) for name in found), None)


def _gates(nesting: Nesting, axis: str, *, skip: str) -> Iterator[str]:
    for tensor, layout in nesting.tensors.items():
        if tensor == skip or len(layout.dims) < 2:
            continue
        other = _only_axis(nesting, tensor, 1)
        if _only_axis(nesting, tensor, 0) == axis and other not in (None, axis):
            assert other is not None
            yield other
