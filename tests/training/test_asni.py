from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.nested import NestedModel, nest
from nestedge.training import joint_objective, train
from nestedge.training.asni import (
    ScheduledPruning,
    Sigmoid,
    sparsity_schedule,
    two_segment_schedule,
)
from nestedge.training.sparsity import Sparsity

CONV4 = partial(sparsity_schedule, magnitude=95, scale=2)
EPOCHS = 25
# The settings of the authors' Conv-4 on CIFAR-10, whose logs have these percentages.
PUBLISHED = {
    0: 0.183,
    5: 2.183,
    10: 21.157,
    12: 41.593,
    13: 53.407,
    15: 73.843,
    20: 92.817,
    23: 94.504,
    24: 94.699,
}


@pytest.fixture(scope="module")
def perceptron() -> NestedModel:
    model = nn.Sequential(nn.Linear(40, 300), nn.ReLU(), nn.Linear(300, 100), nn.Linear(100, 10))
    # Normal weights, of which every layer has some that are above any threshold here.
    redraw(model, seed=0)
    return nest(model, torch.zeros(2, 40), {"full": 1.0}).train()


@pytest.fixture
def sparsity(perceptron: NestedModel) -> Sparsity:
    return Sparsity(copy.deepcopy(perceptron))


@pytest.mark.parametrize(("epoch", "percent"), PUBLISHED.items())
def test_the_schedule_is_the_published_one(epoch: int, percent: float) -> None:
    assert CONV4(epoch, EPOCHS) == pytest.approx(percent, abs=5e-4)


def test_a_schedule_may_be_as_steep_as_a_step() -> None:
    steep = partial(sparsity_schedule, magnitude=90, scale=1e-9)
    assert [steep(epoch, 11) for epoch in (0, 5, 6, 10)] == [0, 0, 90, 90]


def test_a_schedule_of_two_segments_rises_on_top_of_the_first() -> None:
    schedule = partial(
        two_segment_schedule, rest=10, first=Sigmoid(60, 1), second=Sigmoid(30, 0.5, 0.25)
    )
    found = [schedule(epoch, 30) for epoch in range(30)]
    assert found[5] == pytest.approx(30)
    assert found[9] == pytest.approx(60 / (1 + np.exp(-4)))
    assert found[15] == pytest.approx(found[9] + 15)
    assert found[29] == pytest.approx(found[9] + 30)
    assert found == sorted(found)


@pytest.mark.parametrize(("after_last", "percent"), [(False, 94.504), (True, 94.699)])
def test_the_survivors_are_those_of_the_schedule(
    sparsity: Sparsity, after_last: bool, percent: float
) -> None:
    pruning = ScheduledPruning(sparsity, EPOCHS, schedule=CONV4, after_last=after_last)
    total = alive = sparsity.survivors()
    before = 0.0
    for epoch in range(EPOCHS):
        pruning(epoch)
        now = CONV4(epoch, EPOCHS)
        percent_of_alive = 100 * (now - before) / (100 - before)
        if epoch < EPOCHS - 1 or after_last:
            alive -= int(alive * percent_of_alive / 100)
        before = now
        assert sparsity.survivors() == alive
    assert 100 * (1 - sparsity.density()) == pytest.approx(percent, abs=0.02)
    assert total == 43_000


def test_a_step_of_a_thousandth_is_skipped_and_not_made_up_for(sparsity: Sparsity) -> None:
    percentages = [0.1, 0.19, 10.0]
    pruning = ScheduledPruning(sparsity, 4, schedule=lambda epoch, _: percentages[epoch])
    pruning(0)
    pruning(1)
    assert sparsity.survivors() == 43_000
    pruning(2)
    assert sparsity.survivors() == 43_000 - int(43_000 * (10 - 0.19) / (100 - 0.19))


def test_a_schedule_that_ends_with_nothing_leaves_every_layer_a_weight(sparsity: Sparsity) -> None:
    pruning = ScheduledPruning(sparsity, 3, schedule=lambda *_: 100.0)
    pruning(0)
    pruning(1)
    assert [int(mask.sum()) for mask in sparsity.masks().values()] == [1, 1, 1]


def test_the_weights_die_by_one_threshold_for_all_layers(sparsity: Sparsity) -> None:
    magnitudes = {name: weight.detach().abs() for name, weight in sparsity.weights.items()}
    ScheduledPruning(sparsity, 3, schedule=lambda *_: 60.0)(0)
    dead, alive = [], []
    for name, mask in sparsity.masks().items():
        dead.append(magnitudes[name][torch.from_numpy(~mask)].max())
        alive.append(magnitudes[name][torch.from_numpy(mask)].min())
    assert max(dead) < min(alive)
    assert len({round(float(mask.mean()), 2) for mask in sparsity.masks().values()}) == 3


def test_the_loop_prunes_after_every_epoch(perceptron: NestedModel) -> None:
    nested = copy.deepcopy(perceptron)
    sparsity = Sparsity(nested)
    optimizer = SGD(nested.parameters(), 0.1, momentum=0.9)
    sparsity.attach(optimizer)
    pruning = ScheduledPruning(
        sparsity, 6, schedule=partial(sparsity_schedule, magnitude=90, scale=0.5)
    )
    batches = [(torch.randn(8, 40), torch.randint(10, (8,))) for _ in range(3)]
    densities = []

    def evaluate(_: NestedModel) -> dict[str, float]:
        zeros = sum(int((weight == 0).sum()) for weight in sparsity.weights.values())
        assert sparsity.survivors() == 43_000 - zeros
        densities.append(sparsity.density())
        return {"full": 0.0}

    train(
        nested,
        batches,
        epochs=6,
        objective=joint_objective(["full"], F.cross_entropy),
        optimizer=optimizer,
        after_epoch=pruning,
        evaluate=evaluate,
    )
    assert densities == sorted(densities, reverse=True)
    # The last epoch trains what is saved.
    assert densities[-1] == densities[-2]
    assert densities[-1] == pytest.approx(
        1 - sparsity_schedule(4, 6, magnitude=90, scale=0.5) / 100, abs=1e-3
    )


def test_pruning_resumes_where_it_stopped(perceptron: NestedModel) -> None:
    networks = [copy.deepcopy(perceptron) for _ in range(2)]
    first, second = (ScheduledPruning(Sparsity(n), EPOCHS, schedule=CONV4) for n in networks)
    for epoch in range(13):
        first(epoch)
    state = first.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    networks[1].load_state_dict(networks[0].state_dict())
    second.load_state_dict(copy.deepcopy(state))
    for epoch in range(13, EPOCHS):
        first(epoch)
        second(epoch)
        assert second.sparsity.survivors() == first.sparsity.survivors()
    assert all(torch.equal(second.state_dict()[name], t) for name, t in first.state_dict().items())


def _pruning(sparsity: Sparsity, percent: float) -> ScheduledPruning:
    return ScheduledPruning(sparsity, 3, schedule=lambda *_: percent)


REFUSED: dict[str, tuple[Callable[[Sparsity], object], str]] = {
    "epochs": (
        lambda s: ScheduledPruning(s, 0, schedule=CONV4),
        "epochs: expected 1 or more, found 0",
    ),
    "epoch": (lambda s: _pruning(s, 50)(3), "epoch: expected 0 to 2, found 3"),
    "schedule": (
        lambda s: _pruning(s, 101)(0),
        "schedule: expected 0 to 100 percent at epoch 0, found 101",
    ),
    "state": (lambda s: _pruning(s, 50).load_state_dict({}), "expected 'scheduled' and masks"),
    "magnitude": (
        lambda s: sparsity_schedule(0, 3, magnitude=101, scale=1),
        "magnitude: expected 0 < percent <= 100, found 101",
    ),
    "scale": (
        lambda s: sparsity_schedule(0, 3, magnitude=90, scale=0),
        "scale: expected more than 0 epochs, found 0",
    ),
    "rest": (
        lambda s: two_segment_schedule(0, 3, rest=3, first=Sigmoid(9, 1), second=Sigmoid(9, 1)),
        "rest: expected an epoch between 0 and 3, found 3",
    ),
    "together": (
        lambda s: two_segment_schedule(0, 3, rest=2, first=Sigmoid(60, 1), second=Sigmoid(50, 1)),
        "magnitude: expected at most 100 percent together, found 110",
    ),
}


@pytest.mark.parametrize(("ask", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(
    sparsity: Sparsity, ask: Callable[[Sparsity], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ask(sparsity)
