"""The shapes of the values of a model."""

from __future__ import annotations

import onnx
from onnx import shape_inference

Shape = tuple[int, ...]


def shape_of(kind: onnx.TypeProto) -> Shape:
    """The shape of a type; a size that is not fixed is 0."""
    return tuple(int(dim.dim_value) for dim in kind.tensor_type.shape.dim)


def shapes_of(model: onnx.ModelProto, *, data_prop: bool = False) -> dict[str, Shape]:
    """The shapes of inputs, outputs and what is computed between them, by name.

    Args:
        model: of fixed shapes.
        data_prop: whether shapes that the model computes are followed too.
    """
    graph = shape_inference.infer_shapes(model, data_prop=data_prop).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: shape_of(value.type) for value in values}
