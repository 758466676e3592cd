"""Planes: integer tensors that say for every entry of a value which unit it belongs to.

They are broadcast views, with stride 0 wherever they do not vary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def varying(plane: torch.Tensor) -> tuple[int, ...]:
    """The dimensions along which a plane varies, outermost first."""
    return tuple(
        d for d, (n, s) in enumerate(zip(plane.shape, plane.stride(), strict=True)) if n > 1 and s
    )


def compact(plane: torch.Tensor) -> torch.Tensor:
    """The same plane with stride 0 along every dimension in which it is constant."""
    for dim in varying(plane):
        # Of what is known to be constant one entry is enough: planes of weights are large.
        small = reduced(plane)
        if bool((small == small.narrow(dim, 0, 1)).all()):
            plane = plane.narrow(dim, 0, 1).expand(plane.shape)
    return plane


def reduced(plane: torch.Tensor) -> torch.Tensor:
    """The plane with every constant dimension cut to size 1."""
    for dim, stride in enumerate(plane.stride()):
        if stride == 0 and plane.shape[dim] > 1:
            plane = plane.narrow(dim, 0, 1)
    return plane


def at(units: torch.Tensor, dim: int, shape: Sequence[int]) -> torch.Tensor:
    """A plane of a shape, varying along one dimension."""
    view = [1] * len(shape)
    view[dim] = len(units)
    return units.view(view).expand(tuple(shape))


def meets_others(plane: torch.Tensor, others: Iterable[torch.Tensor]) -> bool:
    """Whether a plane varies along dimensions of which another varies along only some, or more."""
    dims = set(varying(plane))
    return any(dims & set(varying(q)) and dims != set(varying(q)) for q in others)
