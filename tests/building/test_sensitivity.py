from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nestedge.building.cells import prepare_level
from nestedge.building.sensitivity import CASES, rank_layers
from nestedge.convert import LevelProgram
from tests.conversions import CASES as NETWORKS
from tests.outliers import BAD, nested_outlier, outlier_cases


def _level() -> LevelProgram:
    return prepare_level(nested_outlier(), "full").program


def test_the_layer_that_reads_an_outlier_is_the_first() -> None:
    found = rank_layers(_level(), outlier_cases())
    assert found[0].weight == BAD
    assert found[0].error > 10 * found[1].error
    assert {layer.weight for layer in found} == {"first.weight", BAD, "last.weight"}


def test_the_layer_whose_weight_has_an_outlier_is_the_first() -> None:
    level = _level()
    tensors = {name: tensor.clone() for name, tensor in level.tensors.items()}
    # Of every row one weight, which reads a unit that is made to be always zero.
    tensors["last.weight"][:, 0] = 1e4
    tensors["middle.weight"][0], tensors["middle.bias"][0] = 0, -1
    found = rank_layers(replace(level, tensors=tensors), outlier_cases(), weight_steps="level")
    assert found[0].weight == "last.weight"


def test_more_bits_between_layers_cost_less() -> None:
    coarse, fine = (
        {
            layer.weight: layer.error
            for layer in rank_layers(_level(), outlier_cases(), activation_bits=bits)
        }
        for bits in (8, 16)
    )
    assert fine[BAD] < coarse[BAD] / 100


def test_an_error_is_that_of_the_whole_network_with_one_layer_in_whole_numbers() -> None:
    level = _level()
    t = level.tensors
    cases = outlier_cases()["x"][:CASES]
    read = [
        F.relu(F.linear(torch.tensor(case), t["first.weight"], t["first.bias"])) for case in cases
    ]
    step = float(torch.cat(read).max()) / 255
    steps = t[BAD].abs().amax(1, keepdim=True) / 127
    weight = (t[BAD] / steps).round() * steps

    def answer(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(F.linear(value, weight, t["middle.bias"]))
        return F.linear(hidden, t["last.weight"], t["last.bias"])

    expected = 0.0
    for value in read:
        exact, found = answer(value, t[BAD]), answer((value / step).round() * step, weight)
        expected += float(((found - exact) ** 2).mean() / (exact**2).mean())
    found_error = next(s.error for s in rank_layers(level, outlier_cases()) if s.weight == BAD)
    assert found_error == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_layer_of_a_network_has_an_error(name: str) -> None:
    case = NETWORKS[name]()
    found = rank_layers(case.level, case.calibration)
    errors = [layer.error for layer in found]
    assert errors == sorted(errors, reverse=True)
    assert all(0 < error < np.inf for error in errors)
