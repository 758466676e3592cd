"""nestedge_onnx.branches."""

from __future__ import annotations

import pytest
from onnx import NodeProto, helper

from nestedge_onnx.branches import unsuited
from tests.nestedge_onnx.graphs import model_of, ramp

CONSTANTS = {"w": ramp(2, 2, 1, 1), "c": ramp(1)}


def _node(kind: str, inputs: str, output: str) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output)


def _conv(given: str, output: str) -> NodeProto:
    return _node("Conv", f"{given} w", output)


SUITED = {
    "a sum of a convolution and what is around it": [
        _conv("x", "a"),
        _node("Add", "a x", "y"),
    ],
    "a SiLU": [
        _conv("x", "a"),
        _node("Sigmoid", "a", "s"),
        _node("Mul", "a s", "y"),
    ],
    "a gate behind a SiLU": [
        _conv("x", "a"),
        _node("Sigmoid", "a", "s"),
        _node("Mul", "a s", "b"),
        _conv("b", "g"),
        _node("Sigmoid", "g", "h"),
        _node("Mul", "h b", "y"),
    ],
    "a sum behind a SiLU": [
        _conv("x", "a"),
        _node("Sigmoid", "a", "s"),
        _node("Mul", "a s", "b"),
        _node("Add", "b x", "y"),
    ],
}


@pytest.mark.parametrize("nodes", SUITED.values(), ids=SUITED)
def test_where_branches_of_convolutions_meet_8_bits_suffice(nodes: list[NodeProto]) -> None:
    graph = model_of(nodes, CONSTANTS, [1, 2, 3, 3]).graph

    assert list(unsuited(graph, ())) == []


UNSUITED = {
    "a sum of what no convolution gives": ([_node("Add", "x x", "y")], ["y"]),
    "a sum with a constant": ([_conv("x", "a"), _node("Add", "a c", "y")], ["y"]),
    "a product with a constant": ([_conv("x", "a"), _node("Mul", "a c", "y")], ["y"]),
    "a product with what no convolution gives": (
        [_conv("x", "a"), _node("Mul", "a x", "y")],
        ["y"],
    ),
    "a sigmoid that is an output": ([_conv("x", "a"), _node("Sigmoid", "a", "y")], ["y"]),
    "a sigmoid that a product with something else reads": (
        [_conv("x", "a"), _node("Sigmoid", "a", "s"), _node("Mul", "x s", "y")],
        ["y", "s"],
    ),
}


@pytest.mark.parametrize(("nodes", "names"), UNSUITED.values(), ids=UNSUITED)
def test_what_does_not_belong_to_convolutions_is_left_alone(
    nodes: list[NodeProto], names: list[str]
) -> None:
    graph = model_of(nodes, CONSTANTS, [1, 2, 3, 3]).graph

    assert list(unsuited(graph, ())) == names


def test_what_a_layer_in_single_precision_gives_is_rounded_for_nothing() -> None:
    graph = model_of(SUITED["a SiLU"], CONSTANTS, [1, 2, 3, 3]).graph

    assert list(unsuited(graph, ["a"])) == ["y", "s"]
