from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nestedge.documents import json_bytes, parse_json
from nestedge.errors import FormatError
from nestedge.plugins import Array
from nestedge.verify import Closeness, measure_closeness
from nestedge.verify.closeness import worst_of

FINITE = arrays.arrays(np.float64, (2, 1, 3), elements=st.floats(-1e6, 1e6, width=32))


def _figures(found: npt.ArrayLike, expected: npt.ArrayLike) -> Closeness:
    figures = measure_closeness(np.array(found), np.array(expected))
    assert figures is not None
    return figures


def test_figures_of_a_known_case() -> None:
    figures = _figures([[[3.0, 4.0]]], [[[4.0, 0.0]]])
    assert figures.max_absolute_error == 4
    assert figures.cosine == pytest.approx(12 / 20)
    root = math.sqrt((1 + 16) / 2)
    assert figures.psnr_db == pytest.approx(20 * math.log10(4 / root))
    assert figures.top1_agreement == 0


@given(FINITE)
def test_what_does_not_differ_has_a_cosine_of_one_and_no_noise(array: Array) -> None:
    figures = _figures(array, array)
    assert figures.max_absolute_error == 0
    assert figures.psnr_db is None
    assert figures.top1_agreement == 1
    assert figures.cosine == (pytest.approx(1) if array.any() else None)


@given(FINITE.filter(lambda b: bool(np.ptp(b) > 1)), st.floats(1e-150, 1e150))
def test_cosine_and_noise_do_not_depend_on_the_scale(
    array: npt.NDArray[np.float64], scale: float
) -> None:
    other = array + np.array([0.0, 1.0, -0.5])
    one, scaled = _figures(other, array), _figures(other * scale, array * scale)
    assert scaled.cosine == pytest.approx(one.cosine, abs=1e-9)
    assert scaled.psnr_db == pytest.approx(one.psnr_db, abs=1e-6)


def test_ten_times_the_error_is_twenty_decibels() -> None:
    expected = np.linspace(0, 1, 50)
    noise = np.sin(np.arange(50))
    small, large = (_figures(expected + noise * size, expected) for size in (1e-3, 1e-2))
    assert small.psnr_db is not None
    assert large.psnr_db is not None
    assert small.psnr_db - large.psnr_db == pytest.approx(20)


@pytest.mark.parametrize(
    ("expected", "share"),
    [
        (np.array([[[1.0, 2.0]], [[2.0, 1.0]]]), 0.5),
        (np.array([[[1, 2]], [[2, 1]]], np.int8), 0.5),
        (np.array([[[1, 2]], [[2, 1]]], np.int64), None),
        (np.array([[[1.0]], [[2.0]]]), None),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), None),
        (np.array([[[[1.0, 2.0]]], [[[2.0, 1.0]]]]), None),
    ],
    ids=["scores", "whole scores", "indices", "one class", "no batch", "a map"],
)
def test_top_1_is_of_scores_alone(expected: Array, share: float | None) -> None:
    found = expected[[0, 0]]
    assert _figures(found, expected).top1_agreement == share


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([math.nan, 1.0], [0.0, 1.0]),
        ([0.0, 1.0], [math.nan, 1.0]),
        ([math.inf, 1.0], [0.0, 1.0]),
        ([-math.inf, 1.0], [math.inf, 1.0]),
    ],
)
def test_what_is_no_number_has_no_figures(found: list[float], expected: list[float]) -> None:
    assert measure_closeness(np.array(found), np.array(expected)) is None


def test_equal_infinities_are_left_out() -> None:
    figures = _figures([-math.inf, 1.0, 3.5], [-math.inf, 1.0, 3.0])
    assert figures.max_absolute_error == 0.5
    assert figures.cosine is not None
    assert figures.psnr_db is not None


def test_a_constant_has_no_range_to_compare_noise_with() -> None:
    assert _figures([1.0, 2.0], [1.0, 1.0]).psnr_db is None


def test_the_worst_figures_may_be_of_several_outputs() -> None:
    one = Closeness(max_absolute_error=1, cosine=0.9, psnr_db=None, top1_agreement=0.5)
    two = Closeness(max_absolute_error=2, cosine=0.99, psnr_db=20.0, top1_agreement=None)
    assert worst_of([one, two]) == Closeness(
        max_absolute_error=2, cosine=0.9, psnr_db=20.0, top1_agreement=0.5
    )
    assert worst_of([one, None]) is None
    assert worst_of([]) is None


@pytest.mark.parametrize(
    "figures",
    [
        Closeness(max_absolute_error=0.5, cosine=0.25, psnr_db=1.5, top1_agreement=1.0),
        Closeness(max_absolute_error=0.0, cosine=None, psnr_db=None, top1_agreement=None),
    ],
)
def test_figures_are_read_as_they_were_written(figures: Closeness) -> None:
    text = json_bytes(figures.to_json())
    assert Closeness.from_json(parse_json(text, document="x")) == figures


def test_a_wrong_figure_is_named() -> None:
    text = b'{"max_absolute_error": 1, "cosine": "1", "psnr_db": 1, "top1_agreement": 1}'
    with pytest.raises(FormatError, match="x: cosine: expected a number"):
        Closeness.from_json(parse_json(text, document="x"))
