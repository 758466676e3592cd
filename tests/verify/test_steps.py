from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from nestedge.documents import json_bytes, parse_json
from nestedge.plugins import Array
from nestedge.verify import Localisation, Trace, TracedOperator, WorstOperator
from nestedge.verify.steps import worst_step


def _operator(
    name: str, inputs: str, outputs: str, *, kind: str = "", constants: str = ""
) -> TracedOperator:
    return TracedOperator(
        kind=kind or name,
        name=name,
        inputs=tuple(inputs.split()),
        outputs=tuple(outputs.split()),
        constants=tuple(constants.split()),
    )


def _trace(operators: list[TracedOperator], errors: Mapping[str, float]) -> Trace:
    """A trace whose values are off what they should be, `_ONES`, by these errors."""
    values: dict[str, Array] = {name: np.full(4, 1 + error) for name, error in errors.items()}
    return Trace(operators=tuple(operators), values=values, inputs={"x": "x"}, outputs={"y": "y"})


_ONES = {name: np.ones(4) for name in "xabcy"}
_CHAIN = [
    _operator("Conv", "x", "a"),
    _operator("Relu", "a", "b"),
    _operator("Pool", "b", "c"),
    _operator("Gemm", "c", "y"),
]


@pytest.mark.parametrize(
    ("errors", "name"),
    [
        ((0.5, 0.5, 0.6, 0.7), "Conv"),
        ((1e-4, 0.5, 0.6, 0.7), "Relu"),
        ((1e-4, 2e-4, 0.5, 0.9), "Pool"),
        ((1e-7, 1e-7, 1e-7, 0.9), "Gemm"),
        ((1e-4, math.nan, math.nan, math.nan), "Relu"),
        # What is far below the tolerance is rounding, however much it grows.
        ((1e-9, 5e-7, 1e-2, 0.1), "Pool"),
    ],
)
def test_the_operator_at_which_the_error_jumps_is_found(
    errors: tuple[float, ...], name: str
) -> None:
    trace = _trace(_CHAIN, {"x": 0.0, **dict(zip("abcy", errors, strict=True))})
    step = worst_step(trace, _ONES, output="y", tolerance=1e-3)
    assert step is not None
    assert step.operator(()).name == name


def test_both_errors_of_a_step_are_told() -> None:
    trace = _trace(_CHAIN, {"x": 0.0, "a": 0.001, "b": 0.5, "c": 0.5, "y": 0.5})
    step = worst_step(trace, _ONES, output="y", tolerance=1e-3)
    assert step is not None
    assert step.input_error == pytest.approx(0.001)
    assert step.output_error == pytest.approx(0.5)
    assert step.growth == pytest.approx(500)
    assert step.value == "b"


def test_operators_whose_values_have_no_counterpart_are_named_together() -> None:
    trace = _trace(_CHAIN, {"x": 0.0, "a": 0.0, "b": 0.9, "c": 0.5, "y": 0.5})
    expected = {name: _ONES[name] for name in "xay"}
    step = worst_step(trace, expected, output="y", tolerance=1e-3)
    assert step is not None
    assert [found.name for found in step.region] == ["Relu", "Pool", "Gemm"]
    assert step.operator(()).name == "Gemm"
    assert step.operator({"Relu"}).name == "Relu"


def test_what_an_output_does_not_depend_on_is_not_to_blame() -> None:
    aside = _operator("Aside", "x", "z")
    trace = _trace([aside, *_CHAIN], {"x": 0, "z": 9, "a": 0, "b": 0.1, "c": 0.1, "y": 0.1})
    step = worst_step(trace, {**_ONES, "z": np.ones(4)}, output="y", tolerance=1e-3)
    assert step is not None
    assert step.operator(()).name == "Relu"


def test_a_layer_is_named_rather_than_the_change_of_storage_behind_it() -> None:
    operators = [
        _operator("Conv", "x", "a"),
        _operator("q", "a", "b", kind="QuantizeLinear"),
        _operator("d", "b", "y", kind="DequantizeLinear"),
    ]
    trace = _trace(operators, {"x": 0.0, "y": 0.5})
    expected = {name: _ONES[name] for name in "xy"}
    step = worst_step(trace, expected, output="y", tolerance=1e-3)
    assert step is not None
    assert step.operator(()).name == "Conv"
    # Where the layer gives the right numbers, its storage is at fault.
    trace = _trace(operators, {"x": 0.0, "a": 0.0, "y": 0.5})
    step = worst_step(trace, _ONES, output="y", tolerance=1e-3)
    assert step is not None
    assert step.operator(()).kind == "DequantizeLinear"


def test_nothing_is_named_where_nothing_can_be_compared() -> None:
    trace = _trace(_CHAIN, {"x": 0.0, "y": 0.5})
    assert worst_step(trace, {}, output="y", tolerance=1e-3) is None


@pytest.mark.parametrize("error", [0.5, math.inf])
def test_a_place_is_read_as_it_was_written(error: float) -> None:
    operator = WorstOperator(
        kind="Conv",
        name="conv 1",
        module="layer1.0.conv1",
        value="a",
        input_error=0.25,
        output_error=error,
        between=("Conv", "Relu"),
    )
    for found in (operator, None):
        place = Localisation(reference="x", compared=3, values=4, operator=found, note="n")
        text = json_bytes(place.to_json())
        assert Localisation.from_json(parse_json(text, document="x")) == place
