"""A small network that is hidden in a larger one comes back from materialising, and nothing else.

The larger network has more channels, groups and blocks, and wider kernels. Masks make what is more
of it dead: no layer reads it, or it is zero behind a ReLU. All other weights of the larger network,
those under the masks as well, are drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.networks import counting
from benchmarks.networks.redraw import redraw
from nestedge.cost import count_macs, count_parameters
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import nest
from tests.property.test_masked_networks import check_nothing_more

Kind = Literal["plain", "grouped", "depthwise"]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_SETTINGS = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a residual block.

    Attributes:
        kind: what its middle is.
        units: of its inner axis: channels, or groups of two channels.
        kernel: of its spatial convolution, odd.
        dilation: of the same.
    """

    kind: Kind
    units: int
    kernel: tuple[int, int]
    dilation: int

    @property
    def inner(self) -> int:
        return self.units * (2 if self.kind == "grouped" else 1)


def _spatial(first: int, last: int, shape: BlockShape, *, groups: int = 1) -> nn.Conv2d:
    padding = (shape.dilation * (shape.kernel[0] // 2), shape.dilation * (shape.kernel[1] // 2))
    return nn.Conv2d(
        first, last, shape.kernel, padding=padding, dilation=shape.dilation, groups=groups
    )


class Block(nn.Module):
    """X + a branch of two convolutions, the spatial one first, or three, the spatial one inside."""

    def __init__(self, trunk: int, shape: BlockShape) -> None:
        super().__init__()
        inner = shape.inner
        plain = shape.kind == "plain"
        self.first = _spatial(trunk, inner, shape) if plain else nn.Conv2d(trunk, inner, 1)
        self.norm = nn.BatchNorm2d(inner)
        if not plain:
            self.middle = _spatial(inner, inner, shape, groups=shape.units)
            self.inner_norm = nn.BatchNorm2d(inner)
        self.last = nn.Conv2d(inner, trunk, 1)
        self.plain = plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.norm(self.first(x)))
        if not self.plain:
            inner = F.relu(self.inner_norm(self.middle(inner)))
        branch: torch.Tensor = self.last(inner)
        return x + branch


class Residual(nn.Module):
    """A stem, blocks and a classifier."""

    def __init__(self, trunk: int, blocks: Mapping[str, BlockShape]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, trunk, 3, padding=1)
        self.blocks = nn.ModuleDict({name: Block(trunk, shape) for name, shape in blocks.items()})
        self.head = nn.Linear(trunk, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks.values():
            x = F.relu(block(x))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Growth:
    """How a block of the larger network is larger.

    Attributes:
        dead: units more on its inner axis.
        rings: of zeros around its kernel, in both dimensions.
        how: dead units are read by nothing, or they say nothing.
    """

    dead: int
    rings: tuple[int, int]
    how: Literal["unread", "silent"]


@dataclass(frozen=True)
class Planted:
    """A small network, and what is added to it.

    Attributes:
        trunk: channels of the residual stream, and dead ones more of it.
        blocks: the small network's blocks, with what each has more.
        dead: blocks that only the larger network has, in front of the block of that number.
        seed: of all weights and places.
    """

    trunk: tuple[int, int]
    blocks: tuple[tuple[BlockShape, Growth], ...]
    dead: tuple[tuple[int, BlockShape], ...]
    seed: int


_sizes = st.sampled_from([1, 3, 5])
_shapes = st.builds(
    BlockShape,
    kind=st.sampled_from(["plain", "grouped", "depthwise"]),
    units=st.integers(2, 4),
    kernel=st.tuples(_sizes, _sizes),
    dilation=st.integers(1, 2),
)
_growths = st.builds(
    Growth,
    dead=st.integers(0, 3),
    rings=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    how=st.sampled_from(["unread", "silent"]),
)
plants = st.builds(
    Planted,
    trunk=st.tuples(st.integers(2, 6), st.integers(0, 4)),
    blocks=st.lists(st.tuples(_shapes, _growths), min_size=1, max_size=3).map(tuple),
    dead=st.lists(st.tuples(st.integers(0, 3), _shapes), max_size=2).map(tuple),
    seed=st.integers(0, 1000),
)


@dataclass(frozen=True)
class Pair:
    """Both networks, and the masks under which the larger one is the smaller one."""

    small: Residual
    large: Residual
    masks: dict[str, Mask]


def _make(plant: Planted) -> Pair:
    live = {f"live{i}": shape for i, (shape, _) in enumerate(plant.blocks)}
    small = Residual(plant.trunk[0], live).double().eval()
    shapes: dict[str, BlockShape] = {}
    for i, (name, shape) in enumerate(live.items()):
        shapes |= {f"dead{i}-{j}": s for j, (at, s) in enumerate(plant.dead) if at == i}
        growth = plant.blocks[i][1]
        kernel = (shape.kernel[0] + 2 * growth.rings[0], shape.kernel[1] + 2 * growth.rings[1])
        shapes[name] = replace(shape, units=shape.units + growth.dead, kernel=kernel)
    large = Residual(sum(plant.trunk), shapes).double().eval()
    redraw(small, plant.seed)
    redraw(large, plant.seed + 1)
    masks = {name: np.ones(p.shape, dtype=bool) for name, p in large.named_parameters()}
    rng = np.random.default_rng(plant.seed)
    trunk = _places(rng, *plant.trunk)
    stem = {"stem.weight": (trunk, np.arange(3)), "stem.bias": (trunk,)}
    head = {"head.weight": (np.arange(5), trunk), "head.bias": (np.arange(5),)}
    for name, places in {**stem, **head}.items():
        _copy(small, large, name, places)
    _keep_only(masks["head.weight"], 1, trunk)
    for i, (shape, growth) in enumerate(plant.blocks):
        prefix = f"blocks.live{i}."
        block = _block_places(shape, _places(rng, shape.units, growth.dead), trunk)
        if growth.how == "silent":
            _silence(large.blocks[f"live{i}"])
        for name, where in block.items():
            _copy(small, large, prefix + name, where)
        own = {name: masks[prefix + name] for name in block if "running" not in name}
        _mask_block(own, shape, growth, block)
    for name in shapes:
        if name.startswith("dead"):
            masks[f"blocks.{name}.last.weight"][:] = False
            masks[f"blocks.{name}.last.bias"][:] = False
    return Pair(small, large, masks)


def _places(rng: np.random.Generator, live: int, dead: int) -> Indices:
    """Where among all units the live ones are, in ascending order."""
    return np.sort(rng.permutation(live + dead)[:live])


Places = dict[str, tuple[Indices, ...]]
"""For every tensor of a block where its channels are in the larger block's tensor."""


def _block_places(shape: BlockShape, units: Indices, trunk: Indices) -> Places:
    each = shape.inner // shape.units
    inner = (units[:, None] * each + np.arange(each)).reshape(-1)
    layers = {"first": (inner, trunk), "last": (trunk, inner)}
    norms = ["norm"]
    if shape.kind != "plain":
        layers["middle"] = (inner, np.arange(each))
        norms.append("inner_norm")
    places: Places = {}
    for layer, (rows, columns) in layers.items():
        places |= {f"{layer}.weight": (rows, columns), f"{layer}.bias": (rows,)}
    for norm in norms:
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            places[f"{norm}.{tensor}"] = (inner,)
    return places


def _silence(block: nn.Module) -> None:
    """Give every unit of a block a norm that makes less than zero of zero."""
    state = block.state_dict()
    norm = "inner_norm" if "inner_norm.bias" in state else "norm"
    state[f"{norm}.bias"].fill_(-0.5)
    state[f"{norm}.running_mean"].zero_()


def _copy(small: nn.Module, large: nn.Module, name: str, places: tuple[Indices, ...]) -> None:
    """Write a tensor of the small network where it is in the larger one; a kernel in the middle."""
    source, target = (m.state_dict()[name].numpy() for m in (small, large))
    kernel = zip(source.shape[len(places) :], target.shape[len(places) :], strict=True)
    middle = [np.arange(size) + (wider - size) // 2 for size, wider in kernel]
    target[np.ix_(*places, *middle)] = source


def _keep_only(mask: Mask, dim: int, kept: Indices) -> None:
    gone = np.setdiff1d(np.arange(mask.shape[dim]), kept)
    np.moveaxis(mask, dim, 0)[gone] = False


def _mask_block(
    masks: Mapping[str, Mask], shape: BlockShape, growth: Growth, places: Places
) -> None:
    """Masks that leave of a larger block what the small one has."""
    _keep_only(masks["first.weight"], 1, places["first.weight"][1])
    spatial = "first" if shape.kind == "plain" else "middle"
    inner = places["last.weight"][1]
    for dim, (size, rings) in enumerate(zip(shape.kernel, growth.rings, strict=True), start=2):
        _keep_only(masks[f"{spatial}.weight"], dim, np.arange(size) + rings)
    if growth.how == "unread":
        _keep_only(masks["last.weight"], 1, inner)
    else:
        _keep_only(masks[f"{spatial}.weight"], 0, inner)
        _keep_only(masks[f"{spatial}.bias"], 0, inner)


@_SETTINGS
@given(plants)
def test_a_planted_network_comes_back_and_nothing_else(plant: Planted) -> None:
    pair, images = _make(plant), torch.randn(2, 3, 7, 7, dtype=torch.float64)
    nested = nest(pair.large, images, {"planted": Level(masks=pair.masks)})
    found = harvest_level(nested, "planted")
    with torch.no_grad():
        expected = pair.small(images)
        with nested.at("planted"):
            torch.testing.assert_close(nested(images), expected, rtol=1e-9, atol=1e-9)
        result = materialize(nested, "planted").module()(images)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    assert count_parameters(found.level.program) == counting.count_parameters(pair.small)
    assert count_macs(found.level.program) == counting.count_macs(pair.small, images[:1])
    assert len(found.branches) == sum(at < len(plant.blocks) for at, _ in plant.dead)
    assert found.stayed == ()
    check_nothing_more(found)
