"""DenseNet-BC for CIFAR (Huang et al., 2016, arXiv:1608.06993)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled

_BOTTLENECK = 4  # channels between the two convolutions, in growths


class DenseLayer(nn.Module):
    """What a layer adds behind its input: norm, ReLU, 1x1; norm, ReLU, 3x3.

    Args:
        channels: (in, inner, growth).
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        first, inner, growth = channels
        self.norm1 = nn.BatchNorm2d(first)
        self.conv1 = nn.Conv2d(first, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, in + growth, height, width)."""
        inner = self.conv1(F.relu(self.norm1(x)))
        new: Tensor = self.conv2(F.relu(self.norm2(inner)))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """Norm, ReLU, 1x1 convolution and 2x2 mean between two dense stages."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(first)
        self.conv = nn.Conv2d(first, last, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, last, height / 2, width / 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """Three dense stages with bottlenecks and transitions, 0.18 M parameters.

    Every concatenated piece is rounded on its own. A dropped layer takes its piece along; what
    the following transition has full width is counted on the full network, so that its outputs
    do not depend on the depth.

    Args:
        num_layers: layers of every dense stage.
        growth: channels that a layer adds.
        num_classes: outputs.
        width: width multiplier; the stem is scaled too.
        depth: layers kept in every dense stage, None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        num_layers: tuple[int, ...] = (4, 4, 4),
        growth: int = 16,
        *,
        num_classes: int = 10,
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        full, kept = 2 * growth, scaled(2 * growth, width, divisor=divisor)
        inner = scaled(_BOTTLENECK * growth, width, divisor=divisor)
        piece = scaled(growth, width, divisor=divisor)
        self.stem = nn.Conv2d(3, kept, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        layers_kept = kept_blocks(depth, num_layers)
        for stage, count in enumerate(layers_kept):
            layers = nn.Sequential()
            for index in range(count):
                layers.add_module(str(index), DenseLayer((kept, inner, piece)))
                kept += piece
            self.stages.append(layers)
            full += num_layers[stage] * growth
            if stage < len(num_layers) - 1:
                full //= 2
                halved = scaled(full, width, divisor=divisor)
                self.transitions.append(Transition(kept, halved))
                kept = halved
        self.norm = nn.BatchNorm2d(kept)
        self.classifier = nn.Linear(kept, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, 32, 32)."""
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index < len(self.transitions):
                x = self.transitions[index](x)
        x = F.relu(self.norm(x))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
