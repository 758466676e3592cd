"""Inverted residuals with squeeze-excite, after MobileNetV2 and V3.

Sandler et al., 2018, arXiv:1801.04381; Howard et al., 2019, arXiv:1905.02244. Sized for 32x32.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled

Activation = Literal["hardswish", "relu6"]


@dataclass(frozen=True)
class _Stage:
    """Blocks of one resolution: the first takes the stride, the others have a shortcut."""

    expansion: int
    channels: int
    blocks: int
    stride: int


_STEM = 16
_STAGES = (_Stage(1, 16, 1, 1), _Stage(4, 24, 2, 2), _Stage(4, 40, 3, 2), _Stage(4, 48, 2, 1))
_LAST = 160


def _conv(
    first: int, last: int, *, kernel: int, activation: Activation, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, norm, activation."""
    return nn.Sequential(
        nn.Conv2d(
            first, last, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(last),
        nn.Hardswish() if activation == "hardswish" else nn.ReLU6(),
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate that sees their means (Hu et al., 2017, arXiv:1709.01507).

    The gate is a hard sigmoid in the hard-swish variant, as in MobileNetV3, and a sigmoid in the
    other.
    """

    def __init__(self, channels: int, mid: int, *, activation: Activation) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, mid, 1)
        self.expand = nn.Conv2d(mid, channels, 1)
        self.gate = nn.Hardsigmoid() if activation == "hardswish" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of the shape of `x`."""
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        gate: Tensor = self.gate(self.expand(squeezed))
        return x * gate


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, squeeze-excite, 1x1 projection.

    Args:
        channels: (in, hidden, squeezed, out); without expansion hidden equals in.
        stride: of the depthwise convolution.
        expands: whether there is a 1x1 expansion.
        residual: whether the input is added.
        activation: after expansion and depthwise convolution.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        *,
        stride: int,
        expands: bool,
        residual: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        first, hidden, mid, last = channels
        self.expand: nn.Sequential | None = None
        if expands:
            self.expand = _conv(first, hidden, kernel=1, activation=activation)
        self.depthwise = _conv(
            hidden, hidden, kernel=3, stride=stride, groups=hidden, activation=activation
        )
        self.excite = SqueezeExcite(hidden, mid, activation=activation)
        self.project = nn.Sequential(nn.Conv2d(hidden, last, 1, bias=False), nn.BatchNorm2d(last))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        hidden = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.excite(self.depthwise(hidden)))
        return x + out if self.residual else out


class MobileNet(nn.Module):
    """Four stages of inverted residuals with squeeze-excite, 0.16 M parameters.

    Args:
        num_classes: outputs.
        activation: hard-swish with hard-sigmoid gates, or ReLU6 with sigmoid gates.
        width: width multiplier; stem, squeezed and last channels are scaled too.
        depth: blocks kept in every stage of (1, 2, 3, 2), None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        activation: Activation = "hardswish",
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        full, kept = _STEM, scaled(_STEM, width, divisor=divisor)
        self.stem = _conv(3, kept, kernel=3, activation=activation)
        self.stages = nn.ModuleList()
        blocks_kept = kept_blocks(depth, tuple(stage.blocks for stage in _STAGES))
        for stage, count in zip(_STAGES, blocks_kept, strict=True):
            blocks = nn.Sequential()
            for index in range(count):
                stride = stage.stride if index == 0 else 1
                expanded = full * stage.expansion
                expands = stage.expansion > 1
                hidden = scaled(expanded, width, divisor=divisor) if expands else kept
                mid = scaled(expanded // 4, width, divisor=divisor)
                residual = stride == 1 and full == stage.channels
                out = kept if residual else scaled(stage.channels, width, divisor=divisor)
                block = InvertedResidual(
                    (kept, hidden, mid, out),
                    stride=stride,
                    expands=expands,
                    residual=residual,
                    activation=activation,
                )
                blocks.add_module(str(index), block)
                full, kept = stage.channels, out
            self.stages.append(blocks)
        last = scaled(_LAST, width, divisor=divisor)
        self.last = _conv(kept, last, kernel=1, activation=activation)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, 32, 32)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.classifier(self.last(x).mean((2, 3)))
        return logits
