"""Batch norms folded into the convolution or linear layer in front of them.

Done here rather than by a converter, so that what becomes of every constant is known: the folded
weight is an expression over stored tensors, computed in float64 and rounded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

from nestedge.convert import LevelProgram, evaluated, tensor_of
from nestedge.expressions import (
    Expression,
    batch_norm_scale,
    cast,
    evaluate,
    reshaped,
    scaled,
    shifted,
)
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Program, Ref, TensorSpec, Weight
from nestedge.program.operators import CONVOLUTION
from nestedge.program.shapes import trace_shapes

_BATCH_NORM = "aten.batch_norm.default"
LAYERS = CONVOLUTION | {"aten.linear.default"}
"""Operators with a weight and a bias for every output channel."""


@dataclass(frozen=True)
class _Fold:
    """One batch norm and the layer that it is folded into."""

    layer: Node
    norm: Node
    weight: str
    bias: str


def fold_batch_norms(level: LevelProgram) -> LevelProgram:
    """The level with every batch norm folded that follows a convolution or linear layer.

    A batch norm in front of its convolution stays: behind a ReLU or padding it cannot be folded
    exactly.
    """
    folds = _find(level.program)
    layers = {fold.layer.output: fold for fold in folds}
    norms = {fold.norm.output for fold in folds}
    added: dict[str, Expression] = {}
    for fold in folds:
        added.update(zip((fold.weight, fold.bias), _folded(fold, level), strict=True))
    nodes: list[Node] = []
    for node in level.program.nodes:
        name = node.outputs[0] or ""
        if name in norms:
            continue
        if name not in layers:
            nodes.append(node)
            continue
        fold = layers[name]
        changes = {"weight": Weight(fold.weight), "bias": Weight(fold.bias)}
        nodes.append(replace(with_arguments(node, changes), outputs=fold.norm.outputs))
    return with_tensors(level, nodes, added)


def lower_batch_norms(level: LevelProgram) -> LevelProgram:
    """The level with the batch norms that are left written as a product and a sum."""
    values = trace_shapes(level.program, batch=1)
    added: dict[str, Expression] = {}
    nodes: list[Node] = []
    for node in level.program.nodes:
        # A norm of the batch's own statistics is no product with anything stored.
        if node.op != _BATCH_NORM or named_arguments(node, lambda leaf: leaf)["training"]:
            nodes.append(node)
            continue
        a = named_arguments(node, lambda leaf: leaf)
        channels = level.program.tensors[a["running_mean"].name].shape[0]
        # Of the value's rank: a converter that moves the channels behind the pixels does so with
        # what has all four dimensions.
        shape = (1, channels, *[1] * (values[node.output].dim() - 2))
        names = [f"{node.output}.scale", f"{node.output}.shift"]
        parts = (reshaped(part, shape) for part in _affine(a, level))
        added.update(zip(names, parts, strict=True))
        scale, shift = map(Weight, names)
        product = f"{node.output}.product"
        nodes.append(Node("aten.mul.Tensor", (a["input"], scale), {}, (product,), node.scope))
        nodes.append(Node("aten.add.Tensor", (Ref(product), shift), {}, node.outputs, node.scope))
    return with_tensors(level, nodes, added)


def _find(program: Program) -> list[_Fold]:
    """The batch norms that may be folded, each with the layer in front of it."""
    reads = Counter(leaf for node in program.nodes for leaf in node.leaves())
    reads.update(ref for _, ref in program.outputs)
    made = {name: node for node in program.nodes for name in node.outputs if name is not None}
    values = trace_shapes(program, batch=1)
    folds = []
    for norm in program.nodes:
        if norm.op != _BATCH_NORM:
            continue
        a = named_arguments(norm, lambda leaf: leaf)
        source = a["input"]
        layer = made.get(source.name)
        if layer is None or layer.op not in LAYERS or reads[source] != 1 or a["training"]:
            continue
        # The channels of a linear layer are last, those of a norm second: for tokens not the same.
        if layer.op not in CONVOLUTION and values[source.name].dim() != 2:
            continue
        weight = named_arguments(layer, lambda leaf: leaf)["weight"]
        if not isinstance(weight, Weight):
            continue
        own = {leaf.name for leaf in layer.leaves() if reads[leaf] == 1}
        taken = set(program.tensors) - own
        # A weight that other layers read as well is folded into a copy of its own.
        name = free_name(weight.name, layer, taken)
        bias = free_name(f"{weight.name.removesuffix('weight')}bias", layer, taken)
        folds.append(_Fold(layer, norm, name, bias))
    return folds


def free_name(wanted: str, layer: Node, taken: Container[str]) -> str:
    """A name for a new tensor of a layer: the one wanted, or where that is taken one like it."""
    return f"{wanted}_{layer.output}" if wanted in taken else wanted


def _folded(fold: _Fold, level: LevelProgram) -> tuple[Expression, Expression]:
    """The expressions of the folded weight and bias."""
    layer = named_arguments(fold.layer, lambda leaf: leaf)
    norm = named_arguments(fold.norm, lambda leaf: leaf)
    scale = _scale(norm, level)
    weight = scaled(level.expressions[layer["weight"].name], scale, 0)
    return weight, _shift(norm, level, bias=_optional(layer["bias"], level))


def _affine(norm: dict[str, Any], level: LevelProgram) -> tuple[Expression, Expression]:
    """A batch norm as one factor and one summand for each channel, both in its dtype."""
    dtype = evaluated(level.tensors[norm["running_mean"].name]).dtype.name
    return cast(_scale(norm, level), dtype), _shift(norm, level, bias=None)


def _scale(norm: dict[str, Any], level: LevelProgram) -> Expression:
    variance = level.expressions[norm["running_var"].name]
    return batch_norm_scale(_optional(norm["weight"], level), variance, norm["eps"])


def _shift(norm: dict[str, Any], level: LevelProgram, *, bias: Expression | None) -> Expression:
    mean = level.expressions[norm["running_mean"].name]
    return shifted(bias, mean, _scale(norm, level), _optional(norm["bias"], level))


def _optional(leaf: Weight | None, level: LevelProgram) -> Expression | None:
    return None if leaf is None else level.expressions[leaf.name]


def with_tensors(
    level: LevelProgram, nodes: list[Node], added: dict[str, Expression]
) -> LevelProgram:
    """The level with other nodes and some tensors added; those no longer read are dropped."""
    made = {name: tensor_of(evaluate(e, level.stored)) for name, e in added.items()}
    specs = {n: TensorSpec(tuple(t.shape), t.dtype, "parameter") for n, t in made.items()}
    tensors, expressions = {**level.tensors, **made}, {**level.expressions, **added}
    program = replace(level.program, nodes=tuple(nodes), tensors={**level.program.tensors, **specs})
    used = program.used_tensors()
    return replace(
        level,
        program=program,
        tensors={name: tensor for name, tensor in tensors.items() if name in used},
        expressions={name: e for name, e in expressions.items() if name in used},
    )
