"""An ONNX model in half precision."""

from __future__ import annotations

import copy
from collections.abc import Collection
from graphlib import TopologicalSorter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from nestedge.diagnosis import failed
from nestedge.expressions import Array
from nestedge_onnx.exporter import strip
from nestedge_onnx.quiet import quiet

_CAST = "_cast_to_fp32"


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and arithmetic in float16; inputs and outputs stay as they are.

    Operators that float16 is too coarse for, or that have no such form, keep float32 between two
    casts.

    Raises:
        ConversionError: onnxruntime's tools cannot convert the model.
    """
    try:
        with quiet():
            half: onnx.ModelProto = convert_float_to_float16(
                copy.deepcopy(model),
                keep_io_types=True,
            )
    except Exception as error:
        # The tools raise many types, all about what they cannot convert.
        raise failed("onnxruntime cannot make fp16", error, otherwise="quantiser-failed") from error
    originals = {item.name: item for item in model.graph.initializer}
    for item in half.graph.initializer:
        if item.data_type == TensorProto.FLOAT16 and item.name in originals:
            # The tools keep tiny weights from becoming zero, by a rule that no cast has.
            array = rounded(numpy_helper.to_array(originals[item.name]))
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    _sort(half.graph)
    strip(half)
    return half


def with_half_weights(model: onnx.ModelProto, weights: Collection[str]) -> onnx.ModelProto:
    """The model with some weights stored in float16; whoever reads them computes in float32.

    onnxruntime casts the weights back once, when it loads the file.

    Args:
        model: in single or 8-bit precision.
        weights: names of initialisers of float32.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = {}
    for item in half.graph.initializer:
        if item.name in weights:
            array = rounded(numpy_helper.to_array(item))
            item.CopyFrom(numpy_helper.from_array(array, item.name))
            casts[item.name] = f"{item.name}{_CAST}"
    for node in half.graph.node:
        node.input[:] = [casts.get(name, name) for name in node.input]
    for index, (name, cast) in enumerate(casts.items()):
        half.graph.node.insert(
            index, helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT)
        )
    return half


def _sort(graph: onnx.GraphProto) -> None:
    """Puts every node behind those that make its inputs: the tools append casts at the end."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needs = {
        index: [makers[name] for name in node.input if name in makers]
        for index, node in enumerate(graph.node)
    }
    nodes = [copy.deepcopy(graph.node[index]) for index in TopologicalSorter(needs).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def rounded(array: Array) -> Array:
    """An array in float16; what is larger than its largest number becomes that."""
    most = np.finfo(np.float16).max
    return np.clip(array, -most, most).astype(np.float16)
