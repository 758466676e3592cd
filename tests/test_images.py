from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestedge.errors import FormatError, MissingDependencyError, UsageError
from nestedge.images import IMAGE_SUFFIXES, as_batch, read_image
from nestedge.plugins import Array, TensorInfo
from nestedge.preprocessing import Preprocessing

COLOUR = Preprocessing("image", scale=1.0, mean=(0.0,) * 3, std=(2.0,) * 3)
GREY = Preprocessing("image", scale=1.0, mean=(0.0,), std=(2.0,), colour="GRAY")
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)

WRITTEN: dict[str, tuple[str, str, Preprocessing]] = {
    "colour png": ("x.png", "RGB", COLOUR),
    "colour bmp": ("x.bmp", "RGB", COLOUR),
    "colour webp": ("x.webp", "RGB", COLOUR),
    "palette png": ("x.png", "P", COLOUR),
    "grey png": ("x.png", "L", GREY),
    "colour for bgr": (
        "x.png",
        "RGB",
        Preprocessing("i", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, colour="BGR"),
    ),
}


@pytest.mark.parametrize(("name", "mode", "steps"), WRITTEN.values(), ids=WRITTEN)
def test_an_image_is_read_as_its_pixels(
    tmp_path: Path, name: str, mode: str, steps: Preprocessing
) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / name, lossless=True)
    found = read_image(tmp_path / name, steps)
    expected = np.asarray(image.convert("L" if mode == "L" else "RGB"))
    assert found.dtype == np.uint8
    assert found.shape == (4, 6, steps.channels)
    assert np.array_equal(found, expected.reshape(found.shape))


@pytest.mark.parametrize(
    ("mode", "steps", "message"),
    [
        ("RGBA", COLOUR, r"x\.png: expected an image of mode RGB, found RGBA; convert it$"),
        ("L", COLOUR, "expected an image of mode RGB, found L; convert it"),
        ("RGB", GREY, "expected an image of mode L, found RGB; convert it"),
        ("P", GREY, "expected an image of mode L, found P; convert it"),
    ],
)
def test_an_image_of_another_mode_is_refused(
    tmp_path: Path, mode: str, steps: Preprocessing, message: str
) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match=message):
        read_image(tmp_path / "x.png", steps)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"x\.png: not an image: cannot identify"):
        read_image(tmp_path / "x.png", COLOUR)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_damaged_image_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    path, content = tmp_path / f"x{suffix}", io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    form = Image.registered_extensions()[suffix]
    Image.fromarray(pixels).save(content, form)
    whole = content.getvalue()
    random = np.random.default_rng(2)
    for length in random.integers(1, len(whole), 60):
        path.write_bytes(whole[:length])
        with contextlib.suppress(FormatError, UsageError):
            read_image(path, COLOUR)
    for place, byte in zip(random.integers(0, 200, 200), random.bytes(200), strict=True):
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        with contextlib.suppress(FormatError, UsageError):
            read_image(path, COLOUR)


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"x\.png: "):
        read_image(path, COLOUR)


def test_without_pillow_the_error_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nestedge\[image\]'$"):
        read_image(tmp_path / "x.png", COLOUR)


IMAGE = TensorInfo("image", (1, 3, 4, 6), "float32")
BATCH = (PIXELS / 2).astype(np.float32).transpose(2, 0, 1)[np.newaxis]


@pytest.mark.parametrize("array", [PIXELS, BATCH, BATCH[0]], ids=["pixels", "batch", "case"])
def test_pixels_and_arrays_become_the_same_batch(array: Array) -> None:
    assert np.array_equal(as_batch(array, IMAGE, COLOUR), BATCH)


def test_grey_pixels_need_no_axis_of_channels() -> None:
    info = TensorInfo("image", (1, 1, 4, 6), "float32")
    found = as_batch(PIXELS[..., 0], info, GREY)
    assert np.array_equal(found, as_batch(PIXELS[..., :1], info, GREY))
    assert np.array_equal(found[0, 0], PIXELS[..., 0] / 2)


@pytest.mark.parametrize(
    ("name", "dtype", "steps"),
    [("image", "uint8", COLOUR), ("other", "float32", COLOUR), ("image", "float32", None)],
    ids=["an input of bytes", "another input", "no preprocessing"],
)
def test_only_the_input_that_takes_images_has_them_preprocessed(
    name: str, dtype: str, steps: Preprocessing | None
) -> None:
    found = as_batch(PIXELS, TensorInfo(name, (1, 4, 6, 3), dtype), steps)
    assert np.array_equal(found, PIXELS[np.newaxis])


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 6, 3\) .*found uint8 and \(6, 4, 3\)"):
        as_batch(PIXELS.transpose(1, 0, 2), IMAGE, COLOUR)
