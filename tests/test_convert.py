from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nestedge.convert import BuildSpec, Converter, check_half_layers, check_spec, mixed_precisions
from nestedge.errors import ConversionError, UsageError
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.mobile import OrtConverter
from nestedge_openvino.converter import OpenvinoConverter
from nestedge_tensorrt.converter import TensorrtConverter
from nestedge_tflite.channels_last import TfliteNhwcConverter
from nestedge_tflite.converter import TfliteConverter
from tests.fake_converters import FakeConverter

CASES = {"x": np.zeros((1, 1, 4), np.float32)}


@pytest.mark.parametrize(
    ("converter", "mixed"),
    [
        (OnnxConverter(), ("int8",)),
        (OrtConverter(), ("int8",)),
        (OpenvinoConverter(), ("int8",)),
        (TensorrtConverter(), ("int8",)),
        (TfliteConverter(), ("int8", "int16x8")),
        (TfliteNhwcConverter(), ("int8", "int16x8")),
        (FakeConverter(), ()),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_in_half_precision_are_refused_but_where_a_converter_has_them(
    converter: Converter, mixed: tuple[str, ...]
) -> None:
    assert mixed_precisions(converter) == mixed
    for precision in converter.precisions:
        spec = BuildSpec(precision, CASES, half_layers=("conv.weight",))
        if precision in mixed:
            check_spec(converter, spec)
            continue
        with pytest.raises(UsageError, match=f"found '{precision}': leave out half_layers"):
            check_spec(converter, spec)
        check_spec(converter, replace(spec, half_layers=()))


def test_a_layer_that_half_precision_cannot_hold_or_that_is_not_there_is_refused() -> None:
    last = nn.Linear(4, 4)
    with torch.no_grad():
        last.weight[0, 0] = 1e5
    network = nn.Sequential(nn.Linear(4, 4), last)
    level = level_program(nest(network, torch.zeros(2, 4), {"full": 1.0}), "full")
    check_half_layers(level, BuildSpec("int8", CASES, half_layers=("0.weight",)))
    check_half_layers(level, BuildSpec("int8", CASES))
    with pytest.raises(ConversionError, match=r"'1\.weight': fp16 holds numbers up to 65504"):
        check_half_layers(level, BuildSpec("int8", CASES, half_layers=("0.weight", "1.weight")))
    with pytest.raises(UsageError, match=r"no weight '0\.wight'.*did you mean '0\.weight'\?"):
        check_half_layers(level, BuildSpec("int8", CASES, half_layers=("0.wight",)))
