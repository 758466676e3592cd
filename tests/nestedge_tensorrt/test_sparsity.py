from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.expressions import Array
from nestedge_tensorrt.sparsity import has_sparse_layers, is_sparse

RNG = np.random.default_rng(0)


def _pruned(shape: tuple[int, ...], axis: int) -> Array:
    """Weights of which the first two in every four along an axis are zero."""
    weight = RNG.standard_normal(shape).astype(np.float32) + 3
    index: list[slice | Array] = [slice(None)] * len(shape)
    index[axis] = np.flatnonzero(np.arange(shape[axis]) % 4 < 2)
    weight[tuple(index)] = 0
    return weight


@pytest.mark.parametrize(
    ("row", "sparse"),
    [
        ([1, 2, 0, 0], True),
        ([0, 2, 0, 3], True),
        ([0, 0, 0, 0], True),
        ([1, 2, 3, 0], False),
        # Across two groups: three, and one.
        ([0, 0, 0, 4, 5, 6, 7, 0], False),
        # The pattern does not begin anywhere: groups begin at multiples of four.
        ([1, 1, 0, 0, 0, 1, 1, 1], False),
        # What is missing of a group is zero.
        ([1, 0, 0, 2, 3, 4], True),
        ([1, 0, 0, 2, 3, 4, 5], False),
        ([1, 0, 0, 2, 3, 0, 5], True),
        ([0, 0, 0], False),
        # Tiny is not zero.
        ([1e-30, 1, 2, 0], False),
        ([-0.0, 1, 2, 0], True),
    ],
)
def test_each_group_of_four_needs_two_zeros(row: list[float], sparse: bool) -> None:
    assert is_sparse(np.array([row], np.float32), axis=1) is sparse


def test_groups_lie_along_the_input_channels() -> None:
    weight = _pruned((8, 8, 3, 3), axis=1)
    assert is_sparse(weight, axis=1)
    assert not is_sparse(weight, axis=0)
    weight[7, 0, 2, 2] = 1
    assert not is_sparse(weight, axis=1)


def _model(node: onnx.NodeProto, weight: Array) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(
        [node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")]
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("operator", "attributes", "shape", "axis", "other"),
    [
        ("Conv", {}, (4, 8, 3, 3), 1, 0),
        ("Gemm", {"transB": 1}, (4, 8), 1, 0),
        ("Gemm", {}, (8, 4), 0, 1),
        ("MatMul", {}, (8, 4), 0, 1),
        ("MatMul", {}, (2, 8, 4), 1, 2),
    ],
)
def test_a_layer_is_sparse_along_its_own_axis(
    operator: str, attributes: dict[str, int], shape: tuple[int, ...], axis: int, other: int
) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"])
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    assert has_sparse_layers(_model(node, _pruned(shape, axis)))
    assert not has_sparse_layers(_model(node, _pruned(shape, other)))


@pytest.mark.parametrize(
    ("operator", "shape"),
    [("Mul", (8, 8)), ("MatMul", (8,)), ("Conv", (8, 1, 3, 3))],
    ids=["no layer", "a vector", "a depthwise convolution"],
)
def test_what_has_no_channels_to_skip_is_not_sparse(operator: str, shape: tuple[int, ...]) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"])
    assert not has_sparse_layers(_model(node, np.zeros(shape, np.float32)))


def test_a_computed_weight_is_not_looked_at() -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    assert not has_sparse_layers(_model(node, np.zeros((8, 8), np.float32)))
