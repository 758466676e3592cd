from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import VisionTransformer
from nestedge.convert import BuildSpec
from nestedge.errors import NestedgeError
from nestedge.explanation import check_constants
from nestedge.expressions import Array
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.quantization import quantize, to_half
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import cosine, mixed_case, resnet_case, unexplained

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items()}


@cache
def _resnet() -> tuple[bytes, dict[str, Array]]:
    """A convolutional network in single precision, and calibration data."""
    case = resnet_case()
    model = TfliteConverter().export(case.level).convert(BuildSpec()).model
    return model, dict(case.calibration)


@cache
def _mixed() -> tuple[bytes, dict[str, Array]]:
    """A network with a layer norm in single precision, and calibration data."""
    case = mixed_case()
    model = TfliteConverter().export(case.level).convert(BuildSpec()).model
    return model, dict(case.calibration)


def _operators(content: bytes) -> Counter[tuple[str, int]]:
    """How many operators there are of every kind, with the type of their first output."""
    model: Any = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found: Counter[tuple[str, int]] = Counter()
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        name = _NAMES[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        found[name, graph.Tensors(operator.Outputs(0)).Type()] += 1
    return found


def test_a_convolutional_network_computes_in_8_bits_from_end_to_end() -> None:
    model, calibration = _resnet()
    found = _operators(quantize(model, calibration))
    assert found.pop(("QUANTIZE", schema.TensorType.INT8)) == 1
    assert found.pop(("DEQUANTIZE", schema.TensorType.FLOAT32)) == 1
    # What moves the channels of the input to the back may stand before or after its quantisation.
    found.pop(("TRANSPOSE", schema.TensorType.FLOAT32), None)
    assert {kind for _, kind in found} == {schema.TensorType.INT8}


def test_beside_a_layer_norm_only_layers_compute_in_8_bits() -> None:
    model, calibration = _mixed()
    found = _operators(quantize(model, calibration))
    in_8_bits = {name for name, kind in found if kind == schema.TensorType.INT8}
    assert in_8_bits == {"QUANTIZE", "CONV_2D", "FULLY_CONNECTED"}


def test_a_vision_transformer_is_not_ruined(tmp_path: Path) -> None:
    network = VisionTransformer(2, 2, embedding=32)
    redraw(network, seed=0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 1, 3, 32, 32, generator=generator)
    level = level_program(nest(network.eval(), images[0], {"full": 1.0}), "full")
    exported = TfliteConverter().export(level)
    found = {}
    for spec in (BuildSpec(), BuildSpec("int8", {"x": images.numpy()})):
        path = tmp_path / spec.precision
        path.write_bytes(exported.convert(spec).model)
        session = LiteRtRuntime().open(path)
        outputs = [session.run({"x": image})["output"] for image in images.numpy()]
        found[spec.precision] = np.stack(outputs)
    assert cosine(found["int8"], found["fp32"]) > 0.999
    assert ("FULLY_CONNECTED", schema.TensorType.INT8) in _operators(path.read_bytes())


def test_half_precision_keeps_the_operators() -> None:
    model, _ = _resnet()
    before, after = _operators(model), _operators(to_half(model))
    casts = after.pop(("DEQUANTIZE", schema.TensorType.FLOAT32))
    assert after == before
    layers = sum(count for (name, _), count in after.items() if name in ("CONV_2D",))
    assert casts == layers + after["FULLY_CONNECTED", schema.TensorType.FLOAT32]


def test_ranges_do_not_depend_on_the_order_of_cases() -> None:
    model, calibration = _resnet()
    backwards = {name: array[::-1] for name, array in calibration.items()}
    assert quantize(model, backwards) == quantize(model, calibration)


def test_every_case_counts_for_the_ranges() -> None:
    model, calibration = _resnet()
    wider = {name: np.concatenate([array, 3 * array[:1]]) for name, array in calibration.items()}
    assert quantize(model, wider) != quantize(model, calibration)


def test_constants_behind_the_flatbuffer_are_found() -> None:
    # ai-edge-quantizer puts them there from a quarter of a megabyte.
    network = nn.Sequential(nn.Linear(16, 1024), nn.ReLU(), nn.Linear(1024, 512))
    redraw(network, seed=0)
    example = torch.zeros(1, 16)
    level = level_program(nest(network, example, {"full": 1.0}), "full")
    made = TfliteConverter().export(level).convert(BuildSpec("fp16"))
    largest = max(made.constants, key=lambda constant: constant.size_bytes)
    assert largest.size_bytes == 2 * 1024 * 512
    assert unexplained(made) == []
    assert check_constants(made.constants, made.model, level.stored) == []


@pytest.mark.parametrize(
    "calibration",
    [{"y": np.zeros((1, 1, 3, 8, 8), np.float32)}, {"x": np.zeros((1, 1, 3, 8, 8), np.int64)}],
    ids=["another name", "another dtype"],
)
def test_what_cannot_be_quantised_is_one_line(calibration: dict[str, Array]) -> None:
    with pytest.raises(
        NestedgeError, match="ai-edge-quantizer cannot make int8 of the level: "
    ) as caught:
        quantize(_resnet()[0], calibration)
    assert "\n" not in str(caught.value)
