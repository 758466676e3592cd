"""Tiny networks around one operator, in any width: a convolution, the operator, a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.nested import Card, NestedModel, nest

_STEMS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

WIDTHS = {"half": 0.5, "quarter": 0.25}


class Op(nn.Module):
    """A function of a module's parts and one value, as a module."""

    def __init__(self, function: Callable[[Any, Any], Any], **parts: object) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> Any:
        """The function's value."""
        return self.function(self, x)


def op(function: Callable[..., Any]) -> Callable[[int], nn.Module]:
    """A function of the value alone."""
    return lambda channels: Op(lambda parts, x: function(x))


def sized(function: Callable[..., Any]) -> Callable[[int], nn.Module]:
    """A function of the value and its number of channels."""
    return lambda channels: Op(lambda parts, x: function(x, channels))


def tokens(x: torch.Tensor) -> torch.Tensor:
    """A feature map of shape (batch, channels, ...) as (batch, pixels, channels)."""
    return x.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Case:
    """One operator in a tiny network.

    Attributes:
        make: the module around the operator for a number of channels.
        dims: spatial dimensions.
        head: what follows: a 1x1 convolution, a linear layer over the last dimension, or nothing.
        kept: "share": a level is the same network made narrower; "all": the operator needs every
            channel, so that a level is the full network; "some": narrower, but by no such rule.
        size: of the images.
        channels: of the full network.
    """

    make: Callable[[int], nn.Module]
    dims: int = 2
    head: Literal["conv", "linear", "none"] = "conv"
    kept: Literal["share", "all", "some"] = "share"
    size: int = 4
    channels: int = 16
    x: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (2, 3, *[self.size] * self.dims)
        object.__setattr__(self, "x", torch.randn(shape, generator=generator).double())


def _pointwise(dims: int) -> nn.Module:
    if dims == 1:
        return nn.LazyConv1d(4, 1)
    return nn.LazyConv2d(4, 1) if dims == 2 else nn.LazyConv3d(4, 1)


class Tiny(nn.Module):
    """A convolution, an operator and a head."""

    def __init__(self, case: Case, channels: int) -> None:
        super().__init__()
        self.stem = _STEMS[case.dims](3, channels, 3, padding=1)
        self.op = case.make(channels)
        heads: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: _pointwise(case.dims),
            "linear": lambda: nn.LazyLinear(4),
            "none": nn.Identity,
        }
        self.head = heads[case.head]()

    def forward(self, x: torch.Tensor) -> Any:
        """Whatever the head gives."""
        return self.head(self.op(self.stem(x)))


def tiny(case: Case, channels: int) -> Tiny:
    """A case's network with random weights, biases and statistics."""
    model = Tiny(case, channels).double().eval()
    with torch.no_grad():
        model(case.x)
    redraw(model, seed=0)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_().add_(0.5)
    return model


@cache
def nested_case(case: Case) -> NestedModel:
    """A case's network, nested at the widths of WIDTHS."""
    return nest(tiny(case, case.channels), case.x, WIDTHS, card=Card(divisor=1))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest value; infinite where a value is no number."""
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max())
    return error if error == error else float("inf")
