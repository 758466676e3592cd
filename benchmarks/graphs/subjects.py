"""A random network that is checked, and how what it gives is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.graphs.descriptions import Description
from benchmarks.graphs.oracle import tensors_of
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.model import NestedModel

Record = dict[str, Any]
TOLERANCE = 1e-9


class PropertyError(AssertionError):
    """A property that does not hold of a network."""


@dataclass(frozen=True)
class Subject:
    """A network, its inputs and its nested form."""

    description: Description
    module: nn.Module
    x: Tensor
    nested: NestedModel


def error_of(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest of max|found - expected| / max|expected| of all outputs; infinite for a NaN."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise PropertyError(f"expected an output of shape {other.shape}, found {one.shape}")
        largest = float(other.abs().max())
        error = float((one - other).abs().max()) / (largest or 1.0)
        worst = max(worst, error) if error == error else float("inf")
    return worst


def run(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The tensors that a network gives."""
    with torch.no_grad():
        return tensors_of(module(x))


def within(error: float, where: str) -> float:
    """The error, where it is tolerable.

    Raises:
        PropertyError: it is not.
    """
    if not error <= TOLERANCE:
        raise PropertyError(f"{where}: error {error:.1e}")
    return error


def added(nested: NestedModel, name: str, level: Level, record: Record) -> bool:
    """Whether a level can be added; where it is refused, the reason is in the record."""
    try:
        nested.add_level(name, level)
    except UsageError as error:
        record["refused"][name] = str(error)
        return False
    generator = torch.Generator().manual_seed(len(nested.levels))
    with torch.no_grad():
        # Its own norms become others, and stay zero where they are.
        for tensor in nested.own_tensors(name).values():
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.mul_(0.7 + 0.6 * drawn)
    return True
