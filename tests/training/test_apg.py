from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from nestedge.errors import UsageError
from nestedge.training.apg import AcceleratedProximalGradient, soft_threshold

STEPS = [
    ([0.5, 0.3, -0.005], [0.9031, 0, 0], [-0.051, -0.029, 0]),
    ([0.4, 0.2, -0.5], [0.78389, 0, 0.0931], [-0.0869, -0.0451, 0.049]),
    ([0.1, 0.1, 0.3], [0.692601, 0, 0.07389], [-0.08921, -0.04959, 0.0131]),
]
"""Gradients, factors and velocities of three steps, worked out by hand."""


def _factors(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def _step(
    optimizer: AcceleratedProximalGradient, factors: nn.Parameter, gradient: list[float]
) -> None:
    factors.grad = torch.tensor(gradient, dtype=torch.float64)
    optimizer.step()


def test_three_steps_are_those_worked_out_by_hand() -> None:
    factors = _factors(1, 0.02, 0)
    optimizer = AcceleratedProximalGradient([factors], lr=0.1, gamma=0.01)
    for gradient, expected, velocity in STEPS:
        _step(optimizer, factors, gradient)
        for found, wanted in (
            (factors.detach(), expected),
            (optimizer.state[factors]["velocity"], velocity),
        ):
            torch.testing.assert_close(
                found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12
            )


def test_small_factors_become_exactly_zero_and_come_back_against_a_large_gradient() -> None:
    factors = _factors(1, 0.02, 0)
    optimizer = AcceleratedProximalGradient([factors], lr=0.1, gamma=0.01)
    _step(optimizer, factors, STEPS[0][0])
    assert factors.tolist()[1:] == [0, 0]
    _step(optimizer, factors, STEPS[1][0])
    assert factors[1] == 0 < factors[2]


def test_without_the_clamp_it_is_the_textbook_method() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    matrix, goal = root @ root.T, torch.randn(6, dtype=torch.float64, generator=generator)
    lr, gamma, momentum = 0.01, 1.5, 0.9
    factors = _factors(*torch.ones(6).tolist())
    optimizer = AcceleratedProximalGradient(
        [factors], lr=lr, gamma=gamma, momentum=momentum, nonnegative=False
    )
    last = before = factors.detach().clone()
    for _ in range(30):
        # The textbook's gradient is at the look-ahead point d.
        d = last + momentum * (last - before)
        torch.testing.assert_close(factors.detach(), d, rtol=0, atol=1e-12)
        last, before = soft_threshold(d - lr * (matrix @ d - goal), lr * gamma), last
        at = factors.detach().clone()
        gradient = matrix @ at - goal
        _step(optimizer, factors, gradient.tolist())
        found = soft_threshold(at - lr * gradient, lr * gamma)
        torch.testing.assert_close(found, last, rtol=0, atol=1e-12)
    assert (last == 0).any()
    assert (last < 0).any()


def test_a_schedule_of_the_learning_rate_scales_the_threshold_too() -> None:
    factors = _factors(1)
    optimizer = AcceleratedProximalGradient([factors], lr=0.5, gamma=0.2, momentum=0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    for expected in (0.9, 0.89):
        _step(optimizer, factors, [0.0])
        schedule.step()
        assert factors.item() == pytest.approx(expected, abs=1e-12)


def test_a_resumed_optimizer_goes_on_with_its_velocity() -> None:
    factors = _factors(1, 0.02, 0)
    optimizer = AcceleratedProximalGradient([factors], lr=0.1, gamma=0.01)
    _step(optimizer, factors, STEPS[0][0])
    again = nn.Parameter(factors.detach().clone())
    resumed = AcceleratedProximalGradient([again], lr=9.0, gamma=9.0)
    resumed.load_state_dict(optimizer.state_dict())
    _step(optimizer, factors, STEPS[1][0])
    _step(resumed, again, STEPS[1][0])
    assert torch.equal(factors, again)
    assert factors[0].item() == pytest.approx(0.78389, abs=1e-12)


def test_a_factor_without_a_gradient_stays() -> None:
    factors = _factors(0.001)
    AcceleratedProximalGradient([factors], lr=1, gamma=1).step()
    assert factors.item() == 0.001


def test_a_closure_gives_the_loss_of_its_own_gradients() -> None:
    factors = _factors(1)
    optimizer = AcceleratedProximalGradient([factors], lr=0.25, gamma=0, momentum=0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = factors.square().sum()
        torch.autograd.backward(loss)
        return loss.item()

    assert optimizer.step(closure) == 1
    assert factors.item() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr: expected 0 or more and finite, found -0.1"),
        ({"gamma": -1.0}, "gamma: expected 0 or more and finite, found -1.0"),
        ({"gamma": math.nan}, "gamma: expected 0 or more and finite, found nan"),
        ({"momentum": 1.0}, "momentum: expected at least 0 and below 1, found 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AcceleratedProximalGradient([_factors(1)], **{"lr": 0.1, "gamma": 0.1, **arguments})
