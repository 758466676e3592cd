from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from nestedge.cost import count_parameters
from nestedge.materialization import level_program
from nestedge.model import NestedModel
from nestedge.training import Checkpoints, train
from nestedge.training.apg import AcceleratedProximalGradient
from nestedge.training.objectives import full_objective
from nestedge.training.scale_factors import ScaleFactors, add_scale_factors
from nestedge.training.sss import JointOptimizer, sss_optimizer
from tests.networks import images
from tests.training.selectable import NETWORKS, add_selected, difference, nested_in_double

BATCHES = [images(8, seed=seed) for seed in range(5)]
OBJECTIVE = full_objective(F.cross_entropy)


@pytest.fixture(scope="module")
def originals() -> dict[str, NestedModel]:
    # Captured in training mode once for all tests.
    return {name: nested_in_double(make()).train() for name, make in NETWORKS.items()}


@pytest.fixture
def networks(originals: dict[str, NestedModel]) -> dict[str, NestedModel]:
    return copy.deepcopy(originals)


def _select(
    nested: NestedModel, *, epochs: int = 4, gamma: float = 0.2, folder: Path | None = None
) -> ScaleFactors:
    factors = add_scale_factors(nested)
    optimizer = sss_optimizer(nested, factors, lr=0.05, gamma=gamma)
    train(
        nested,
        BATCHES,
        epochs=epochs,
        objective=OBJECTIVE,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, 8, gamma=0.5),
        checkpoints=None if folder is None else Checkpoints(folder),
    )
    return factors


@pytest.mark.parametrize(
    ("network", "gamma"), [("resnet", 0.21), ("grouped", 0.2), ("preactivation", 0.2)]
)
def test_structures_die_in_training_and_the_network_without_them_is_the_same(
    networks: dict[str, NestedModel], network: str, gamma: float
) -> None:
    nested = networks[network]
    before = count_parameters(nested.elastic.program)
    factors = _select(nested, gamma=gamma)
    sizes = {name: len(vector) for name, vector in factors.factors().items()}
    counts = factors.counts()
    assert 0 < sum(counts.values()) < 0.9 * sum(sizes.values())
    assert all((vector >= 0).all() for vector in factors.factors().values())
    add_selected(nested, factors)
    assert difference(nested, "selected") < 1e-10
    assert count_parameters(level_program(nested, "selected").program) < 0.9 * before


def test_without_a_penalty_no_structure_dies(networks: dict[str, NestedModel]) -> None:
    factors = _select(networks["grouped"], gamma=0.0, epochs=1)
    assert all((vector > 0.5).all() for vector in factors.factors().values())
    assert not any((vector == 1).all() for vector in factors.factors().values())


def test_the_joint_optimizer_makes_the_steps_of_both(networks: dict[str, NestedModel]) -> None:
    alone, nested = networks["grouped"], copy.deepcopy(networks["grouped"])
    factors = add_scale_factors(nested)
    _train(nested, sss_optimizer(nested, factors, lr=0.05, gamma=0.2), epochs=1)
    views = add_scale_factors(alone)
    shared = list(alone.shared.parameters())
    weights = SGD(shared, lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    proximal = AcceleratedProximalGradient(views.parameters(), lr=0.05, gamma=0.2)
    for inputs, target in BATCHES:
        alone.zero_grad()
        torch.autograd.backward(F.cross_entropy(alone(inputs), target))
        weights.step()
        proximal.step()
    found, expected = nested.state_dict(), alone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def _train(nested: NestedModel, optimizer: torch.optim.Optimizer, *, epochs: int) -> None:
    train(nested, BATCHES, epochs=epochs, objective=OBJECTIVE, optimizer=optimizer)


def test_training_that_was_interrupted_ends_with_the_same_weights_and_factors(
    networks: dict[str, NestedModel], tmp_path: Path
) -> None:
    whole = networks["grouped"]
    half, resumed = copy.deepcopy(whole), copy.deepcopy(whole)
    _select(whole, epochs=4)
    _select(half, epochs=2, folder=tmp_path)
    _select(resumed, epochs=4, folder=tmp_path)
    found = resumed.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.state_dict().items())


def test_one_schedule_changes_both_learning_rates_also_after_loading(
    networks: dict[str, NestedModel],
) -> None:
    nested = networks["grouped"]
    optimizer = sss_optimizer(nested, add_scale_factors(nested), lr=0.1, gamma=0.01)
    assert isinstance(optimizer, JointOptimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    schedule.step()
    for part in (optimizer.weights, optimizer.factors):
        assert [group["lr"] for group in part.param_groups] == [0.05]


def test_factors_have_no_weight_decay(networks: dict[str, NestedModel]) -> None:
    nested = networks["grouped"]
    factors = add_scale_factors(nested)
    optimizer = sss_optimizer(nested, factors, lr=0.1, gamma=0.0, weight_decay=0.5)
    before = {name: value.clone() for name, value in nested.state_dict().items()}
    for parameter in nested.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = nested.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"shared.{name}" for name, _ in nested.shared.named_parameters()}
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in nested.parameters())
