"""Branches that are always zero are bypassed, and only where that changes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import Card, nest


class Net(nn.Module):
    """Two convolutions of which the second is silent, combined in some way, and a third."""

    def __init__(self, combine: Callable[[Net, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.live = nn.Conv2d(3, 4, 3, padding=1)
        self.silent = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.last = nn.Conv2d(4, 2, 1)
        self.combine = combine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.combine(self, self.live(x), self.silent(x)))
        return y


Combine = Callable[[Net, torch.Tensor, torch.Tensor], torch.Tensor]

BYPASSED: dict[str, Combine] = {
    "behind": lambda n, live, zero: live + zero,
    "in front": lambda n, live, zero: zero + live,
    "taken away": lambda n, live, zero: live - zero,
    "scaled": lambda n, live, zero: torch.add(live, zero, alpha=3),
    "through a relu": lambda n, live, zero: live + 2 * F.relu(zero),
    "twice": lambda n, live, zero: (live + zero) + zero,
    "both ways": lambda n, live, zero: live + (zero - F.relu(zero)),
    "gated": lambda n, live, zero: live + zero * live.sigmoid(),
}
KEPT: dict[str, Combine] = {
    "a sum taken from zero": lambda n, live, zero: zero - live,
    "scaled itself": lambda n, live, zero: torch.add(zero, live, alpha=3),
    "broadcast along channels": lambda n, live, zero: live.mean(1, keepdim=True) + zero,
    "broadcast along the batch": lambda n, live, zero: torch.ones(1, 4, 6, 6).double() + zero,
    "not zero": lambda n, live, zero: live + zero.sigmoid(),
}


def _check(combine: Combine) -> tuple[str, ...]:
    """The branches that went, of a network that computes the same without them."""
    model = Net(combine).double()
    redraw(model, seed=0)
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    masks = {"silent.weight": np.zeros((4, 3, 3, 3), dtype=bool)}
    nested = nest(model.eval(), x, {"sparse": Level(masks=masks)}, card=Card(divisor=1))
    found = harvest_level(nested, "sparse")
    with torch.no_grad(), nested.at("sparse"):
        expected = nested(x)
        result = materialize(nested, "sparse").module()(x)
    assert result.shape == expected.shape
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    assert ("silent.weight" in found.level.tensors) == (not found.branches)
    assert set(found.level.program.tensors) == set(found.level.tensors)
    return found.branches


@pytest.mark.parametrize("combine", BYPASSED.values(), ids=BYPASSED)
def test_a_branch_of_zeros_goes_with_its_addition(combine: Combine) -> None:
    assert _check(combine)


@pytest.mark.parametrize("combine", KEPT.values(), ids=KEPT)
def test_a_sum_stays_where_the_summand_is_another_value_than_the_sum(combine: Combine) -> None:
    assert _check(combine) == ()


def test_a_sum_of_two_precisions_stays() -> None:
    assert _check(lambda n, live, zero: (live.float() + zero).double()) == ()


def test_a_constant_that_is_not_zero_is_added_still() -> None:
    assert _check(lambda n, live, zero: live + (zero + 1.0)) == ()


def test_dropped_blocks_are_not_reported_as_dead() -> None:
    model = nn.Sequential(*(_Block() for _ in range(3)), nn.Conv2d(3, 2, 1))
    mask = np.ones((2, 3, 1, 1), dtype=bool)
    mask[0, 0] = False
    level = Level(depth={"*": 1}, masks={"3.weight": mask})
    x = torch.randn(2, 3, 5, 5)
    nested = nest(model.eval(), x, {"short": level}, card=Card(divisor=1))
    found = harvest_level(nested, "short")
    assert (found.removed, found.branches) == ({}, ())
    assert not any(name.startswith("2.") for name in found.level.program.tensors)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.back = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.back(F.relu(self.conv(x)))
        return y
