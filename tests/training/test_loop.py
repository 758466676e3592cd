from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from nestedge.errors import NestedgeError, UsageError
from nestedge.nested import Card, NestedModel, nest
from nestedge.training import Batch, Batches, Objective, Progress, Step, joint_objective, train
from tests.networks import cross_entropy, nested_perceptron, vectors

LEVELS = ("tiny", "small", "full")
STEP = Step(epoch=0, epochs=1, index=0, steps=1, number=0, seed=0)


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_perceptron().train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable).eval()


@pytest.fixture
def optimizer(nested: NestedModel) -> Optimizer:
    return SGD(nested.parameters(), 0.1, momentum=0.9)


def _batches(count: int = 3) -> list[Batch]:
    return [vectors(8, seed=seed) for seed in range(count)]


def _objective(*levels: str) -> Objective:
    return joint_objective(levels or LEVELS, cross_entropy)


def _trained(nested: NestedModel, **options: Any) -> dict[str, torch.Tensor]:
    """The weights after training a copy with dropout, and images that are shuffled."""
    copied = copy.deepcopy(nested)
    loader = DataLoader(TensorDataset(*vectors(32)), batch_size=8, shuffle=True)
    optimizer = SGD(copied.parameters(), 0.1, momentum=0.9)
    train(copied, loader, epochs=2, objective=_objective(), optimizer=optimizer, **options)
    return copied.state_dict()


def test_two_runs_with_the_same_seed_give_identical_weights(nested: NestedModel) -> None:
    first = _trained(nested, seed=1)
    torch.rand(7)
    again, other = _trained(nested, seed=1), _trained(nested, seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "weight" in name)


def test_training_leaves_the_global_generator_alone(nested: NestedModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _trained(nested)
    # A DataLoader draws one number more when it is made; `train` itself draws none outside.
    assert torch.equal(torch.rand(4), expected)


def test_evaluating_does_not_change_what_is_learned(nested: NestedModel) -> None:
    def evaluate(network: NestedModel) -> dict[str, float]:
        network.eval()
        return {"small": float(torch.rand(()))}

    expected, found = _trained(nested), _trained(nested, evaluate=evaluate)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_steps_are_those_of_the_optimizer_on_the_summed_losses(nested: NestedModel) -> None:
    twin = copy.deepcopy(nested).train()
    by_hand = SGD(twin.parameters(), 0.1, weight_decay=0.01)
    torch.manual_seed(5)
    for inputs, target in _batches(2):
        by_hand.zero_grad()
        torch.autograd.backward(list(_objective()(twin, inputs, target, STEP)))
        by_hand.step()
    optimizer = SGD(nested.parameters(), 0.1, weight_decay=0.01)
    train(nested, _batches(2), epochs=1, objective=_objective(), optimizer=optimizer, seed=5)
    for found, expected in zip(nested.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_progress_tells_the_time_left(nested: NestedModel, optimizer: Optimizer) -> None:
    reports: list[Progress] = []
    ticks = iter(range(100, 1000, 10))
    history = train(
        nested,
        _batches(2),
        epochs=2,
        objective=_objective(),
        optimizer=optimizer,
        progress=reports.append,
        evaluate=lambda n: {"small": 50.0},
        clock=lambda: float(next(ticks)),
    )
    assert [(r.epoch, r.step) for r in reports] == [(1, 1), (1, 2), (1, 2), (2, 1), (2, 2), (2, 2)]
    assert {(r.epochs, r.steps) for r in reports} == {(2, 2)}
    assert [r.seconds for r in reports] == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    assert [r.seconds_left for r in reports] == pytest.approx([30, 20, 30, 40 / 3, 0, 0])
    assert [dict(r.accuracies) for r in reports] == [{}, {}, *[{"small": 50.0}] * 4]
    assert history == (reports[2], reports[5])


def test_an_iterable_without_a_length_has_no_time_left_before_its_second_epoch(
    nested: NestedModel, optimizer: Optimizer
) -> None:
    class Unsized:
        def __iter__(self) -> Iterator[Batch]:
            yield from _batches(2)

    reports: list[Progress] = []
    train(
        nested,
        Unsized(),
        epochs=2,
        objective=_objective(),
        optimizer=optimizer,
        progress=reports.append,
    )
    assert [r.steps for r in reports] == [None, None, 2, 2]
    assert [r.seconds_left is None for r in reports] == [True, True, False, False]


def test_the_reported_loss_is_the_mean_over_the_epoch(
    nested: NestedModel, optimizer: Optimizer
) -> None:
    values = iter([1.0, 2.0, 6.0])

    def objective(
        network: NestedModel, inputs: Any, target: Any, _: Step
    ) -> Iterator[torch.Tensor]:
        value = next(values)
        yield network(inputs)["logits"].sum() * 0 + value / 2
        yield network(inputs)["logits"].sum() * 0 + value / 2

    reports: list[Progress] = []
    train(
        nested,
        _batches(3),
        epochs=1,
        objective=objective,
        optimizer=optimizer,
        progress=reports.append,
    )
    assert [r.loss for r in reports] == pytest.approx([1.0, 1.5, 3.0])


def test_the_schedule_is_stepped_after_every_step(
    nested: NestedModel, optimizer: Optimizer
) -> None:
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(
        nested,
        _batches(3),
        epochs=2,
        objective=_objective(),
        optimizer=optimizer,
        schedule=schedule,
    )
    assert schedule.get_last_lr() == pytest.approx([0.1 / 7])


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_the_mode_is_as_before_afterwards(
    nested: NestedModel, optimizer: Optimizer, mode: bool
) -> None:
    nested.train(mode)
    modes: list[bool] = []

    def objective(
        network: NestedModel, inputs: Any, target: Any, _: Step
    ) -> Iterator[torch.Tensor]:
        modes.append(network.training)
        yield network(inputs)["logits"].sum()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(nested, _batches(), epochs=1, objective=objective, optimizer=optimizer)
    assert modes == [True]
    assert nested.training is mode


def _infinite(network: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
    yield network(inputs)["logits"].sum() * float("inf")


def _vectorial(network: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
    yield network(inputs)["logits"]


REFUSALS: dict[str, tuple[Callable[[], Batches], int, Objective, str]] = {
    "no epoch": (_batches, 0, _objective(), "epochs: expected 1 or more, found 0"),
    "no batch": (list, 1, _objective(), "batches: expected at least one, found none"),
    "spent": (lambda: iter(_batches()), 2, _objective(), "an iterator that has run once is empty"),
    "no pair": (
        lambda: [torch.zeros(2, 6)],  # type: ignore[list-item]
        1,
        _objective(),
        r"batch 0: expected a pair \(inputs, target\), found a Tensor",
    ),
    "infinite": (_batches, 1, _infinite, "epoch 1, step 1: the loss is -?inf"),
    "vector": (_batches, 1, _vectorial, r"expected scalar losses, found shape \(8, 3\)"),
    "level": (_batches, 1, _objective("ful"), "no level 'ful'.*did you mean 'full'"),
}


@pytest.mark.parametrize(
    ("batches", "epochs", "objective", "message"), list(REFUSALS.values()), ids=list(REFUSALS)
)
def test_what_cannot_be_trained_is_refused(
    nested: NestedModel,
    optimizer: Optimizer,
    batches: Callable[[], Batches],
    epochs: int,
    objective: Objective,
    message: str,
) -> None:
    with pytest.raises(NestedgeError, match=message):
        train(nested, batches(), epochs=epochs, objective=objective, optimizer=optimizer)
    assert all(p.isfinite().all() for p in nested.parameters())


def test_an_optimizer_of_the_module_that_was_nested_is_refused(nested: NestedModel) -> None:
    foreign = SGD(copy.deepcopy(nested).parameters(), 0.1)
    with pytest.raises(UsageError, match=r"make the optimizer from nested.parameters\(\)"):
        train(nested, _batches(), epochs=1, objective=_objective(), optimizer=foreign)


def test_a_batch_that_a_batch_norm_cannot_measure_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    nested = nest(model, vectors(2)[0], {"small": 0.5, "full": 1.0}, card=Card(divisor=4))
    batches = [vectors(8), vectors(1)]
    with pytest.raises(NestedgeError, match=r"epoch 1: 'shared.1.running_var' .*batch of one"):
        train(
            nested,
            batches,
            epochs=1,
            objective=joint_objective(("small", "full"), nn.CrossEntropyLoss()),
            optimizer=SGD(nested.parameters(), 0.1),
        )
