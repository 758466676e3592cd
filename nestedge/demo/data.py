"""The demo's data: scikit-learn's 1797 handwritten digits of 8x8 pixels, which it brings along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nestedge.errors import MissingDependencyError
from nestedge.preprocessing import Preprocessing

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
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDependencyError(
            "the demo's data needs scikit-learn: pip install 'nestedge[demo]'"
        ) from error
    pixels, classes = datasets.load_digits(return_X_y=True)
    # Its pixels are 0..16. Images are 8-bit, so that everything downstream takes them as usual.
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    digits = classes.astype(np.int64)
    order = np.arange(len(digits))
    train, test = train_test_split(order, test_size=0.25, random_state=0, stratify=digits)
    return DigitsData(Split(images[train], digits[train]), Split(images[test], digits[test]))
