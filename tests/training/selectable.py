"""Small networks whose channels, groups and blocks have scale factors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.sss import KeptBlocks, SelectedResNet
from nestedge.levels import Level
from nestedge.materialization import materialize
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.training.scale_factors import ScaleFactors
from tests.networks import images, resnet


class GroupedBlock(nn.Module):
    """A block of ResNeXt: four groups of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 8, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 6, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A feature map of the shape of its input."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(x + self.bn3(self.conv3(out)))


class Grouped(nn.Module):
    """Two blocks of ResNeXt for images of shape (batch, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.blocks = nn.Sequential(GroupedBlock(), GroupedBlock())
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10)."""
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def preactivation() -> SelectedResNet:
    """Two stages of two blocks, the first of each with a projection as its shortcut."""
    blocks = (KeptBlocks(first=True, others=1),) * 2
    return SelectedResNet(blocks, num_classes=10, stem=4)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "grouped": Grouped,
    "preactivation": preactivation,
}


def nested_in_double(model: nn.Module) -> NestedModel:
    """A network for 8x8 images without levels, in double precision and with arbitrary weights."""
    redraw(model, seed=0)
    return nest(model.double(), images(2)[0], {}, card=Card(divisor=1))


def set_factors(factors: ScaleFactors, name: str, values: dict[int, float]) -> None:
    """Give some factors of an axis or stage values, by the positions of their units."""
    for position, value in values.items():
        factors.factors()[name][position] = value


def difference(nested: NestedModel, level: str) -> float:
    """How far a level's materialised form is from the full network, relative to its largest."""
    nested.eval()
    inputs = images(4, seed=1)[0]
    with torch.no_grad():
        expected = nested(inputs)
        found = materialize(nested, level).module()(inputs)
    assert expected.abs().max() > 0.1
    return float((found - expected).abs().max() / expected.abs().max())


def add_selected(nested: NestedModel, factors: ScaleFactors, threshold: float = 0.0) -> Level:
    """Fold the factors and add the level "selected"."""
    factors.fold(nested)
    level = factors.kept(threshold)
    nested.add_level("selected", level)
    return level
