from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.networks import counting
from nestedge.cost import count_macs, count_parameters, peak_activation_bytes
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


class _Held(nn.Module):
    """The first of its values lives until the last node."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(8, 32)
        self.back = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.back(self.wide(x).relu())
        return x + y


class _Embedded(nn.Module):
    """Places of int64, a mask of bool, and a result that is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(5, 16)

    def forward(self, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.place(where)
        return torch.where(x > 0, x, 0.5 * x), x


class _Split(nn.Module):
    """Outputs that nothing reads are not there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.split(x, 2, dim=2)[0].relu()


# Numbers that are alive at the fullest moment, for X of 4 x 8 at a batch of 1.
ALIVE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "operand and result": (nn.ReLU, 32 + 32),
    "a chain frees what is behind it": (lambda: nn.Sequential(*[nn.ReLU()] * 9), 32 + 32),
    "the widest pair": (
        lambda: nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 64), nn.Linear(64, 3)),
        4 * 64 + 4 * 3,
    ),
    "a value held for later": (_Held, 32 + 4 * 32 + 4 * 32),
    "weights do not count": (lambda: nn.Linear(8, 1), 32 + 4),
    "a view": (nn.Flatten, 32 + 32),
    "a split that is read once": (_Split, 32 + 8),
}


@pytest.mark.parametrize(("make", "numbers"), list(ALIVE.values()), ids=list(ALIVE))
def test_what_is_alive_at_once_is_counted_by_hand(
    make: Callable[[], nn.Module], numbers: int
) -> None:
    program = nest(make(), X, {}).elastic.program
    assert peak_activation_bytes(program) == 4 * numbers
    assert peak_activation_bytes(program, batch=3) == 3 * 4 * numbers
    assert peak_activation_bytes(program, bytes_per_float=1) == numbers


def test_integers_have_their_own_size_and_outputs_live_to_the_end() -> None:
    program = nest(_Embedded(), torch.zeros(2, 3, dtype=torch.int64), {}).elastic.program
    # where, x and the result of a comparison; then x, the mask, the half and the output.
    assert [node.op.split(".")[1] for node in program.nodes] == ["embedding", "gt", "mul", "where"]
    x, mask = 3 * 16, 3 * 16
    assert peak_activation_bytes(program) == 4 * 3 * x + mask
    assert peak_activation_bytes(program, bytes_per_float=2) == 2 * 3 * x + mask
    tiny = nest(nn.Embedding(5, 1), torch.zeros(2, 3, dtype=torch.int64), {}).elastic.program
    assert peak_activation_bytes(tiny) == 8 * 3 + 4 * 3


def test_a_network_of_float64_takes_what_it_is_built_with() -> None:
    program = nest(nn.ReLU(), X.double(), {}).elastic.program
    assert peak_activation_bytes(program) == 4 * 64


def test_a_narrow_level_takes_less_memory_than_a_wide_one() -> None:
    nested = nested_resnet()
    peaks = [peak_activation_bytes(nested.plan(level).program) for level in RESNET_LEVELS]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]
