"""A network that 8 bits ruin at one layer: one number that it reads is far too large."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nestedge.nested import Card, NestedModel, nest
from nestedge.profiling.labelled import LabelledData

BAD = "middle.weight"
"""The weight of that layer."""


class Outlier(nn.Module):
    """Three linear layers; a unit of the first is thousands of times as large as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.middle = nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 3) for vectors of shape (batch, 6)."""
        logits: Tensor = self.last(F.relu(self.middle(F.relu(self.first(x)))))
        return logits


@cache
def outlier_data() -> LabelledData:
    """Vectors, labelled as the network answers."""
    inputs = _inputs()
    with torch.no_grad():
        return LabelledData(inputs.numpy(), _network()(inputs).argmax(1).numpy())


def nested_outlier() -> NestedModel:
    """The network, with the level "full", and calibration data."""
    nested = nest(_network(), torch.zeros(2, 6), {"full": 1.0}, card=Card(divisor=4))
    nested.calibrate_with(_inputs()[:32])
    return nested


def outlier_cases() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Its calibration data as converters get it."""
    return {"x": _inputs()[:32, None].numpy()}


def _inputs() -> Tensor:
    return torch.randn(200, 6, generator=torch.Generator().manual_seed(1))


def _network() -> Outlier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Outlier().eval()
    with torch.no_grad():
        model.first.weight[0] *= 3000
        model.first.bias[0] = 3000
        # Next to nothing comes of it.
        model.middle.weight[:, 0] *= 1e-5
        model.last.bias.sub_(model(_inputs()).mean(0))
    return model
