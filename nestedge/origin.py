"""Where a nested network came from, for capturing it once more in training mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nestedge.errors import UsageError
from nestedge.program.capture import capture
from nestedge.program.graph import Program


@dataclass(frozen=True)
class Origin:
    """The user's module and example inputs, from which the training program is captured."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def training_program(origin: Origin, shared: Mapping[str, torch.Tensor]) -> Program:
    """The program of the user's module in training mode, reading the same tensors by name.

    Args:
        origin: the module; its mode is as before afterwards.
        shared: the tensors that the nested network has.

    Raises:
        UsageError: torch.export cannot take the module in training mode, or its forward makes
            tensors that are others in training: one name would stand for both.
    """
    was_training = origin.model.training
    try:
        captured = capture(origin.model.train(), origin.args, kwargs=origin.kwargs)
    finally:
        origin.model.train(was_training)
    for name in sorted(captured.program.used_tensors()):
        tensor, spec = captured.tensors[name], captured.program.tensors[name]
        known = shared.get(name)
        if known is None or (spec.role == "constant" and not torch.equal(tensor, known.to(tensor))):
            raise UsageError(
                f"the tensor {name!r} that forward makes differs between training and evaluation; "
                "register it as a buffer of the module"
            )
    return captured.program
