"""The demo's network, in plain torch.nn: nothing in it knows of nesting."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., 2015, arXiv:1512.03385).

    Args:
        inputs: channels of the input.
        channels: channels of the output.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, channels, height / stride, width / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class DigitsNet(nn.Module):
    """A residual network for 8x8 images of digits: two stages, 170,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.stage1 = nn.Sequential(Block(32, 32), Block(32, 32))
        self.stage2 = nn.Sequential(Block(32, 64, stride=2), Block(64, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of shape (batch, 10) for images of shape (batch, 1, 8, 8)."""
        x = F.relu(self.bn(self.stem(image)))
        x = self.stage2(self.stage1(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
