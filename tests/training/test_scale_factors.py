from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nestedge.cost import count_parameters
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import harvest_level, level_program
from nestedge.model import NestedModel
from nestedge.nestfile import load
from nestedge.training.scale_factors import ScaleFactors, add_scale_factors
from tests.networks import images, nested_resnet
from tests.training.selectable import (
    NETWORKS,
    add_selected,
    difference,
    nested_in_double,
    set_factors,
)


@pytest.fixture(scope="module")
def originals() -> dict[str, NestedModel]:
    return {name: nested_in_double(make()) for name, make in NETWORKS.items()}


@pytest.fixture
def networks(originals: dict[str, NestedModel]) -> dict[str, NestedModel]:
    return copy.deepcopy(originals)


def _scatter(factors: ScaleFactors, seed: int = 0) -> None:
    """Arbitrary factors, about a third of them zero."""
    generator = torch.Generator().manual_seed(seed)
    for vector in factors.factors().values():
        drawn = torch.rand(vector.shape, generator=generator, dtype=vector.dtype) * 1.5 - 0.5
        vector.copy_(drawn.clamp(min=0))


def test_factors_begin_as_one_and_change_nothing(networks: dict[str, NestedModel]) -> None:
    inputs = images(2)[0]
    for nested in networks.values():
        with torch.no_grad():
            before = nested(inputs)
            factors = add_scale_factors(nested)
            assert torch.equal(nested(inputs), before)
        assert factors.counts() == {c.name: len(c.units) for c in factors.candidates}


@pytest.mark.parametrize(
    ("network", "name", "position", "module", "channels"),
    [
        pytest.param("resnet", "layer1.0.conv1", 3, "layer1.0.bn1", [3], id="neuron"),
        pytest.param("grouped", "blocks.1.conv1", 2, "blocks.1.bn2", [4, 5], id="group"),
        pytest.param("resnet", "layer2", 1, "layer2.1.bn2", range(32), id="block"),
        pytest.param("preactivation", "stages.1", 0, "stages.1.0.conv3", range(32), id="preact"),
    ],
)
def test_a_factor_multiplies_the_output_of_its_structure(
    networks: dict[str, NestedModel],
    network: str,
    name: str,
    position: int,
    module: str,
    channels: list[int],
) -> None:
    model = NETWORKS[network]().double()
    model.load_state_dict(networks[network].shared.state_dict())
    factors = add_scale_factors(networks[network])
    set_factors(factors, name, {position: 0.25})
    weight = model.get_parameter(f"{module}.weight")
    scales = torch.ones(len(weight), dtype=torch.float64)
    scales[list(channels)] = 0.25

    def scale(_module: nn.Module, _inputs: Any, output: Any) -> torch.Tensor:
        scaled: torch.Tensor = output * scales.reshape(-1, 1, 1)
        return scaled

    model.get_submodule(module).register_forward_hook(scale)
    inputs = images(4)[0]
    with torch.no_grad():
        for training in (False, True):
            expected = model.train(training)(inputs)
            found = networks[network].train(training)(inputs)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_gradients_reach_factors_and_weights(networks: dict[str, NestedModel]) -> None:
    nested = networks["grouped"]
    factors = add_scale_factors(nested)
    nested(images(2)[0]).square().sum().backward()
    assert all(vector.grad is not None and vector.grad.all() for vector in factors.vectors)
    assert all(parameter.grad is not None for parameter in nested.shared.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_folding_changes_no_bit_of_the_output(
    networks: dict[str, NestedModel], network: str, tmp_path: Path
) -> None:
    nested = networks[network]
    names = list(nested.state_dict())
    factors = add_scale_factors(nested)
    _scatter(factors)
    inputs = images(2)[0]
    with torch.no_grad():
        before = nested(inputs)
        with pytest.raises(UsageError, match="fold them into the weights first"):
            nested.save(tmp_path / "before.nest")
        factors.fold(nested)
        assert torch.equal(nested(inputs), before)
        nested.save(tmp_path / "after.nest")
        assert torch.equal(load(tmp_path / "after.nest")(inputs), before)
    assert list(nested.state_dict()) == names


@pytest.mark.parametrize("network", NETWORKS)
def test_the_level_at_threshold_zero_computes_what_the_network_does_with_less(
    networks: dict[str, NestedModel], network: str
) -> None:
    nested = networks[network]
    factors = add_scale_factors(nested)
    _scatter(factors)
    assert any(count < len(factors.factors()[name]) for name, count in factors.counts().items())
    nested.add_level("whole", Level())
    add_selected(nested, factors)
    assert difference(nested, "selected") < 1e-10
    whole, selected = (count_parameters(level_program(nested, n).program) for n in nested.levels)
    assert selected < 0.8 * whole


def test_a_trunk_that_is_named_goes_exactly_too(networks: dict[str, NestedModel]) -> None:
    nested = networks["resnet"]
    factors = add_scale_factors(nested, {"neurons": "conv1"})
    set_factors(factors, "conv1", {2: 0.0, 5: 0.0})
    level = add_selected(nested, factors)
    assert isinstance(level.width, dict)
    kept = level.width["conv1"]
    assert isinstance(kept, Sequence)
    assert set(range(16)).difference(kept) == {2, 5}
    assert difference(nested, "selected") < 1e-10


@pytest.mark.parametrize(
    ("network", "stage", "dead", "depth", "branches"),
    [
        pytest.param("resnet", "layer1", [1], {"layer1": [0]}, (), id="one of two"),
        pytest.param("resnet", "layer1", [0, 1], {"layer1": [0]}, ("layer1.0",), id="all"),
        pytest.param("resnet", "layer2", [0], {}, ("layer2.0",), id="changes the shape"),
        pytest.param(
            "preactivation", "stages.1", [0, 1], {"stages.1": [0]}, ("stages.1.0",), id="projection"
        ),
    ],
)
def test_a_dead_block_goes_and_one_that_has_to_stay_loses_its_branch(
    networks: dict[str, NestedModel],
    network: str,
    stage: str,
    dead: list[int],
    depth: dict[str, list[int]],
    branches: tuple[str, ...],
) -> None:
    nested = networks[network]
    factors = add_scale_factors(nested, {"blocks": "*"})
    set_factors(factors, stage, dict.fromkeys(dead, 0.0))
    level = add_selected(nested, factors)
    assert level.depth == depth
    harvested = harvest_level(nested, "selected")
    assert harvested.branches == branches
    left = harvested.level.program.used_tensors()
    assert not [name for name in left for path in branches if name.startswith(f"{path}.conv3")]
    assert difference(nested, "selected") < 1e-10


def test_a_tensor_of_two_structures_is_multiplied_by_both_factors(
    networks: dict[str, NestedModel],
) -> None:
    nested = networks["resnet"]
    factors = add_scale_factors(nested, {"neurons": "conv1", "blocks": "layer1.1"})
    set_factors(factors, "conv1", {2: 0.25})
    set_factors(factors, "layer1", {0: 0.5})
    before = nested.shared.get_parameter("layer1.1.bn2.bias").detach().clone()
    factors.fold(nested)
    share = nested.shared.get_parameter("layer1.1.bn2.bias").detach() / before
    assert share.tolist() == pytest.approx([0.125 if unit == 2 else 0.5 for unit in range(16)])


def test_a_layer_whose_factors_are_all_zero_keeps_one_unit_and_is_named(
    networks: dict[str, NestedModel],
) -> None:
    nested = networks["resnet"]
    factors = add_scale_factors(nested, {"neurons": "layer1.*"})
    factors.factors()["layer1.0.conv1"].zero_()
    assert factors.spared() == ("layer1.0.conv1",)
    level = add_selected(nested, factors)
    assert level.width == {"layer1.0.conv1": [0]}
    assert difference(nested, "selected") < 1e-10
    factors.factors()["layer1.1.conv1"].copy_(torch.linspace(0, 0.5, 16))
    assert factors.kept(0.5).width == {"layer1.0.conv1": [0], "layer1.1.conv1": [15]}
    assert factors.spared(0.5) == ("layer1.0.conv1", "layer1.1.conv1")


@pytest.mark.parametrize("network", NETWORKS)
def test_levels_of_growing_thresholds_lie_in_each_other(
    networks: dict[str, NestedModel], network: str
) -> None:
    nested = networks[network]
    factors = add_scale_factors(nested)
    _scatter(factors, seed=3)
    factors.fold(nested)
    levels = factors.levels({"s": 0.6, "l": 0.0, "m": 0.4, "none": 2.0})
    assert list(levels) == ["l", "m", "s", "none"]
    for name, level in levels.items():
        nested.add_level(name, level)
    names = list(levels)
    expected = {(small, big) for i, big in enumerate(names) for small in names[i + 1 :]}
    assert expected <= set(nested.nesting.order())
    sizes = [count_parameters(level_program(nested, name).program) for name in names]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_a_level_above_zero_is_the_network_with_factors_below_the_threshold_at_zero(
    networks: dict[str, NestedModel],
) -> None:
    nested = networks["resnet"]
    factors = add_scale_factors(nested)
    _scatter(factors)
    level = factors.kept(0.5)
    assert not factors.spared(0.5)
    for vector in factors.factors().values():
        vector[vector <= 0.5] = 0
    factors.fold(nested)
    nested.add_level("selected", level)
    assert difference(nested, "selected") < 1e-10


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_a_threshold_that_is_no_magnitude_is_refused(
    networks: dict[str, NestedModel], threshold: float
) -> None:
    factors = ScaleFactors(networks["grouped"])
    with pytest.raises(UsageError, match="threshold: expected 0 or more and finite, found"):
        factors.kept(threshold)


def test_factors_that_are_no_view_cannot_be_folded(networks: dict[str, NestedModel]) -> None:
    factors = add_scale_factors(networks["grouped"])
    with pytest.raises(UsageError, match="not among the network's views"):
        factors.fold(networks["resnet"])
    factors.fold(networks["grouped"])
    with pytest.raises(UsageError, match="folded already"):
        factors.fold(networks["grouped"])


def test_levels_with_batch_norms_of_their_own_are_refused() -> None:
    nested = nested_resnet()
    with pytest.raises(UsageError, match=r"levels \['small', 'medium'\] have batch norms of their"):
        add_scale_factors(nested)
    assert not nested.views


def test_the_factors_are_part_of_the_networks_state(networks: dict[str, NestedModel]) -> None:
    nested = networks["grouped"]
    other = copy.deepcopy(nested)
    factors = add_scale_factors(nested)
    _scatter(factors)
    again = add_scale_factors(other)
    other.load_state_dict(nested.state_dict())
    assert again.counts() == factors.counts()
    assert all(
        np.array_equal(again.factors()[name], vector) for name, vector in factors.factors().items()
    )
