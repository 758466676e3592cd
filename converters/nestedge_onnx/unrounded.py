"""Layers of a quantised ONNX model that read what they read before it was quantised."""

from __future__ import annotations

from collections.abc import Collection

import onnx

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a weight."""


def read_unrounded(
    quantized: onnx.ModelProto, original: onnx.ModelProto, layers: Collection[str]
) -> None:
    """Lets some layers of a quantised model read numbers that no pair has rounded, in place.

    A layer reads what is before the pair; and where operators of one input stand between it and the
    layer or the sum in front, copies of them read what is before the pairs there. Whatever else
    reads the same numbers reads them as it did.

    Args:
        quantized: with QuantizeLinear/DequantizeLinear pairs.
        original: the same in single precision.
        layers: names of the nodes.
    """
    reader = _Reader(quantized, original)
    nodes = []
    for node in quantized.graph.node:
        if node.name in layers:
            source = next(n.input[0] for n in original.graph.node if n.name == node.name)
            node.input[0] = reader.unrounded(source)
            nodes += reader.taken()
        nodes.append(node)
    _replace(quantized.graph, nodes, original.graph)


class _Reader:
    """Finds values of a model in the quantised one; lives for one model."""

    def __init__(self, quantized: onnx.ModelProto, original: onnx.ModelProto) -> None:
        self._constants = {item.name for item in original.graph.initializer}
        self._before = {name: node for node in original.graph.node for name in node.output}
        self._now = {name: node for node in quantized.graph.node for name in node.output}
        self._found: dict[str, str] = {}
        self._copies: list[onnx.NodeProto] = []

    def taken(self) -> list[onnx.NodeProto]:
        """The copies that were made since this was asked."""
        copies, self._copies = self._copies, []
        return copies

    def unrounded(self, name: str) -> str:
        """The name that a value of the model has in the quantised one, before any pair."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> str:
        node, now = self._before.get(name), self._now.get(name)
        if node is None or now is None or node.op_type in LAYERS:
            return name
        places = [i for i, read in enumerate(node.input) if read and read not in self._constants]
        if len(places) != 1 or len(node.output) != 1:
            return name
        (place,) = places
        if now.op_type != node.op_type:
            # A ReLU that rounding makes superfluous is gone: its name is that of what it read.
            return self._copy(node, place, name)
        source = self.unrounded(node.input[place])
        return name if now.input[place] == source else self._copy(node, place, source)

    def _copy(self, node: onnx.NodeProto, place: int, source: str) -> str:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[place] = source
        copy.output[0] = f"{node.output[0]}_unrounded"
        copy.name = f"{node.name}_unrounded"
        self._copies.append(copy)
        return str(copy.output[0])


def _replace(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], original: onnx.GraphProto
) -> None:
    """Puts nodes into a graph but for those that nothing reads, with the constants they need."""
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
    # A quantised bias has the name that it had before, and is computed now.
    present = {item.name for item in graph.initializer}
    present.update(name for node in kept for name in node.output)
    lost = [item for item in original.initializer if item.name not in present]
    constants = [item for item in (*graph.initializer, *lost) if item.name in read]
    # What is in a list of a message is gone once the list is emptied.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept[::-1]]
    items = [onnx.TensorProto.FromString(item.SerializeToString()) for item in constants]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(items)
