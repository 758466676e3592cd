"""Images as inputs of a network: read from files, and preprocessed where an input takes one.

numpy, and pillow when a file is read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nestedge.errors import FormatError, MissingDependencyError, UsageError
from nestedge.plugins import Array, TensorInfo
from nestedge.preprocessing import Preprocessing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Names of image files end in one of these, in lower case, where a folder is searched for them."""


def read_image(path: Path, steps: Preprocessing) -> Array:
    """The pixels of an image file, for `steps.apply`.

    Returns:
        uint8, shape (height, width, channels) in the order R, G, B, or grey. Nothing is resized.

    Raises:
        MissingDependencyError: pillow is not installed.
        UsageError: the image is of another mode than the network wants.
        FormatError: it is not an image, or is truncated.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError("images need pillow: pip install 'nestedge[image]'") from error
    mode = "L" if steps.colour == "GRAY" else "RGB"
    try:
        with Image.open(path) as image:
            # A palette is only another way to store the same colours.
            pixels = image.convert("RGB") if image.mode == "P" and mode == "RGB" else image
            if pixels.mode != mode:
                raise UsageError(
                    f"{path}: expected an image of mode {mode}, found {pixels.mode}; convert it"
                )
            found = np.asarray(pixels, dtype=np.uint8)
            return found[..., np.newaxis] if mode == "L" else found
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise FormatError(f"{path}: not an image: {error}") from error
    except OSError as error:
        # Pillow's word for a truncated file.
        raise FormatError(f"{path}: {error}") from error


def as_batch(array: Array, info: TensorInfo, steps: Preprocessing | None) -> Array:
    """What an input takes, from what people have.

    Args:
        array: an image of uint8, where `steps` are for this input, of shape
            (height, width, channels), or (height, width) for grey; or what the input takes, with or
            without its batch axis of one.
        info: the input, at a batch of 1.
        steps: preprocessing of the input that takes images, if one does.

    Returns:
        The preprocessed image, or the array with its batch axis, which need not fit the input.

    Raises:
        ValueError: the image does not fit the input.
    """
    takes_images = steps is not None and steps.input == info.name and info.dtype != "uint8"
    if takes_images and array.dtype == np.uint8:
        assert steps is not None, "it takes images"
        pixels = array.astype(np.uint8, copy=False)
        image = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        return steps.apply(image, size=steps.size(info.shape))
    return array[np.newaxis] if info.shape == (1, *array.shape) else array
