from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.quantization import along, in_steps, scale_of


def test_each_entry_of_an_axis_has_the_scale_of_its_largest_magnitude() -> None:
    weight = np.array([[[127.0, 2.54]], [[-1.27, 0.0]]], np.float32)
    expected = {None: 1.0, 0: [1.0, 0.01], 1: [1.0], 2: [1.0, 0.02]}
    for axis, scales in expected.items():
        found = scale_of(weight, axis)
        assert found.dtype == np.float32
        assert found.tolist() == pytest.approx(scales)


@pytest.mark.parametrize("most", [0.0, 1e-45, 1e-37], ids=["zero", "subnormal", "tiny"])
def test_a_channel_of_nothing_has_a_scale_of_one(most: float) -> None:
    weight = np.array([[most, 0.0], [12.7, 0.0]], np.float32)
    np.testing.assert_allclose(scale_of(weight, 0), np.array([1.0, 0.1], np.float32))


@pytest.mark.parametrize(
    ("axis", "shape"), [(None, (1, 1, 1)), (0, (2, 1, 1)), (2, (1, 1, 2))], ids=str
)
def test_scales_lie_along_their_axis(axis: int | None, shape: tuple[int, ...]) -> None:
    scale = np.ones(() if axis is None else (2,), np.float32)
    assert along(scale, 3, axis).shape == shape


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [("int8", -128, 127), ("uint8", 0, 255), ("int32", -(2**31), 2**31 - 1)],
)
def test_what_is_out_of_range_is_the_end_of_it(dtype: str, least: int, most: int) -> None:
    source = np.array([-1e30, 1e30, 0.5, 1.5], np.float32)
    found = in_steps(source, np.ones(1, np.float32), dtype)
    assert found.dtype == dtype
    assert found.tolist() == [least, most, 0, 2]


def test_the_quotient_has_the_larger_precision() -> None:
    source, step = np.array([1.0], np.float32), np.array([3e-9], np.float32)
    single = in_steps(source, step, "int32")
    double = in_steps(source, step.astype(np.float64), "int32")
    assert single.tolist() == [int(np.float32(1) / step[0])]
    assert double.tolist() == [round(1 / float(step[0]))]
    assert single.tolist() != double.tolist()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8))
def test_a_weight_comes_back_within_half_a_step(numbers: list[float]) -> None:
    weight = np.array(numbers, np.float32)
    scale = scale_of(weight, None).reshape(1)
    back = in_steps(weight, scale, "int8").astype(np.float64) * scale
    assert np.abs(back - weight).max() <= 0.5001 * float(scale[0])
