"""Pre-activation ResNet-50 with blocks left out, the nets of sparse structure selection.

He et al., 2016, arXiv:1603.05027; Huang and Wang, 2018, arXiv:1707.01213.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

_EXPANSION = 4


@dataclass(frozen=True)
class KeptBlocks:
    """What a selection keeps of one stage.

    Attributes:
        first: whether the block that changes the shape has its branch; without it the projection
            stays, and the norm and ReLU that feed it.
        others: blocks behind it.
    """

    first: bool
    others: int


RESNET_50 = tuple(KeptBlocks(first=True, others=n) for n in (2, 3, 5, 2))
"""All sixteen blocks."""

SELECTIONS = {
    "ResNet-41": (KeptBlocks(False, 0), *RESNET_50[1:]),
    "ResNet-32": (KeptBlocks(False, 0), RESNET_50[1], KeptBlocks(True, 3), KeptBlocks(True, 1)),
    "ResNet-26": (KeptBlocks(False, 0), KeptBlocks(False, 1), RESNET_50[2], KeptBlocks(True, 0)),
}
"""The published nets: of (3, 4, 6, 3) blocks they keep (0, 4, 6, 3), (0, 4, 4, 2), (0, 1, 6, 1)."""


class Bottleneck(nn.Module):
    """Norm, ReLU, convolution, three times, and a shortcut.

    Args:
        channels: (in, inner, out).
        stride: of the 3x3 convolution and of the shortcut.
        branches: whether there are convolutions beside the shortcut, which is a projection then
            in any case.
    """

    def __init__(self, channels: tuple[int, int, int], *, stride: int, branches: bool) -> None:
        super().__init__()
        first, inner, last = channels
        self.bn1 = nn.BatchNorm2d(first)
        self.projection = (
            nn.Conv2d(first, last, 1, stride=stride, bias=False) if first != last else None
        )
        self.branches = branches
        if branches:
            self.conv1 = nn.Conv2d(first, inner, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
            self.bn3 = nn.BatchNorm2d(inner)
            self.conv3 = nn.Conv2d(inner, last, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        active = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.projection is None else self.projection(active)
        if not self.branches:
            return shortcut
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        out: Tensor = self.conv3(F.relu(self.bn3(inner)))
        return shortcut + out


class SelectedResNet(nn.Module):
    """ResNet-50 with the blocks of a selection; module names are the full network's.

    Args:
        kept: what is kept of the four stages.
        num_classes: outputs.
        stem: channels of the first convolution and of the first stage's inner convolutions, 64.
    """

    def __init__(
        self,
        kept: tuple[KeptBlocks, ...] = RESNET_50,
        *,
        num_classes: int = 1000,
        stem: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.stages = nn.ModuleList()
        before = stem
        for stage, blocks in enumerate(kept):
            inner = stem * 2**stage
            out = _EXPANSION * inner
            entry = Bottleneck(
                (before, inner, out), stride=2 if stage else 1, branches=blocks.first
            )
            rest = [
                Bottleneck((out, inner, out), stride=1, branches=True) for _ in range(blocks.others)
            ]
            self.stages.append(nn.Sequential(entry, *rest))
            before = out
        self.bn = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, height, width)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        x = F.relu(self.bn(x)).mean((2, 3))
        logits: Tensor = self.fc(x)
        return logits
