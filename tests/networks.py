"""Small networks that several test modules nest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.resnet import CifarResNet
from nestedge.levels import Level
from nestedge.nested import Card, NestedModel, nest

RESNET_LEVELS = {"small": Level(0.25, depth=(1, 2)), "medium": Level(0.5), "full": Level()}


def resnet(width: float = 1.0, *, depth: tuple[int, ...] | None = None) -> CifarResNet:
    """Eight convolutions for 8x8 images, in any width and depth."""
    return CifarResNet((2, 2), (16, 32), width=width, depth=depth, divisor=4)


def resnet_twins() -> dict[str, CifarResNet]:
    """The levels of RESNET_LEVELS, written by hand."""
    return {"small": resnet(0.25, depth=(1, 2)), "medium": resnet(0.5), "full": resnet()}


def nested_resnet(*, card: Card | None = None) -> NestedModel:
    """The network of `resnet`, nested in double precision, so that twins equal it closely."""
    model = resnet().double()
    redraw(model, seed=0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    return nest(model, images, RESNET_LEVELS, card=card or Card(divisor=4))


class Perceptron(nn.Module):
    """Two linear layers and dropout between them; in training it returns their size too."""

    def __init__(self, hidden: int = 16, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.first = nn.Linear(6, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of shape (batch, 3) for vectors of shape (batch, 6)."""
        features = self.dropout(F.relu(self.first(x)))
        found = {"logits": self.last(features)}
        return {**found, "activity": features.mean(1)} if self.training else found


def nested_perceptron(*, dropout: float = 0.5) -> NestedModel:
    """The perceptron with levels of 4, 8, 12 and 16 hidden units, in double precision."""
    model = Perceptron(dropout=dropout).double()
    redraw(model, seed=0)
    levels = {"tiny": 0.25, "small": 0.5, "medium": 0.75, "full": 1.0}
    return nest(model, torch.zeros(2, 6, dtype=torch.float64), levels, card=Card(divisor=4))


def logits_of(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a perceptron's output."""
    return output["logits"]


def cross_entropy(output: dict[str, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """The loss of a perceptron's output."""
    return F.cross_entropy(output["logits"], target)


def vectors(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a perceptron and their classes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(3, (count,), generator=generator)


def images(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a residual network and their classes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(10, (count,), generator=generator)
