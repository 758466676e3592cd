"""Affine scaling: steps that promote sparsity, whatever the optimizer.

Each weight's update is multiplied by a factor that grows with the weight's own magnitude, so that
the large ones learn and the small ones stay small. The objective stays as it is, without a
penalty: the weights that are left near zero can be pruned by magnitude at little loss. SSGD (Lee,
Fedorov, Rao & Garudadri, Stochastic gradient descent for sparsity, ICASSP 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nestedge.errors import UsageError, did_you_mean

Diversity = Callable[[torch.Tensor], torch.Tensor]
"""The squared affine scaling w² of every weight, up to a factor that all have in common.

It follows from a diversity measure: a sum over the weights that is small where few are large.
`log_sum` and `p_norm_like` give one.
"""

Reweighting = Literal["l1", "l2"]
"""The norm whose reweighted form majorises a diversity measure."""


def log_sum(*, epsilon: float = 1e-3, reweighting: Reweighting = "l2") -> Diversity:
    """The log-sum measure: log(θ² + ε) with l2 reweighting, log(|θ| + ε) with l1.

    Its w² is θ² + ε with l2 reweighting, which is the gentler, and (|θ| + ε)² with l1.

    Args:
        epsilon: the smaller, the stronger large weights are preferred. It compares with squared
            weights under l2 reweighting and with magnitudes under l1.
        reweighting: "l1" or "l2".

    Raises:
        UsageError: an argument is out of range.
    """
    _check_form(epsilon, reweighting)

    def squared(weights: torch.Tensor) -> torch.Tensor:
        if reweighting == "l2":
            return weights.square() + epsilon
        return (weights.abs() + epsilon).square()

    return squared


def p_norm_like(
    *, p: float = 1.0, epsilon: float = 1e-3, reweighting: Reweighting = "l2"
) -> Diversity:
    """The p-norm-like measure |θ|^p.

    Its w² is (|θ| + ε)^(2 - p) with l2 reweighting and (|θ| + ε)^(2 - 2p) with l1. At the largest
    p all weights have the same, which leaves the optimizer's own steps.

    Args:
        p: above 0, at most 2 with l2 reweighting and 1 with l1; the smaller, the stronger large
            weights are preferred.
        epsilon: added to every magnitude, so that a weight of zero can still move.
        reweighting: "l1" or "l2".

    Raises:
        UsageError: an argument is out of range.
    """
    _check_form(epsilon, reweighting)
    largest = 2 if reweighting == "l2" else 1
    if not 0 < p <= largest:
        raise UsageError(
            f"p: expected above 0 and at most {largest} with {reweighting} reweighting, found {p}"
        )
    exponent = 2 - p if reweighting == "l2" else 2 - 2 * p

    def squared(weights: torch.Tensor) -> torch.Tensor:
        return (weights.abs() + epsilon).pow(exponent)

    return squared


def affine_scaling(weights: torch.Tensor, diversity: Diversity) -> torch.Tensor:
    """The factor of every weight's update: its w², over the mean of w² in the tensor.

    Args:
        weights: of one layer, in any shape.
        diversity: `log_sum` or `p_norm_like`.

    Returns:
        Of the weights' shape, positive and of mean 1, without a gradient; all ones where all
        weights have the same magnitude. float32 for weights in half precision, else their dtype.

    Raises:
        UsageError: the weights are not real floating-point numbers.

    >>> affine_scaling(torch.tensor([1.0, 0.0, -0.5]), log_sum(epsilon=0.25))
    tensor([1.8750, 0.3750, 0.7500])
    """
    if not weights.is_floating_point():
        raise UsageError(f"weights: expected floating-point numbers, found {weights.dtype}")
    squared = diversity(_widened(weights.detach()))
    mean = squared.mean()
    # The mean is zero where weights and epsilon are so small that all their squares underflow.
    return torch.where(mean > 0, squared / mean, 1)


_Scaled = tuple[torch.Tensor, float | torch.Tensor | None]
"""A tensor whose update is scaled, and the share that decoupled decay takes of it in one step."""


@dataclass(frozen=True)
class UpdateScaling:
    """What scales an optimizer's updates, until it is removed or its `with` block ends.

    Attributes:
        hooks: before and after the optimizer's step.
    """

    hooks: tuple[RemovableHandle, RemovableHandle]

    def remove(self) -> None:
        """Leave the optimizer's updates as they are from now on; a second time does nothing."""
        for hook in self.hooks:
            hook.remove()

    def __enter__(self) -> UpdateScaling:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def scale_updates(
    optimizer: Optimizer,
    diversity: Diversity,
    *,
    parameters: Iterable[torch.Tensor] | None = None,
    limit: float | None = None,
) -> UpdateScaling:
    """Multiply every update of an optimizer by the affine scaling of the weights it starts from.

    With plain SGD this is SSGD: θ - η s ∇J(θ). Other optimizers have their update scaled and not
    the gradient, because Adam's normaliser would divide the factor out again. The optimizer, its
    groups, schedules and state_dict stay as they are; the hooks are in none of them, so scale
    anew after a restart. A tensor that is scaled twice has both factors.

    A weight's learning rate grows up to the number of weights in its tensor over the number of
    large ones: lower the learning rate, or set a limit, if training diverges. Zeros among larger
    weights hardly move again, so start from random weights, or from a tensor of zeros alone, whose
    factors are 1.

    Weight decay that is part of the gradient (SGD, Adam) is part of the objective, and scaled.
    Decoupled decay is not scaled where the optimizer's groups state it as torch's do, by
    "decoupled_weight_decay" (AdamW, NAdam, RAdam). Elsewhere (Adafactor, Muon, optimizers of other
    packages) it cannot be told from the update and is scaled too: where that matters, set
    weight_decay to 0 and shrink the weights after the step. An optimizer that judges its step by
    the loss it reached, as LBFGS does in a line search, judges the step before it is scaled.

    During a step there is a copy of every scaled tensor.

    Args:
        optimizer: any.
        diversity: `log_sum` or `p_norm_like`.
        parameters: the tensors to scale; if None, the optimizer's tensors of two dimensions or
            more, also those added later: weights, but not biases or normalisation.
        limit: the largest factor, 1 or more; where it cuts, the mean factor is below 1.

    Returns:
        What removes the scaling; its `with` block ends with that.

    Raises:
        UsageError: there is nothing to scale, a parameter is not the optimizer's or not of real
            floating-point numbers, or the limit is below 1.
    """
    if limit is not None and not limit >= 1:
        raise UsageError(f"limit: expected 1 or more, or None, found {limit}")
    chosen = None if parameters is None else list(parameters)
    _check_scaled(_scaled(optimizer, chosen), chosen)
    steps: list[_Step] = []

    @torch.no_grad()
    def before(optimizer: Optimizer, *_: object) -> None:
        steps[:] = [
            _Step(parameter, parameter.clone(), decay)
            for parameter, decay in _scaled(optimizer, chosen)
        ]

    @torch.no_grad()
    def after(*_: object) -> None:
        # Each copy is let go before the next tensor's factors take memory.
        while steps:
            _scale_step(steps.pop(), diversity, limit)

    return UpdateScaling(
        (optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after))
    )


@dataclass(frozen=True)
class _Step:
    """A tensor during a step.

    Attributes:
        parameter: what the optimizer changes.
        start: its weights before.
        decay: the share of every weight that decoupled decay takes; None without one.
    """

    parameter: torch.Tensor
    start: torch.Tensor
    decay: float | torch.Tensor | None


def _scale_step(step: _Step, diversity: Diversity, limit: float | None) -> None:
    factors = affine_scaling(step.start, diversity)
    if limit is not None:
        factors = factors.clamp(max=limit)
    start, end = _widened(step.start), _widened(step.parameter)
    if step.decay is not None:
        # A step passes over a tensor without a gradient, and over all after an overflow in mixed
        # precision, and then nothing has decayed. A tensor, since `if` would wait for the device.
        moved = (end != start).any()
        start = start * (1 - step.decay * moved)
    # lerp, because at a factor of 1 it gives the end exactly.
    step.parameter.copy_(torch.lerp(start, end, factors))


def _scaled(optimizer: Optimizer, chosen: list[torch.Tensor] | None) -> list[_Scaled]:
    wanted = None if chosen is None else {id(parameter) for parameter in chosen}
    scaled: list[_Scaled] = []
    for group in optimizer.param_groups:
        decoupled = group.get("decoupled_weight_decay", False) and group["weight_decay"]
        decay = group["lr"] * group["weight_decay"] if decoupled else None
        scaled += [
            (parameter, decay)
            for parameter in group["params"]
            if (parameter.dim() >= 2 if wanted is None else id(parameter) in wanted)
        ]
    return scaled


def _check_scaled(scaled: list[_Scaled], chosen: list[torch.Tensor] | None) -> None:
    held = {id(parameter) for parameter, _ in scaled}
    for index, parameter in enumerate(chosen or []):
        if id(parameter) not in held:
            raise UsageError(
                f"parameters[{index}]: expected a tensor of the optimizer, found another of shape "
                f"{tuple(parameter.shape)}; pass the tensors that the optimizer was made from"
            )
    if not scaled:
        raise UsageError(
            "parameters: expected at least one tensor to scale, found none; by default those of "
            "two dimensions or more are, so name others by `parameters`"
        )
    for parameter, _ in scaled:
        if not parameter.is_floating_point():
            raise UsageError(
                f"parameters: expected floating-point numbers, found {parameter.dtype} in a "
                f"tensor of shape {tuple(parameter.shape)}; leave it out of `parameters`"
            )


def _check_form(epsilon: float, reweighting: str) -> None:
    known = get_args(Reweighting)
    if reweighting not in known:
        raise UsageError(
            f"reweighting: expected one of {list(known)}, found {reweighting!r}"
            + did_you_mean(reweighting, known)
        )
    if not 0 < epsilon < math.inf:
        raise UsageError(f"epsilon: expected above 0 and finite, found {epsilon}")


def _widened(weights: torch.Tensor) -> torch.Tensor:
    """The weights with digits enough for squares and means: half precision as float32."""
    return weights.float() if weights.dtype.itemsize < 4 else weights
