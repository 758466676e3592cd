from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nestedge.building.cells import Level, prepare_level
from nestedge.building.checks import check_numbers, check_quantisable
from nestedge.errors import ConversionError
from nestedge.nested import nest


class Network(nn.Module):
    """A mask, a layer and a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.mask = nn.Parameter(torch.zeros(4))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4)."""
        y: torch.Tensor = (self.layer(x) + self.mask).softmax(1)
        return self.function(y)


def _level(network: Network) -> Level:
    return prepare_level(nest(network, torch.ones(2, 4), {"full": 1.0}), "full")


def _nothing_over_nothing(x: torch.Tensor) -> torch.Tensor:
    return (x - x) / (x - x)


def test_a_weight_that_is_no_number_is_named_with_its_operator() -> None:
    network = Network(torch.relu)
    with torch.no_grad():
        network.layer.weight[0, 0] = float("nan")
    level = _level(network)
    with pytest.raises(ConversionError, match=r"'layer\.weight' is not finite") as caught:
        check_numbers(level)
    assert caught.value.diagnosis.code == "not-finite-weight"
    assert caught.value.diagnosis.operator == "aten.linear.default"
    assert caught.value.diagnosis.source.startswith("layer (Linear), test_checks.py:")


def test_an_infinite_weight_that_does_no_harm_is_let_through_but_for_8_bits() -> None:
    network = Network(torch.relu)
    with torch.no_grad():
        network.mask[1] = -float("inf")
    level = _level(network)
    check_numbers(level)
    check_quantisable(level, "fp16")
    with pytest.raises(ConversionError, match=r"'mask' is not finite, and 8 bits"):
        check_quantisable(level, "int8")


def test_an_operator_that_gives_no_number_is_named() -> None:
    network = Network(_nothing_over_nothing)
    level = _level(network)
    with pytest.raises(ConversionError, match="no number for the example") as caught:
        check_numbers(level)
    assert caught.value.diagnosis.code == "not-finite-output"
    assert caught.value.diagnosis.operator == "aten.div.Tensor"


def test_a_level_of_numbers_is_let_through() -> None:
    level = _level(Network(torch.relu))
    check_numbers(level)
    check_quantisable(level, "int8")


def test_an_output_without_entries_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"the output 'output' has shape \(1, 0\)") as caught:
        check_numbers(_level(Network(lambda x: x[:, :0])))
    assert caught.value.diagnosis.code == "empty-tensor"
