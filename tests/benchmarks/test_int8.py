from __future__ import annotations

import numpy as np
import pytest

from benchmarks.int8 import (
    Ranges,
    Row,
    borrowing,
    error_of,
    lines,
    percent,
    ranges_of,
    spread,
    widest,
)
from nestedge.expressions import Array
from nestedge_onnx.exporter import export_model
from nestedge_onnx.quantization import FOR_ONNXRUNTIME, quantize
from tests.conversions import resnet_case
from tests.nestedge_onnx.graphs import constants_of


def _range(scale: float) -> tuple[Array, Array]:
    return np.array(scale, np.float32), np.array(0, np.uint8)


@pytest.mark.parametrize(
    ("count", "cases", "expected"), [(10, 4, [0, 2, 5, 7]), (3, 8, [0, 1, 2]), (5, 1, [0])]
)
def test_cases_are_spread_over_all(count: int, cases: int, expected: list[int]) -> None:
    assert spread(count, cases).tolist() == expected


def test_a_level_quantised_with_borrowed_ranges_has_them_and_its_own_weights() -> None:
    case = resnet_case()
    model = export_model(case.level)
    own = quantize(model, case.calibration)
    lent = ranges_of(quantize(model, {"x": 2 * case.calibration["x"]}))
    assert widest(ranges_of(own), lent) > 1.5
    borrowed = quantize(model, case.calibration, borrowing(FOR_ONNXRUNTIME, lent))
    assert widest(ranges_of(borrowed), lent) == 1
    assert ranges_of(borrowed).keys() == lent.keys()
    for name, (_, zero_point) in ranges_of(borrowed).items():
        assert zero_point == lent[name][1]
    weights = {name: array for name, array in constants_of(own).items() if array.ndim > 1}
    assert weights
    for name, array in weights.items():
        np.testing.assert_array_equal(constants_of(borrowed)[name], array)


def test_the_widest_ratio_counts_both_ways() -> None:
    one: Ranges = {"a": _range(1.0), "b": _range(4.0)}
    assert widest(one, {"a": _range(2.0), "b": _range(1.0)}) == 4
    assert widest(one, {"a": _range(8.0), "b": _range(4.0)}) == 8
    with pytest.raises(ValueError, match=r"ranges of other tensors: \['b'\]"):
        widest(one, {"a": _range(1.0)})


def test_shares_and_errors_are_percent() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    assert percent(logits, np.array([1, 1, 1, 0])) == 75
    assert error_of(logits * 1.1, logits) == pytest.approx(10)


def test_the_table_has_a_line_for_each_level() -> None:
    row = Row(
        "small", fp32=98.75, own=90, own_error=1.04, borrowed=80, borrowed_error=2.96, widest=1.5
    )
    header, rule, line = lines(iter([row]))
    assert line == "| small | 98.8 % | 90.0 % | 80.0 % | 1.0 % | 3.0 % | 1.50 |"
    assert header.count("|") == rule.count("|") == line.count("|")
