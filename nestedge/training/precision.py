"""Mixed precision: forward passes in a narrower type, weights and optimizer in single precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch.optim import Optimizer

Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def losses_inside(
    losses: Iterator[torch.Tensor], context: Callable[[], AbstractContextManager[object]]
) -> Iterator[torch.Tensor]:
    """The same losses, each computed inside a context that is left before the loss is given."""
    while True:
        with context():
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


class MixedPrecision:
    """Forward passes under autocast; for float16 the loss is scaled (Micikevicius et al., 2018).

    Args:
        precision: of the forward passes; float32 leaves everything as it is.
        device: kind of the device that the network is on.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        self._dtype = DTYPES.get(precision)
        self._device = device
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "float16")

    def losses(self, losses: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The same losses, each computed under autocast; backward runs outside of it."""
        enabled = self._dtype is not None
        return losses_inside(
            losses, lambda: torch.autocast(self._device, dtype=self._dtype, enabled=enabled)
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss, scaled."""
        torch.autograd.backward(self._scaler.scale(loss))

    def step(self, optimizer: Optimizer) -> bool:
        """Step the optimizer; False where gradients overflowed, so that the step was left out."""
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= before

    def state_dict(self) -> dict[str, Any]:
        """The scale of the loss, and when it is to grow."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        if state:
            self._scaler.load_state_dict(state)
