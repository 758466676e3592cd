"""How often a level is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import Batches, predict, read_batches, same


def accuracy(
    nested: NestedModel,
    batches: Batches,
    level: str | None = None,
    *,
    logits: Callable[[Any], torch.Tensor] = same,
) -> float:
    """Percentage of predictions that are right, in evaluation mode.

    Args:
        nested: the network; its mode is as before afterwards.
        batches: inputs, and class numbers of shape (batch, ...).
        level: which level; None is the full network.
        logits: picks the logits, of shape (batch, classes, ...), from the output.

    Raises:
        UsageError: there is no such level, no batch, or the class numbers have another shape.
    """
    was_training = nested.training
    right = total = 0
    nested.eval()
    try:
        with torch.no_grad(), nested.at(*([] if level is None else [level])):
            for inputs, target in read_batches(batches):
                found = logits(predict(nested, inputs)).argmax(1)
                # Of another shape the comparison would broadcast, to a plausible percentage.
                if found.shape != target.shape:
                    raise UsageError(
                        f"target: expected class numbers of shape {tuple(found.shape)}, "
                        f"found shape {tuple(target.shape)}"
                    )
                right += int((found == target).sum())
                total += found.numel()
    finally:
        nested.train(was_training)
    return 100.0 * right / total
