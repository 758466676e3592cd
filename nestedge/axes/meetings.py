"""Where values of a program meet others: in a concatenation, in a sum, or stacked and summed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, is_weight
from nestedge.program.operators import CONTRACTION, MOVEMENT, SPATIAL
from nestedge.program.shapes import trace_shapes

CONCATENATION = "aten.cat.default"
STACKING = "aten.stack.default"

_ADDITION = "aten.add.Tensor"
_WEIGHED = frozenset(("aten.mul.Tensor", "aten.div.Tensor"))
_SUMS = frozenset(("aten.sum.dim_IntList", "aten.mean.dim"))
_CURVES = """abs alias celu ceil clone contiguous detach dropout elu erf expm1 feature_dropout floor
gelu hardswish leaky_relu log1p mish neg relu relu6 round selu sign silu sin sqrt square tan tanh
trunc _to_copy"""

_ZERO_AT_ZERO = frozenset().union(
    MOVEMENT,
    SPATIAL,
    _SUMS,
    _WEIGHED,
    (f"aten.{name}.default" for name in _CURVES.split()),
    ("aten.mul.Scalar", "aten.div.Scalar", "aten.to.dtype", "aten.to.dtype_layout"),
)
"""Operators that give zero where their first operand is zero, whatever the others are."""


@dataclass(frozen=True)
class Meeting:
    """Where the output of a module meets others.

    Attributes:
        node: the operator that they meet in.
        operand: what it is when it comes there.
        way: the operators in between.
        carries_zero: whether it is zero there where the module gives zero.
    """

    node: Node
    operand: str
    way: tuple[Node, ...] = ()
    carries_zero: bool = True


@dataclass(frozen=True)
class Flow:
    """A program by who reads what."""

    program: Program

    @cached_property
    def readers(self) -> Mapping[str, list[Node | None]]:
        """For every value the nodes that read it, as often as they do; None for an output."""
        found: dict[str, list[Node | None]] = defaultdict(list)
        for node in self.program.nodes:
            for leaf in node.leaves():
                if isinstance(leaf, Ref):
                    found[leaf.name].append(node)
        for _, ref in self.program.outputs:
            found[ref.name].append(None)
        return found

    @cached_property
    def reads(self) -> Counter[str]:
        """How often every stored tensor is read."""
        leaves = (leaf for node in self.program.nodes for leaf in node.leaves())
        return Counter(leaf.name for leaf in leaves if is_weight(leaf))

    @cached_property
    def sums(self) -> Mapping[str, str]:
        """For every addition the one at the end of the chain of additions that it is in."""
        last: dict[str, str] = {}
        for node in reversed(self.program.nodes):
            if summands(node):
                reader = self.reader(node.output)
                last[node.output] = last.get(reader.output if reader else "", node.output)
        return last

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """For every value a tensor without data."""
        return trace_shapes(self.program, batch=2)

    def reader(self, value: str) -> Node | None:
        """The node with one output that alone reads a value, and once."""
        readers = self.readers.get(value, ())
        node = readers[0] if len(readers) == 1 else None
        return node if node and len(node.outputs) == 1 else None

    def meeting(self, value: str) -> Meeting | None:
        """Where a value meets others for the first time."""
        way: list[Node] = []
        carries_zero = True
        while (node := self.reader(value)) is not None:
            if joins(node):
                return Meeting(node, value, tuple(way), carries_zero)
            carries_zero = carries_zero and carries(node, value)
            if not carries(node, value) and not is_alone(node):
                return None
            way.append(node)
            value = node.output
        return None

    def place(self, meeting: Meeting) -> str | None:
        """What stands for the place where outputs meet, which is the same for all of them."""
        node = meeting.node
        if node.op == CONCATENATION:
            return node.output
        if not meeting.carries_zero or (node.op == STACKING and not self._is_summed(node)):
            return None
        return self.sums.get(node.output, node.output)

    def _is_summed(self, node: Node) -> bool:
        """Whether what is stacked is summed up, as it is or weighed."""
        shape = self.values[node.output].shape
        dim = named_arguments(node, lambda leaf: leaf)["dim"] % len(shape)
        value = node.output
        while (reader := self.reader(value)) is not None:
            if reader.op in CONTRACTION:
                return True
            if reader.op in _SUMS:
                dims = named_arguments(reader, lambda leaf: leaf)["dim"] or range(len(shape))
                return dim in {d % len(shape) for d in dims}
            is_weighed = reader.op in _WEIGHED and carries(reader, value)
            value = reader.output
            if not is_weighed or self.values[value].shape != shape:
                return False
        return False

    def may_go(self, meeting: Meeting) -> bool:
        """Whether sums have the same shape and type without an operand."""
        node: Node | None = meeting.node
        value = meeting.operand
        while node is not None and summands(node):
            (other,) = (name for name in summands(node) if name != value)
            value = node.output
            mine, rest = self.values[value], self.values[other]
            if (mine.shape, mine.dtype) != (rest.shape, rest.dtype):
                return False
            node = self.reader(value)
        return True

    def tensors(self, meeting: Meeting) -> Iterator[str]:
        """The stored tensors that are read on the way to where outputs meet, and nowhere else."""
        read = [leaf.name for node in meeting.way for leaf in node.leaves() if is_weight(leaf)]
        return (name for name in dict.fromkeys(read) if self.reads[name] == read.count(name))


def summands(node: Node) -> tuple[str, ...]:
    """The two values that a node adds as they are; none for another node."""
    if node.op != _ADDITION or node.kwargs.get("alpha", 1) != 1:
        return ()
    names = tuple(leaf.name for leaf in node.args if isinstance(leaf, Ref))
    return names if len(set(names)) == 2 else ()


def joins(node: Node) -> bool:
    """Whether values meet in a node."""
    return bool(summands(node)) or node.op in (CONCATENATION, STACKING)


def carries(node: Node, value: str) -> bool:
    """Whether a node gives zero where a value is zero."""
    operands = [leaf.name if isinstance(leaf, Ref) else leaf for leaf in node.args[:2]]
    if node.op == _ADDITION:
        # As sum() has it, which begins with 0.
        return value in operands and 0 in [x for x in operands if not isinstance(x, (str, Weight))]
    if node.op == "aten.mul.Tensor":
        return value in operands
    return node.op in _ZERO_AT_ZERO and operands[0] == value


def is_alone(node: Node) -> bool:
    """Whether a node reads one value or stored tensor."""
    return len(list(node.leaves())) == 1
