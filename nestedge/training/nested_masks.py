"""Masks of several densities, one within the other, from the magnitudes of the weights.

NestedNet's levels of different sparsity (Kim et al., CVPR 2018, arXiv:1712.03781), in which
thresholds follow from densities instead of densities from thresholds; and its control, the same
densities at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from nestedge.errors import UsageError
from nestedge.masks import Mask

Scope = Literal["global", "layer"]
"""Whether weights compete with those of all layers, or only with those of their own."""

LevelMasks = dict[str, dict[str, Mask]]
"""For every level the masks of tensors, by name."""


def nested_masks(
    tensors: Mapping[str, torch.Tensor],
    densities: Mapping[str, float],
    *,
    scope: Scope = "global",
    minimum: int = 1,
) -> LevelMasks:
    """Masks of several densities, each level's within those of every denser level.

    A level keeps the weights of largest magnitude: NestedNet's thresholds, chosen so that the
    densities are those asked for. Of equal weights the first of the first tensor stays.

    Args:
        tensors: the weights to mask, by name: `prunable_weights`.
        densities: for each level the share of the weights to keep, 0 < density <= 1.
        scope: "layer" gives every tensor the density, "global" all of them together.
        minimum: how many of its largest weights every tensor keeps at every level.

    Raises:
        UsageError: a density is out of range, or too low for every tensor to keep its minimum.
    """
    scores = {name: t.detach().abs().double().cpu().numpy() for name, t in tensors.items()}
    return _nested(scores, densities, scope, minimum)


def random_masks(
    tensors: Mapping[str, torch.Tensor],
    densities: Mapping[str, float],
    *,
    seed: int,
    scope: Scope = "global",
    minimum: int = 1,
) -> LevelMasks:
    """As `nested_masks`, but which weights stay is drawn: the control that NestedNet compares to.

    Raises:
        UsageError: a density is out of range, or too low for every tensor to keep its minimum.
    """
    generator = np.random.default_rng(seed)
    scores = {name: generator.random(tuple(tensor.shape)) for name, tensor in tensors.items()}
    return _nested(scores, densities, scope, minimum)


def _nested(
    scores: Mapping[str, npt.NDArray[np.float64]],
    densities: Mapping[str, float],
    scope: Scope,
    minimum: int,
) -> LevelMasks:
    check_minimum(minimum)
    for level, density in densities.items():
        if not 0 < density <= 1:
            raise UsageError(f"level {level!r}: expected 0 < density <= 1, found {density}")
    groups = [{name: score} for name, score in scores.items()] if scope == "layer" else [scores]
    found: LevelMasks = {level: {} for level in densities}
    for group in groups:
        places = _places(group, minimum)
        least = sum(min(minimum, score.size) for score in group.values())
        total = sum(score.size for score in group.values())
        for level, density in densities.items():
            count = round(density * total)
            if count < least and scope == "global":
                raise UsageError(
                    f"level {level!r}: a density of {density} is {count} weights, fewer than "
                    f"{minimum} of every tensor: {least}; ask for more, or lower the minimum"
                )
            masks = {name: place < max(count, least) for name, place in places.items()}
            found[level] |= masks
    return found


def _places(
    scores: Mapping[str, npt.NDArray[np.float64]], minimum: int
) -> dict[str, npt.NDArray[np.int64]]:
    """For every weight how many of the tensors' weights a level takes before it.

    A level is a prefix of one order, so that levels nest whatever their densities; the weights that
    every tensor keeps come first in it.
    """
    ranked = [_ranks(score.ravel()) for score in scores.values()]
    optional = np.concatenate([rank >= minimum for rank in ranked])
    flat = np.concatenate([score.ravel() for score in scores.values()])
    places = np.empty(flat.size, dtype=np.int64)
    # Stable, so that equal weights fall the same way on every platform.
    places[np.lexsort((-flat, optional))] = np.arange(flat.size)
    parts = np.split(places, np.cumsum([score.size for score in scores.values()])[:-1])
    return {n: part.reshape(scores[n].shape) for n, part in zip(scores, parts, strict=True)}


def _ranks(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    ranks = np.empty(scores.size, dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(scores.size)
    return ranks


def check_minimum(minimum: int) -> None:
    """Refuse a number of weights that a layer cannot do without, below 1.

    Raises:
        UsageError: it is below 1.
    """
    if minimum < 1:
        raise UsageError(f"minimum: expected 1 weight or more of every layer, found {minimum}")
