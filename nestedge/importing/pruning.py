"""Pruned checkpoints and modules of torch.nn.utils.prune, folded into plain weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.utils import prune

from nestedge.errors import UsageError

_ORIGINAL, _MASK = "_orig", "_mask"


def fold_pruning(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with each pair `weight_orig`, `weight_mask` multiplied into `weight`.

    Raises:
        UsageError: an original and its mask differ in shape, or the folded name is there too.
    """
    folded = dict(state_dict)
    for name in state_dict:
        base = name.removesuffix(_ORIGINAL)
        mask = state_dict.get(base + _MASK)
        # Without a mask it is something else's original: spectral norm's.
        if base == name or mask is None:
            continue
        original = state_dict[name]
        if mask.shape != original.shape:
            raise UsageError(
                f"{base + _MASK!r}: expected shape {list(original.shape)}, found {list(mask.shape)}"
            )
        if base in state_dict:
            raise UsageError(f"{name!r} and {base!r} are both there; keep one of them")
        del folded[name], folded[base + _MASK]
        folded[base] = original * mask.to(original)
    return folded


def unpruned(model: nn.Module) -> nn.Module:
    """The module itself, or where torch.nn.utils.prune hooks are in it a copy without them.

    The copy computes the same: its weights are the masked ones.
    """
    pruned = list(_pruned(model))
    if not pruned:
        return model
    # The masked weight is a plain attribute with a history, which deepcopy refuses.
    memo: dict[int, object] = {
        id(weight): weight.detach().clone()
        for module, name in pruned
        if isinstance(weight := getattr(module, name), torch.Tensor)
    }
    plain = copy.deepcopy(model, memo)
    for module, name in list(_pruned(plain)):
        prune.remove(module, name)  # type: ignore[no-untyped-call]
    return plain


def _pruned(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield module, hook._tensor_name
