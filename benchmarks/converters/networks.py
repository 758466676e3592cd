"""The networks of the table, with weights and images that make every number count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision import models  # pyright: ignore[reportMissingImports]

from benchmarks.converters.stock import CASES
from benchmarks.networks.redraw import redraw
from nestedge.levels import Level

FULL = "full"
WIDTHS: dict[str, Level | float] = {"half": 0.5, "three-quarters": 0.75, FULL: 1.0}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "efficientnet_b0": models.efficientnet_b0,
    "convnext_tiny": models.convnext_tiny,
    "vit_b_16": models.vit_b_16,
    "swin_t": models.swin_t,
    "shufflenet_v2_x1_0": models.shufflenet_v2_x1_0,
    "densenet121": models.densenet121,
}
PIXELS = 224


@dataclass(frozen=True)
class Subject:
    """A network, ready to be nested.

    Attributes:
        name: torchvision's.
        module: in evaluation mode.
        images: shape (cases + 1, 3, height, width); the last one is to compare outputs with.
    """

    name: str
    module: nn.Module
    images: Tensor


def subject(name: str) -> Subject:
    """A network of torchvision's with random weights and its own statistics.

    Untrained weights tell speed, size and rounding. All are drawn: torchvision begins with heads of
    zeros and factors of 1e-6, behind which no error would show. Batch norms have statistics of what
    they see, so that activations keep their size in every layer.
    """
    torch.manual_seed(0)
    module = NETWORKS[name]()
    redraw(module, seed=0)
    images = torch.randn(CASES + 1, 3, PIXELS, PIXELS)
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    module.train()
    with torch.no_grad():
        module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return Subject(name, module.eval(), images)
