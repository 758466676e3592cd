"""Biases of a TFLite file as its schema has them: of one dimension."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ai_edge_litert import schema_py_generated as schema

_SHAPE_FIELD = 4
"""Where the table Tensor says that its field 0 is: the shape."""

_BIAS = 2
"""Which input of a layer its bias is."""

_LAYERS = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
)


def with_flat_biases(content: bytes) -> bytes:
    """A file whose layers have biases of shape (channels,).

    litert-torch leaves some in four dimensions, as those of ConvNeXt's depthwise convolutions.
    ai-edge-quantizer gives such a one as many numbers as the square of its channels.
    """
    model: Any = schema.Model.GetRootAs(content, 0)
    patched = bytearray(content)
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for position in _biases(model, graph):
            tensor = graph.Tensors(position)
            table, length = tensor._tab, tensor.ShapeLength()
            if length > 1:
                start = int(table.Vector(table.Offset(_SHAPE_FIELD)))
                channels = math.prod(int(size) for size in tensor.ShapeAsNumpy())
                # A vector is its length and its numbers: what is behind the first is read no more.
                patched[start - 4 : start + 4] = b"".join(
                    number.to_bytes(4, "little") for number in (1, channels)
                )
    return bytes(patched)


def _biases(model: Any, graph: Any) -> set[int]:
    """The positions of the tensors that are biases of layers and nothing else."""
    readers: Counter[int] = Counter()
    biases: Counter[int] = Counter()
    for operator in (graph.Operators(index) for index in range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = [int(operator.Inputs(place)) for place in range(operator.InputsLength())]
        readers.update(inputs)
        if kind in _LAYERS:
            biases.update(inputs[_BIAS:])
    return {
        position for position in biases if position >= 0 and biases[position] == readers[position]
    }
