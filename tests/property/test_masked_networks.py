"""What masks leave of any network is removed exactly, once and for all."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.cost import count_macs, count_parameters
from nestedge.harvest import Harvest, harvest
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import nest
from tests.property.test_random_networks import Drawn, networks


def check_nothing_more(found: Harvest) -> None:
    """What is left of a harvest has nothing more to remove."""
    again = harvest(found.level)
    assert (again.removed, again.kernels, again.branches) == ({}, {}, ())
    assert again.stayed == found.stayed
    assert again.level.program.nodes == found.level.program.nodes
    assert count_parameters(again.level.program) == count_parameters(found.level.program)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(networks(), st.floats(0.0, 0.7), st.integers(0, 1000))
def test_what_a_mask_leaves_of_any_network_is_exact_no_larger_and_done_once(
    drawn: Drawn, share: float, seed: int
) -> None:
    model = drawn.model.double()
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    redraw(model, drawn.number)
    rng = np.random.default_rng(seed)
    masks = {}
    for name, parameter in model.named_parameters():
        mask = rng.random(parameter.shape) < 0.9
        mask[rng.random(len(mask)) < share] = False
        if mask.ndim > 2 and rng.random() < share:
            mask[:, :, [0, -1]] = False
        masks[name] = mask
    nested = nest(model, images, {"sparse": Level(masks=masks)})
    with torch.no_grad(), nested.at("sparse"):
        expected = nested(images)
        result = materialize(nested, "sparse").module()(images)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    found, whole = harvest_level(nested, "sparse"), nested.plan(None).program
    assert count_parameters(found.level.program) <= count_parameters(whole)
    assert count_macs(found.level.program) <= count_macs(whole)
    check_nothing_more(found)


def test_a_materialised_level_that_is_nested_again_keeps_its_size() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.ReLU()
    )
    redraw(model, seed=1)
    images = torch.randn(2, 3, 8, 8)
    rng = np.random.default_rng(1)
    masks = {n: rng.random(p.shape) < 0.9 for n, p in model.named_parameters() if p.dim() > 1}
    masks["0.weight"][:, :, [0, 4]] = False
    masks["2.weight"][:, :3] = False
    nested = nest(model.eval(), images, {"once": Level(masks=masks)})
    once = _Loaded(torch.export.unflatten(materialize(nested, "once")))
    found = {name: (p != 0).numpy() for name, p in once.named_parameters()}
    assert found["network.0.weight"].shape == (5, 3, 3, 5)
    assert not found["network.0.weight"].all()
    again = harvest_level(nest(once, images, {"twice": Level(masks=found)}), "twice")
    sizes = {name: tuple(p.shape) for name, p in once.named_parameters()}
    assert {n: spec.shape for n, spec in again.level.program.tensors.items()} == sizes
    assert (again.removed, again.kernels) == ({}, {})


class _Loaded(nn.Module):
    """A materialised level, with a name for its input, which `torch.export` leaves without one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.network(x)
        return y
