"""Levels have the parameters and multiply-accumulates of the networks that papers list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import counting
from benchmarks.networks.redraw import redraw
from benchmarks.networks.sss import RESNET_50, SELECTIONS, KeptBlocks, SelectedResNet
from benchmarks.networks.wrn import Shortcut, WideResNet
from benchmarks.networks.wrn_levels import wide_level
from nestedge.cost import count_macs, count_parameters
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.program.graph import Program


def check_counts(
    program: Program, twin: nn.Module, size: int, *, more: tuple[int, int] = (0, 0)
) -> None:
    """A level's counts are those of the network written by hand, counted by hooks, and `more`."""
    parameters, macs = more
    assert count_parameters(program) == counting.count_parameters(twin) + parameters
    images = torch.zeros(1, 3, size, size)
    assert count_macs(program) == counting.count_macs(twin.eval(), images) + macs


@dataclass(frozen=True)
class Wide:
    """A WRN-layers-widen and how many parameters it has, by its shortcuts.

    NestedNet (Kim, Ahn and Oh, 2018) lists 7.4, 2.7, 0.47 and 0.18 million for CIFAR-100. Shortcuts
    without parameters give all four digits; with projections WRN-14-4 would have 2.8 million.
    """

    layers: int
    widen: int
    parameters: dict[Shortcut, int]

    @property
    def name(self) -> str:
        return f"WRN-{self.layers}-{self.widen}"

    def twin(self, shortcut: Shortcut) -> WideResNet:
        return WideResNet(self.layers, self.widen, num_classes=100, shortcut=shortcut)


WIDE = {
    "4-in-1": (
        Wide(32, 4, {"pad": 7_380_276, "projection": 7_422_260}),
        Wide(14, 4, {"pad": 2_730_036, "projection": 2_772_020}),
        Wide(32, 2, {"pad": 1_856_436, "projection": 1_867_188}),
        Wide(32, 1, {"pad": 470_004, "projection": 472_564}),
        Wide(14, 1, {"pad": 178_356, "projection": 180_916}),
    ),
    "hierarchy": (
        Wide(14, 8, {"pad": 10_841_652, "projection": 11_007_540}),
        Wide(14, 4, {"pad": 2_730_036, "projection": 2_772_020}),
    ),
}
PUBLISHED = {"WRN-32-4": "7.4", "WRN-14-4": "2.7", "WRN-32-1": "0.47", "WRN-14-1": "0.18"}
"""Millions of parameters, as the paper's table has them."""


@cache
def nested_wide(family: str, shortcut: Shortcut) -> NestedModel:
    full = WIDE[family][0].twin(shortcut)
    redraw(full, seed=0)
    levels = {
        wide.name: wide_level(wide.layers, wide.widen, full, shortcut=shortcut)
        for wide in WIDE[family]
    }
    return nest(full, torch.zeros(2, 3, 32, 32), levels, card=Card(divisor=1))


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize(
    ("family", "wide"),
    [pytest.param(name, wide, id=wide.name) for name, family in WIDE.items() for wide in family],
)
def test_a_level_of_a_wide_resnet_has_the_counts_of_nestednets_table(
    family: str, wide: Wide, shortcut: Shortcut
) -> None:
    nested = nested_wide(family, shortcut)
    program = harvest_level(nested, wide.name).level.program
    # The first stage of a WRN-x-1 has the stem's 16 channels and nothing to project. As a level of
    # a wider one it has that network's projection still, of 16 channels to 16.
    projects = shortcut == "projection" and wide.widen == 1
    more = (16 * 16, 16 * 16 * 32 * 32) if projects else (0, 0)
    assert count_parameters(program) == wide.parameters[shortcut] + more[0]
    check_counts(program, wide.twin(shortcut), 32, more=more)
    if shortcut == "pad" and wide.name in PUBLISHED:
        assert f"{wide.parameters[shortcut] / 1e6:.2g}" == PUBLISHED[wide.name]


def test_all_levels_of_the_four_in_one_network_lie_in_the_full_one() -> None:
    nested = nested_wide("4-in-1", "pad")
    order = nested.nesting.order()
    smaller = [wide.name for wide in WIDE["4-in-1"][1:]]
    assert {(name, "WRN-32-4") for name in smaller} <= set(order)
    assert ("WRN-14-1", "WRN-32-1") in order
    assert ("WRN-14-4", "WRN-32-2") not in order
    assert not nested.nesting.is_chain()


@pytest.mark.parametrize("name", ["WRN-14-4", "WRN-32-1", "WRN-14-1"])
def test_a_wide_resnets_level_computes_what_it_materialises_to(name: str) -> None:
    nested = nested_wide("4-in-1", "pad")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), nested.at(name):
        expected = nested(images)
        found = materialize(nested, name).module()(images)
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@dataclass(frozen=True)
class Selected:
    """A net of sparse structure selection (Huang and Wang, 2018) as a level of ResNet-50.

    Attributes:
        depth: blocks of every stage; the first one of a stage changes the shape and stays.
        silent: stages whose first block has a branch of zeros, of which the projection stays.
        parameters: batch norm's included.
        macs: of an image of 224 x 224.
        published: millions of parameters and billions of multiply-accumulates, as plotted by the
            authors. The parameters are those of convolutions and the classifier: with batch norm's
            25.351 and 18.654 millions would round to other digits.
    """

    depth: tuple[int, ...]
    silent: tuple[int, ...]
    parameters: int
    macs: int
    published: tuple[str, str]


SELECTED = {
    "ResNet-50": Selected((3, 4, 6, 3), (), 25_549_480, 4_089_184_256, ("25.5", "4.09")),
    "ResNet-41": Selected((1, 4, 6, 3), (0,), 25_351_080, 3_472_621_568, ("25.3", "3.47")),
    "ResNet-32": Selected((1, 4, 4, 2), (0,), 18_654_120, 2_817_523_712, ("18.6", "2.82")),
    "ResNet-26": Selected((1, 2, 6, 1), (0, 1), 15_619_496, 2_329_411_584, ("15.6", "2.33")),
}
KEPT: dict[str, tuple[KeptBlocks, ...]] = {"ResNet-50": RESNET_50, **SELECTIONS}


def selected_levels(full: SelectedResNet) -> dict[str, Level]:
    levels = {}
    for name, selected in SELECTED.items():
        silent = [f"stages.{stage}.0.conv3.weight" for stage in selected.silent]
        masks = {n: np.zeros(full.get_parameter(n).shape, dtype=bool) for n in silent}
        levels[name] = Level(depth=selected.depth, masks=masks)
    return levels


@cache
def nested_selected(size: int, stem: int) -> tuple[SelectedResNet, NestedModel]:
    full = SelectedResNet(stem=stem)
    redraw(full, seed=0)
    return full.eval(), nest(full, torch.zeros(2, 3, size, size), selected_levels(full))


@pytest.mark.parametrize("name", SELECTED)
def test_a_level_of_resnet_50_has_the_counts_of_sparse_structure_selection(name: str) -> None:
    selected = SELECTED[name]
    _, nested = nested_selected(224, 64)
    program = harvest_level(nested, name).level.program
    assert count_parameters(program) == selected.parameters
    assert count_macs(program) == selected.macs
    check_counts(program, SelectedResNet(KEPT[name]), 224)
    norms = sum(
        program.tensors[tensor].shape[0]
        for tensor in program.used_tensors()
        if ".bn" in f".{tensor}" and program.tensors[tensor].role == "parameter"
    )
    found = (f"{(selected.parameters - norms) / 1e6:.1f}", f"{selected.macs / 1e9:.2f}")
    assert found == selected.published


@pytest.mark.parametrize("name", SELECTED)
def test_a_selected_resnet_computes_what_its_twin_does(name: str) -> None:
    full, nested = nested_selected(64, 8)
    twin = SelectedResNet(KEPT[name], stem=8).eval()
    weights = full.state_dict()
    twin.load_state_dict({key: weights[key] for key in twin.state_dict()})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = twin(images)
        found = materialize(nested, name).module()(images)
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    silent = tuple(f"stages.{stage}.0" for stage in SELECTED[name].silent)
    assert harvest_level(nested, name).branches == silent
