"""The demo's data: scikit-learn's 1797 handwritten digits of 8x8 pixels, which it brings along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import Images, digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PREPROCESSING = Preprocessing(
    input="image", scale=1 / 255, mean=(0.305,), std=(0.376,), layout="NCHW", colour="GRAY"
)
"""Mean and standard deviation are those of the training images."""


@dataclass(frozen=True)
class Split:
    """Images and what they show.

    Attributes:
        images: uint8 of 0..255, shape (count, 8, 8, 1).
        digits: int64, shape (count,).
    """

    images: npt.NDArray[np.uint8]
    digits: npt.NDArray[np.int64]

    def inputs(self) -> npt.NDArray[np.float32]:
        """The images as the network takes them: shape (count, 1, 8, 8)."""
        size = (self.images.shape[1], self.images.shape[2])
        return np.concatenate([PREPROCESSING.apply(image, size=size) for image in self.images])


@dataclass(frozen=True)
class DigitsData:
    """The digits, split."""

    train: Split
    test: Split


def load_digits() -> DigitsData:
    """The digits: three quarters to train with, a quarter to test, every class in proportion.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    data = digits()
    return DigitsData(_split(data.train), _split(data.test))


def _split(part: Images) -> Split:
    pixels = part.pixels(range(len(part.classes)))
    return Split(pixels.movedim(1, -1).contiguous().numpy(), part.classes.numpy())
