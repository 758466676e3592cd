"""ResNet for CIFAR (He et al., 2015, arXiv:1512.03385, section 4.2) with option-A shortcuts."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled


@dataclass(frozen=True)
class _Padding:
    """Zero channels that a parameter-free shortcut puts around the ones it carries."""

    front: int
    behind: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Args:
        channels: (in, inner, out); without padding, in equals out.
        stride: of the first convolution and of the shortcut.
        padding: zero channels around the shortcut's own; their sum is out - in.
    """

    def __init__(
        self, channels: tuple[int, int, int], *, stride: int, padding: _Padding | None
    ) -> None:
        super().__init__()
        first, inner, last = channels
        self.conv1 = nn.Conv2d(first, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, last, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.padding is None:
            return x
        return F.pad(x, (0, 0, 0, 0, self.padding.front, self.padding.behind))


class CifarResNet(nn.Module):
    """ResNet-20 and its deeper relatives; parameter names as in the published checkpoints.

    A shortcut between stages pads with zeros in front and behind, in equal halves. In a narrower
    network front, middle and behind are rounded one by one, as they live and die one by one: stage
    2 has `scaled(front) + channels of stage 1 + scaled(behind)` channels, which at divisor 8 and
    width 1/4 are 8 + 8 + 8 of 8 + 16 + 8.

    Args:
        num_blocks: blocks of every stage; (3, 3, 3) is ResNet-20, (5, 5, 5) ResNet-32.
        widths: channels of every stage.
        num_classes: outputs.
        width: width multiplier; the stem is scaled too.
        depth: blocks kept in every stage, None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        num_blocks: tuple[int, ...] = (3, 3, 3),
        widths: tuple[int, ...] = (16, 32, 64),
        *,
        num_classes: int = 10,
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        trunk = scaled(widths[0], width, divisor=divisor)
        self.conv1 = nn.Conv2d(3, trunk, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(trunk)
        before = widths[0]
        self.stages: list[str] = []
        for stage, kept in enumerate(kept_blocks(depth, num_blocks)):
            planes = widths[stage]
            inner = scaled(planes, width, divisor=divisor)
            padding = None
            out = trunk
            if planes != before:
                half = scaled((planes - before) // 2, width, divisor=divisor)
                padding = _Padding(half, half)
                out = half + trunk + half
            entry = BasicBlock((trunk, inner, out), stride=2 if stage else 1, padding=padding)
            rest = [BasicBlock((out, inner, out), stride=1, padding=None) for _ in range(kept - 1)]
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(entry, *rest))
            before, trunk = planes, out
        self.linear = nn.Linear(trunk, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, 32, 32)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        x = F.avg_pool2d(x, x.shape[3])
        logits: Tensor = self.linear(x.view(x.shape[0], -1))
        return logits
