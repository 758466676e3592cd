"""What the tests of further targets share: a small network of three levels."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.nested import Card, NestedModel, nest


class SmallCnn(nn.Module):
    """Two convolutions, a residual sum and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of shape (batch, 4) and features of shape (batch, 16)."""
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.relu(x + self.conv(x))
        features = x.mean((2, 3))
        return {"logits": self.head(features), "features": features}


def small_cnn() -> NestedModel:
    """`SmallCnn` with three levels, and inputs to calibrate int8 with."""
    model = SmallCnn()
    redraw(model, seed=0)
    images = torch.randn(8, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    levels = {"small": 0.25, "medium": 0.5, "full": 1.0}
    return nest(model, images[0], levels, card=Card(divisor=4), calibration=images[:, 0])
