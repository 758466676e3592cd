from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from nestedge.errors import ConversionError
from nestedge.expressions import Array
from nestedge_tensorrt.batching import with_free_batch
from nestedge_tensorrt.opset13 import downgraded
from tests.nestedge_tensorrt.graphs import numbers, outputs_of, shipped_model
from tests.nestedge_tensorrt.networks import NETWORKS, shipped

Nodes = Sequence[onnx.NodeProto]


def _check_free(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]) -> None:
    """Every sample of a batch of any size gets what it gets alone."""
    free = with_free_batch(model)
    onnx.checker.check_model(free, full_check=True)
    for value in (*free.graph.input, *free.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    for size in (1, 2, 5):
        given = {name: numbers(size, *shape) for name, shape in inputs.items()}
        together = outputs_of(free, given)
        for index in range(size):
            alone = {name: array[index : index + 1] for name, array in given.items()}
            for found, expected in zip(together, outputs_of(model, alone), strict=True):
                assert len(found) == size
                scale = float(np.abs(expected).max())
                np.testing.assert_allclose(found[index], expected[0], atol=1e-5 * scale)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_batches_of_any_size(name: str, precision: str) -> None:
    case, file = shipped(name, precision)
    model = onnx.load_from_string(file)
    shapes = {name: array.shape[1:] for name, array in case.inputs.items()}
    _check_free(model, shapes)
    if precision == "fp32":
        _check_free(downgraded(model), shapes)


FREED: dict[str, tuple[Nodes, Mapping[str, Sequence[int] | Array]]] = {
    "a shape": ([helper.make_node("Reshape", ["x", "s"], ["y"])], {"s": [1, 24]}),
    "a shape with the rest left open": (
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        {"s": [1, 6, -1]},
    ),
    "a shape that joins the batch with what follows, and parts it again": (
        [
            helper.make_node("Reshape", ["x", "rows"], ["r"]),
            helper.make_node("Relu", ["r"], ["q"]),
            helper.make_node("Reshape", ["q", "s"], ["y"]),
        ],
        {"rows": [6, 4], "s": [1, 4, 6]},
    ),
    "a shape that joins the batch with what is before it, and parts it again": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
            helper.make_node("Reshape", ["t", "rows"], ["r"]),
            helper.make_node("Softmax", ["r"], ["q"], axis=1),
            helper.make_node("Reshape", ["q", "features"], ["f"]),
            helper.make_node("Softmax", ["f"], ["g"]),
            helper.make_node("Reshape", ["g", "s"], ["p"]),
            helper.make_node("Transpose", ["p"], ["y"], perm=[1, 0, 2]),
        ],
        {"rows": [2, 3, 4], "features": [2, 12], "s": [2, 1, 12]},
    ),
    "a shape behind a transpose": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
            helper.make_node("Reshape", ["t", "s"], ["r"]),
            helper.make_node("Transpose", ["r"], ["y"], perm=[1, 0, 2]),
        ],
        {"s": [2, 1, 12]},
    ),
    "a token that all samples have": (
        [helper.make_node("Concat", ["x", "token"], ["y"], axis=1)],
        {"token": np.arange(12).reshape(1, 1, 3, 4)},
    ),
    "sizes of a resizing": (
        [helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="nearest")],
        {"s": [1, 2, 5, 7]},
    ),
}


@pytest.mark.parametrize(("nodes", "constants"), FREED.values(), ids=FREED)
def test_a_constant_with_the_batch_in_it_is_made_free(
    nodes: Nodes, constants: Mapping[str, Sequence[int] | Array]
) -> None:
    arrays = {
        name: np.array(value, np.float32 if name == "token" else np.int64)
        for name, value in constants.items()
    }
    model = shipped_model(nodes, arrays, shape=(1, 2, 3, 4))
    before = model.SerializeToString()
    _check_free(model, {"x": (2, 3, 4)})
    assert model.SerializeToString() == before


def test_a_first_state_of_zeros_is_left_out() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "v", "", "", "h"], ["", "last"], hidden_size=2),
        helper.make_node("Transpose", ["last"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"w": numbers(1, 6, 4), "v": numbers(1, 6, 2), "h": np.zeros((1, 1, 2), np.float32)}
    _check_free(shipped_model(nodes, constants, shape=(1, 3, 4)), {"x": (3, 4)})


def test_constants_that_nothing_reads_any_more_are_gone() -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    model = shipped_model([node], {"s": np.array([1, 24])}, shape=(1, 2, 3, 4))
    assert [item.name for item in with_free_batch(model).graph.initializer] == ["y_shape"]


REFUSED: dict[str, tuple[Nodes, Mapping[str, Array], str, str]] = {
    "a constant beside a batch that is not in front": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
            helper.make_node("Concat", ["token", "t"], ["y"], "the_token", axis=0),
        ],
        {"token": numbers(1, 1, 3, 4)},
        "Concat",
        r"Concat \('the_token'\) is fixed to the batch size: it meets a constant of that size",
    ),
    "one sample more": (
        [helper.make_node("Concat", ["token", "x"], ["y"], axis=0)],
        {"token": numbers(1, 2, 3, 4)},
        "Concat",
        "what it gives does not grow with the batch alone",
    ),
    "a first state": (
        [
            helper.make_node("Reshape", ["x", "s"], ["r"]),
            helper.make_node("GRU", ["r", "w", "v", "", "", "h"], ["y"], hidden_size=2),
        ],
        {
            "s": np.array([2, 1, 12], np.int64),
            "w": numbers(1, 6, 12),
            "v": numbers(1, 6, 2),
            "h": numbers(1, 1, 2),
        },
        "GRU",
        "its first state 'h' is a constant",
    ),
    "one sample of the batch": (
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=0)],
        {"i": np.array(0, np.int64)},
        "Gather",
        "it gives as much for a larger batch",
    ),
    "a mean over the batch": (
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0])],
        {},
        "ReduceMean",
        "it gives as much for a larger batch",
    ),
    "samples by samples": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Transpose", ["f"], ["t"]),
            helper.make_node("MatMul", ["f", "t"], ["y"]),
        ],
        {},
        "MatMul",
        "what it gives does not grow with the batch alone",
    ),
    "a computed shape": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Reshape", ["x", "s"], ["y"]),
        ],
        {},
        "Shape",
        "it gives as much for a larger batch",
    ),
    "a shape that parts what stands before the batch": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
            helper.make_node("Reshape", ["t", "s"], ["y"]),
        ],
        {"s": np.array([24], np.int64)},
        "Reshape",
        "it takes apart what stands before the batch",
    ),
    "a batch inside the first dimension": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
            helper.make_node("Reshape", ["t", "s"], ["r"]),
            helper.make_node("Relu", ["r"], ["y"]),
        ],
        {"s": np.array([2, 3, 4], np.int64)},
        "",
        "output 'y' does not have the batch as its first dimension",
    ),
    "a batch behind": (
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])],
        {},
        "",
        "output 'y' does not have the batch as its first dimension",
    ),
}


@pytest.mark.parametrize(
    ("nodes", "constants", "operator", "message"), REFUSED.values(), ids=REFUSED
)
def test_what_is_fixed_to_the_batch_is_refused_by_its_operator(
    nodes: Nodes, constants: Mapping[str, Array], operator: str, message: str
) -> None:
    model = shipped_model(nodes, constants, shape=(1, 2, 3, 4))
    with pytest.raises(ConversionError, match=message) as caught:
        with_free_batch(model)
    assert caught.value.diagnosis.code == "fixed-batch"
    assert caught.value.diagnosis.operator == operator


def test_a_condition_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = shipped_model([node], {"c": np.array(True)}, shape=(1, 2, 3, 4))
    with pytest.raises(ConversionError, match=r"If .*is fixed to the batch size"):
        with_free_batch(model)
