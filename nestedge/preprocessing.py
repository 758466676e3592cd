"""How an image becomes the input of a network, the same on host and device. numpy only.

It travels with every artifact: a preprocessing mismatch is the commonest bug on devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nestedge.documents import Value
from nestedge.errors import FormatError

_CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an 8-bit image to one batch: `(image * scale - mean) / std`, then the layout.

    Attributes:
        input: name of the input that takes the image.
        layout: order of the axes of the input.
        dtype: of the input.
        scale: multiplies the raw values, which are 0..255: 1 / 255 for a range of 0..1.
        mean: is subtracted after scaling; one per channel, in the order of `colour`.
        std: divides after that; one per channel, in the order of `colour`.
        colour: order of the channels that the network wants; images come as RGB or grey.
    """

    input: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32"] = "float32"
    colour: Literal["RGB", "BGR", "GRAY"] = "RGB"

    def __post_init__(self) -> None:
        if self.layout not in ("NCHW", "NHWC"):
            raise ValueError(f"layout must be 'NCHW' or 'NHWC', got {self.layout!r}")
        if self.colour not in _CHANNELS:
            raise ValueError(f"colour must be 'RGB', 'BGR' or 'GRAY', got {self.colour!r}")
        if self.dtype != "float32":
            raise ValueError(f"dtype must be 'float32', got {self.dtype!r}")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels:
                raise ValueError(
                    f"{name} must have {self.channels} entries for {self.colour}, got {numbers}"
                )
        if not np.isfinite((self.scale, *self.mean, *self.std)).all():
            raise ValueError("scale, mean and std must be finite")
        if self.scale == 0 or 0 in self.std:
            raise ValueError("scale and std must not be zero")

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return _CHANNELS[self.colour]

    def apply(
        self, image: npt.NDArray[np.uint8], *, size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """The batch of one that the network wants.

        Args:
            image: uint8, shape (height, width, channels), channels in the order R, G, B.
            size: height and width of the input.

        Returns:
            Shape (1, channels, height, width), or (1, height, width, channels) for NHWC.

        Raises:
            ValueError: the image has another dtype, size or channel count; nothing is resized.

        >>> grey = Preprocessing("input", scale=1 / 16, mean=(0.0,), std=(1.0,), colour="GRAY")
        >>> grey.apply(np.full((1, 2, 1), 8, np.uint8), size=(1, 2)).tolist()
        [[[[0.5, 0.5]]]]
        """
        expected = (*size, self.channels)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(
                f"expected an image of uint8 and shape {expected} (height, width, channels), "
                f"found {image.dtype.name} and {image.shape}; resize or convert it first"
            )
        pixels = image[..., ::-1] if self.colour == "BGR" else image
        # In double precision, so that every platform rounds once, to the same float32.
        batch = ((pixels * np.float64(self.scale) - self.mean) / self.std)[np.newaxis]
        if self.layout == "NCHW":
            batch = batch.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(batch, dtype=np.float32)

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of an input of that shape.

        Raises:
            ValueError: the shape is not one of a batch of images of these channels.
        """
        if len(shape) == 4:
            batch, *axes = shape
            if self.layout == "NCHW":
                channels, height, width = axes
            else:
                height, width, channels = axes
            if batch == 1 and channels == self.channels:
                return height, width
        raise ValueError(
            f"input {self.input!r} of shape {shape} takes no {self.layout} image of "
            f"{self.channels} channels"
        )

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return {
            "input": self.input,
            "layout": self.layout,
            "dtype": self.dtype,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "colour": self.colour,
        }

    @classmethod
    def from_json(cls, value: Value) -> Preprocessing:
        """The preprocessing in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong; the message names it.
        """
        names = ("input", "layout", "dtype", "scale", "mean", "std", "colour")
        given, layout, dtype, scale, mean, std, colour = value.fields(*names)
        try:
            return cls(
                given.string(),
                scale=scale.number(),
                mean=tuple(element.number() for element in mean.elements()),
                std=tuple(element.number() for element in std.elements()),
                layout=layout.choice("NCHW", "NHWC"),
                dtype=dtype.choice("float32"),
                colour=colour.choice("RGB", "BGR", "GRAY"),
            )
        except ValueError as error:
            raise FormatError(f"{value.where}: {error}") from error
