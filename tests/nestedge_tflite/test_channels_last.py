from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nestedge.convert import BuildSpec, Converted
from nestedge.errors import NestedgeError
from nestedge.explanation import check_constants
from nestedge.expressions import Array
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.plugins import TensorInfo
from nestedge_tflite.channels_last import (
    TfliteNhwcConverter,
    TfliteNhwcExported,
    with_channels_last,
)
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.flatbuffer import operators_by_kind
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import CASES, Case, errors_of, mixed_case, resnet_case, unexplained

TOLERANCES = {"fp32": 1e-5, "int8": 0.05, "int8-full": 0.05}


@cache
def _resnet() -> tuple[Case, TfliteNhwcExported]:
    case = resnet_case()
    return case, TfliteNhwcConverter().export(case.level)


def _moved(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The same with the channels of one last."""
    return {k: np.moveaxis(a, 1, -1).copy() if k == name else a for k, a in arrays.items()}


def _made(precision: str) -> tuple[Case, Converted]:
    case, exported = _resnet()
    calibration = None if precision == "fp32" else case.calibration
    return case, exported.convert(BuildSpec(precision, calibration))


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_images_have_their_channels_last_and_nothing_moves_them(
    precision: str, tmp_path: Path
) -> None:
    case, made = _made(precision)
    assert made.inputs == (TensorInfo("x", (1, 8, 8, 3), "float32"),)
    assert made.channels_last == ("x",)
    moved = replace(case, inputs=_moved(case.inputs, "x"))
    errors = errors_of(moved, made, LiteRtRuntime(), tmp_path / "model.tflite")
    assert max(errors.values()) <= TOLERANCES[precision]
    assert unexplained(made) == []
    assert check_constants(made.constants, made.model, case.level.stored) == []
    assert "TRANSPOSE" not in operators_by_kind(made.model)


def test_with_channels_in_front_there_is_one_transpose() -> None:
    made = TfliteConverter().export(resnet_case().level).convert(BuildSpec())
    assert operators_by_kind(made.model)["TRANSPOSE"] == 1


def test_inputs_that_are_no_images_stay_as_they_are(tmp_path: Path) -> None:
    case = mixed_case()
    made = TfliteNhwcConverter().export(case.level).convert(BuildSpec())
    assert made.channels_last == ("image",)
    shapes = {info.name: info.shape for info in made.inputs}
    assert shapes == {"image": (1, 8, 8, 3), "extra_vector": (1, 5)}
    moved = replace(case, inputs=_moved(case.inputs, "image"))
    errors = errors_of(moved, made, LiteRtRuntime(), tmp_path / "model.tflite")
    assert max(errors.values()) <= 1e-5


@pytest.mark.parametrize("name", list(CASES))
def test_no_other_node_reads_the_images_themselves(name: str) -> None:
    program = with_channels_last(CASES[name]().level).program
    readers = [node.op for node in program.nodes for leaf in node.leaves() if leaf.name == "x"]
    assert set(readers) <= {"aten.permute.default"}


def test_a_network_without_images_is_refused() -> None:
    level = level_program(nest(nn.Linear(4, 2), torch.zeros(1, 4), {"full": 1.0}), "full")
    with pytest.raises(NestedgeError, match=r"no input takes images.*\(None, 4\)"):
        TfliteNhwcConverter().export(level)
