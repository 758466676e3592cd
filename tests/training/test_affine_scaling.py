from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam
from torch.optim.lr_scheduler import StepLR

from nestedge.errors import UsageError
from nestedge.training.affine_scaling import (
    Diversity,
    affine_scaling,
    log_sum,
    p_norm_like,
    scale_updates,
)

WEIGHTS = (1.0, 0.1, 0.0, -0.5)
EVERY_DIVERSITY = {
    "log-sum, l2": log_sum(),
    "log-sum, l1": log_sum(epsilon=0.1, reweighting="l1"),
    "p-norm-like, l2": p_norm_like(),
    "p-norm-like, l1": p_norm_like(p=0.5, epsilon=0.1, reweighting="l1"),
}


def _parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))


def _step(optimizer: Optimizer, seed: int = 1) -> None:
    """One step with gradients that depend on the seed and the shapes alone."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = _parameter(*parameter.shape, seed=seed).detach()
            parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()


def _mean_one(squared: torch.Tensor) -> torch.Tensor:
    return squared / squared.mean()


@pytest.mark.parametrize(
    ("diversity", "factors", "stepped"),
    [
        pytest.param(
            log_sum(epsilon=1e-3),
            (3.16772, 0.0348101, 0.00316456, 0.794304),
            (0.936646, 0.0993038, -6.329e-5, -0.515886),
            id="log-sum-l2",
        ),
        pytest.param(
            log_sum(epsilon=1e-3, reweighting="l1"),
            (3.17289, 0.0323020, 3.16656e-6, 0.794807),
            (0.936542, 0.0993540, -6.333e-8, -0.515896),
            id="log-sum-l1",
        ),
        # By hand: the weights' magnitudes + 0.1 are 1.1, 0.2, 0.1, 0.6, of mean 0.5.
        pytest.param(
            p_norm_like(p=1.0, epsilon=0.1),
            (2.2, 0.4, 0.2, 1.2),
            (0.956, 0.092, -0.004, -0.524),
            id="p-norm-like-l2",
        ),
        pytest.param(
            p_norm_like(p=0.5, epsilon=0.1, reweighting="l1"),
            (2.2, 0.4, 0.2, 1.2),
            (0.956, 0.092, -0.004, -0.524),
            id="p-norm-like-l1",
        ),
        # Their squares are 1.21, 0.04, 0.01, 0.36, of mean 0.405.
        pytest.param(
            p_norm_like(p=1e-12, epsilon=0.1),
            (2.987654, 0.0987654, 0.0246914, 0.888889),
            (0.940247, 0.0980247, -0.000493827, -0.517778),
            id="p-norm-like-l2-of-small-p",
        ),
    ],
)
def test_the_factors_and_the_step_are_those_worked_out_by_hand(
    diversity: Diversity, factors: tuple[float, ...], stepped: tuple[float, ...]
) -> None:
    weights = nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float64))
    found = affine_scaling(weights, diversity)
    assert not found.requires_grad
    assert found.tolist() == pytest.approx(factors, rel=1e-5)
    optimizer = SGD([weights], lr=0.1)
    scale_updates(optimizer, diversity, parameters=[weights])
    weights.grad = torch.full_like(weights, 0.2)
    optimizer.step()
    assert weights.tolist() == pytest.approx(stepped, rel=1e-4)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12),
    st.sampled_from(["l1", "l2"]),
    st.floats(1e-6, 10),
    st.floats(0.01, 1),
)
def test_the_factors_are_positive_of_mean_one_and_grow_with_the_magnitude(
    weights: list[float], reweighting: Any, epsilon: float, p: float
) -> None:
    tensor = torch.tensor(weights, dtype=torch.float64)
    for diversity in (
        log_sum(epsilon=epsilon, reweighting=reweighting),
        p_norm_like(p=p, epsilon=epsilon, reweighting=reweighting),
    ):
        factors = affine_scaling(tensor, diversity)
        assert factors.min() > 0
        assert factors.mean().item() == pytest.approx(1)
        ordered = factors[tensor.abs().argsort(stable=True)]
        assert (ordered.diff() >= 0).all()


@pytest.mark.parametrize("diversity", EVERY_DIVERSITY.values(), ids=EVERY_DIVERSITY)
@pytest.mark.parametrize("value", [0.0, -0.7, 1e-30])
def test_a_tensor_of_one_magnitude_has_factors_of_one(diversity: Diversity, value: float) -> None:
    factors = affine_scaling(torch.full((2, 3), value), diversity)
    torch.testing.assert_close(factors, torch.ones(2, 3))


def test_squares_that_underflow_give_factors_of_one_and_not_nan() -> None:
    diversity = log_sum(epsilon=1e-30, reweighting="l1")
    assert affine_scaling(torch.zeros(3), diversity).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_half_precision_has_factors_in_float32(dtype: torch.dtype, found: torch.dtype) -> None:
    weights = torch.tensor([300.0, 1.0, 1e-4]).to(dtype)
    factors = affine_scaling(weights, log_sum(epsilon=1e-9))
    assert factors.dtype == found
    # 300² is more than float16 holds.
    expected = _mean_one(weights.double().square() + 1e-9)
    torch.testing.assert_close(factors.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "constant",
    [p_norm_like(p=2), p_norm_like(p=1, reweighting="l1")],
    ids=["l2", "l1"],
)
def test_at_the_largest_p_the_optimizers_own_steps_are_left(
    dtype: torch.dtype, constant: Diversity
) -> None:
    plain, scaled = _parameter(4, 5, dtype=dtype), _parameter(4, 5, dtype=dtype)
    optimizers = SGD([plain], lr=0.1, momentum=0.9), SGD([scaled], lr=0.1, momentum=0.9)
    scale_updates(optimizers[1], constant)
    for seed in range(3):
        for optimizer in optimizers:
            _step(optimizer, seed)
    assert torch.equal(plain, scaled)


@pytest.mark.parametrize("diversity", EVERY_DIVERSITY.values(), ids=EVERY_DIVERSITY)
def test_with_plain_sgd_it_is_the_gradient_that_is_scaled(diversity: Diversity) -> None:
    weights = _parameter(4, 5)
    expected = weights.detach().clone()
    optimizer = SGD([weights], lr=0.1, weight_decay=0.2)
    scale_updates(optimizer, diversity)
    for seed in range(5):
        gradient = _parameter(4, 5, seed=seed).detach() + 0.2 * expected
        expected -= 0.1 * affine_scaling(expected, diversity) * gradient
        _step(optimizer, seed)
    torch.testing.assert_close(weights.detach(), expected)


def test_the_update_of_adam_is_scaled_and_its_state_is_as_without() -> None:
    weights, plain = _parameter(4, 5), _parameter(4, 5)
    optimizer, other = Adam([weights], lr=0.1), Adam([plain], lr=0.1)
    scale_updates(optimizer, log_sum())
    for seed in range(3):
        start = weights.detach().clone()
        with torch.no_grad():
            plain.copy_(start)
        _step(optimizer, seed)
        _step(other, seed)
        expected = start + affine_scaling(start, log_sum()) * (plain.detach() - start)
        torch.testing.assert_close(weights.detach(), expected)
    torch.testing.assert_close(optimizer.state[weights], other.state[plain])


DECOUPLED: dict[str, Callable[..., Optimizer]] = {
    "AdamW": AdamW,
    "AdamW with a tensor as learning rate": lambda found, **settings: AdamW(
        found, **{**settings, "lr": torch.tensor(settings["lr"], dtype=torch.float64)}
    ),
    "NAdam": lambda found, **settings: NAdam(found, decoupled_weight_decay=True, **settings),
    "RAdam": lambda found, **settings: RAdam(found, decoupled_weight_decay=True, **settings),
}


@pytest.mark.parametrize("make", DECOUPLED.values(), ids=DECOUPLED)
def test_decoupled_decay_is_not_scaled(make: Callable[..., Optimizer]) -> None:
    weights, plain = _parameter(4, 5), _parameter(4, 5)
    start = weights.detach().clone()
    optimizer = make([weights], lr=0.1, weight_decay=0.5)
    scale_updates(optimizer, log_sum())
    _step(optimizer)
    _step(make([plain], lr=0.1, weight_decay=0.0))
    update = plain.detach() - start
    expected = 0.95 * start + affine_scaling(start, log_sum()) * update
    torch.testing.assert_close(weights.detach(), expected)


@pytest.mark.parametrize("optimizer", [SGD, AdamW])
def test_a_tensor_that_the_step_passes_over_stays(optimizer: type[Any]) -> None:
    with_gradient, without = _parameter(2, 3), _parameter(2, 3)
    before = without.detach().clone()
    made = optimizer([with_gradient, without], lr=0.1, weight_decay=0.5)
    scale_updates(made, log_sum())
    with_gradient.grad = torch.ones_like(with_gradient)
    made.step()
    assert torch.equal(without, before)
    assert not torch.equal(with_gradient, before)


def test_biases_are_left_out_unless_named_and_later_groups_are_in() -> None:
    weight, bias, later = _parameter(3, 3), _parameter(4), _parameter(5, 2)
    start = [tensor.detach().clone() for tensor in (weight, bias, later)]
    optimizer = SGD([weight, bias], lr=1.0)
    with scale_updates(optimizer, log_sum()):
        optimizer.add_param_group({"params": [later]})
        _step(optimizer)
    updates = [_parameter(*tensor.shape, seed=1).detach() for tensor in start]
    factors = [affine_scaling(tensor, log_sum()) for tensor in start]
    torch.testing.assert_close(weight.detach(), start[0] - factors[0] * updates[0])
    torch.testing.assert_close(bias.detach(), start[1] - updates[1])
    torch.testing.assert_close(later.detach(), start[2] - factors[2] * updates[2])
    start = [tensor.detach().clone() for tensor in (weight, bias)]
    scale_updates(optimizer, log_sum(), parameters=iter([bias]))
    _step(optimizer)
    torch.testing.assert_close(weight.detach(), start[0] - updates[0])
    expected = start[1] - affine_scaling(start[1], log_sum()) * updates[1]
    torch.testing.assert_close(bias.detach(), expected)


def test_a_limit_cuts_the_largest_factors_alone() -> None:
    weights = nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float64))
    optimizer = SGD([weights], lr=1.0)
    scale_updates(optimizer, log_sum(), parameters=[weights], limit=1.5)
    weights.grad = torch.ones_like(weights)
    optimizer.step()
    expected = [1 - 1.5, 0.1 - 0.0348101, -0.00316456, -0.5 - 0.794304]
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_schedule_scales_the_scaled_updates_as_it_does_plain_ones() -> None:
    weights = _parameter(3, 4)
    optimizer = SGD([weights], lr=0.5)
    schedule = StepLR(optimizer, step_size=1, gamma=0.1)
    scale_updates(optimizer, log_sum())
    for rate in (0.5, 0.05):
        start = weights.detach().clone()
        _step(optimizer)
        gradient = _parameter(3, 4, seed=1).detach()
        expected = start - rate * affine_scaling(start, log_sum()) * gradient
        torch.testing.assert_close(weights.detach(), expected)
        schedule.step()


def test_a_run_goes_on_from_the_state_dict_as_if_it_had_not_stopped() -> None:
    whole = _parameter(3, 4)
    optimizer = Adam([whole], lr=0.1)
    plain_keys = optimizer.state_dict().keys(), optimizer.param_groups[0].keys()
    scale_updates(optimizer, log_sum())
    _step(optimizer, 0)
    assert (optimizer.state_dict().keys(), optimizer.param_groups[0].keys()) == plain_keys
    again = nn.Parameter(whole.detach().clone())
    resumed = Adam([again], lr=0.7)
    scale_updates(resumed, log_sum())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(optimizer, 1)
    _step(resumed, 1)
    assert torch.equal(whole, again)


def test_a_removed_scaling_leaves_plain_steps_and_may_be_removed_again() -> None:
    weights = _parameter(3, 4)
    optimizer = SGD([weights], lr=0.5)
    scaling = scale_updates(optimizer, log_sum())
    start = weights.detach().clone()
    _step(optimizer)
    plain = start - 0.5 * _parameter(3, 4, seed=1).detach()
    assert not torch.allclose(weights, plain)
    scaling.remove()
    scaling.remove()
    with torch.no_grad():
        weights.copy_(start)
    _step(optimizer)
    torch.testing.assert_close(weights.detach(), plain)


def test_a_step_with_a_closure_is_scaled_and_gives_its_loss() -> None:
    weights = _parameter(3, 4)
    start = weights.detach().clone()
    optimizer = SGD([weights], lr=0.5)
    scale_updates(optimizer, log_sum())

    def closure() -> float:
        optimizer.zero_grad()
        loss = weights.sum()
        torch.autograd.backward(loss)
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(start.sum().item())
    torch.testing.assert_close(weights.detach(), start - 0.5 * affine_scaling(start, log_sum()))


def test_no_copy_of_the_weights_outlives_a_step() -> None:
    # A shape that no other tensor has.
    weights = _parameter(37, 41)
    optimizer = SGD([weights], lr=0.5)
    scale_updates(optimizer, log_sum())
    _step(optimizer)
    # By type, because isinstance would wake torch's deprecated objects.
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    alive = {id(tensor) for tensor in tensors if tensor.shape == weights.shape}
    assert alive <= {id(weights), id(weights.grad)}
    assert id(weights) in alive


def test_bfloat16_weights_move_by_the_factor_of_their_update() -> None:
    weights = _parameter(8, 8, dtype=torch.bfloat16)
    start = weights.detach().double()
    optimizer = SGD([weights], lr=0.5)
    scale_updates(optimizer, log_sum())
    _step(optimizer)
    gradient = _parameter(8, 8, seed=1).detach().bfloat16().double()
    expected = start - 0.5 * affine_scaling(start, log_sum()) * gradient
    assert weights.dtype == torch.bfloat16
    # The optimizer rounds the plain step to eight bits before the factor multiplies it.
    torch.testing.assert_close(weights.detach().double(), expected, rtol=0.02, atol=0.02)


def _regression(diversity: Diversity | None, seed: int) -> tuple[float, float]:
    """The loss of a sparse regression after 3000 steps, and with only the four largest weights."""
    generator = torch.Generator().manual_seed(seed)
    design = torch.randn(30, 60, generator=generator, dtype=torch.float64) / math.sqrt(30)
    truth = torch.zeros(60, dtype=torch.float64)
    signs = torch.randn(4, generator=generator, dtype=torch.float64).sign()
    truth[torch.randperm(60, generator=generator)[:4]] = signs * 1.5
    weights = nn.Parameter(0.1 * torch.randn(60, generator=generator, dtype=torch.float64))
    optimizer = SGD([weights], lr=0.02)
    if diversity is not None:
        scale_updates(optimizer, diversity, parameters=[weights])
    curvature, slope = design.T @ design, design.T @ design @ truth
    for _ in range(3000):
        weights.grad = curvature @ weights.detach() - slope
        optimizer.step()

    def loss(found: torch.Tensor) -> float:
        return (design @ (found - truth)).square().sum().item() / 2

    kept = torch.zeros_like(truth)
    largest = weights.detach().abs().topk(4).indices
    kept[largest] = weights.detach()[largest]
    return loss(weights.detach()), loss(kept)


@pytest.mark.parametrize(
    "diversity",
    [log_sum(epsilon=1e-2), log_sum(epsilon=0.1, reweighting="l1")],
    ids=["l2", "l1"],
)
def test_a_sparse_regression_is_learnt_as_well_and_loses_far_less_when_pruned(
    diversity: Diversity,
) -> None:
    plain_loss, plain_pruned = _regression(None, seed=0)
    loss, pruned = _regression(diversity, seed=0)
    assert plain_loss < 1e-3
    assert loss < 1e-3
    assert pruned < plain_pruned / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_sum(epsilon=0), r"^epsilon: expected above 0 and finite, found 0$"),
        (lambda: p_norm_like(epsilon=math.nan), r"^epsilon: .* found nan$"),
        (lambda: p_norm_like(epsilon=math.inf), r"^epsilon: .* found inf$"),
        (
            lambda: log_sum(reweighting="L2"),  # type: ignore[arg-type]
            r"^reweighting: expected one of \['l1', 'l2'\], found 'L2'",
        ),
        (
            lambda: p_norm_like(p=0),
            r"^p: expected above 0 and at most 2 with l2 reweighting, found 0$",
        ),
        (
            lambda: p_norm_like(p=1.5, reweighting="l1"),
            r"^p: expected above 0 and at most 1 with l1 reweighting, found 1.5$",
        ),
        (
            lambda: affine_scaling(torch.tensor([1, 2]), log_sum()),
            r"^weights: expected floating-point numbers, found torch.int64$",
        ),
        (
            lambda: scale_updates(SGD([_parameter(2, 2)]), log_sum(), limit=0.5),
            r"^limit: expected 1 or more, or None, found 0.5$",
        ),
        (
            lambda: scale_updates(SGD([_parameter(2, 2)]), log_sum(), limit=math.nan),
            r"^limit: expected 1 or more, or None, found nan$",
        ),
        (
            lambda: scale_updates(SGD([_parameter(2)]), log_sum()),
            r"^parameters: expected at least one tensor to scale, found none; by default those",
        ),
        (
            lambda: scale_updates(SGD([_parameter(2, 2)]), log_sum(), parameters=[]),
            r"^parameters: expected at least one tensor to scale, found none",
        ),
        (
            lambda: scale_updates(
                SGD([_parameter(2, 2)]), log_sum(), parameters=[_parameter(3, 2)]
            ),
            r"^parameters\[0\]: expected a tensor of the optimizer, .* shape \(3, 2\); pass the",
        ),
        (
            lambda: scale_updates(SGD([_parameter(2, 2, dtype=torch.complex64)]), log_sum()),
            r"^parameters: expected .*complex64 in a tensor of shape \(2, 2\); leave",
        ),
    ],
    ids=[
        "no epsilon",
        "epsilon not a number",
        "infinite epsilon",
        "unknown reweighting",
        "no p",
        "p that is not concave",
        "integers",
        "low limit",
        "limit not a number",
        "biases alone",
        "no parameters",
        "another's parameters",
        "complex",
    ],
)
def test_what_cannot_be_scaled_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_a_refused_scaling_leaves_the_optimizer_as_it_was() -> None:
    weights = _parameter(2, 2)
    start = weights.detach().clone()
    optimizer = SGD([weights], lr=0.5)
    with pytest.raises(UsageError, match="another of shape"):
        scale_updates(optimizer, log_sum(), parameters=[weights, _parameter(2, 2)])
    _step(optimizer)
    expected = start - 0.5 * _parameter(2, 2, seed=1).detach()
    torch.testing.assert_close(weights.detach(), expected)
