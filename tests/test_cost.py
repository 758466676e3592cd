from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.networks import counting
from nestedge.cost import count_macs, count_parameters
from nestedge.nested import nest
from tests.axes.small import Op
from tests.networks import RESNET_LEVELS, images, nested_resnet, resnet_twins

X = torch.zeros(2, 4, 8)

COUNTED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "conv": (lambda: nn.Conv1d(4, 6, 3, padding=1), 8 * 6 * 4 * 3),
    "grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2), 6 * 6 * 2 * 3),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 2, stride=2), 8 * 4 * 6 * 2),
    "grouped transposed": (lambda: nn.ConvTranspose1d(4, 6, 2, groups=2), 8 * 4 * 3 * 2),
    "linear": (lambda: nn.Linear(8, 5), 4 * 8 * 5),
    "matmul": (lambda: Op(lambda s, x: x @ x.transpose(1, 2)), 4 * 4 * 8),
    "bmm": (lambda: Op(lambda s, x: torch.bmm(x, x.transpose(1, 2))), 4 * 4 * 8),
    "mm": (lambda: Op(lambda s, x: x[:, 0].mm(s.w), w=torch.zeros(8, 3)), 8 * 3),
    "addmm": (
        lambda: Op(
            lambda s, x: torch.addmm(s.b, x[:, 0], s.w), w=torch.zeros(8, 3), b=torch.zeros(3)
        ),
        8 * 3,
    ),
    "baddbmm": (
        lambda: Op(lambda s, x: torch.baddbmm(s.b, x, x.transpose(1, 2)), b=torch.zeros(1, 4, 4)),
        4 * 4 * 8,
    ),
    "attention": (
        lambda: Op(lambda s, x: nn.functional.scaled_dot_product_attention(x, x[:, :3], x[:, :3])),
        4 * 3 * (8 + 8),
    ),
    "nothing": (nn.ReLU, 0),
}


@pytest.mark.parametrize(("make", "macs"), list(COUNTED.values()), ids=list(COUNTED))
def test_multiplications_are_counted_by_hand(make: Callable[[], nn.Module], macs: int) -> None:
    program = nest(make(), X, {}).elastic.program
    assert count_macs(program) == macs
    assert count_macs(program, batch=3) == 3 * macs


@pytest.mark.parametrize("level", RESNET_LEVELS)
def test_a_level_costs_what_its_twin_does(level: str) -> None:
    program = nested_resnet().plan(level).program
    twin = resnet_twins()[level].double()
    assert count_parameters(program) == counting.count_parameters(twin)
    assert count_macs(program) == counting.count_macs(twin, images(1)[0])


def test_buffers_are_no_parameters_and_a_shared_weight_counts_once() -> None:
    linear = nn.Linear(8, 8)
    model = nn.Sequential(linear, linear, nn.BatchNorm1d(4))
    assert count_parameters(nest(model, X, {}).elastic.program) == 8 * 8 + 8 + 8
