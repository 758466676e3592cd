"""Layer norms taken apart: the norm itself, and its weight and bias in front of linear layers.

There the two can be folded into the layers' own (see `nestedge.affine`), also where channels stay
last on the way but tokens move, as in torch.nn.MultiheadAttention.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from nestedge.convert import LevelProgram
from nestedge.folding import with_tensors
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Ref, Weight, without_dead_nodes
from nestedge.program.shapes import trace_shapes

_LAYER_NORM = "aten.layer_norm.default"
_LINEAR = "aten.linear.default"
_PARTS = (("aten.mul.Tensor", "weight"), ("aten.add.Tensor", "bias"))
_MOVING = {
    "aten.transpose.int",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.contiguous.default",
    "aten.clone.default",
}


@dataclass(frozen=True)
class _Norm:
    """A value that is a layer norm's, and the same before its weight and bias.

    Attributes:
        plain: the name of the value before.
        parts: what is multiplied and added then.
    """

    plain: str
    parts: tuple[tuple[str, Weight], ...]


def separate_layer_norms(level: LevelProgram) -> LevelProgram:
    """The level with the weights and biases of layer norms written in front of linear layers.

    Only where a linear layer reads the norm; what else reads it has it as it was.
    """
    reaching = _reaching_linear(level)
    norms: dict[str, _Norm] = {}
    nodes: list[Node] = []
    for node in level.program.nodes:
        source = norms.get(node.args[0].name) if _reads_value(node) else None
        if node.op == _LAYER_NORM and node.output in reaching:
            plain = _separated(node)
            norms[node.output] = plain
            bare = with_arguments(node, {"weight": None, "bias": None})
            nodes.append(replace(bare, outputs=(plain.plain,)))
            nodes += _written(plain, node.output, node.scope)
        elif source is not None and node.op == _LINEAR:
            inner = f"{node.output}.input"
            nodes += _written(source, inner, node.scope)
            nodes.append(replace(node, args=(Ref(inner), *node.args[1:])))
        elif source is not None and node.output in reaching:
            norms[node.output] = replace(source, plain=f"{node.output}.plain")
            moved = replace(node, args=(Ref(source.plain), *node.args[1:]))
            nodes += [node, replace(moved, outputs=(f"{node.output}.plain",))]
        else:
            nodes.append(node)
    program = without_dead_nodes(replace(level.program, nodes=tuple(nodes)))
    return with_tensors(level, list(program.nodes), {})


def _reaching_linear(level: LevelProgram) -> set[str]:
    """The values that a linear layer reads, as they are or with everything but channels moved."""
    shapes = trace_shapes(level.program, batch=2)
    found: set[str] = set()
    for node in reversed(level.program.nodes):
        if not _reads_value(node):
            continue
        if (node.op == _LINEAR and isinstance(named_arguments(node, _same)["weight"], Weight)) or (
            node.op in _MOVING and node.output in found and _keeps_channels(node, shapes)
        ):
            found.add(node.args[0].name)
    norms = {n.output for n in level.program.nodes if n.op == _LAYER_NORM and not _has_one_dim(n)}
    return found - norms


def _reads_value(node: Node) -> bool:
    return bool(node.args) and isinstance(node.args[0], Ref)


def _has_one_dim(norm: Node) -> bool:
    a = named_arguments(norm, _same)
    return len(a["normalized_shape"]) == 1 and (a["weight"] is not None or a["bias"] is not None)


def _keeps_channels(node: Node, shapes: dict[str, Any]) -> bool:
    """Whether the last dimension stays the last one, entry by entry."""
    before, after = shapes[node.args[0].name].shape, shapes[node.output].shape
    a = named_arguments(node, lambda leaf: leaf)
    if node.op == "aten.transpose.int":
        return len(before) - 1 not in (a["dim0"] % len(before), a["dim1"] % len(before))
    if node.op == "aten.permute.default":
        return bool(a["dims"][-1] % len(before) == len(before) - 1)
    return bool(before[-1:] == after[-1:])


def _separated(norm: Node) -> _Norm:
    a = named_arguments(norm, _same)
    parts = tuple((op, a[name]) for op, name in _PARTS if a[name] is not None)
    return _Norm(f"{norm.output}.plain", parts)


def _written(norm: _Norm, output: str, scope: str) -> Iterable[Node]:
    """The nodes that multiply and add, the last of which gives the output."""
    names = [norm.plain, *(f"{output}.{i}" for i in range(1, len(norm.parts))), output]
    for (op, constant), source, name in zip(norm.parts, names[:-1], names[1:], strict=True):
        yield Node(op, (Ref(source), constant), {}, (name,), scope)


def _same(leaf: Ref | Weight) -> Ref | Weight:
    return leaf
