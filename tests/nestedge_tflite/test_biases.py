from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nestedge_tflite.biases import with_flat_biases
from nestedge_tflite.flatbuffer import constants
from nestedge_tflite.runtime import LiteRtRuntime
from tests.nestedge_tflite.handmade import BIAS, WEIGHT, write_model


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 1, 3)])
def test_a_bias_has_one_dimension(shape: Sequence[int], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", bias=shape)
    path.write_bytes(with_flat_biases(path.read_bytes()))
    shapes = {found.name: found.array.shape for found in constants(path.read_bytes())}
    assert shapes == {"w": (3, 2), "b": (3,)}
    x = np.array([[1, -2]], np.float32)
    found = LiteRtRuntime().open(path).run({"x": x})["y"]
    np.testing.assert_array_equal(found, x @ WEIGHT.T + BIAS)


def test_a_file_without_biases_stays_as_it_is(tmp_path: Path) -> None:
    content = write_model(tmp_path / "model.tflite").read_bytes()
    assert with_flat_biases(content) == content
