"""Constant factors and summands folded into the layers in front of them and behind them.

A LayerScale behind a linear layer, the weight and bias of a layer norm in front of one, a number
that divides outputs: a runtime's own converter folds these too, but does not say what it multiplied
with what. Done here, every constant stays an expression over stored tensors. As with batch norms,
each fold is computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from nestedge.convert import LevelProgram, evaluated
from nestedge.expressions import (
    Expression,
    added,
    applied,
    reshaped,
    scaled,
    summed,
    zeros,
)
from nestedge.folding import LAYERS, free_name, with_tensors
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Ref, Weight, without_dead_nodes
from nestedge.program.shapes import trace_shapes
from nestedge.separation import separate_layer_norms

_LINEAR = "aten.linear.default"
_HARD_SIGMOID = "aten.hardsigmoid.default"
_FACTORS = ("aten.mul.Tensor", "aten.mul.Scalar")
_SUMMANDS = ("aten.add.Tensor", "aten.add.Scalar")
_INVERSE = {
    "aten.div.Tensor": "aten.mul.Tensor",
    "aten.div.Scalar": "aten.mul.Scalar",
    "aten.sub.Tensor": "aten.add.Tensor",
    "aten.sub.Scalar": "aten.add.Scalar",
}


@dataclass(frozen=True)
class _Affine:
    """A value times or plus a constant.

    Attributes:
        source: the value.
        constant: one number, shape (1,), or one for each channel, shape (channels,).
        is_factor: times, not plus.
    """

    source: Ref
    constant: Expression
    is_factor: bool


def fold_affine(level: LevelProgram) -> LevelProgram:
    """The level with constant factors and summands folded into its linear layers and convolutions.

    Those behind a layer go into its weight and bias where nothing else reads the layer; those in
    front go into linear layers, the weight and bias of layer norms among them. A hard sigmoid
    leaves the number that it adds to the layer in front of it.
    """
    return _Folder(separate_layer_norms(level)).fold()


@dataclass
class _Folder:
    """One pass over a program; lives for one call of `fold`.

    Attributes:
        level: what is folded.
        nodes: the new program, as far as it is.
        places: for every value of it, where its node is.
        shapes: a meta tensor for every value.
        reads: how often the level's program reads every value and tensor.
        folded: the expressions of new tensors, by name.
        dtypes: and their dtypes.
    """

    level: LevelProgram
    nodes: list[Node] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    reads: Counter[Ref | Weight] = field(default_factory=Counter)
    folded: dict[str, Expression] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def fold(self) -> LevelProgram:
        """The folded level."""
        program = self.level.program
        self.shapes = trace_shapes(program, batch=1)
        self.reads.update(leaf for node in program.nodes for leaf in node.leaves())
        self.reads.update(ref for _, ref in program.outputs)
        self.dtypes = {n: evaluated(t).dtype.name for n, t in self.level.tensors.items()}
        for node in program.nodes:
            if node.op == _LINEAR and _has_weight(node):
                self._append(self._with_input(node))
            elif node.op == _HARD_SIGMOID:
                self._split_hard_sigmoid(node)
            else:
                self._append_behind(node)
        used = without_dead_nodes(replace(program, nodes=tuple(self.nodes)))
        return with_tensors(self.level, list(used.nodes), self.folded)

    def _append(self, node: Node) -> None:
        self.places.update((name, len(self.nodes)) for name in node.outputs if name is not None)
        self.nodes.append(node)

    def _append_behind(self, node: Node) -> None:
        """Fold a node into the layer in front of it; where that cannot be, append it."""
        affine = self._affine(node)
        layer = None if affine is None else self._layer(affine.source)
        if affine is None or layer is None or not self._fits(node, affine, _channels(layer)):
            self._append(node)
        else:
            self._replace(layer, self._behind(layer, affine), node.output)

    def _replace(self, before: Node, layer: Node, output: str) -> None:
        place = self.places.pop(before.output)
        self.nodes[place] = replace(layer, outputs=(output,))
        self.places[output] = place

    def _layer(self, source: Any) -> Node | None:
        """The layer that gives a value, if nothing else reads the value."""
        if not isinstance(source, Ref) or source.name not in self.places:
            return None
        node = self.nodes[self.places[source.name]]
        single = self.reads[source] == 1
        return node if single and node.op in LAYERS and _has_weight(node) else None

    def _affine(self, node: Node) -> _Affine | None:
        """The node as a value with a constant, if it is one."""
        op = _INVERSE.get(node.op, node.op)
        if op not in _FACTORS + _SUMMANDS or node.kwargs or len(node.args) != 2:
            return None
        source, other = node.args
        if isinstance(other, Ref) and op == node.op:
            source, other = other, source
        if not isinstance(source, Ref):
            return None
        is_factor = op in _FACTORS
        if isinstance(other, Weight) and op == node.op:
            constant = self._channel_constant(other)
        elif isinstance(other, (int, float)) and not isinstance(other, bool):
            value = float(other)
            if op != node.op:
                value = (1 / value if value else math.inf) if is_factor else -value
            constant = added(None, [value], "float64")
        else:
            return None
        return None if constant is None else _Affine(source, constant, is_factor)

    def _channel_constant(self, leaf: Weight) -> Expression | None:
        spec = self.level.program.tensors[leaf.name]
        size = math.prod(spec.shape)
        if not spec.dtype.is_floating_point or size != max(spec.shape, default=1):
            return None
        return reshaped(self._expression(leaf), (size,))

    def _fits(self, node: Node, affine: _Affine, dim: int) -> bool:
        """Whether a constant has one number for all, or one for each entry of a dimension."""
        result = self.shapes[node.output]
        if self.shapes[affine.source.name].shape != result.shape or not result.is_floating_point():
            return False
        for leaf in node.leaves():
            if isinstance(leaf, Weight):
                shape = self.level.program.tensors[leaf.name].shape
                sizes = {position - len(shape): size for position, size in enumerate(shape)}
                if any(size != 1 and position != dim for position, size in sizes.items()):
                    return False
        return True

    def _behind(self, layer: Node, affine: _Affine) -> Node:
        """A layer with its outputs multiplied, or added to."""
        a = named_arguments(layer, _same)
        weight, bias = self._expression(a["weight"]), self._bias(a)
        if not affine.is_factor:
            rows = self.shapes[layer.output].shape[_channels(layer)]
            start = bias or zeros((rows,), self.dtypes[a["weight"].name])
            return self._changed(layer, weight=None, bias=summed(start, affine.constant))
        scaled_bias = None if bias is None else scaled(bias, affine.constant, 0)
        return self._changed(layer, weight=scaled(weight, affine.constant, 0), bias=scaled_bias)

    def _with_input(self, layer: Node) -> Node:
        """A linear layer with what stands in front of it folded into it."""
        while isinstance(layer.args[0], Ref) and layer.args[0].name in self.places:
            node = self.nodes[self.places[layer.args[0].name]]
            affine = self._affine(node)
            if affine is None or not self._fits(node, affine, -1):
                break
            a = named_arguments(layer, _same)
            weight = self._expression(a["weight"])
            layer = with_arguments(layer, {"input": affine.source})
            if affine.is_factor:
                layer = self._changed(layer, weight=scaled(weight, affine.constant, 1), bias=None)
            else:
                bias = applied(weight, affine.constant, self._bias(a))
                layer = self._changed(layer, weight=None, bias=bias)
        return layer

    def _changed(self, layer: Node, *, weight: Expression | None, bias: Expression | None) -> Node:
        """A layer with another weight or bias, or both."""
        old = named_arguments(layer, _same)
        changes = {}
        for part, expression in (("weight", weight), ("bias", bias)):
            if expression is None:
                continue
            name = self._name(layer, old, part)
            self.folded[name] = expression
            self.dtypes[name] = self.dtypes[old["weight"].name]
            changes[part] = Weight(name)
        return with_arguments(layer, changes)

    def _name(self, layer: Node, old: dict[str, Any], part: str) -> str:
        """The name of a changed weight or bias: its own, unless something else reads that."""
        present = old[part]
        if present is not None and (present.name in self.folded or self.reads[present] == 1):
            return str(present.name)
        stem = old["weight"].name.removesuffix("weight")
        return free_name(f"{stem}{part}", layer, {*self.level.program.tensors, *self.folded})

    def _split_hard_sigmoid(self, node: Node) -> None:
        """relu6(x + 3) / 6, with the 3 in the bias of the layer in front."""
        layer = self._layer(node.args[0])
        if layer is None:
            self._append(node)
            return
        moved, clipped = f"{node.output}.moved", f"{node.output}.clipped"
        three = added(None, [3.0], "float64")
        self._replace(layer, self._behind(layer, _Affine(node.args[0], three, False)), moved)
        self.shapes.update(dict.fromkeys((moved, clipped), self.shapes[node.output]))
        self._append(Node("aten.clamp.default", (Ref(moved), 0, 6), {}, (clipped,), node.scope))
        self._append(Node("aten.mul.Tensor", (Ref(clipped), 1 / 6), {}, node.outputs, node.scope))

    def _bias(self, arguments: dict[str, Any]) -> Expression | None:
        return None if arguments["bias"] is None else self._expression(arguments["bias"])

    def _expression(self, weight: Weight) -> Expression:
        return self.folded.get(weight.name) or self.level.expressions[weight.name]


def _same(leaf: Ref | Weight) -> Ref | Weight:
    return leaf


def _has_weight(layer: Node) -> bool:
    """Whether a layer's weight and bias are stored, not computed."""
    a = named_arguments(layer, _same)
    return isinstance(a["weight"], Weight) and not isinstance(a["bias"], Ref)


def _channels(layer: Node) -> int:
    """The dimension of a layer's outputs, from the back."""
    if layer.op == _LINEAR:
        return -1
    return -1 - int(layer.op.split(".")[1][len("conv")])
