from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.networks.redraw import redraw
from nestedge.building.reference import reference_outputs
from nestedge.convert import BuildSpec, Converted
from nestedge.demo.network import DigitsNet
from nestedge.demo.training import LEVELS
from nestedge.explanation import check_constants
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.precisions import PRECISIONS
from nestedge.verify import relative_error
from nestedge_onnx.converter import OnnxConverter, OnnxExported
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET, export_model
from nestedge_onnx.mobile import OrtConverter, OrtExported
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import mixed_case, outputs_of, spec_of, unexplained


@pytest.fixture(scope="module")
def made() -> dict[str, Converted]:
    """A level in every precision, by ending and precision."""
    case = mixed_case()
    # Tracing is most of the work: both converters start from the same graph.
    model = export_model(case.level, opset=ONNXRUNTIME_OPSET)
    exported = {
        ".onnx": OnnxExported(OnnxConverter(), case.level, model),
        ".ort": OrtExported(OrtConverter(), case.level, model),
    }
    return {
        f"{ending} {precision}": exported[ending].convert(spec_of(case, precision))
        for ending in exported
        for precision in OnnxConverter.precisions
    }


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
def test_a_file_is_what_the_standard_allows_and_older_runtimes_load(
    precision: str, made: dict[str, Converted]
) -> None:
    model = onnx.load_from_string(made[f".onnx {precision}"].model)
    onnx.checker.check_model(model, full_check=True)
    # onnxruntime 1.19, that of JetPack 5, loads an IR version of 10 and an opset of 21 at most.
    assert model.ir_version <= 10
    assert [(item.domain, item.version) for item in model.opset_import] == [("", ONNXRUNTIME_OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert ONNXRUNTIME_OPSET <= 21


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
@pytest.mark.parametrize("ending", [".onnx", ".ort"])
def test_a_file_says_nothing_of_the_machine_it_was_made_on(
    ending: str, precision: str, made: dict[str, Converted]
) -> None:
    content = made[f"{ending} {precision}"].model
    words = [sys.prefix, tempfile.gettempdir(), str(Path.cwd()), str(Path.home())]
    traces = [b"site-packages", b'.py"', b"stack_trace", *(f"{word}/".encode() for word in words)]
    assert [trace for trace in traces if trace in content] == []


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
@pytest.mark.parametrize("ending", [".onnx", ".ort"])
def test_a_file_gives_what_its_level_gives(
    ending: str, precision: str, made: dict[str, Converted], tmp_path: Path
) -> None:
    case = mixed_case()
    path = tmp_path / f"model{ending}"
    found = outputs_of(case, made[f"{ending} {precision}"], OnnxRuntime(), path)
    for name, expected in case.outputs.items():
        assert relative_error(found[name], expected) <= PRECISIONS[precision].tolerance


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
@pytest.mark.parametrize("ending", [".onnx", ".ort"])
def test_weights_are_explained_and_lie_where_it_is_said(
    ending: str, precision: str, made: dict[str, Converted]
) -> None:
    converted = made[f"{ending} {precision}"]
    assert converted.constants
    assert check_constants(converted.constants, converted.model, mixed_case().level.stored) == []
    # A product with a half, and a position that only a fused operator has, are no weights.
    assert unexplained(converted) == []


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
def test_both_formats_have_the_same_weights(precision: str, made: dict[str, Converted]) -> None:
    onnx_file, ort_file = (made[f"{ending} {precision}"] for ending in (".onnx", ".ort"))
    weights = {c.name for c in onnx_file.constants if "weight" in c.name and c.dtype == "int8"}
    found = {c.name for c in ort_file.constants if c.expression is not None}
    if precision == "int8-dynamic":
        # Those of convolutions would be multiplied out.
        weights = {name for name in weights if name.startswith(("first", "second", "head"))}
        assert weights
    assert weights <= found


@pytest.mark.parametrize("level", LEVELS)
def test_the_demos_network_survives_every_precision(level: str, tmp_path: Path) -> None:
    model = DigitsNet()
    redraw(model, seed=0)
    nested = nest(model, torch.zeros(1, 1, 8, 8), {level: LEVELS[level]})
    exported = OnnxConverter().export(fold_batch_norms(level_program(nested, level)))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((16, 1, 1, 8, 8)).astype(np.float32)
    (expected,) = reference_outputs(nested, level, {"image": images}).values()
    path = tmp_path / "model.onnx"
    for precision in OnnxConverter.precisions:
        calibration = {"image": images} if PRECISIONS[precision].is_calibrated else None
        path.write_bytes(exported.convert(BuildSpec(precision, calibration)).model)
        assert onnx.load(path).opset_import[0].version == ONNXRUNTIME_OPSET
        session = OnnxRuntime().open(path)
        found = [next(iter(session.run({"image": image}).values())) for image in images]
        assert relative_error(np.stack(found), expected) <= PRECISIONS[precision].tolerance
