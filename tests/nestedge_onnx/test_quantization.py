from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import VisionTransformer
from nestedge.building.reference import reference_inputs, reference_outputs
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.exporter import export_model
from nestedge_onnx.quantization import FOR_ONNXRUNTIME, FOR_TENSORRT, Scheme, quantize
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import CASES, Case, converted, cosine, mixed_case
from tests.nestedge_onnx.graphs import constants_of, counts_of, makers_of, model_of, ramp

SCHEMES = {"onnxruntime": FOR_ONNXRUNTIME, "tensorrt": FOR_TENSORRT}
LAYERS = ("Conv", "Gemm", "MatMul")
PAIR = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture(scope="module")
def model(case: Case) -> onnx.ModelProto:
    return export_model(case.level)


def _run(model: onnx.ModelProto, inputs: Mapping[str, Array], path: Path) -> dict[str, Array]:
    path.write_bytes(model.SerializeToString())
    return OnnxRuntime().open(path).run(inputs)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_network_survives_quantisation(
    case: Case, model: onnx.ModelProto, scheme: Scheme, tmp_path: Path
) -> None:
    found = _run(quantize(model, case.calibration, scheme), case.inputs, tmp_path / "int8.onnx")
    for name, expected in case.outputs.items():
        assert cosine(found[name], expected) > 0.999


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_layer_reads_8_bits(case: Case, model: onnx.ModelProto, scheme: Scheme) -> None:
    quantized = quantize(model, case.calibration, scheme)
    makers = makers_of(quantized)
    layers = [node for node in quantized.graph.node if node.op_type in LAYERS]
    assert len(layers) == sum(node.op_type in LAYERS for node in model.graph.node)
    for node in layers:
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_scales_are_of_output_channels_and_weights_have_no_zero_point(
    case: Case, model: onnx.ModelProto, scheme: Scheme
) -> None:
    quantized = quantize(model, case.calibration, scheme)
    constants, makers = constants_of(quantized), makers_of(quantized)
    for node in quantized.graph.node:
        if node.op_type == "Conv":
            weight = makers[node.input[1]]
            scale, zero_point = (constants[name] for name in weight.input[1:])
            shape = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            assert len(shape) == 2
            assert scale.ndim == 1
            assert len(set(scale.tolist())) > 1
            assert zero_point.dtype == np.int8
            assert not zero_point.any()


def test_tensorrt_gets_pairs_of_symmetric_int8_only(case: Case, model: onnx.ModelProto) -> None:
    quantized = quantize(model, case.calibration, FOR_TENSORRT)
    constants, makers = constants_of(quantized), makers_of(quantized)
    pairs = [node for node in quantized.graph.node if node.op_type in PAIR]
    assert pairs
    for node in pairs:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        if node.op_type == "DequantizeLinear":
            assert makers[node.input[0]].op_type == "QuantizeLinear"
    for node in quantized.graph.node:
        if node.op_type in LAYERS:
            assert all(name in constants for name in node.input[2:])
    assert not any(array.dtype == np.int32 for array in constants.values())


@pytest.mark.parametrize(
    ("scheme", "pairs"), [(FOR_ONNXRUNTIME, 1), (FOR_TENSORRT, 2)], ids=SCHEMES
)
def test_tensorrts_layers_share_no_pair(scheme: Scheme, pairs: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["left"], name="left", kernel_shape=[1, 1]),
        helper.make_node("Conv", ["x", "v"], ["right"], name="right", kernel_shape=[1, 1]),
        helper.make_node("Mul", ["left", "right"], ["y"], name="gate"),
    ]
    weights = {"w": ramp(2, 2, 1, 1), "v": -ramp(2, 2, 1, 1)}
    quantized = quantize(model_of(nodes, weights, [1, 2, 3, 3]), {"x": ramp(4, 1, 2, 3, 3)}, scheme)
    found = [n for n in quantized.graph.node if n.op_type == PAIR[0] and n.input[0] == "x"]
    assert len(found) == pairs


def test_biases_are_whole_numbers_of_the_steps_of_their_layer(case: Case) -> None:
    made = converted(case, OnnxConverter(), "int8")
    biases = [constant for constant in made.constants if constant.dtype == "int32"]
    assert any(constant.name.endswith("bias_quantized") for constant in biases)
    for constant in biases:
        assert constant.expression is not None
    names = [f"{layer}.bias_quantized" for layer in ("conv1", "conv", "stem")]
    bias = next(constant for name in names for constant in biases if constant.name == name)
    assert bias.expression is not None
    assert bias.expression.op == "quantize"
    # The scale of its weight, times a number for the range of the layer's input.
    scale = bias.expression.inputs[1]
    steps, factor = scale.inputs
    assert scale.op == "scale"
    assert steps.op in {"quantization_scale", "take", "step"}, "that of the family's grid"
    assert factor.op == "added"
    assert len(scale.inputs[1].attributes["values"]) == 1


def test_sums_behind_a_convolution_are_quantised_and_others_not() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("Add", ["conv", "x"], ["branches"], name="branches"),
        helper.make_node("Add", ["branches", "branches"], ["stream"], name="stream"),
        helper.make_node("Add", ["stream", "b"], ["y"], name="bias"),
    ]
    constants = {"w": ramp(2, 2, 1, 1), "b": ramp(2, 1, 1)}
    model = model_of(nodes, constants, [1, 2, 3, 3])
    quantized = quantize(model, {"x": ramp(4, 1, 2, 3, 3)})
    makers = makers_of(quantized)
    inputs = {
        node.name: [makers[name].op_type for name in node.input if name in makers]
        for node in quantized.graph.node
        if node.op_type == "Add"
    }
    assert inputs["branches"] == ["DequantizeLinear"] * 2
    assert inputs["bias"] == ["Add"]
    assert counts_of(quantized)["QuantizeLinear"] == 3


def test_a_transformer_is_not_ruined(tmp_path: Path) -> None:
    model = VisionTransformer(2, 2, embedding=32, head_dim=16).eval()
    redraw(model, seed=0)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nested = nest(model, image, {"half": 0.5})
    exported = export_model(fold_batch_norms(level_program(nested, "half")))
    quantized = quantize(exported, reference_inputs(nested, cases=16, seed=1))
    cases = reference_inputs(nested, cases=8, seed=2)
    ((name, expected),) = reference_outputs(nested, "half", cases).items()
    found = [_run(quantized, {"x": case}, tmp_path / "int8.onnx")[name] for case in cases["x"]]
    assert cosine(np.stack(found), expected) > 0.999
    makers = makers_of(quantized)
    kept = [n for n in quantized.graph.node if n.op_type in ("LayerNormalization", "Softmax")]
    assert len(kept) == 7
    for node in kept:
        assert makers[node.input[0]].op_type != "DequantizeLinear"


def test_ranges_are_those_of_the_calibration_data(model: onnx.ModelProto, case: Case) -> None:
    (name, *_) = case.calibration
    doubled = {key: array * 2 for key, array in case.calibration.items()}
    one, two = (
        constants_of(quantize(model, data))[f"{name}_scale"] for data in (case.calibration, doubled)
    )
    assert two == pytest.approx(2 * one)
    most = max(0.0, float(case.calibration[name].max()))
    least = min(0.0, float(case.calibration[name].min()))
    assert one == pytest.approx((most - least) / 255)


def test_what_cannot_be_quantised_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    model = export_model(mixed_case().level)
    wrong = {"image": np.zeros((2, 1, 3, 9, 9), np.float32)}
    with pytest.raises(NestedgeError, match="onnxruntime cannot quantise to int8: ") as info:
        quantize(model, wrong)
    assert "\n" not in str(info.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_network_that_has_nothing_to_quantise_is_refused(scheme: Scheme) -> None:
    model = model_of([helper.make_node("Sin", ["x"], ["y"])], {}, [1, 4])
    with pytest.raises(NestedgeError, match="nothing in it can be quantised; build fp32"):
        quantize(model, {"x": ramp(3, 1, 4)}, scheme)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_layer_that_is_left_reads_and_computes_in_single_precision(
    case: Case, model: onnx.ModelProto, scheme: Scheme, tmp_path: Path
) -> None:
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    weights = [node.input[1] for node in layers if node.input[1] in constants_of(model)]
    left = weights[1]
    quantized = quantize(model, case.calibration, scheme, left=[left])
    makers = makers_of(quantized)
    for node in quantized.graph.node:
        if node.op_type in LAYERS and left in node.input:
            assert all(
                name not in makers or makers[name].op_type not in PAIR for name in node.input
            )
        elif node.op_type in LAYERS:
            assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    assert any(left in node.input for node in quantized.graph.node)
    onnx.checker.check_model(quantized)
    found = _run(quantized, case.inputs, tmp_path / "int8.onnx")
    for name, expected in case.outputs.items():
        assert cosine(found[name], expected) > 0.999


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_what_a_layer_that_is_left_shares_with_others_is_rounded_for_them_alone(
    scheme: Scheme,
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "u"], ["stem"], name="stem", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["stem"], ["shared"], name="relu"),
        helper.make_node("Conv", ["shared", "w"], ["left"], name="left", kernel_shape=[1, 1]),
        helper.make_node("Conv", ["shared", "v"], ["right"], name="right", kernel_shape=[1, 1]),
        helper.make_node("Add", ["left", "right"], ["y"], name="sum"),
    ]
    weights = {"u": ramp(2, 2, 1, 1), "w": ramp(2, 2, 1, 1) + 1, "v": -ramp(2, 2, 1, 1)}
    model = model_of(nodes, weights, [1, 2, 3, 3])
    quantized = quantize(model, {"x": ramp(4, 1, 2, 3, 3)}, scheme, left=["w"])
    read = {node.name: node.input[0] for node in quantized.graph.node}
    makers = makers_of(quantized)
    assert makers[read["left"]].op_type == "Relu"
    assert makers[read["right"]].op_type == "DequantizeLinear"
    # What the layer gives goes into the sum as it is.
    assert "left" in next(node.input for node in quantized.graph.node if node.name == "sum")
    pairs = [node for node in quantized.graph.node if node.op_type in PAIR]
    read_at_all = {name for node in quantized.graph.node for name in node.input}
    assert {name for node in pairs for name in node.output} <= read_at_all


def test_with_no_layer_left_a_model_is_as_it_was(case: Case, model: onnx.ModelProto) -> None:
    one, other = quantize(model, case.calibration), quantize(model, case.calibration, left=["no"])
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_with_all_layers_left_nothing_is_quantised() -> None:
    case = mixed_case()
    model = export_model(case.level)
    with pytest.raises(NestedgeError, match="nothing in it can be quantised"):
        quantize(model, case.calibration, left=list(constants_of(model)))
