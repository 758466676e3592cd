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
from nestedge.convert import BuildSpec, Converted
from nestedge.errors import NestedgeError
from nestedge.explanation import check_constants
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_tflite.converter import TfliteConverter, TfliteExported
from nestedge_tflite.flatbuffer import float_operators
from nestedge_tflite.metadata import description
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import CASES, Case, errors_of, unexplained

# Weights of 8 bits are most of the error: the networks are small and their weights drawn.
TOLERANCES = {"int8-dynamic": 0.03, "int8-full": 0.1, "int16x8": 0.03}


@cache
def _case(name: str) -> tuple[Case, TfliteExported]:
    case = CASES[name]()
    return case, TfliteConverter().export(case.level)


def _made(name: str, precision: str) -> tuple[Case, Converted]:
    case, exported = _case(name)
    needs_data = precision != "int8-dynamic"
    return case, exported.convert(BuildSpec(precision, case.calibration if needs_data else None))


def _layers(content: bytes) -> Counter[tuple[str, str, str]]:
    """How many layers there are of every kind, with the types of their input and weight."""
    types = {number: name for name, number in vars(schema.TensorType).items()}
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    model: Any = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found: Counter[tuple[str, str, str]] = Counter()
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        kind = kinds[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            data, weight = (graph.Tensors(operator.Inputs(place)).Type() for place in (0, 1))
            found[kind, types[data], types[weight]] += 1
    return found


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("name", ["resnet", "fine"])
def test_a_network_stays_what_it_was_and_every_weight_is_explained(
    name: str, precision: str, tmp_path: Path
) -> None:
    case, made = _made(name, precision)
    errors = errors_of(case, made, LiteRtRuntime(), tmp_path / "model.tflite")
    assert max(errors.values()) <= TOLERANCES[precision]
    assert unexplained(made) == []
    assert check_constants(made.constants, made.model, case.level.stored) == []
    _, again = _made(name, precision)
    assert again.model == made.model


def test_weights_alone_have_8_bits_where_ranges_are_found_at_each_run() -> None:
    _, made = _made("fine", "int8-dynamic")
    assert _layers(made.model) == {
        ("CONV_2D", "FLOAT32", "INT8"): 4,
        ("FULLY_CONNECTED", "FLOAT32", "INT8"): 3,
        # XNNPACK has no such depthwise convolution, and this one, of 5x5, is small.
        ("DEPTHWISE_CONV_2D", "FLOAT32", "FLOAT32"): 1,
    }


@pytest.mark.parametrize(("kernel", "weight"), [(5, "FLOAT32"), (7, "INT8")])
def test_large_depthwise_kernels_find_their_ranges_at_each_run(kernel: int, weight: str) -> None:
    layer = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8)
    redraw(layer, seed=0)
    level = level_program(nest(layer, torch.zeros(1, 8, 8, 8), {"full": 1.0}), "full")
    made = TfliteConverter().export(level).convert(BuildSpec("int8-dynamic"))
    assert _layers(made.model) == {("DEPTHWISE_CONV_2D", "FLOAT32", weight): 1}


def test_nothing_is_in_single_precision_in_a_full_integer_file() -> None:
    _, made = _made("fine", "int8-full")
    model: Any = schema.Model.GetRootAs(made.model, 0)
    graph = model.Subgraphs(0)
    types = {graph.Tensors(index).Type() for index in range(graph.TensorsLength())}
    # int32 are biases, shapes and axes.
    assert types == {schema.TensorType.INT8, schema.TensorType.INT32}
    assert {info.dtype for info in (*made.inputs, *made.outputs)} == {"float32"}


class Fractional(nn.Module):
    """A layer, and an operator that has no kernel of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4)."""
        return torch.sin(self.layer(x))


def test_what_an_accelerator_of_whole_numbers_lacks_is_named() -> None:
    network = Fractional()
    redraw(network, seed=0)
    level = level_program(nest(network, torch.zeros(1, 8), {"full": 1.0}), "full")
    exported = TfliteConverter().export(level)
    cases = np.random.default_rng(0).standard_normal((4, 1, 8)).astype(np.float32)
    with pytest.raises(
        NestedgeError, match=r"int8-full of the level: 1 SIN would stay .*; build int8"
    ):
        exported.convert(BuildSpec("int8-full", {"x": cases}))
    made = exported.convert(BuildSpec("int16x8", {"x": cases}))
    assert description(made.model).endswith(": int16x8; in single precision: 1 SIN")


def test_activations_have_16_bits_but_for_what_the_file_says() -> None:
    _, made = _made("mixed", "int16x8")
    assert {data for _, data, _ in _layers(made.model)} == {"INT16"}
    left = float_operators(made.model)
    assert left == {"HARD_SWISH": 1, "SQUARED_DIFFERENCE": 1}
    said = description(made.model)
    assert said.endswith(": int16x8; in single precision: 1 HARD_SWISH, 1 SQUARED_DIFFERENCE")


def test_biases_of_64_bits_are_explained() -> None:
    _, made = _made("resnet", "int16x8")
    biases = [constant for constant in made.constants if constant.dtype == "int64"]
    assert len(biases) == 8
    assert all(bias.expression is not None for bias in biases)
