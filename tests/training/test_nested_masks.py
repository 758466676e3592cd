from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nestedge.errors import UsageError
from nestedge.training.nested_masks import LevelMasks, Scope, nested_masks, random_masks

Make = Callable[..., LevelMasks]
MAKERS: dict[str, Make] = {"magnitude": nested_masks, "random": partial(random_masks, seed=3)}
SCOPES: tuple[Scope, ...] = ("global", "layer")

# Few values, so that many weights are equal.
WEIGHTS = st.lists(st.integers(-3, 3), min_size=1, max_size=30).map(torch.tensor)
TENSORS = st.lists(WEIGHTS, min_size=1, max_size=4).map(
    lambda tensors: {f"layer{i}": tensor.float() for i, tensor in enumerate(tensors)}
)
DENSITIES = st.lists(st.floats(0.3, 1.0), min_size=1, max_size=4)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("scope", SCOPES)
@settings(max_examples=60, deadline=None)
@given(tensors=TENSORS, densities=DENSITIES, minimum=st.integers(1, 3))
def test_levels_nest_and_no_tensor_is_emptied(
    make: Make,
    scope: Scope,
    tensors: dict[str, torch.Tensor],
    densities: list[float],
    minimum: int,
) -> None:
    least = {name: min(minimum, tensor.numel()) for name, tensor in tensors.items()}
    total = sum(tensor.numel() for tensor in tensors.values())
    if scope == "global":
        densities = [max(density, sum(least.values()) / total) for density in densities]
    levels = {f"level{i}": density for i, density in enumerate(densities)}
    found = make(tensors, levels, scope=scope, minimum=minimum)
    assert list(found) == list(levels)
    for small, large in pairwise(sorted(levels, key=lambda level: levels[level])):
        assert all((found[large][name] >= mask).all() for name, mask in found[small].items())
    for level, masks in found.items():
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        assert all(counts[name] >= least[name] for name in tensors)
        if scope == "global":
            assert sum(counts.values()) == round(levels[level] * total)
        else:
            expected = {n: round(levels[level] * t.numel()) for n, t in tensors.items()}
            assert counts == {n: max(count, least[n]) for n, count in expected.items()}


@pytest.mark.parametrize(
    ("scope", "first", "second"),
    [
        ("global", [[1, 0], [0, 1]], [1, 0, 1, 1]),
        ("layer", [[1, 0], [0, 1]], [1, 0, 1, 0]),
    ],
)
def test_the_largest_weights_stay_and_of_equal_ones_the_first(
    scope: Scope, first: list[list[int]], second: list[int]
) -> None:
    tensors = {
        "first": torch.tensor([[-3.0, 2.0], [1.0, 2.5]]),
        "second": torch.tensor([-7.0, 0.0, 7.0, 2.25], dtype=torch.bfloat16),
    }
    density = 5 / 8 if scope == "global" else 0.5
    masks = nested_masks(tensors, {"level": density}, scope=scope)["level"]
    np.testing.assert_array_equal(masks["first"], np.array(first, dtype=bool))
    np.testing.assert_array_equal(masks["second"], np.array(second, dtype=bool))
    same = {"same": torch.ones(600)}
    found = nested_masks(same, {"level": 0.5}, scope=scope, minimum=200)["level"]["same"]
    assert found.tolist() == [True] * 300 + [False] * 300


def test_random_masks_follow_from_their_seed_alone() -> None:
    tensors = {"weight": torch.zeros(50, 4)}
    first, again, other = (
        random_masks(tensors, {"level": 0.5}, seed=seed)["level"]["weight"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # As a share of the rows: chance has no favourite.
    assert 0.3 < first[:25].mean() < 0.7


REFUSED: dict[str, tuple[dict[str, float], int, str]] = {
    "zero": ({"level": 0.0}, 1, "level 'level': expected 0 < density <= 1, found 0.0"),
    "more": ({"level": 1.5}, 1, "expected 0 < density <= 1, found 1.5"),
    "emptied": (
        {"big": 1.0, "level": 0.1},
        2,
        "level 'level': a density of 0.1 is 2 weights, fewer than 2 of every tensor: 4",
    ),
    "minimum": ({"level": 0.5}, 0, "minimum: expected 1 weight or more"),
}


@pytest.mark.parametrize(("densities", "minimum", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(densities: dict[str, float], minimum: int, message: str) -> None:
    tensors = {"first": torch.ones(10), "second": torch.ones(10)}
    with pytest.raises(UsageError, match=message):
        nested_masks(tensors, densities, minimum=minimum)
