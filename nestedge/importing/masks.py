"""A masked or pruned network as a nested one, whose levels then become physically smaller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nestedge.card import Card
from nestedge.errors import UsageError
from nestedge.importing.pruning import unpruned
from nestedge.levels import Level
from nestedge.masks import read_masks
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.program.arguments import layer_weights
from nestedge.tree import named

Mask = npt.NDArray[np.bool_]

SPARSE = "sparse"
"""The level of a network whose own zeros are the mask."""


def from_masks(
    model: nn.Module,
    example_inputs: Any,
    masks: Mapping[str, Mapping[str, npt.ArrayLike | torch.Tensor]] | None = None,
    *,
    card: Card | None = None,
    calibration: Any = None,
) -> NestedModel:
    """Nest a module whose levels are 0/1 masks, as pruning gives them.

    A level that is materialised loses the channels, residual branches and rings of kernels that
    its masks leave without effect; `nestedge.inspection.inspect` says what stayed, and why.

    Args:
        model: the network. Where torch.nn.utils.prune has hooked into it, the masked weights count.
        example_inputs: as `nest` takes them.
        masks: for each level the masks of tensors, each of the tensor's shape; a level with
            none is the whole network. None: one level, "sparse", whose masks are the weights
            that are zero already.
        card: as `nest` takes it.
        calibration: as `nest` takes it.

    Raises:
        UsageError: a mask has no tensor or not its shape, masks of levels do not nest, a level
            empties a layer that no shortcut passes by, or no weight is zero.
    """
    nested = nest(unpruned(model), example_inputs, {}, card=card, calibration=calibration)
    if masks is None:
        masks = {SPARSE: _zeros(nested)}
    for level, given in masks.items():
        found = read_masks(_by_used_name(nested, level, given), level, nested.elastic.program)
        _check_roles(nested, level, found)
        _check_layers(nested, level, found)
        nested.add_level(level, Level(masks=found))
    return nested


def _zeros(nested: NestedModel) -> dict[str, Mask]:
    """Masks of the weights that hold zeros; vectors (biases, norms) are as they are."""
    specs = nested.elastic.program.tensors
    found = {
        name: (tensor != 0).cpu().numpy()
        for name, tensor in named(nested.shared).items()
        if specs[name].role == "parameter" and tensor.dim() > 1
    }
    found = {name: mask for name, mask in found.items() if not mask.all()}
    if not found:
        raise UsageError("no weight of the model is zero: prune it first, or give masks")
    return found


def _by_used_name(
    nested: NestedModel, level: str, masks: Mapping[str, npt.ArrayLike | torch.Tensor]
) -> dict[str, npt.NDArray[Any]]:
    """The masks as arrays, a tied tensor's under the name that is in use."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, mask in masks.items():
        used = nested.aliases.get(name, name)
        array = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
        if used in found and not np.array_equal(found[used], array):
            raise UsageError(
                f"level {level!r}: {used!r} and {name!r} are one tensor; give them one mask"
            )
        found[used] = array
    return found


def _check_roles(nested: NestedModel, level: str, masks: Mapping[str, Mask]) -> None:
    for name in masks:
        role = nested.elastic.program.tensors[name].role
        if role != "parameter":
            raise UsageError(
                f"level {level!r}: mask of {name!r}: expected a parameter's, found a {role}'s"
            )


def _check_layers(nested: NestedModel, level: str, masks: Mapping[str, Mask]) -> None:
    """Refuses a level in which a layer has no weight left, but in a block with a shortcut."""
    tensors = named(nested.shared)
    passed_by = {
        tensor
        for stage in nested.elastic.stages
        for block in stage.removable.values()
        for tensor in block.tensors
    }
    for name in layer_weights(nested.elastic.program):
        if name not in masks or name in passed_by:
            continue
        weight = tensors[name].detach().cpu()
        if not (weight * torch.from_numpy(masks[name])).any():
            raise UsageError(
                f"level {level!r} leaves nothing of {name!r}, and no shortcut passes by it: what "
                "comes after would be a constant; keep some of its weights"
            )
