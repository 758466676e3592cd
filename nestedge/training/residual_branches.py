"""Where the branch of a residual block can be switched off: the layer that it ends with.

A block adds a branch to what enters it. A factor of the branch can be folded into the weights only
where the branch ends with a batch norm, a convolution, a linear layer or a product with a stored
tensor, whose tensors are this layer's alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from nestedge.axes.blocks import Block, Borders, around, borders
from nestedge.elastic import Elastic
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, is_weight
from nestedge.program.operators import MOVEMENT, SPATIAL, UNARY, WEIGHTED

_ADDITION = "aten.add.Tensor"
_NORM = "aten.batch_norm.default"
_SAME = {
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.to.dtype",
}
"""Operators that leave every value as it is in evaluation."""

_RECTIFIERS = {"aten.relu.default", "aten.relu6.default", "aten.hardtanh.default"}
"""Operators that, applied once more, change nothing, even after pooling."""

_POOLS = {op for op in SPATIAL if "pool" in op}


@dataclass(frozen=True)
class Branch:
    """What a residual block adds.

    Attributes:
        scaled: the tensors to multiply, so that what is added is multiplied.
        silenced: those, and the weights in front of a batch norm: where all of them are zero, it
            can be seen from the weights alone that nothing is added.
        is_removable: whether the block without its branch is what enters it, so that the block can
            go as a whole.
    """

    scaled: tuple[str, ...]
    silenced: tuple[str, ...]
    is_removable: bool


@dataclass(frozen=True)
class _Step:
    """An operator between a block's input and its output, and what it adds."""

    node: Node
    added: tuple[str, ...]


def residual_branches(elastic: Elastic) -> dict[str, dict[str, Branch]]:
    """For every stage the branches of its blocks, by path; blocks that have none left aside."""
    finder = _Finder(elastic.program)
    return {
        stage.name: {
            path: branch
            for path in stage.blocks
            for branch in finder.branch(path, stage.removable.get(path))
        }
        for stage in elastic.stages
    }


@dataclass(frozen=True)
class _Finder:
    """Looks at one program; lives for one call of `residual_branches`."""

    program: Program

    @cached_property
    def made(self) -> Mapping[str, Node]:
        """For every value the node that makes it."""
        return {name: node for node in self.program.nodes for name in node.outputs if name}

    @cached_property
    def reads(self) -> Counter[Ref | Weight]:
        """How often every value and tensor is read."""
        found = Counter(leaf for node in self.program.nodes for leaf in node.leaves())
        found.update(ref for _, ref in self.program.outputs)
        return found

    @cached_property
    def crossing(self) -> Borders:
        """What crosses the borders of modules."""
        return borders(self.program)

    def branch(self, path: str, block: Block | None) -> Iterator[Branch]:
        """The branch of a block, if it can be switched off; `block` is one that can be left out."""
        if block is None:
            added, is_removable = self._projected(path), False
        else:
            way = () if block.pieces else self._way(block.leaves, block.enters) or ()
            added = [name for step in way for name in step.added]
            is_removable = all(self._is_kept(block.enters, step.node) for step in way)
        gates = [self._gate(value) for value in added]
        scaled = [name for gate in gates for name in gate]
        if gates and all(gates) and len(set(scaled)) == len(scaled):
            in_front = [name for value in added for name in self._in_front(value)]
            yield Branch(tuple(scaled), (*scaled, *in_front), is_removable)

    def _way(self, value: str, enters: str) -> tuple[_Step, ...] | None:
        """The operators from a block's output back to its input; None without a way."""
        if value == enters:
            return ()
        node = self.made.get(value)
        if node is None or node.op not in UNARY | {_ADDITION}:
            return None
        operands = [leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)]
        for index, operand in enumerate(operands):
            before = self._way(operand, enters)
            if before is not None:
                others = (*operands[:index], *operands[index + 1 :])
                return (_Step(node, others), *before)
        return None

    def _projected(self, path: str) -> list[str]:
        """What a block adds to a shortcut with layers of its own: the operand with more layers."""
        leaving = list(self.crossing.leaves.get(path, ()))
        node = self.made.get(leaving[0]) if len(leaving) == 1 else None
        while node is not None and node.op in UNARY and path in around(node.scope):
            node = self._maker(node)
        if node is None or node.op != _ADDITION or path not in around(node.scope):
            return []
        operands = [leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)]
        layers = {operand: self._layers(operand, path) for operand in operands}
        longest = max(layers, key=layers.__getitem__)
        others = [count for operand, count in layers.items() if operand != longest]
        return [longest] if others and layers[longest] > max(others) else []

    def _maker(self, node: Node) -> Node | None:
        """The node that makes the first operand of another."""
        operand = node.args[0]
        return self.made.get(operand.name) if isinstance(operand, Ref) else None

    def _layers(self, value: str, path: str) -> int:
        """How many layers of a module a value depends on."""
        waiting, seen, count = [value], {value}, 0
        while waiting:
            node = self.made.get(waiting.pop())
            if node is None or path not in around(node.scope):
                continue
            count += node.op in WEIGHTED
            found = {leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)} - seen
            seen |= found
            waiting += found
        return count

    def _last(self, value: Ref | Weight) -> Node | None:
        """The layer whose outputs a value is; None where they are read elsewhere too."""
        while isinstance(value, Ref) and self.reads[value] == 1:
            node = self.made.get(value.name)
            if node is None or len(node.outputs) > 1:
                return None
            if node.op not in MOVEMENT | _SAME:
                return node
            value = node.args[0]
        return None

    def _gate(self, value: str) -> tuple[str, ...]:
        """The tensors that multiply a value when they are multiplied; none where it is no layer."""
        node = self._last(Ref(value))
        if node is None:
            return ()
        if node.op == "aten.mul.Tensor":
            leaves = [leaf for leaf in node.leaves() if is_weight(leaf)]
        elif node.op in WEIGHTED | {_NORM}:
            given = named_arguments(node, lambda leaf: leaf)
            leaves = [given[key] for key in ("weight", "bias") if given[key] is not None]
        else:
            return ()
        own = [leaf.name for leaf in leaves if isinstance(leaf, Weight) and self._is_own(leaf)]
        return tuple(own) if len(own) == len(leaves) else ()

    def _is_own(self, leaf: Weight) -> bool:
        spec = self.program.tensors[leaf.name]
        return self.reads[leaf] == 1 and spec.role == "parameter" and bool(spec.shape)

    def _in_front(self, value: str) -> list[str]:
        """The weight of the layer in front of a batch norm that a value comes from."""
        node = self._last(Ref(value))
        if node is None or node.op != _NORM:
            return []
        before = self._last(node.args[0])
        if before is None or before.op not in WEIGHTED:
            return []
        weight = named_arguments(before, lambda leaf: leaf)["weight"]
        return [weight.name] if isinstance(weight, Weight) and self._is_own(weight) else []

    def _is_kept(self, enters: str, node: Node) -> bool:
        """Whether an operator on the way changes nothing of what enters once nothing is added."""
        if node.op == _ADDITION:
            # A stored tensor is added with every branch or none; alpha may multiply what enters.
            return not node.kwargs and all(isinstance(leaf, Ref) for leaf in node.args)
        return node.op in _SAME or self._is_rectified(enters, node)

    def _is_rectified(self, value: str, by: Node) -> bool:
        node = self.made.get(value)
        while node is not None and node.op in _SAME | _POOLS:
            node = self._maker(node)
        is_same = node is not None and (node.op, node.args[1:]) == (by.op, by.args[1:])
        return by.op in _RECTIFIERS and is_same
