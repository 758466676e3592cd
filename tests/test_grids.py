from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nestedge.expressions import (
    Expression,
    applied,
    batch_norm_scale,
    evaluate,
    masked,
    reshaped,
    scaled,
    stored,
    take,
    transposed,
)
from nestedge.grids import Grid, family_grid

Array = npt.NDArray[Any]

_RNG = np.random.default_rng(0)
TENSORS: dict[str, Array] = {
    "shared/w": _RNG.standard_normal((6, 4)).astype(np.float32),
    "shared/gamma": np.array([1.0, 2.0, 0.5, 3.0], np.float32),
    "shared/codes": np.arange(24, dtype=np.uint8).reshape(6, 4) % 2,
    "levels/small/w": _RNG.standard_normal((6, 4)).astype(np.float32),
    "levels/small/gamma": np.array([2.0, -1.0, 0.0], np.float32),
    "levels/small/var": np.array([1.0, 4.0, 1.0], np.float32),
    "levels/full/gamma": np.array([1.0, 1.0, 1.0, -3.0, 1.0, 1.0], np.float32),
    "levels/full/var": np.ones(6, np.float32),
}
W = stored("shared/w")
NARROW = take(take(W, 0, ((0, 2), (4, 5))), 1, ((0, 3),))
"""Rows 0, 1 and 4, without the last column."""
SMALL = batch_norm_scale(stored("levels/small/gamma"), stored("levels/small/var"), 0.0)
FULL = batch_norm_scale(stored("levels/full/gamma"), stored("levels/full/var"), 0.0)
ROWS = [0, 1, 4]


def _grid(weight: Expression, axis: int = 0) -> Grid:
    found = family_grid(weight, axis, TENSORS)
    assert found is not None
    return found


def _values(grid: Grid) -> Array:
    return evaluate(grid.values, TENSORS)


def test_a_level_has_the_whole_numbers_of_the_whole_network() -> None:
    narrow, full = _values(_grid(NARROW)), _values(_grid(W))
    assert narrow.dtype == np.int8
    assert np.array_equal(narrow, full[ROWS][:, :3])
    assert np.abs(full).max(axis=1).tolist() == [127] * 6


def test_the_factor_of_a_batch_norm_goes_into_the_step_and_its_sign_into_the_numbers() -> None:
    plain, folded = _grid(NARROW), _grid(scaled(NARROW, SMALL, 0))
    signs = np.array([[1], [-1], [0]], np.int8)
    assert np.array_equal(_values(folded), _values(plain) * signs)
    steps, before = (evaluate(grid.steps, TENSORS) for grid in (folded, plain))
    # The factors are 2, -1/2 and 0: what is switched off has any step.
    assert steps.tolist() == [2 * before[0], before[1] / 2, 1.0]
    whole = _grid(scaled(W, FULL, 0))
    assert np.array_equal(np.abs(_values(whole)), np.abs(_values(_grid(W))))


@pytest.mark.parametrize(
    ("weight", "axis"),
    [
        (NARROW, 0),
        (NARROW, 1),
        (scaled(NARROW, SMALL, 0), 0),
        (transposed(scaled(NARROW, SMALL, 0), (1, 0)), 1),
        (reshaped(scaled(NARROW, SMALL, 0), (3, 3, 1, 1)), 0),
        (reshaped(transposed(NARROW, (1, 0)), (1, 3, 3)), 2),
        (scaled(NARROW, take(stored("shared/gamma"), 0, ((0, 3),)), 1), 0),
        (masked(NARROW, take(take(stored("shared/codes"), 0, ((0, 3),)), 1, ((0, 3),)), (1,)), 0),
    ],
    ids=["rows", "columns", "folded", "transposed", "convolution", "moved", "inputs", "masked"],
)
def test_the_numbers_stand_for_the_weight_within_half_a_step(weight: Expression, axis: int) -> None:
    grid, expected = _grid(weight, axis), evaluate(weight, TENSORS)
    shape = [1] * expected.ndim
    shape[axis] = -1
    steps = evaluate(grid.steps, TENSORS).reshape(shape)
    found = evaluate(grid.weight, TENSORS)
    assert found.dtype == np.float32
    assert np.array_equal(found, (_values(grid) * steps.astype(np.float64)).astype(np.float32))
    assert (np.abs(found - expected) <= 0.501 * steps).all()


@pytest.mark.parametrize(
    "weight",
    [
        stored("levels/small/w"),
        applied(W, stored("shared/gamma"), None),
        scaled(NARROW, SMALL, 1),
        scaled(W, batch_norm_scale(None, stored("tiny"), 0.0), 0),
        reshaped(W, (4, 6)),
        reshaped(W, (3, 8)),
    ],
    ids=["its own", "computed", "own inputs", "next to nothing", "as another", "merged"],
)
def test_what_levels_do_not_share_has_no_grid(weight: Expression) -> None:
    # 1 / sqrt of it is 1e-40: the steps would lose their digits.
    tensors = {**TENSORS, "tiny": np.full(6, 1e80, np.float64)}
    assert family_grid(weight, 0, tensors) is None
