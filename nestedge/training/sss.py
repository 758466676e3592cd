"""Sparse structure selection: training that finds out which structures a network needs.

Factors of channels, groups and residual blocks are trained together with the weights, under an l1
penalty that lives in the step of their optimizer; those that become zero take their structures
along. Huang & Wang, Data-driven sparse structure selection for deep neural networks, ECCV 2018,
arXiv:1707.01213.

    factors = add_scale_factors(nested)
    optimizer = sss_optimizer(nested, factors, lr=0.1, gamma=0.01)
    train(nested, batches, epochs=100, objective=full_objective(loss), optimizer=optimizer)
    factors.fold(nested)
    nested.add_level("selected", factors.kept())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim import SGD, Optimizer

from nestedge.model import NestedModel
from nestedge.training.apg import AcceleratedProximalGradient
from nestedge.training.scale_factors import ScaleFactors


def sss_optimizer(
    nested: NestedModel,
    factors: ScaleFactors,
    *,
    lr: float,
    gamma: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
) -> Optimizer:
    """The authors' optimizer: Nesterov's momentum for weights, proximal gradients for factors.

    Args:
        nested: the network whose weights are trained.
        factors: its scale factors.
        lr: learning rate of both, which one schedule changes alike.
        gamma: weight of the factors' l1 norm; the authors' example is 0.01, for ResNet-50.
        momentum: of both.
        weight_decay: of the weights; factors have none.

    Raises:
        UsageError: an argument of the factors' optimizer is out of range.
    """
    proximal = AcceleratedProximalGradient(
        factors.parameters(), lr=lr, gamma=gamma, momentum=momentum
    )
    weights = SGD(
        nested.shared.parameters(),
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
    )
    return JointOptimizer(weights, proximal)


class JointOptimizer(Optimizer):
    """Two optimizers of different parameters as one: for one schedule, loss scale and checkpoint.

    Args:
        weights: of the network's weights; any.
        factors: of their scale factors.
    """

    def __init__(self, weights: Optimizer, factors: AcceleratedProximalGradient) -> None:
        groups = [*weights.param_groups, *factors.param_groups]
        # Copies, since the groups that it makes of these are not the optimizers' own.
        super().__init__([dict(group) for group in groups], {})
        self.weights = weights
        self.factors = factors
        self._join()

    def _join(self) -> None:
        """Have the two optimizers' own groups, so that what a schedule changes is theirs."""
        self.param_groups = [*self.weights.param_groups, *self.factors.param_groups]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step both, from the same gradients.

        Args:
            closure: evaluates the loss anew, with gradients, and gives it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.weights.step()
        self.factors.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"weights": self.weights.state_dict(), "factors": self.factors.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave.

        Raises:
            ValueError: it is of other parameters.
        """
        self.weights.load_state_dict(state_dict["weights"])
        self.factors.load_state_dict(state_dict["factors"])
        self._join()
