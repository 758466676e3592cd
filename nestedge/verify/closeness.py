"""How close two arrays are, in the figures that one meets: relative error, cosine, PSNR, top-1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from nestedge.documents import Value
from nestedge.plugins import Array

_SCORE_BYTES = 2
"""Whole numbers of one or two bytes may be scores; wider ones count or point at something."""


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close outputs are to those of the level, in figures that decide nothing.

    Attributes:
        max_absolute_error: max|a - b|.
        cosine: of the angle between the two as vectors; None where one of them is zero.
        psnr_db: range of what is expected to the root of the mean square error, in decibels; None
            where nothing differs, or where what is expected is one number throughout.
        top1_agreement: share of the cases in which both have the largest score at the same place;
            None where there are no scores.
    """

    max_absolute_error: float
    cosine: float | None
    psnr_db: float | None
    top1_agreement: float | None

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Value) -> Closeness:
        """The figures in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        largest, *others = value.fields(*names)
        numbers = (None if item.optional() is None else item.number() for item in others)
        return cls(
            max_absolute_error=largest.number(), **dict(zip(names[1:], numbers, strict=True))
        )


def measure_closeness(found: Array, expected: Array) -> Closeness | None:
    """The figures of one output.

    Infinities that both have at the same places are left out.

    Args:
        found: shape (cases, *shape of the output).
        expected: of the same shape. Scores have the shape (cases, batch, classes).

    Returns:
        None where an array has a NaN, or an infinity that the other has not.
    """
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    odd = ~finite
    if np.isnan(a).any() or np.isnan(b).any() or (a[odd] != b[odd]).any():
        return None
    x, y = a[finite], b[finite]
    return Closeness(
        max_absolute_error=float(np.abs(x - y).max(initial=0.0)),
        cosine=_cosine(x, y),
        psnr_db=_psnr(x, y),
        top1_agreement=_agreement(a, b) if _are_scores(expected) else None,
    )


def worst_of(found: Iterable[Closeness | None]) -> Closeness | None:
    """The worst figure of several outputs, of each kind; None where one of them has none."""
    figures = list(found)
    known = [item for item in figures if item is not None]
    if not known or len(known) < len(figures):
        return None
    return Closeness(
        max_absolute_error=max(item.max_absolute_error for item in known),
        cosine=_least(item.cosine for item in known),
        psnr_db=_least(item.psnr_db for item in known),
        top1_agreement=_least(item.top1_agreement for item in known),
    )


def relative_error(found: Array, expected: Array) -> float:
    """max|found - expected| / max|expected|, and inf if a NaN is involved.

    Infinities count as equal to themselves, and as infinitely far from all else. Where all expected
    values are zero the error is absolute.

    >>> relative_error(np.array([1.0, 4.4]), np.array([1.0, 4.0])).__round__(3)
    0.1
    >>> relative_error(np.array([np.nan]), np.array([1.0]))
    inf
    """
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if np.isnan(a).any() or np.isnan(b).any():
        return math.inf
    differing = a != b
    if not differing.any():
        return 0.0
    largest = np.abs(a[differing] - b[differing]).max()
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    return float(largest / scale) if scale > 0 else float(largest)


def _cosine(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float | None:
    largest = [float(np.abs(array).max(initial=0.0)) for array in (x, y)]
    if min(largest) == 0:
        return None
    # Squares of very large or small numbers are no numbers any more.
    one, other = x / largest[0], y / largest[1]
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    return min(max(cosine, -1.0), 1.0)


def _psnr(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float | None:
    largest = float(np.abs(x - y).max(initial=0.0))
    span = float(y.max(initial=-math.inf) - y.min(initial=math.inf))
    if largest == 0 or span == 0:
        return None
    root = largest * math.sqrt(float(np.mean(((x - y) / largest) ** 2)))
    return 20 * (math.log10(span) - math.log10(root))


def _are_scores(expected: Array) -> bool:
    kind, size = expected.dtype.kind, expected.dtype.itemsize
    is_score = kind == "f" or (kind in "iu" and size <= _SCORE_BYTES)
    return is_score and expected.ndim == len(("case", "batch", "class")) and expected.shape[-1] > 1


def _agreement(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.mean(a.argmax(-1) == b.argmax(-1)))


def _least(numbers: Iterable[float | None]) -> float | None:
    return min((number for number in numbers if number is not None), default=None)
