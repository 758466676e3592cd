"""Layers of int8 files that stay in half precision, by every converter that goes by way of ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nestedge.building.cells import prepare_level
from nestedge.convert import BuildSpec, Converted
from nestedge.errors import UsageError
from nestedge.explanation import check_constants
from nestedge_onnx.converter import OnnxConverter, OnnxExported
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET, export_model
from nestedge_onnx.mobile import OrtConverter, OrtExported
from nestedge_onnx.runtime import OnnxRuntime
from nestedge_tensorrt.converter import TensorrtConverter
from tests.conversions import mixed_case, outputs_of, unexplained
from tests.nestedge_onnx.graphs import makers_of
from tests.outliers import BAD, nested_outlier, outlier_cases, outlier_data

HALF = ("conv.weight", "second.weight")
LAYERS = ("Conv", "Gemm", "MatMul")
CASE = mixed_case()
SPEC = BuildSpec("int8", CASE.calibration, half_layers=HALF)


@pytest.fixture(scope="module")
def made() -> dict[str, Converted]:
    """A level with two layers in half precision: a convolution, and a product of three axes."""
    model = export_model(CASE.level, opset=ONNXRUNTIME_OPSET)
    return {
        "onnx": OnnxExported(OnnxConverter(), CASE.level, model).convert(SPEC),
        "ort": OrtExported(OrtConverter(), CASE.level, model).convert(SPEC),
        "tensorrt": TensorrtConverter().export(CASE.level).convert(SPEC),
    }


def _read(content: bytes) -> list[tuple[str, str]]:
    """What makes each of the first two inputs of the layers with a weight, in order."""
    model = onnx.load_from_string(content)
    makers = makers_of(model)
    kinds = {name: node.op_type for name, node in makers.items()}
    constants = dict.fromkeys((item.name for item in model.graph.initializer), "constant")
    made = {**kinds, **constants}
    return [
        (made.get(node.input[0], "input"), made.get(node.input[1], "input"))
        for node in model.graph.node
        if node.op_type in LAYERS
    ]


def test_the_layers_read_floats_and_a_weight_that_is_cast(made: dict[str, Converted]) -> None:
    found = _read(made["onnx"].model)
    left = [kinds for kinds in found if kinds != ("DequantizeLinear", "DequantizeLinear")]
    assert len(found) - len(left) == 6
    assert [(data != "DequantizeLinear", weight) for data, weight in left] == [(True, "Cast")] * 2
    halves = {c.name: c for c in made["onnx"].constants if c.dtype == "float16"}
    assert len(halves) == 2
    for constant in halves.values():
        assert constant.expression is not None
        assert constant.expression.op == "cast"
        assert constant.expression.attributes["dtype"] == "float16"


def test_tensorrts_layers_have_no_pair(made: dict[str, Converted]) -> None:
    found = _read(made["tensorrt"].model)
    left = [kinds for kinds in found if "DequantizeLinear" not in kinds]
    assert sorted(kinds[1] for kinds in left) == ["constant", "constant"]
    assert len(found) - len(left) == 6


@pytest.mark.parametrize("target", ["onnx", "ort", "tensorrt"])
def test_a_file_is_told_and_explained_and_gives_what_its_level_gives(
    target: str, made: dict[str, Converted], tmp_path: Path
) -> None:
    converted = made[target]
    assert converted.half_layers == HALF
    assert check_constants(converted.constants, converted.model, CASE.level.stored) == []
    assert unexplained(converted) == []
    path = tmp_path / ("model.ort" if target == "ort" else "model.onnx")
    for name, found in outputs_of(CASE, converted, OnnxRuntime(), path).items():
        assert np.abs(found - CASE.outputs[name]).max() < 0.05 * np.abs(CASE.outputs[name]).max()


def test_openvino_takes_them_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from nestedge_openvino.converter import OpenvinoConverter
    from nestedge_openvino.runtime import OpenvinoRuntime

    converted = OpenvinoConverter().export(CASE.level).convert(SPEC)
    assert converted.half_layers == HALF
    for name, content in converted.files.items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "model.xml"
    for name, found in outputs_of(CASE, converted, OpenvinoRuntime(), path).items():
        assert np.abs(found - CASE.outputs[name]).max() < 0.05 * np.abs(CASE.outputs[name]).max()


def test_the_answers_that_8_bits_ruin_come_back(tmp_path: Path) -> None:
    data = outlier_data()
    exported = OnnxConverter().export(prepare_level(nested_outlier(), "full").program)
    right = []
    for half in ((), (BAD,)):
        path = tmp_path / f"{len(half)}.onnx"
        spec = BuildSpec("int8", outlier_cases(), half_layers=half)
        path.write_bytes(exported.convert(spec).model)
        session = OnnxRuntime().open(path)
        scores = [session.run({"x": x[None]})["output"] for x in data.inputs]
        right.append(float(np.mean(np.concatenate(scores).argmax(1) == data.labels)))
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_a_layer_that_the_level_does_not_have_is_refused() -> None:
    exported = OnnxConverter().export(CASE.level)
    with pytest.raises(UsageError, match=r"no weight 'heed\.weight'.*mean 'head\.weight'\?"):
        exported.convert(BuildSpec("int8", CASE.calibration, half_layers=("heed.weight",)))
