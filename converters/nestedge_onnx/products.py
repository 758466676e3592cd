"""Matrix products with a bias as one operator, in which onnxruntime adds the bias in 8 bits too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nestedge_onnx.shapes import Shape, shapes_of

_MATRIX = 2


def with_gemms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose matrix products by a constant and the bias added to them are one Gemm.

    onnxruntime makes Gemms of them when it loads a file, between the conversions of a quantised one
    too: the bias is in single precision then, and it computes the whole product so, with weights
    that it converts at every run.

    Args:
        model: in single precision, of fixed shapes.
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    graph, shapes = fused.graph, shapes_of(model)
    pairs = dict(_pairs(graph))
    taken = {product.output[0] for product, _ in pairs.values()}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in pairs:
            product, bias = pairs[node.output[0]]
            made, added = _gemm(product, bias, node, shapes[product.input[0]])
            nodes.extend(made)
            graph.initializer.extend(added)
        elif node.output[0] not in taken:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return fused


def _pairs(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[onnx.NodeProto, str]]]:
    """What each sum that is a product with its bias gives: the product and the bias's name."""
    sizes = {item.name: tuple(item.dims) for item in graph.initializer}
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(item.name for item in graph.output)
    products = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "MatMul"
        and len(sizes.get(node.input[1], ())) == _MATRIX
        and reads[node.output[0]] == 1
    }
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for one, other in (node.input, reversed(node.input)):
            product = products.get(one)
            if product is not None and sizes.get(other) == sizes[product.input[1]][1:]:
                yield node.output[0], (product, other)


def _gemm(
    product: onnx.NodeProto, bias: str, total: onnx.NodeProto, shape: Shape
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes of a Gemm with the constants they add.

    A Gemm takes matrices only: what has more axes is reshaped in front of it and behind.
    """
    given, width = product.input
    end, (result,) = product.output[0], total.output
    if len(shape) == _MATRIX:
        return [helper.make_node("Gemm", [given, width, bias], [result], f"{end}_gemm")], []
    sizes = {f"{end}_rows": [-1, shape[-1]], f"{end}_shape": [*shape[:-1], -1]}
    to_rows, to_shape = sizes
    nodes = [
        helper.make_node("Reshape", [given, to_rows], [f"{end}_in"], f"{end}_to_rows"),
        helper.make_node("Gemm", [f"{end}_in", width, bias], [f"{end}_out"], f"{end}_gemm"),
        helper.make_node("Reshape", [f"{end}_out", to_shape], [result], f"{end}_to_shape"),
    ]
    added = [numpy_helper.from_array(np.array(size), name) for name, size in sizes.items()]
    return nodes, added
