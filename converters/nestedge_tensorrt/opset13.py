"""From the opset of the shipped file to that which TensorRT 8.2 parses, that of JetPack 4.

onnx has a converter of versions, which refuses these models: on the way down it knows no Relu and
no LayerNormalization. What an importer reads was looked up in builtin_op_importers.cpp of
onnx-tensorrt 8.2-GA (Apache-2.0, github.com/onnx/onnx-tensorrt).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from nestedge_onnx.shapes import shapes_of
from nestedge_tensorrt.lowering import OPSET as SHIPPED_OPSET
from nestedge_tensorrt.lowering import constant, drop, integer
from nestedge_tensorrt.parser import OLDEST_OPERATORS, unparsable

OPSET = 13
"""The newest that TensorRT 8.2 parses."""

IR_VERSION = 7
"""Of ONNX 1.8, which brought opset 13 and which the parser of TensorRT 8.2 is built with."""


def downgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of opset 17, in opset 13.

    Layer norms and hard swishes become the sums and products that they stand for.

    Raises:
        ConversionError: an operator has no such form.
    """
    lower = onnx.ModelProto()
    lower.CopyFrom(model)
    del lower.graph.node[:]
    for node in model.graph.node:
        piece = _Piece(node, model)
        _DOWNGRADES.get(node.op_type, _unchanged)(piece)
        lower.graph.node.extend(piece.nodes)
        lower.graph.initializer.extend(piece.constants)
    del lower.opset_import[:]
    lower.opset_import.append(helper.make_opsetid("", OPSET))
    lower.ir_version = IR_VERSION
    return lower


@dataclass
class _Piece:
    """What becomes of a node.

    Attributes:
        node: as it was.
        model: that it is of.
        nodes: in its place, of which the last gives what it gave.
        constants: that these read.
    """

    node: onnx.NodeProto
    model: onnx.ModelProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, suffix: str, **attributes: Any) -> str:
        """Adds a node whose name and output end in `suffix`; the name of its output."""
        output = f"{self.node.output[0]}{suffix}"
        name = f"{self.node.name}{suffix}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def constant(self, suffix: str, value: float) -> str:
        """Adds a number; its name."""
        name = f"{self.node.output[0]}{suffix}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def keep(self) -> onnx.NodeProto:
        """Adds the node itself, a copy of it."""
        copy = onnx.NodeProto()
        copy.CopyFrom(self.node)
        self.nodes.append(copy)
        return copy


def _unchanged(piece: _Piece) -> None:
    node = piece.node
    if node.op_type not in OLDEST_OPERATORS:
        raise unparsable(node, "TensorRT before 8.5 has no such operator")
    newer = defs.get_schema(node.op_type, SHIPPED_OPSET, node.domain).since_version > OPSET
    if newer and node.op_type not in _SAME:
        raise unparsable(node, f"it needs an opset above {OPSET}")
    piece.keep()


def _without(name: str) -> Callable[[_Piece], None]:
    """The node without an attribute of a later opset, where that is 0 or names nothing."""

    def downgrade(piece: _Piece) -> None:
        given = [item for item in piece.node.attribute if item.name == name]
        if any(item.i or item.s not in (b"", b"none") for item in given):
            raise unparsable(piece.node, f"opset {OPSET}, that of TensorRT 8.2, has no {name!r}")
        drop(piece.keep(), name)

    return downgrade


def _reshape(piece: _Piece) -> None:
    if integer(piece.node, "allowzero", 0):
        shape = constant(piece.node, piece.model, 1)
        if shape is not None and not shape.all():
            raise unparsable(piece.node, "it makes a dimension of nothing")
    # Without it a zero is the size that the input has there; there is none.
    drop(piece.keep(), "allowzero")


def _shape(piece: _Piece) -> None:
    if piece.node.attribute:
        raise unparsable(piece.node, f"opset {OPSET}, that of TensorRT 8.2, has no part of a shape")
    piece.keep()


def _resize(piece: _Piece) -> None:
    if any(item.name == "mode" and item.s == b"cubic" for item in piece.node.attribute):
        raise unparsable(piece.node, "TensorRT 8.2 resizes by the nearest or linearly, not cubic")
    piece.keep()


def _hard_swish(piece: _Piece) -> None:
    (x,) = piece.node.input
    gate = piece.add("HardSigmoid", x, suffix="_gate", alpha=1 / 6, beta=0.5)
    piece.add("Mul", x, gate, suffix="")


def _reciprocal(piece: _Piece) -> None:
    piece.add("Div", piece.constant("_one", 1.0), piece.node.input[0], suffix="")


def _layer_norm(piece: _Piece) -> None:
    node = piece.node
    if any(node.output[1:]):
        raise unparsable(node, "its mean or its deviation is read")
    x, scale, bias = [*node.input, ""][:3]
    axes = _last_axes(piece)
    epsilon = next((float(item.f) for item in node.attribute if item.name == "epsilon"), 1e-5)
    mean = piece.add("ReduceMean", x, suffix="_mean", axes=axes, keepdims=1)
    centred = piece.add("Sub", x, mean, suffix="_centred")
    square = piece.add("Mul", centred, centred, suffix="_square")
    variance = piece.add("ReduceMean", square, suffix="_variance", axes=axes, keepdims=1)
    above = piece.add("Add", variance, piece.constant("_epsilon", epsilon), suffix="_above")
    deviation = piece.add("Sqrt", above, suffix="_deviation")
    normal = piece.add("Div", centred, deviation, suffix="_normal")
    scaled = piece.add("Mul", normal, scale, suffix="_scaled" if bias else "")
    if bias:
        piece.add("Add", scaled, bias, suffix="")


def _last_axes(piece: _Piece) -> list[int]:
    """The axes that a layer norm runs over, counted from the end."""
    first = integer(piece.node, "axis", -1)
    rank = len(shapes_of(piece.model)[piece.node.input[0]]) if first >= 0 else 0
    return list(range(first - rank, 0))


_SAME = frozenset(
    # Opsets 14 to 17 gave them types, such as bfloat16, that our files have nowhere.
    (
        *("Add", "CumSum", "Div", "GreaterOrEqual", "Identity", "If", "LeakyRelu", "LessOrEqual"),
        *("Loop", "Mul", "PRelu", "Pow", "Relu", "Scan", "Sub", "Where"),
    )
)

_DOWNGRADES: Mapping[str, Callable[[_Piece], None]] = {
    "BatchNormalization": _without("training_mode"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _without("layout")),
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_norm,
    "Reciprocal": _reciprocal,
    "Reshape": _reshape,
    "Resize": _resize,
    **dict.fromkeys(("ScatterElements", "ScatterND"), _without("reduction")),
    "Shape": _shape,
}
"""What writes a node in opset 13, for each operator that is another one there."""
