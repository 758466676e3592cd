from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from glob import escape

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.cost import count_macs, count_parameters
from nestedge.levels import Level
from nestedge.materialization import materialize
from nestedge.nested import Card, nest


class _Excite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, max(1, channels // 2), 1)
        self.up = nn.Conv2d(max(1, channels // 2), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate: torch.Tensor = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        parts = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        out: torch.Tensor = self.out(mixed.reshape(batch, height * width, channels))
        return x + out.transpose(1, 2).reshape(batch, channels, height, width)


class _Sum(nn.Module):
    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one = one
        self.other = other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.one(x) + self.other(x))


class _Concat(_Sum):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), F.relu(x), self.other(x)], 1)


class _Parts(nn.Module):
    """One part of the channels gates the other, in front of which the rest passes."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = x.split_with_sizes(self.sizes, 1)
        return torch.cat([third, first * second.mean(1, keepdim=True).sigmoid()], 1)


def _conv(first: int, last: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(first, last, 3, padding=1, groups=groups)


Layer = tuple[nn.Module, int]
"""A layer and its number of output channels."""


def _convolution(draw: st.DrawFn, channels: int) -> Layer:
    last = draw(st.sampled_from([4, 6, 8, 12]))
    return _conv(channels, last), last


def _grouped(draw: st.DrawFn, channels: int) -> Layer:
    groups = draw(st.sampled_from([g for g in (2, 3, 4, 6) if channels % g == 0] or [channels]))
    last = groups * draw(st.integers(1, 3))
    return _conv(channels, last, groups), last


def _depthwise(draw: st.DrawFn, channels: int) -> Layer:
    return _conv(channels, channels, channels), channels


def _norm(draw: st.DrawFn, channels: int) -> Layer:
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if channels % g == 0]))
    norms: list[Callable[[], nn.Module]] = [
        lambda: nn.BatchNorm2d(channels),
        lambda: nn.GroupNorm(groups, channels),
        lambda: nn.InstanceNorm2d(channels, affine=True),
        lambda: nn.PReLU(channels),
    ]
    return draw(st.sampled_from(norms))(), channels


def _sum(draw: st.DrawFn, channels: int) -> Layer:
    last = draw(st.sampled_from([4, 6, 8]))
    other = _grouped if draw(st.booleans()) else _convolution
    branch, middle = other(draw, channels)
    two = nn.Sequential(branch, nn.ReLU(), _conv(middle, last))
    same = nn.Identity() if channels == last and draw(st.booleans()) else _conv(channels, last)
    return _Sum(two, same), last


def _concat(draw: st.DrawFn, channels: int) -> Layer:
    one, two = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    return _Concat(_conv(channels, one), _conv(channels, two)), one + channels + two


def _parts(draw: st.DrawFn, channels: int) -> Layer:
    first = draw(st.integers(1, channels - 2))
    second = draw(st.integers(1, channels - first - 1))
    return _Parts((first, second, channels - first - second)), channels - second


def _excite(draw: st.DrawFn, channels: int) -> Layer:
    return _Excite(channels), channels


def _attention(draw: st.DrawFn, channels: int) -> Layer:
    heads = draw(st.sampled_from([h for h in (1, 2, 3, 4) if channels % h == 0]))
    return _Attention(channels, heads), channels


def _shuffle(draw: st.DrawFn, channels: int) -> Layer:
    if channels % 4:
        return nn.Hardswish(), channels
    return nn.Sequential(nn.PixelShuffle(2), nn.AvgPool2d(2)), channels // 4


LAYERS = [_convolution, _grouped, _depthwise, _norm, _sum, _concat, _parts, _excite, _attention]


@dataclass(frozen=True)
class Drawn:
    """A random network and the share of every axis that its level keeps."""

    model: nn.Module
    width: float
    number: int


@st.composite
def networks(draw: st.DrawFn) -> Drawn:
    """A few random layers between a convolution and logits."""
    layers: list[nn.Module] = []
    channels = draw(st.sampled_from([4, 6, 8, 12]))
    layers.append(_conv(3, channels))
    for _ in range(draw(st.integers(1, 4))):
        made = draw(st.sampled_from([*LAYERS, _shuffle] if channels >= 8 else LAYERS))
        if made is _parts and channels < 3:
            continue
        layer, channels = made(draw, channels)
        layers.append(layer)
        if draw(st.booleans()):
            layers.append(nn.ReLU())
    if draw(st.booleans()):
        layers += [nn.MaxPool2d(2), nn.Flatten(1), nn.Linear(channels * 4, 5)]
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, 5)]
    width = draw(st.floats(0.1, 1.0))
    return Drawn(nn.Sequential(*layers).eval(), width, draw(st.integers(0, 1000)))


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(networks())
def test_a_level_of_any_network_is_its_materialised_program_and_no_larger(drawn: Drawn) -> None:
    model = drawn.model.double()
    redraw(model, seed=drawn.number)
    images = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    nested = nest(model, images, {}, card=Card(divisor=1))
    # A share that leaves less than half a unit is refused: every axis keeps one at least.
    width = {
        escape(name): max(1, round(drawn.width * axis.size))
        for name, axis in nested.nesting.axes.items()
        if axis.kind == "width"
    }
    nested.add_level("level", Level(width))
    with torch.no_grad():
        assert torch.allclose(nested(images), model(images), rtol=1e-9, atol=1e-9)
        with nested.at("level"):
            expected = nested(images)
        found = materialize(nested, "level").module()(images)
    assert expected.shape == (3, 5)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    full, level = nested.plan(None).program, nested.plan("level").program
    assert count_parameters(level) <= count_parameters(full)
    assert count_macs(level) <= count_macs(full)
    axes = nested.nesting.axes
    removed = any(width.get(escape(name), axis.size) < axis.size for name, axis in axes.items())
    assert removed == (count_parameters(level) < count_parameters(full))
