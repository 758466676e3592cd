"""Conv-4, a small VGG (Frankle & Carbin, 2019, arXiv:1803.03635, figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Conv4(nn.Module):
    """Four convolutions, each pair with max pooling behind it, and three linear layers.

    Args:
        num_classes: outputs.
        pixels: height and width of the images, a multiple of 4.
    """

    def __init__(self, num_classes: int = 10, *, pixels: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * (pixels // 4) ** 2, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, pixels, pixels)."""
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        logits: Tensor = self.fc3(x)
        return logits
