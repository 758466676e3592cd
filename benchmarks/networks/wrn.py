"""Wide ResNet (Zagoruyko and Komodakis, 2016, arXiv:1605.07146), the nets of NestedNet's tables."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled

Shortcut = Literal["projection", "pad"]


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, and a shortcut.

    Args:
        channels: (in, inner, out).
        stride: of the first convolution and of the shortcut.
        shortcut: a 1x1 convolution where the shape changes, or zeros padded behind.
    """

    def __init__(self, channels: tuple[int, int, int], *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        first, inner, last = channels
        self.bn1 = nn.BatchNorm2d(first)
        self.conv1 = nn.Conv2d(first, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, last, 3, padding=1, bias=False)
        self.stride = stride
        self.missing = last - first
        self.projection = (
            nn.Conv2d(first, last, 1, stride=stride, bias=False)
            if shortcut == "projection"
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        if self.projection is not None:
            x = self.projection(active)
            return out + x
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.missing:
            x = F.pad(x, (0, 0, 0, 0, 0, self.missing))
        return out + x


class WideResNet(nn.Module):
    """WRN-layers-widen for CIFAR, with layers = 6 n + 2 as NestedNet counts them.

    With `shortcut="pad"` the channels of a stage are those of the stage before and, behind them,
    new ones: the two parts are rounded one by one.

    Args:
        layers: 6 n + 2 for n blocks a stage.
        widen: multiplies the channels of the three stages, 16, 32, 64; the stem has 16.
        num_classes: outputs.
        shortcut: what a block that changes the shape adds its result to.
        width: width multiplier; the stem is scaled too.
        depth: blocks kept in every stage, None for all.
        divisor: see `scaled`.

    Raises:
        ValueError: layers is not 6 n + 2.
    """

    def __init__(
        self,
        layers: int = 14,
        widen: int = 2,
        *,
        num_classes: int = 10,
        shortcut: Shortcut = "projection",
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        if layers < 8 or layers % 6 != 2:
            raise ValueError(f"layers must be 6 n + 2 with n >= 1, got {layers}")
        blocks_kept = kept_blocks(depth, ((layers - 2) // 6,) * 3)
        trunk = scaled(16, width, divisor=divisor)
        self.conv1 = nn.Conv2d(3, trunk, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        before = 16
        for stage, kept in enumerate(blocks_kept):
            planes = 16 * widen * 2**stage
            inner = scaled(planes, width, divisor=divisor)
            # Where nothing is missing there is nothing to project; padding by zero is the identity.
            changing: Shortcut = shortcut if planes != before else "pad"
            if changing == "projection":
                out = inner
            else:
                new = planes - before
                out = trunk + (scaled(new, width, divisor=divisor) if new else 0)
            entry = PreActivationBlock(
                (trunk, inner, out), stride=2 if stage else 1, shortcut=changing
            )
            rest = [
                PreActivationBlock((out, inner, out), stride=1, shortcut="pad")
                for _ in range(kept - 1)
            ]
            self.stages.append(nn.Sequential(entry, *rest))
            before, trunk = planes, out
        self.bn = nn.BatchNorm2d(trunk)
        self.fc = nn.Linear(trunk, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, 32, 32)."""
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        x = F.relu(self.bn(x))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
