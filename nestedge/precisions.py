"""The precisions that artifacts come in, and how close to its level each must stay.

A tolerance is max|a - b| / max|b| between what an artifact gives and what its level gives, over its
reference inputs. It tells a wrong conversion from rounding, not a good network from a bad one: what
rounding does to the accuracy is measured on data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WeightSteps = Literal["family", "level"]
"""Whose largest weights decide what a 1 of an int8 weight stands for."""


@dataclass(frozen=True)
class Precision:
    """What numbers an artifact computes with.

    Attributes:
        name: as in "int8".
        weight_bytes: of a weight of a layer.
        activation_bytes: of a number between two layers.
        is_calibrated: whether ranges are taken from representative inputs.
        tolerance: the largest error that is rounding.
        reason: why that much, in words.
        meaning: of the name, in words.
    """

    name: str
    weight_bytes: int
    activation_bytes: int
    is_calibrated: bool
    tolerance: float
    reason: str
    meaning: str


_ALL = (
    Precision(
        "fp32",
        4,
        4,
        is_calibrated=False,
        tolerance=1e-5,
        reason="sums in another order: 24 bits, some hundred layers",
        meaning="single precision",
    ),
    Precision(
        "fp16",
        2,
        2,
        is_calibrated=False,
        tolerance=2e-3,
        reason="four roundings to 11 bits",
        meaning="half precision",
    ),
    Precision(
        "int8",
        1,
        1,
        is_calibrated=True,
        tolerance=0.1,
        reason="7 bits a weight and 8 a number between layers, over tens of layers",
        meaning="8 bits, ranges from calibration data; inputs and outputs stay float32",
    ),
    Precision(
        "int8-full",
        1,
        1,
        is_calibrated=True,
        tolerance=0.1,
        reason="as int8, and inputs and outputs are 8 bits too",
        meaning="8 bits from input to output, for accelerators without floating point",
    ),
    Precision(
        "int8-dynamic",
        1,
        4,
        is_calibrated=False,
        tolerance=0.1,
        reason="7 bits a weight, and 8 a number that a layer reads",
        meaning="weights of 8 bits, ranges found at each run; needs no calibration data",
    ),
    Precision(
        "int16x8",
        1,
        2,
        is_calibrated=True,
        tolerance=0.05,
        reason="7 bits a weight; 16 between layers lose next to nothing",
        meaning="weights of 8 bits, 16 between layers, ranges from calibration data",
    ),
)

PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in _ALL}
"""All of them by name, the exact before the small."""

BASIC = ("fp32", "fp16", "int8")
"""Those that every converter of nestedge's own has."""
