from __future__ import annotations

import torch
from torch import nn

from benchmarks.networks import counting
from nestedge.inspection import inspect
from nestedge.levels import Level
from nestedge.nested import Card, nest
from tests.networks import images, nested_resnet, resnet_twins


def test_every_level_is_described_as_its_twin() -> None:
    nested = nested_resnet()
    found = inspect(nested)
    assert list(found.levels) == ["small", "medium", "full"]
    for name, twin in resnet_twins().items():
        assert found.levels[name].parameters == counting.count_parameters(twin)
        macs = counting.count_macs(twin.double(), images(1)[0])
        assert found.levels[name].macs == macs
    assert found.stored_parameters == sum(p.numel() for p in nested.parameters())


def test_levels_inside_others_and_blocks_are_listed() -> None:
    found = inspect(nested_resnet())
    assert found.levels["small"].inside == ("medium", "full")
    assert found.levels["full"].inside == ()
    assert found.is_chain
    assert found.levels["small"].blocks == {"layer1": (1, 2), "layer2": (2, 2)}
    assert found.levels["full"].blocks == {"layer1": (2, 2), "layer2": (2, 2)}


def test_axes_are_cut_at_the_widths_of_all_levels() -> None:
    found = inspect(nested_resnet())
    assert found.axes["layer1.0.conv1"] == (0, 4, 8, 16)
    assert "layer1" not in found.axes
    nesting = nested_resnet().nesting
    assert found.tiles == sum(nesting.tiles(tensor) for tensor in nesting.tensors)


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 10))


def test_widths_that_are_no_multiple_of_eight_are_reported() -> None:
    levels = {"odd": Level({"0": 13}), "even": Level({"0": 16}), "full": Level()}
    found = inspect(nest(_perceptron(), torch.zeros(2, 4), levels, card=Card(divisor=1)))
    assert found.levels["odd"].wasted == {"0": 13}
    assert found.levels["even"].wasted == {}
    # The ten logits are no choice of a level's.
    assert found.levels["full"].wasted == {}


def test_levels_of_different_shape_are_no_chain() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    levels = {"a": Level({"0": 4}), "b": Level({"2": 4})}
    found = inspect(nest(model, torch.zeros(2, 4), levels, card=Card(divisor=1)))
    assert not found.is_chain
    assert found.levels["a"].inside == ()
