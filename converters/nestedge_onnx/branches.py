"""Which of the operators between layers may work on 8 bits, in onnxruntime's form."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx

_ACTIVATIONS = ("Relu", "Clip", "Sigmoid")
_MEETINGS = ("Add", "Mul")


def unsuited(graph: onnx.GraphProto, single: Collection[str]) -> Iterator[str]:
    """The names of the sums, products and sigmoids that do not belong to convolutions.

    Where branches of convolutions meet, as in a residual network, a gate or a SiLU, 8 bits suffice.
    A transformer's sums are those of its residual stream, whose range is far too wide for 8 bits.

    Args:
        graph: in single precision.
        single: names of the layers that stay so; what they give is rounded for none of these.
    """
    constants = {item.name for item in graph.initializer}
    exact = {name for node in graph.node if node.name in single for name in node.output}
    branches: set[str] = set()
    products: set[str] = set()
    for node in graph.node:
        given = set(node.input)
        if node.op_type == "Conv" or (node.op_type in _ACTIVATIONS and given & branches):
            branches.update(set(node.output) - exact)
        elif node.op_type in _MEETINGS:
            # A product has the range of neither factor, so both have to be known.
            meets = given <= branches if node.op_type == "Mul" else bool(given & branches)
            if given & (constants | exact) or not meets:
                yield node.name
            elif node.op_type == "Mul":
                branches.update(node.output)
                products.add(node.name)
    yield from _scores(graph, products)


def _scores(graph: onnx.GraphProto, products: set[str]) -> Iterator[str]:
    """The sigmoids that something else reads than products in 8 bits: of a gate, or an output."""
    read = {item.name for item in graph.output}
    for node in graph.node:
        if node.name not in products:
            read.update(node.input)
    for node in graph.node:
        if node.op_type == "Sigmoid" and read & set(node.output):
            yield node.name
