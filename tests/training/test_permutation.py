from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.densenet import DenseNet
from nestedge.nested import nest
from nestedge.training.permutation import covers, moves_of, permutable, permuted


class Mixed(nn.Module):
    """A convolution and a linear layer, and what a case does between them.

    Args:
        mix: from eight channels to what the last layer reads.
    """

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.mix = nn.Conv2d(3, 8, 1), nn.Linear(8, 5), mix
        self.extra = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 5)."""
        logits: Tensor = self.last(self.mix(self.first(x)).mean((2, 3)))
        return logits


class Helped(Mixed):
    """One with a second head that only training has."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 5)."""
        logits = super().forward(x)
        return logits + self.extra(self.first(x).mean((2, 3))) if self.training else logits


def _ramp(x: Tensor) -> Tensor:
    return x * torch.arange(1.0, 9.0).view(8, 1, 1)


def _rotated(x: Tensor) -> Tensor:
    return x + torch.cat([-x[:, 4:], x[:, :4]], 1)


def _found(model: nn.Module) -> tuple[list[str], list[str]]:
    """The axes of the first layer, and those of them that can be permuted."""
    nested = nest(model, torch.zeros(2, 3, 4, 4), {})
    axes = [name for name in nested.nesting.axes if name.startswith("first")]
    return axes, permutable(nested, axes)


@pytest.mark.parametrize(
    "mix",
    [torch.relu, _rotated, lambda x: x * x.flip(1), lambda x: F.channel_shuffle(x, 2)],
    ids=["plain", "tied pairs", "flipped", "shuffled"],
)
def test_channels_that_only_weights_tell_apart_can_be_permuted(
    mix: Callable[[Tensor], Tensor],
) -> None:
    axes, found = _found(Mixed(mix))
    assert found == axes != []


def test_channels_in_a_running_sum_cannot_be_permuted() -> None:
    axes, found = _found(Mixed(lambda x: x.cumsum(1)))
    assert axes == ["first"]
    assert found == []


def test_channels_that_a_head_reads_only_in_training_cannot_be_permuted() -> None:
    axes, found = _found(Helped(torch.relu))
    assert axes == ["first"]
    assert found == []


def test_channels_that_a_ramp_tells_apart_are_no_axis_or_stay() -> None:
    _, found = _found(Mixed(_ramp))
    assert found == []


def test_an_axis_that_cannot_be_permuted_does_not_hold_back_others() -> None:
    model = nn.Sequential(Mixed(lambda x: x.cumsum(1)), nn.Linear(5, 7), nn.Linear(7, 2))
    nested = nest(model, torch.zeros(2, 3, 4, 4), {})
    assert permutable(nested, ["0.first", "0.last", "1"]) == ["0.last", "1"]


def test_every_unit_of_an_axis_moves_to_its_place_in_every_tensor() -> None:
    nested = nest(DenseNet((3, 1), 8), torch.zeros(2, 3, 8, 8), {})
    axis = nested.nesting.axes["stem"]
    order = torch.randperm(axis.size, generator=torch.Generator().manual_seed(0)).numpy()
    moves = moves_of(nested.nesting, {"stem": order})
    places = list(covers(nested.nesting, "stem"))
    assert len(places) > 5
    for tensor, dim, units in places:
        shape = [1] * len(nested.nesting.tensors[tensor].dims)
        shape[dim] = len(units)
        numbers = torch.arange(len(units)).reshape(shape)
        found = permuted(numbers, moves[tensor]).flatten()
        for place, unit in enumerate(units):
            expected = place if unit < 0 else int((units == order[unit]).argmax())
            assert found[place] == expected
