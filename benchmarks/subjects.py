"""The networks that the benchmarks nest, each with its hand-written twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import nn

from benchmarks.networks import torchvision_twins as twins
from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.vit import VisionTransformer
from benchmarks.networks.wrn import WideResNet

WIDTHS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Subject:
    """One network.

    Attributes:
        name: for tables.
        full: makes the network that is nested.
        twin: makes the network at a width and depth, by those keywords.
        shallow: a smaller depth, as the twin takes it.
        level_depth: the same for `nestedge.Level`: without the stages of a single block where they
            are no module of their own.
        size: height and width of its images.
    """

    name: str
    full: Callable[[], nn.Module]
    twin: Callable[..., nn.Module]
    shallow: tuple[int, ...]
    level_depth: tuple[int, ...]
    size: int

    def images(self, batch: int, *, seed: int = 1) -> torch.Tensor:
        """Inputs of shape (batch, 3, size, size)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, 3, self.size, self.size, generator=generator)


def _own(
    name: str, twin: Callable[..., nn.Module], shallow: tuple[int, ...], *, size: int = 32
) -> Subject:
    return Subject(name, twin, twin, shallow, shallow, size)


def _wide_pad(*, width: float = 1.0, depth: tuple[int, ...] | None = None) -> nn.Module:
    return WideResNet(shortcut="pad", width=width, depth=depth)


def _mobile_relu6(*, width: float = 1.0, depth: tuple[int, ...] | None = None) -> nn.Module:
    return MobileNet(activation="relu6", width=width, depth=depth)


def _vit_multihead(*, width: float = 1.0, depth: tuple[int, ...] | None = None) -> nn.Module:
    return VisionTransformer(attention="multihead", width=width, depth=depth)


def _vit_12(*, width: float = 1.0, depth: tuple[int, ...] | None = None) -> nn.Module:
    return VisionTransformer(12, 6, embedding=384, head_dim=64, width=width, depth=depth)


OWN = (
    _own("ResNet-20", CifarResNet, (1, 2, 1)),
    _own("WRN-14-2", WideResNet, (1, 1, 1)),
    _own("WRN-14-2, padded shortcuts", _wide_pad, (1, 1, 1)),
    _own("MobileNet, hard-swish", MobileNet, (1, 1, 2, 1)),
    _own("MobileNet, ReLU6", _mobile_relu6, (1, 1, 2, 1)),
    _own("DenseNet-BC", DenseNet, (2, 1, 3)),
    _own("ViT", VisionTransformer, (2,)),
    _own("ViT, MultiheadAttention", _vit_multihead, (2,)),
)
"""The project's own networks, every variant of them."""

RESNET18 = _own("resnet18", twins.resnet18, (1, 2, 1, 1), size=96)
RESNET50 = _own("resnet50", twins.resnet50, (1, 2, 1, 1), size=224)
VIT12 = _own("ViT, 12 blocks", _vit_12, (6,))
EVERY = (RESNET18, RESNET50, VIT12, *OWN)


def torchvision_subjects(*, size: int) -> tuple[Subject, ...]:
    """Torchvision's own classes beside our twins of them; none where it cannot be imported."""
    if find_spec("torchvision") is None:
        return ()
    models = import_module("torchvision.models")
    depths = {
        "resnet18": ((1, 2, 1, 1), (1, 2, 1, 1)),
        "resnet50": ((2, 1, 3, 1), (2, 1, 3, 1)),
        "mobilenet_v2": ((1, 1, 2, 3, 1, 2, 1), (1, 2, 3, 1, 2)),
    }
    return tuple(
        Subject(
            f"torchvision {name}",
            full=getattr(models, name),
            twin=getattr(twins, name),
            shallow=twin_depth,
            level_depth=level_depth,
            size=size,
        )
        for name, (twin_depth, level_depth) in depths.items()
    )


def find(subjects: tuple[Subject, ...], names: tuple[str, ...]) -> tuple[Subject, ...]:
    """The subjects whose name contains one of the given texts; all for none."""
    return tuple(
        s for s in subjects if not names or any(n.lower() in s.name.lower() for n in names)
    )
