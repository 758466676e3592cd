from __future__ import annotations

import onnx
import pytest
from onnx import helper

from nestedge_onnx.quantization import FOR_ONNXRUNTIME, FOR_TENSORRT, Scheme, quantize
from tests.nestedge_onnx.graphs import counts_of, makers_of, model_of, ramp

PAIR = ("QuantizeLinear", "DequantizeLinear")


def _chain() -> onnx.ModelProto:
    """Two convolutions, a ReLU and a maximum between them, and a third beside the second."""
    pool = helper.make_node("MaxPool", ["relu"], ["pool"], name="pool", kernel_shape=[3, 3])
    pool.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    nodes = [
        helper.make_node("Conv", ["x", "u"], ["first"], name="first", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["first"], ["relu"], name="relu"),
        pool,
        helper.make_node("Conv", ["pool", "w"], ["left"], name="left", kernel_shape=[1, 1]),
        helper.make_node("Conv", ["pool", "v"], ["right"], name="right", kernel_shape=[1, 1]),
        helper.make_node("Sub", ["left", "right"], ["y"], name="difference"),
    ]
    weights = {"u": ramp(2, 2, 1, 1), "w": ramp(2, 2, 1, 1) + 1, "v": -ramp(2, 2, 1, 1)}
    return model_of(nodes, weights, [1, 2, 3, 3])


def _way(model: onnx.ModelProto, name: str) -> list[str]:
    """The operators from a node back to the input, by the first input of each."""
    makers = makers_of(model)
    node = next(node for node in model.graph.node if node.name == name)
    found = []
    while node.input[0] in makers:
        node = makers[node.input[0]]
        found.append(node.op_type)
    return found


@pytest.mark.parametrize("scheme", [FOR_ONNXRUNTIME, FOR_TENSORRT], ids=["onnxruntime", "tensorrt"])
def test_a_layer_reads_what_no_pair_has_rounded_and_the_others_what_they_did(
    scheme: Scheme,
) -> None:
    model, cases = _chain(), {"x": ramp(4, 1, 2, 3, 3)}
    plain, mixed = quantize(model, cases, scheme), quantize(model, cases, scheme, left=["w"])
    onnx.checker.check_model(mixed, full_check=True)
    way = _way(mixed, "left")
    # What the first convolution reads is rounded for that one.
    assert way[: way.index("Conv") + 1] == ["MaxPool", "Relu", "Conv"]
    assert _way(mixed, "right") == _way(plain, "right")
    assert PAIR[1] in _way(plain, "right")
    assert PAIR[1] in _way(plain, "left")


def test_what_nothing_reads_any_more_is_gone() -> None:
    mixed = quantize(_chain(), {"x": ramp(4, 1, 2, 3, 3)}, left=["w", "v"])
    counts = counts_of(mixed)
    # The first convolution alone has pairs: of what it reads, and of its weight.
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (1, 2)
    assert (counts["MaxPool"], counts["Relu"]) == (1, 1)
    read = {name for node in mixed.graph.node for name in node.input}
    assert {item.name for item in mixed.graph.initializer} <= read
