"""The hidden units of a transformer's MLPs, found in its program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from nestedge.errors import UsageError
from nestedge.importing.checkpoint import some
from nestedge.model import NestedModel
from nestedge.nesting import Nesting
from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight

_LINEAR = "aten.linear.default"
_ELEMENTWISE = (operators.UNARY | operators.JOIN) - operators.COMPARISON
_SPLIT = {"aten.chunk.default", "aten.split.Tensor"}
_NORMS = {"aten.layer_norm.default", "aten.rms_norm.default"}
_AFTER = _ELEMENTWISE | _NORMS | operators.REDUCTION
"""What may stand between an MLP and its shortcut: dropout, a scale, a norm, also one in parts."""


@dataclass(frozen=True)
class _Mlp:
    """Linear layers with hidden units between them.

    Attributes:
        first: the nodes that make the hidden units; several where there is a gate.
        last: the node that reads them.
        axis: of the hidden units.
    """

    first: tuple[Node, ...]
    last: Node
    axis: str

    @property
    def block(self) -> str:
        """The module that its layers have in common."""
        scopes = [node.scope.split(".") for node in (*self.first, self.last)]
        levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*scopes, strict=False))
        return ".".join(parts[0] for parts in levels)


def hidden_axes(nested: NestedModel) -> tuple[str, ...]:
    """The axes of the hidden units of all MLPs, in the order in which they run.

    Raises:
        UsageError: there is none, or it is ambiguous which units of a block are the hidden ones.
    """
    graph = _Graph(nested.elastic.program)
    found = [mlp for node in graph.program.nodes if (mlp := _mlp(graph, node, nested.nesting))]
    if not found:
        layers = [node.scope for node in graph.program.nodes if node.op == _LINEAR]
        raise UsageError(
            "found no MLP: no two linear layers with only element-wise operators between them, and "
            f"a shortcut around them; the linear layers are {some(layers) or 'none'}"
        )
    _check_unambiguous(graph, found, nested.nesting)
    return tuple(dict.fromkeys(mlp.axis for mlp in found))


class _Graph:
    """A program with the node that makes each value, and those that read it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.made = {n: node for node in program.nodes for n in node.outputs if n is not None}
        self.readers: dict[str, list[Node]] = {}
        for node in program.nodes:
            for name in values_of(node):
                self.readers.setdefault(name, []).append(node)

    def feeding(self, name: str) -> dict[str, Node] | None:
        """The linear layers that make a value with element-wise operators; None where others do.

        Returns:
            By the names of their outputs.
        """
        node = self.made.get(name)
        if node is None:
            return None
        if node.op == _LINEAR:
            return {name: node}
        if node.op not in _ELEMENTWISE | _SPLIT:
            return None
        if node.op in _SPLIT and not self._along_last(node):
            return None
        found: dict[str, Node] = {}
        for leaf in node.leaves():
            layers = self.feeding(leaf.name) if isinstance(leaf, Ref) else None
            if layers is None:
                return None
            found |= layers
        return found or None

    def _along_last(self, node: Node) -> bool:
        dim = named_arguments(node, lambda leaf: leaf)["dim"]
        return isinstance(dim, int) and dim == -1

    def ancestors(self, name: str) -> set[str]:
        """Every value that a value is made of."""
        found: set[str] = set()
        ways = [name]
        while ways:
            node = self.made.get(ways.pop())
            fresh = set(values_of(node)) - found if node is not None else set()
            found |= fresh
            ways += fresh
        return found

    def has_shortcut(self, node: Node) -> bool:
        """Whether a node's output is added to something that the node itself is made of."""
        before = self.ancestors(node.output)
        reached, ways = {node.output}, [node.output]
        while ways:
            for reader in self.readers.get(ways.pop(), []):
                if reader.op not in _AFTER:
                    continue
                if reader.op == "aten.add.Tensor" and before & set(values_of(reader)):
                    return True
                fresh = {name for name in reader.outputs if name is not None} - reached
                reached |= fresh
                ways += fresh
        return False


def values_of(node: Node) -> Iterator[str]:
    """The names of the values that a node reads."""
    return (leaf.name for leaf in node.leaves() if isinstance(leaf, Ref))


def _mlp(graph: _Graph, node: Node, nesting: Nesting) -> _Mlp | None:
    if node.op != _LINEAR or not _has_weight(node) or not graph.has_shortcut(node):
        return None
    (read,) = (_arguments(node)["input"],)
    layers = graph.feeding(read.name) if isinstance(read, Ref) else None
    if not layers or not all(map(_has_weight, layers.values())):
        return None
    made = [_axes(nesting, layer, 0) for layer in layers.values()]
    axes = {*_axes(nesting, node, 1)}.union(*made)
    axis = axes.pop() if len(axes) == 1 else None
    return None if axis is None else _Mlp(tuple(layers.values()), node, axis)


def _arguments(node: Node) -> Mapping[str, object]:
    return named_arguments(node, lambda leaf: leaf)


def _has_weight(node: Node) -> bool:
    return isinstance(_arguments(node)["weight"], Weight)


def _weight(node: Node) -> str:
    weight = _arguments(node)["weight"]
    assert isinstance(weight, Weight)
    return weight.name


def _axes(nesting: Nesting, node: Node, dim: int) -> set[str | None]:
    """The axes of a dimension of a layer's weight; None stands for entries of none."""
    runs = nesting.tensors[_weight(node)].dims[dim]
    return {run.axis for run in runs} or {None}


def _check_unambiguous(graph: _Graph, found: list[_Mlp], nesting: Nesting) -> None:
    blocks: dict[str, _Mlp] = {}
    for mlp in found:
        first = blocks.setdefault(mlp.block, mlp)
        if first.axis != mlp.axis:
            _refuse(mlp, f"{first.axis!r} and {mlp.axis!r} are both hidden units of one block")
        for layer in mlp.first:
            read = _arguments(layer)["input"]
            if isinstance(read, Ref) and graph.feeding(read.name):
                _refuse(mlp, f"{layer.scope!r} stands behind a linear layer of the same MLP")
        layers = [
            n for other in found if other.axis == mlp.axis for n in (*other.first, other.last)
        ]
        known = {leaf.name for n in layers for leaf in n.leaves() if isinstance(leaf, Weight)}
        others = [n for n in _tensors_of(nesting, mlp.axis) if n not in known]
        if others:
            _refuse(mlp, f"{mlp.axis!r} is also an axis of {some(others)}")


def _tensors_of(nesting: Nesting, axis: str) -> Iterator[str]:
    for name, layout in nesting.tensors.items():
        if any(run.axis == axis for runs in layout.dims for run in runs):
            yield name


def _refuse(mlp: _Mlp, reason: str) -> None:
    raise UsageError(
        f"ambiguous hidden units in {mlp.block or 'the network'}: {reason}; say which by "
        "nest(..., levels={name: Level(width={axis: units})})"
    )
