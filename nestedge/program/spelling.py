"""The operators of torch.export's graph by the names that they have in a program."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node as FxNode

_RENAMED = {
    # A view becomes a reshape: a slice of a weight is not contiguous, a shuffled value may not be.
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten.view_as.default": "aten.reshape_as.default",
    "aten.lift_fresh_copy.default": "aten.clone.default",
    "aten.detach_.default": "aten.detach.default",
    "aten.constant_pad_nd.default": "aten.pad.default",
    "aten.concat.default": "aten.cat.default",
    "aten.clip.default": "aten.clamp.default",
    "aten.min.other": "aten.minimum.default",
    "aten.max.other": "aten.maximum.default",
    "aten._native_batch_norm_legit_no_training.default": "aten.batch_norm.default",
    # Python's own operators on truth values; their names look like those of changes in place.
    "aten.__and__.Tensor": "aten.bitwise_and.Tensor",
    "aten.__or__.Tensor": "aten.bitwise_or.Tensor",
    # What has no values yet may have any, and the same in every run.
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "add": "sym.add",
    "sub": "sym.sub",
    "mul": "sym.mul",
    "floordiv": "sym.floordiv",
    "mod": "sym.mod",
    "neg": "sym.neg",
}
_CHECKS = ("aten._assert", "aten.sym_constrain", "_assert", "aten.sym_constrain_range")
_CASTS = ("aten.to.device", "aten.to.other", "aten.type_as.default")


def operator_name(fx: FxNode) -> str:
    """The operator of a node, a view called a reshape."""
    target: Any = fx.target
    name = str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__
    return "aten.to.dtype" if name in _CASTS else _RENAMED.get(name, name)


def arguments_of(fx: FxNode) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a node in the order of the operator that `operator_name` says."""
    if str(fx.target) in _CASTS:
        # Neither a device nor another tensor is needed to say what it gives.
        return (fx.args[0], fx.meta["val"].dtype), {}
    return fx.args, dict(fx.kwargs)


def is_check(fx: FxNode) -> bool:
    """Whether a node checks something and gives nothing."""
    return operator_name(fx).startswith(_CHECKS)


def is_in_place(fx: FxNode) -> bool:
    """Whether a node changes its first operand."""
    name = operator_name(fx)
    return name.startswith("aten.") and name.split(".")[1].endswith("_")
