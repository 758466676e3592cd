"""Twins of torchvision's resnet18, resnet50 and mobilenet_v2, in every width and depth.

Parameter names and, at width 1, shapes are torchvision's, so that its weights load. Nothing is
imported from torchvision, which not every machine can install beside torch.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled

_RESNET_PLANES = (64, 128, 256, 512)


def _downsample(first: int, last: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(first, last, 1, stride=stride, bias=False), nn.BatchNorm2d(last))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, for resnet18.

    Args:
        channels: (in, inner, out).
        stride: of the first convolution.
        projects: whether the shortcut is a 1x1 convolution.
    """

    expansion = 1

    def __init__(self, channels: tuple[int, int, int], *, stride: int, projects: bool) -> None:
        super().__init__()
        first, inner, last = channels
        self.conv1 = nn.Conv2d(first, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, last, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.downsample = _downsample(first, last, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, for resnet50.

    Args:
        channels: (in, inner, out); both inner layers are as wide.
        stride: of the 3x3 convolution.
        projects: whether the shortcut is a 1x1 convolution.
    """

    expansion = 4

    def __init__(self, channels: tuple[int, int, int], *, stride: int, projects: bool) -> None:
        super().__init__()
        first, inner, last = channels
        self.conv1 = nn.Conv2d(first, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, last, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(last)
        self.downsample = _downsample(first, last, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet.

    Args:
        block: BasicBlock or Bottleneck.
        num_blocks: blocks of the four stages.
        num_classes: outputs.
        width: width multiplier; the stem is scaled too.
        depth: blocks kept in every stage, None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        num_blocks: tuple[int, int, int, int],
        *,
        num_classes: int = 1000,
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        full, kept = 64, scaled(64, width, divisor=divisor)
        self.conv1 = nn.Conv2d(3, kept, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(kept)
        for stage, count in enumerate(kept_blocks(depth, num_blocks)):
            planes = _RESNET_PLANES[stage]
            inner = scaled(planes, width, divisor=divisor)
            blocks = nn.Sequential()
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                projects = stride > 1 or full != planes * block.expansion
                full = planes * block.expansion
                out = scaled(full, width, divisor=divisor) if projects else kept
                blocks.add_module(
                    str(index), block((kept, inner, out), stride=stride, projects=projects)
                )
                kept = out
            self.add_module(f"layer{stage + 1}", blocks)
        self.fc = nn.Linear(kept, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, height, width)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def resnet18(
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    depth: tuple[int, ...] | None = None,
    divisor: int = 8,
) -> ResNet:
    """The resnet18 of torchvision; at width 1 it has 11,689,512 parameters."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes=num_classes,
        width=width,
        depth=depth,
        divisor=divisor,
    )


def resnet50(
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    depth: tuple[int, ...] | None = None,
    divisor: int = 8,
) -> ResNet:
    """The resnet50 of torchvision; at width 1 it has 25,557,032 parameters."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes=num_classes,
        width=width,
        depth=depth,
        divisor=divisor,
    )


@dataclass(frozen=True)
class _Stage:
    """One row of table 2 of arXiv:1801.04381."""

    expansion: int
    channels: int
    blocks: int
    stride: int


_MOBILENET_STAGES = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 2),
    _Stage(6, 32, 3, 2),
    _Stage(6, 64, 4, 2),
    _Stage(6, 96, 3, 1),
    _Stage(6, 160, 3, 2),
    _Stage(6, 320, 1, 1),
)


def _conv_bn_relu6(
    first: int, last: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            first, last, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(last),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection.

    Args:
        channels: (in, hidden, out); without expansion hidden equals in.
        stride: of the depthwise convolution.
        expands: whether there is a 1x1 expansion.
        residual: whether the input is added.
    """

    def __init__(
        self, channels: tuple[int, int, int], *, stride: int, expands: bool, residual: bool
    ) -> None:
        super().__init__()
        first, hidden, last = channels
        self.conv = nn.Sequential()
        if expands:
            self.conv.append(_conv_bn_relu6(first, hidden, kernel=1))
        self.conv.append(_conv_bn_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden))
        self.conv.append(nn.Conv2d(hidden, last, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(last))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of shape (batch, out, height / stride, width / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """The mobilenet_v2 of torchvision; at width 1 it has 3,504,872 parameters.

    `features` is flat: with blocks left out, those kept have the index of the full network.

    Args:
        num_classes: outputs.
        width: width multiplier; stem and last layer are scaled too.
        depth: blocks kept in every stage of (1, 2, 3, 4, 3, 3, 1), None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        full, kept = 32, scaled(32, width, divisor=divisor)
        self.features = nn.Sequential(_conv_bn_relu6(3, kept, kernel=3, stride=2))
        blocks_kept = kept_blocks(depth, tuple(stage.blocks for stage in _MOBILENET_STAGES))
        position = 1
        for stage, count in zip(_MOBILENET_STAGES, blocks_kept, strict=True):
            for index in range(count):
                stride = stage.stride if index == 0 else 1
                expands = stage.expansion > 1
                hidden = scaled(full * stage.expansion, width, divisor=divisor) if expands else kept
                residual = stride == 1 and full == stage.channels
                out = kept if residual else scaled(stage.channels, width, divisor=divisor)
                block = InvertedResidual(
                    (kept, hidden, out), stride=stride, expands=expands, residual=residual
                )
                self.features.add_module(str(position + index), block)
                full, kept = stage.channels, out
            position += stage.blocks
        last = scaled(1280, width, divisor=divisor)
        self.features.add_module(str(position), _conv_bn_relu6(kept, last, kernel=1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, height, width)."""
        x = self.features(x)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def mobilenet_v2(
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    depth: tuple[int, ...] | None = None,
    divisor: int = 8,
) -> MobileNetV2:
    """The mobilenet_v2 of torchvision, see `MobileNetV2`."""
    return MobileNetV2(num_classes, width=width, depth=depth, divisor=divisor)
