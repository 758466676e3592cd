from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from nestedge.building.cells import prepare_level
from nestedge.convert import BuildSpec, Converted
from nestedge.errors import ConversionError
from nestedge.explanation import check_constants
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_tflite.converter import TfliteConverter, TfliteExported
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import Case, errors_of, resnet_case, unexplained
from tests.outliers import BAD, nested_outlier, outlier_cases, outlier_data

_KINDS = {number: name for name, number in vars(schema.BuiltinOperator).items()}
_TYPES = {number: name for name, number in vars(schema.TensorType).items()}
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@cache
def _resnet() -> tuple[Case, TfliteExported]:
    case = resnet_case()
    return case, TfliteConverter().export(case.level)


def _made(precision: str, *half: str) -> Converted:
    case, exported = _resnet()
    return exported.convert(BuildSpec(precision, case.calibration, half_layers=half))


def _operators(content: bytes) -> list[tuple[str, str, str]]:
    """Kind, type of the first input and type of the output of every operator, in order."""
    model: Any = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        kind = _KINDS[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        ends = (graph.Tensors(operator.Inputs(0)), graph.Tensors(operator.Outputs(0)))
        found.append((kind, *(_TYPES[tensor.Type()] for tensor in ends)))
    return found


def _layers(content: bytes) -> list[tuple[str, str]]:
    """The types of what each layer reads and gives, in order."""
    return [(data, given) for kind, data, given in _operators(content) if kind in _LAYERS]


@pytest.mark.parametrize(("precision", "whole"), [("int8", "INT8"), ("int16x8", "INT16")])
def test_a_layer_falls_back_with_the_one_that_gives_what_it_reads(
    precision: str, whole: str, tmp_path: Path
) -> None:
    case, _ = _resnet()
    made = _made(precision, "layer1.0.conv2.weight")
    floats, wholes = ("FLOAT32", "FLOAT32"), (whole, whole)
    assert _layers(made.model) == [wholes, floats, floats, *[wholes] * 5]
    assert made.half_layers == ("layer1.0.conv1.weight", "layer1.0.conv2.weight")
    halves = [c for c in made.constants if c.dtype == "float16"]
    assert sorted(c.shape for c in halves) == [(4, 3, 3, 4)] * 2
    for constant in halves:
        assert constant.expression is not None
        assert constant.expression.op == "cast"
    assert not unexplained(made)
    assert not check_constants(made.constants, made.model, case.level.stored)
    assert max(errors_of(case, made, LiteRtRuntime(), tmp_path / "x.tflite").values()) < 0.03


def test_the_sum_in_front_of_a_layer_is_not_rounded_either() -> None:
    made = _made("int8", "linear.weight")
    assert made.half_layers == ("linear.weight",)
    kinds = {kind: given for kind, _, given in _operators(made.model)}
    # The last of the sums, and the mean behind it.
    assert kinds["AVERAGE_POOL_2D"] == kinds["ADD"] == kinds["FULLY_CONNECTED"] == "FLOAT32"
    assert [given for kind, _, given in _operators(made.model) if kind == "ADD"] == [
        *("INT8", "INT8", "FLOAT32"),
    ]


def test_a_file_without_layers_in_half_precision_is_as_it_was() -> None:
    case, exported = _resnet()
    made = exported.convert(BuildSpec("int8", case.calibration))
    assert made.half_layers == ()
    assert _made("int8").model == made.model
    assert {given for _, given in _layers(made.model)} == {"INT8"}


def test_a_weight_that_several_layers_read_falls_back_in_all_of_them() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv(F.relu(self.stem(x))))
            found: Tensor = self.head(F.relu(self.conv(x)))
            return found

    torch.manual_seed(0)
    images = torch.randn(8, 1, 3, 6, 6)
    level = fold_batch_norms(level_program(nest(Twice(), images[0], {"full": 1.0}), "full"))
    spec = BuildSpec("int8", {"x": images.numpy()}, half_layers=("conv.weight",))
    made = TfliteConverter().export(level).convert(spec)
    floats = ("FLOAT32", "FLOAT32")
    assert _layers(made.model) == [floats, floats, floats, ("INT8", "INT8")]
    assert made.half_layers == ("stem.weight", "conv.weight")


def test_with_all_layers_in_half_precision_nothing_is_left_to_quantise() -> None:
    level = prepare_level(nested_outlier(), "full").program
    every = ("first.weight", "middle.weight", "last.weight")
    with pytest.raises(ConversionError, match="nothing in it can be quantised") as caught:
        TfliteConverter().export(level).convert(
            BuildSpec("int8", outlier_cases(), half_layers=every)
        )
    assert caught.value.diagnosis.code == "nothing-to-quantise"


def test_the_answers_that_8_bits_ruin_come_back(tmp_path: Path) -> None:
    data = outlier_data()
    exported = TfliteConverter().export(prepare_level(nested_outlier(), "full").program)
    right = []
    for half in ((), (BAD,)):
        path = tmp_path / f"{len(half)}.tflite"
        path.write_bytes(
            exported.convert(BuildSpec("int8", outlier_cases(), half_layers=half)).model
        )
        session = LiteRtRuntime().open(path)
        scores = [session.run({"x": x[None]})["output"] for x in data.inputs]
        right.append(float(np.mean(np.concatenate(scores).argmax(1) == data.labels)))
    assert right[0] < 0.8
    assert right[1] > 0.95
