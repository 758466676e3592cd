"""Accelerated proximal gradient steps: the l1 penalty that gives exact zeros.

The modified form of sparse structure selection (Huang & Wang, Data-driven sparse structure
selection for deep neural networks, ECCV 2018, arXiv:1707.01213): what is stored is the look-ahead
point of the textbook method, so that one ordinary forward and backward pass is enough for a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch.optim import Optimizer

from nestedge.errors import UsageError


def soft_threshold(values: torch.Tensor, threshold: float | torch.Tensor) -> torch.Tensor:
    """The proximal step of the l1 norm: magnitudes less the threshold, zero where that is below.

    >>> soft_threshold(torch.tensor([1.0, -0.5, 0.25]), 0.25)
    tensor([ 0.7500, -0.2500,  0.0000])
    """
    return values.sign() * (values.abs() - threshold).clamp(min=0)


class AcceleratedProximalGradient(Optimizer):
    """Minimises a loss plus gamma times the l1 norm of the parameters; some become exactly zero.

    Equations (10) to (12) of the paper, with S the soft threshold at lr * gamma:

        z = p - lr * gradient;  v = S(z) - p + momentum * v;  p = S(z) + momentum * v

    A zero is not final: where the loss falls by more than gamma as the parameter grows, it comes
    back. There is no weight decay.

    Args:
        params: the factors, as for any optimizer.
        lr: learning rate.
        gamma: weight of the l1 norm.
        momentum: at least 0, below 1.
        nonnegative: whether negative parameters become zero after a step, as in the authors' code.
            Without it S(z) is the textbook method's iterate, and the parameters are its look-ahead
            points.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        *,
        lr: float,
        gamma: float,
        momentum: float = 0.9,
        nonnegative: bool = True,
    ) -> None:
        for name, value in (("lr", lr), ("gamma", gamma)):
            if not 0 <= value < math.inf:
                raise UsageError(f"{name}: expected 0 or more and finite, found {value}")
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum: expected at least 0 and below 1, found {momentum}")
        defaults = {"lr": lr, "gamma": gamma, "momentum": momentum, "nonnegative": nonnegative}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step every parameter that has a gradient.

        Args:
            closure: evaluates the loss anew, with gradients, and gives it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                near = soft_threshold(parameter - lr * parameter.grad, lr * group["gamma"])
                past = momentum * state.get("velocity", torch.zeros_like(parameter))
                state["velocity"] = near - parameter + past
                parameter.copy_(near + momentum * state["velocity"])
                if group["nonnegative"]:
                    parameter.clamp_(min=0)
        return loss
