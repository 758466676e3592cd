"""How weights become whole numbers, in numpy: what converters do, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def scale_of(weight: Array, axis: int | None) -> Array:
    """What one step of int8 stands for where the zero point is 0: the largest magnitude / 127.

    Args:
        weight: floating point.
        axis: each of its entries has a scale of its own; None for one scale.

    Returns:
        Shape (entries of the axis,) or (), of the weight's dtype. The scale of nothing but zeros
        is 1.

    >>> scale_of(np.array([[127.0, -254.0], [0.0, 0.0]]), 0)
    array([2., 1.])
    """
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    scale = np.asarray(np.abs(weight).max(axis=others).astype(np.float64) / 127)
    return usable_steps(scale, weight.dtype)


def usable_steps(steps: Array, dtype: np.dtype[Any]) -> Array:
    """Steps rounded to a dtype; 1 in place of one that is zero, or too small to keep its digits.

    A step of next to nothing stands for nothing but zeros, which any other gives too.

    >>> usable_steps(np.array([0.5, 0.0, 1e-320]), np.dtype("float32"))
    array([0.5, 1. , 1. ], dtype=float32)
    """
    return np.where(steps < np.finfo(dtype).tiny, 1.0, steps).astype(dtype)


def along(scale: Array, ndim: int, axis: int | None) -> Array:
    """Scales in the shape in which they divide an array: along an axis, or one for all."""
    shape = [1] * ndim
    if axis is not None:
        shape[axis] = -1
    return scale.reshape(shape)


def in_steps(source: Array, steps: Array, dtype: str) -> Array:
    """The source / steps, rounded, halves to even, and kept within the range of an integer dtype.

    The quotient has the larger dtype of the two.

    Args:
        source: floating point.
        steps: of the source's rank, that numpy 1 promotes dtypes as numpy 2 does.
        dtype: numpy's name.

    >>> in_steps(np.array([0.5, 1.5, 300.0]), np.array([1.0]), "int8")
    array([  0,   2, 127], dtype=int8)
    """
    bounds = np.iinfo(dtype)
    # In float32 the largest int32 would be rounded up, out of its range.
    quotient = np.round(source / steps).astype(np.float64)
    return np.clip(quotient, bounds.min, bounds.max).astype(dtype)
