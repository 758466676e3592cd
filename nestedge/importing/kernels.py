"""Once-for-all's elastic kernels: the inside of a larger kernel, times a learned matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from nestedge.errors import UsageError

Mask = npt.NDArray[np.bool_]

_TRANSFORM = re.compile(r"(?P<layer>.*)\.(?P<large>\d+)to(?P<small>\d+)_matrix")


def is_transform(name: str) -> bool:
    """Whether a checkpoint's tensor makes small kernels of large ones.

    >>> is_transform("blocks.1.conv.depth_conv.conv.7to5_matrix")
    True
    """
    return _TRANSFORM.fullmatch(name) is not None


def reduced_kernel(checkpoint: Mapping[str, torch.Tensor], name: str, size: int) -> torch.Tensor:
    """A layer's weight with a smaller kernel.

    Step by step from each size to the next one down that the layer has a matrix for, as
    once-for-all does. Where it has no matrix at all, the inside of the kernel is taken as it is, as
    in delayed shrinking.

    Args:
        checkpoint: the supernet's state dict.
        name: of the weight in it, of shape (out, in / groups, large, large).
        size: of the smaller kernel.

    Raises:
        UsageError: the kernel is not square and odd, is smaller than that, or matrices are missing.
    """
    weight = checkpoint[name]
    large = weight.shape[-1]
    if weight.shape[-2] != large or size > large or size % 2 == 0 or large % 2 == 0:
        raise UsageError(
            f"{name!r}: a kernel of {list(weight.shape[2:])} cannot become one of {size}; "
            "expected odd square ones, the model's the smaller"
        )
    steps = _steps(checkpoint, name)
    if not steps:
        return _inside(weight, size)
    while weight.shape[-1] > size:
        step = steps.get(weight.shape[-1])
        if step is None or step[0] < size:
            raise UsageError(
                f"{name!r}: no matrix from a kernel of {weight.shape[-1]} towards {size}; the "
                f"checkpoint has {sorted(n for n in checkpoint if _belongs(n, name))}"
            )
        small, matrix = step
        flat = _inside(weight, small).flatten(2)
        weight = (flat @ matrix.to(flat).T).reshape(*flat.shape[:2], small, small)
    return weight


def has_transforms(checkpoint: Mapping[str, torch.Tensor], name: str) -> bool:
    """Whether there are matrices for the kernel of a weight."""
    return bool(_steps(checkpoint, name))


def _inside(weight: torch.Tensor, size: int) -> torch.Tensor:
    start = (weight.shape[-1] - size) // 2
    return weight[:, :, start : start + size, start : start + size]


def _steps(
    checkpoint: Mapping[str, torch.Tensor], name: str
) -> dict[int, tuple[int, torch.Tensor]]:
    found = {}
    for other, matrix in checkpoint.items():
        if _belongs(other, name) and (match := _TRANSFORM.fullmatch(other)):
            found[int(match["large"])] = (int(match["small"]), matrix)
    return found


def _belongs(other: str, name: str) -> bool:
    """Whether a transform is of the layer with a weight of that name, or of the one around it."""
    match = _TRANSFORM.fullmatch(other)
    layer = name.rpartition(".")[0]
    return match is not None and match["layer"] in (layer, layer.rpartition(".")[0])
