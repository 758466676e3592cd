from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.documents import Value, json_bytes, parse_json
from nestedge.errors import FormatError
from nestedge.preprocessing import Preprocessing

RGB = Preprocessing("x", scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))


def test_each_channel_is_scaled_shifted_and_divided() -> None:
    image = np.array([[[255, 0, 51]]], np.uint8)
    found = RGB.apply(image, size=(1, 1))
    assert found.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(found.ravel(), [1.8, -0.8, -0.8], rtol=1e-6)


def test_bgr_reverses_the_channels_and_nhwc_leaves_them_last() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    steps = Preprocessing(
        "x", scale=1.0, mean=(0.0, 0.0, 10.0), std=(1.0, 1.0, 1.0), layout="NHWC", colour="BGR"
    )
    found = steps.apply(image, size=(2, 2))
    assert found.shape == (1, 2, 2, 3)
    assert found[0, 0, 0].tolist() == [2, 1, -10]


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["RGB", "BGR", "GRAY"]), st.data())
def test_nchw_is_nhwc_transposed(height: int, width: int, colour: str, data: st.DataObject) -> None:
    channels = 1 if colour == "GRAY" else 3
    numbers = tuple(data.draw(st.floats(0.1, 2)) for _ in range(channels))
    values: dict[str, Any] = {"scale": 0.01, "mean": numbers, "std": numbers, "colour": colour}
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    first = Preprocessing("x", layout="NCHW", **values).apply(image, size=(height, width))
    last = Preprocessing("x", layout="NHWC", **values).apply(image, size=(height, width))
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=["size", "channels", "rank", "dtype"],
)
def test_another_image_is_refused_not_resized(image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected an image of uint8 and shape \(4, 4, 3\)"):
        RGB.apply(image, size=(4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.0,)}, r"mean must have 3 entries for RGB, got \(0\.0,\)"),
        ({"std": (1.0, 0.0, 1.0)}, "scale and std must not be zero"),
        ({"scale": 0.0}, "scale and std must not be zero"),
        ({"mean": (0.0, float("nan"), 0.0)}, "must be finite"),
        ({"layout": "CHW"}, "layout must be 'NCHW' or 'NHWC', got 'CHW'"),
        ({"colour": "CMYK"}, "colour must be .*, got 'CMYK'"),
        ({"dtype": "float16"}, "dtype must be 'float32', got 'float16'"),
    ],
)
def test_impossible_steps_are_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, **change}
    with pytest.raises(ValueError, match=message):
        Preprocessing("x", **values)


def _json(steps: Preprocessing) -> Value:
    return parse_json(json_bytes({"p": steps.to_json()}), document="x.json").fields("p")[0]


def test_json_gives_the_same_steps_back() -> None:
    assert Preprocessing.from_json(_json(RGB)) == RGB


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("scale"), r"x\.json: p\.scale: missing"),
        (lambda d: d.update(gamma=1), r"x\.json: p\.gamma: unknown"),
        (lambda d: d.update(layout="HWC"), r'p\.layout: expected "NCHW" or "NHWC", found "HWC"'),
        (lambda d: d.update(mean=[0, "1", 0]), r"p\.mean\[1\]: expected a number"),
        (lambda d: d.update(std=[1]), r"x\.json: p: std must have 3 entries"),
    ],
)
def test_a_wrong_field_is_named(edit: Callable[[dict[str, object]], object], message: str) -> None:
    document = RGB.to_json()
    edit(document)
    with pytest.raises(FormatError, match=message):
        Preprocessing.from_json(
            parse_json(json_bytes({"p": document}), document="x.json").fields("p")[0]
        )


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 3, 4, 5)), ("NHWC", (1, 4, 5, 3))])
def test_the_size_comes_from_the_shape(layout: Any, shape: tuple[int, ...]) -> None:
    steps = Preprocessing("x", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, layout=layout)
    assert steps.size(shape) == (4, 5)
    for wrong in ((2, *shape[1:]), shape[1:], (1, 9, 9, 9)):
        with pytest.raises(ValueError, match=r"takes no .* image of 3 channels"):
            steps.size(wrong)
