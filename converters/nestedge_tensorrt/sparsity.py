"""Whether weights have the pattern that sparse tensor cores skip: two zeros in every four.

The groups of four lie along the input channels, as TensorRT's developer guide says for the builder
flag SPARSE_WEIGHTS: for each output channel and each pixel of the kernel.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from nestedge.expressions import Array

GROUP = 4
ZEROS = 2


def is_sparse(weight: Array, axis: int) -> bool:
    """Whether each group of four along an axis has at least two zeros.

    A group at the end that is not full counts as filled with zeros, as the builder fills it. Fewer
    channels than one group have nothing to be skipped.

    >>> is_sparse(np.array([[1, 0, 0, 2, 3, 0]]), axis=1)
    True
    >>> is_sparse(np.array([[1, 0, 5, 2]]), axis=1)
    False
    """
    channels = np.moveaxis(weight, axis, -1) == 0
    size = channels.shape[-1]
    if size < GROUP:
        return False
    fill = [(0, 0)] * (channels.ndim - 1) + [(0, -size % GROUP)]
    groups = np.pad(channels, fill, constant_values=True).reshape(*channels.shape[:-1], -1, GROUP)
    return bool((groups.sum(-1) >= ZEROS).all())


def has_sparse_layers(model: onnx.ModelProto) -> bool:
    """Whether any layer of a model has such weights: of Conv, Gemm, or MatMul by a constant.

    The builder decides layer by layer, so that one is enough to ask for it.
    """
    arrays = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        axis = _channel_axis(node)
        if axis is None or node.input[1] not in arrays:
            continue
        weight = numpy_helper.to_array(arrays[node.input[1]])
        if weight.ndim > 1 and is_sparse(weight, axis):
            return True
    return False


def _channel_axis(node: onnx.NodeProto) -> int | None:
    """The axis of input channels in the second input of a node; None where that is no weight."""
    if node.op_type == "Conv":
        return 1
    if node.op_type == "MatMul":
        return -2
    if node.op_type == "Gemm":
        return 1 if any(item.name == "transB" and item.i for item in node.attribute) else 0
    return None
