"""Weight-connection learning: ever sparser networks inside one another, by thresholds.

NestedNet (Kim, Ahn & Oh, CVPR 2018, arXiv:1712.03781), section 3.2, equations (2) and (5).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.nested_masks import LevelMasks
from nestedge.training.sparsity import Sparsity

Phase = Callable[[str, float], None]
"""Trains the full network for the level and the threshold of one phase."""


def learn_connections(
    nested: NestedModel, sparsity: Sparsity, thresholds: Mapping[str, float], phase: Phase
) -> LevelMasks:
    """The masks of levels, learned from the full network to the core.

    Each phase goes on with the weights that the one before has left, at a higher threshold; a
    weight that is not above it dies and is no longer updated. Which densities come out depends on
    the thresholds, the weight decay and how long a phase is; `nested_masks` takes densities.

    The paper leaves open where the joint training of equation (5) begins. Here it is with the
    weights as they were after the first phase: those that a later one let die would else begin at
    the threshold at which they were cut.

    Args:
        nested: its full network is trained.
        sparsity: of the network; what has died in it before is in no level.
        thresholds: for each level the magnitude that its weights exceed: 0, 0.015 and 0.025 for
            the paper's levels of 1, 1/2 and 1/3 of the weights of a ResNet-56.
        phase: is called for each level, the lowest threshold first; it is to train the network
            with `sparsity.attach(optimizer, threshold=...)` of an optimizer of its own.

    Returns:
        The masks of every level, for `Level(masks=...)`, in the order of the phases.

    Raises:
        UsageError: there is no level, a threshold is negative, or two are equal.
    """
    ordered = sorted(thresholds.items(), key=lambda item: item[1])
    values = [threshold for _, threshold in ordered]
    if not values or values[0] < 0 or len(set(values)) < len(values):
        raise UsageError(
            f"thresholds: expected different ones of 0 or more for the levels, found {values}"
        )
    masks: LevelMasks = {}
    dense = None
    for level, threshold in ordered:
        phase(level, threshold)
        masks[level] = sparsity.masks()
        dense = dense or copy.deepcopy(nested.state_dict())
    assert dense is not None, "there is a level"
    nested.load_state_dict(dense)
    return masks
