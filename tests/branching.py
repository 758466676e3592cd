"""Networks of modules side by side, in every width and with any of their branches.

A twin is the same network made narrower and without some branches: of a sum their summands are
missing, of a concatenation their channels. Its tensors have the names that the whole network gives
them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def _some(kept: Collection[int] | None, count: int) -> list[int]:
    return sorted(range(count) if kept is None else kept)


def _named(modules: dict[int, nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({str(i): module for i, module in modules.items()})


def _perceptron(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Experts(nn.Module):
    """A mixture of three experts for vectors of shape (batch, 6), weighed by a softmax."""

    def __init__(
        self, width: float = 1.0, *, kept: Collection[int] | None = None, gates: str = "slice"
    ) -> None:
        super().__init__()
        self.gates = gates
        wide = round(8 * width)
        self.stem = nn.Linear(6, wide)
        self.gate = nn.Linear(wide, 3)
        self.experts = _named({i: _perceptron(wide, round(12 * width)) for i in _some(kept, 3)})
        self.head = nn.Linear(wide, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 3)."""
        x = self.stem(x)
        weights = F.softmax(self.gate(x), -1)
        found = {int(i): expert(x) for i, expert in self.experts.items()}
        if self.gates == "stack":
            alone = torch.zeros_like(x)
            stacked = torch.stack([found.get(i, alone) for i in range(3)], 1)
            mixed = (stacked * weights.unsqueeze(-1)).sum(1)
        elif self.gates == "einsum":
            alone = torch.zeros_like(x)
            stacked = torch.stack([found.get(i, alone) for i in range(3)], 1)
            mixed = torch.einsum("be,bed->bd", weights, stacked)
        else:
            parts = {
                "slice": [weights[:, i : i + 1] for i in range(3)],
                "unbind": [w.unsqueeze(1) for w in weights.unbind(1)],
                "select": [weights[:, i, None] for i in range(3)],
            }[self.gates]
            mixed = torch.as_tensor(sum(parts[i] * value for i, value in found.items()))
        logits: torch.Tensor = self.head(F.relu(mixed))
        return logits


class Inception(nn.Module):
    """Three branches of 4, 6 and 2 channels for images of shape (batch, 3, 8, 8), concatenated."""

    def __init__(self, width: float = 1.0, *, kept: Collection[int] | None = None) -> None:
        super().__init__()
        wide = round(8 * width)
        outputs = {0: round(4 * width), 1: round(6 * width), 2: round(2 * width)}
        branches = {
            0: nn.Sequential(nn.Conv2d(wide, outputs[0], 1), nn.ReLU()),
            1: nn.Sequential(
                nn.Conv2d(wide, wide, 1),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
                nn.Conv2d(wide, outputs[1], 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs[1]),
            ),
            2: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(wide, outputs[2], 1)),
        }
        some = _some(kept, 3)
        self.stem = nn.Conv2d(3, wide, 3, padding=1)
        self.block = _named({i: branches[i] for i in some})
        self.after = nn.Conv2d(sum(outputs[i] for i in some), wide, 1)
        self.head = nn.Linear(wide, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 5)."""
        x = self.stem(x)
        x = self.after(F.relu(torch.cat([branch(x) for branch in self.block.values()], 1)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class Pooled(nn.Module):
    """The mean of an image, everywhere."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, height, width)."""
        mean = self.layer(F.adaptive_avg_pool2d(x, 1))
        return F.interpolate(mean, size=x.shape[-2:], mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Atrous pooling: convolutions of rates 1, 2 and 3 and the mean of the image, concatenated."""

    def __init__(self, width: float = 1.0, *, kept: Collection[int] | None = None) -> None:
        super().__init__()
        wide, each = round(8 * width), round(4 * width)
        rates: dict[int, nn.Module] = {
            i: nn.Conv2d(wide, each, 3, padding=i + 1, dilation=i + 1) for i in range(3)
        }
        branches = {**rates, 3: Pooled(wide, each)}
        some = _some(kept, 4)
        self.stem = nn.Conv2d(3, wide, 3, padding=1)
        self.convs = _named({i: branches[i] for i in some})
        self.project = nn.Conv2d(each * len(some), 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map of shape (batch, 2, 8, 8)."""
        x = self.stem(x)
        found: torch.Tensor = self.project(torch.cat([conv(x) for conv in self.convs.values()], 1))
        return found


class Parallel(nn.Module):
    """What goes in, and three branches of it after a norm, each with a scale of its own."""

    def __init__(self, width: int, hidden: int, kept: Collection[int] | None) -> None:
        super().__init__()
        some = _some(kept, 3)
        self.norm = nn.LayerNorm(width)
        self.branches = _named({i: _perceptron(width, hidden) for i in some})
        self.scales = nn.ParameterDict({str(i): nn.Parameter(torch.randn(width)) for i in some})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape as `x`."""
        y = self.norm(x)
        for i, branch in self.branches.items():
            x = x + self.scales[i] * branch(y)
        return x


class Residuals(nn.Module):
    """Three residual blocks of three branches each for vectors of shape (batch, 6)."""

    def __init__(
        self, width: float = 1.0, *, kept: Collection[int] | None = None, depth: int = 3
    ) -> None:
        super().__init__()
        wide = round(8 * width)
        self.stem = nn.Linear(6, wide)
        self.blocks = nn.Sequential(
            *(Parallel(wide, round(12 * width), kept) for _ in range(depth))
        )
        self.head = nn.Linear(wide, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 3)."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return logits


def silence(module: nn.Module) -> None:
    """Let a module give zeros."""

    def zeros(module: nn.Module, args: Any, output: Any) -> Any:
        return torch.zeros_like(output)

    module.register_forward_hook(zeros)
