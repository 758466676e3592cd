"""Any module as a nested network, by one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nestedge.card import Card
from nestedge.elastic import study
from nestedge.inputs import as_call
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.origin import Origin
from nestedge.program.capture import capture

__all__ = ["Card", "NestedModel", "nest"]


def nest(
    model: nn.Module,
    example_inputs: Any,
    levels: Mapping[str, Level | float],
    *,
    card: Card | None = None,
    calibration: Any = None,
) -> NestedModel:
    """Nest any module that torch.export takes.

    The module is captured in evaluation mode and its weights are copied; it is not changed, and
    captured once more, in training mode, when the nested model is first trained or saved.

    Args:
        model: the network.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs.
            Axis 0 of the first tensor is the batch.
        levels: for each level a width multiplier or a `Level`.
        card: labels, preprocessing and settings that travel with the network.
        calibration: inputs as the network meets them, from which the ranges of int8 artifacts are
            taken: like the example inputs, with many cases along the batch axis. They travel with
            the network.

    Raises:
        UsageError: torch.export cannot take the network, an operator has no rule, a level is out
            of range, or the calibration data does not fit; the message names the place.
    """
    args, kwargs = as_call(example_inputs)
    was_training = model.training
    try:
        captured = capture(model.eval(), args, kwargs=kwargs)
    finally:
        model.train(was_training)
    nested = NestedModel(
        study(captured.program),
        {name: _copy(tensor) for name, tensor in captured.tensors.items()},
        examples=captured.examples,
        card=card,
        aliases=captured.aliases,
        origin=Origin(model, args, kwargs),
    )
    for name, level in levels.items():
        nested.add_level(name, level)
    if calibration is not None:
        nested.calibrate_with(calibration)
    return nested


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().clone()
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copied, tensor.requires_grad) if is_parameter else copied
