"""How much is trained: what every method and baseline of a comparison has alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from nestedge.training.precision import Precision


@dataclass(frozen=True)
class Budget:
    """What every training of a comparison has.

    Attributes:
        images: to train with, every class in proportion.
        epochs: of a training.
        pixels: height and width of the images; CIFAR's own 32 are averaged over squares.
        batch: images of a step.
        rates: learning rates; of a method and of its baselines the better one counts, which the
            first seed decides.
        precision: of the forward passes.
        start: a file beside the images with the first weights, .safetensors; None to draw them.
        constant: whether the learning rate stays; else it follows half a cosine down to zero.
    """

    images: int
    epochs: int
    pixels: int = 16
    batch: int = 128
    rates: tuple[float, ...] = (0.05, 0.2)
    precision: Precision = "bfloat16"
    start: str | None = None
    constant: bool | None = None

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.images // self.batch


def sgd(parameters: Iterable[nn.Parameter], rate: float) -> SGD:
    """The optimizer of all comparisons but those that are about optimizers."""
    return SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=5e-4)


def schedule(
    optimizer: torch.optim.Optimizer, budget: Budget, epochs: int, *, begun: int = 0
) -> LambdaLR:
    """That of a budget, over so many epochs, some of which another optimizer went through."""
    if budget.constant:
        return LambdaLR(optimizer, lambda _: 1.0)
    return LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * (begun + step / budget.steps) / epochs)) / 2
    )
