from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from nestedge.convert import BuildSpec, Converted, check_constants
from nestedge.errors import NestedgeError, UsageError
from nestedge.plugins import TensorInfo
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import (
    CASES,
    Case,
    converted,
    errors_of,
    mixed_case,
    unconvertible_level,
    unexplained,
)


@dataclass(frozen=True)
class Made:
    """A level and what the converter made of it."""

    case: Case
    model: Converted


@pytest.fixture(scope="module", params=list(CASES))
def made(request: pytest.FixtureRequest) -> Made:
    case = CASES[request.param]()
    return Made(case, converted(case, TfliteConverter()))


@pytest.fixture(scope="module")
def mixed() -> Made:
    case = mixed_case()
    return Made(case, converted(case, TfliteConverter()))


def test_a_file_computes_what_the_level_does(made: Made, tmp_path: Path) -> None:
    errors = errors_of(made.case, made.model, LiteRtRuntime(), tmp_path / "model.tflite")
    assert max(errors.values()) <= 1e-5


def test_inputs_and_outputs_have_the_names_of_the_network(mixed: Made, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(mixed.model.model)
    session = LiteRtRuntime().open(path)
    inputs = {
        TensorInfo("image", (1, 3, 8, 8), "float32"),
        TensorInfo("extra_vector", (1, 5), "float32"),
    }
    outputs = {
        TensorInfo("logits", (1, 4), "float32"),
        TensorInfo("inner_mean", (1, 16), "float32"),
    }
    assert set(session.inputs) == set(mixed.model.inputs) == inputs
    assert set(session.outputs) == set(mixed.model.outputs) == outputs


def test_every_constant_comes_from_stored_tensors(made: Made) -> None:
    assert unexplained(made.model) == []
    stored = made.case.level.stored
    assert check_constants(made.model.constants, made.model.model, stored) == []


def test_a_changed_constant_is_found(made: Made) -> None:
    constant = max(made.model.constants, key=lambda constant: constant.size_bytes)
    content = bytearray(made.model.model)
    content[constant.offset] ^= 1
    stored = made.case.level.stored
    assert check_constants(made.model.constants, bytes(content), stored) == [constant.name]


def test_a_file_names_no_folder_of_this_machine(made: Made) -> None:
    for folder in {Path(__file__).parents[2], Path(os.__file__).parent, Path.home()}:
        assert str(folder).encode() not in made.model.model
    assert b"site-packages" not in made.model.model
    assert b".py" not in made.model.model


def test_the_same_level_gives_the_same_bytes(mixed: Made) -> None:
    assert converted(mixed.case, TfliteConverter()).model == mixed.model.model


def test_a_precision_that_it_does_not_have_is_refused(mixed: Made) -> None:
    with pytest.raises(UsageError, match="tflite: no precision 'int3'; it has"):
        TfliteConverter().convert(mixed.case.level, BuildSpec(precision="int3"))


def test_an_operator_that_it_cannot_express_is_named() -> None:
    with pytest.raises(
        NestedgeError, match=r"litert-torch cannot convert the level: .*adaptive_max_pool2d"
    ) as info:
        TfliteConverter().convert(unconvertible_level(), BuildSpec())
    assert "\n" not in str(info.value)
