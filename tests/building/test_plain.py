from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nestedge.building.plain import convert_level
from nestedge.verify import relative_error
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import nested_resnet


def test_a_plain_file_computes_the_level(tmp_path: Path) -> None:
    nested = nested_resnet()
    path = tmp_path / "small.onnx"
    path.write_bytes(convert_level(nested, "small", "onnx"))
    images = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = OnnxRuntime().open(path).run({"x": images}).values()
    with torch.no_grad(), nested.at("small"):
        expected = nested(torch.from_numpy(images))
    assert relative_error(found, expected.numpy()) <= 1e-5
