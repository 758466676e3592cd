"""The batch of example inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nestedge.errors import UsageError


def batch_size(leaves: Sequence[torch.Tensor]) -> int:
    """The batch size of example inputs: axis 0 of the first.

    Raises:
        UsageError: the first input has no axis 0, or an empty one.
    """
    if not leaves or leaves[0].dim() == 0 or leaves[0].shape[0] == 0:
        raise UsageError("the first example input must be a tensor whose axis 0 is the batch")
    return leaves[0].shape[0]


def is_batched(value: Any, batch: int) -> bool:
    """Whether axis 0 of an example input is the batch."""
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch
