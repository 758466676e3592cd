from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.networks.redraw import redraw
from nestedge.building.reference import reference_outputs
from nestedge.convert import BuildSpec
from nestedge.demo.network import DigitsNet
from nestedge.demo.training import LEVELS
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.verify import relative_error
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.exporter import OPSET
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import converted, mixed_case


@pytest.mark.parametrize("precision", OnnxConverter.precisions)
def test_a_file_is_what_the_standard_allows_and_older_runtimes_load(precision: str) -> None:
    made = converted(mixed_case(), OnnxConverter(), precision)
    model = onnx.load_from_string(made.model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]


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
    for precision, most in {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.1}.items():
        calibration = {"image": images} if precision == "int8" else None
        path.write_bytes(exported.convert(BuildSpec(precision, calibration)).model)
        session = OnnxRuntime().open(path)
        found = [next(iter(session.run({"image": image}).values())) for image in images]
        assert relative_error(np.stack(found), expected) <= most
