"""The rings of a convolution's kernel, and the padding that goes with them.

A ring of one dimension of a kernel is its first and its last tap. The kernel without its outer
rings computes what it does with zeros there, once the padding on both sides is less by one
dilation for each of them; so a ring can go only where there is that much padding. Without it, the
smaller kernel would see positions that the larger one does not. The same holds for a transposed
convolution, whose padding crops its output.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nestedge.axes.tags import FROZEN, Ties


def spare_rings(arguments: Mapping[str, Any], dims: int) -> list[int]:
    """For every dimension of a kernel how many rings its padding allows to go.

    Args:
        arguments: of the convolution, by their names in the schema.
        dims: of the kernel.

    >>> spare_rings({"padding": [3], "dilation": [2, 1]}, 2)
    [1, 3]
    """
    if arguments["padding"] == "valid":
        return [0] * dims
    if arguments["padding"] == "same":
        # However large the kernel is, its middle stays in place and its output keeps its size.
        return [sys.maxsize] * dims
    padding, dilation = (_each(arguments[name], dims) for name in ("padding", "dilation"))
    return [pad // step for pad, step in zip(padding, dilation, strict=True)]


def padding_without(arguments: Mapping[str, Any], rings: Sequence[int]) -> Any:
    """The padding of a convolution once some of the rings of its kernel are gone.

    >>> padding_without({"padding": [3, 3], "dilation": [2]}, [1, 0])
    (1, 3)
    """
    if isinstance(arguments["padding"], str):
        return arguments["padding"]
    padding, dilation = (_each(arguments[name], len(rings)) for name in ("padding", "dilation"))
    return tuple(p - c * d for p, c, d in zip(padding, rings, dilation, strict=True))


def _each(given: int | Sequence[int], dims: int) -> list[int]:
    """A number for every dimension, where torch takes one for all."""
    numbers = [given] if isinstance(given, int) else list(given)
    return numbers * dims if len(numbers) == 1 else numbers


def tie_rings(ties: Ties, rows: Sequence[torch.Tensor], spare: Sequence[int]) -> None:
    """Make the rings of a kernel units: dimensions of one size lose theirs together.

    Args:
        ties: where ties are made.
        rows: for every dimension of the kernel the units of its taps.
        spare: for every dimension how many rings its padding allows to go.
    """
    by_size: dict[int, torch.Tensor] = {}
    for row, rings in zip(rows, spare, strict=True):
        ties.tie(row, row.flip(0))
        outer = min(rings, (len(row) - 1) // 2)
        ties.freeze(row[outer : len(row) - outer])
        ties.tie(row, by_size.setdefault(len(row), row))
        ties.rings.append(row[row != FROZEN])
