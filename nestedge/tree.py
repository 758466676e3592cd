"""Tensors with dotted names as a tree of modules, so that their names in it are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn


def register(
    root: nn.Module,
    name: str,
    tensor: torch.Tensor,
    role: Literal["parameter", "buffer", "constant"],
) -> None:
    """Register a tensor under a dotted name, making the modules on its path."""
    *path, last = name.split(".")
    module = root
    for part in path:
        child = module._modules.get(part)
        if child is None:
            child = nn.Module()
            module.add_module(part, child)
        module = child
    if role == "parameter":
        parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
        module.register_parameter(last, parameter)
    else:
        module.register_buffer(last, tensor)


def role_of(tensor: torch.Tensor) -> Literal["parameter", "buffer"]:
    """What a tensor is to be registered as."""
    return "parameter" if isinstance(tensor, nn.Parameter) else "buffer"


def tree_of(tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Tensors by their dotted names as a tree, parameters as such and all others as buffers."""
    root = nn.Module()
    for name, tensor in tensors.items():
        register(root, name, tensor, role_of(tensor))
    return root


def named(root: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of a tree by its dotted name."""
    return {**dict(root.named_parameters()), **dict(root.named_buffers())}
