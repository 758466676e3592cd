from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize
from nestedge.nested import NestedModel, nest
from nestedge.training import Step, joint_objective, learn_connections, train
from nestedge.training.nested_masks import LevelMasks
from nestedge.training.sparsity import Sparsity
from tests.networks import Perceptron, cross_entropy, vectors

THRESHOLDS = {"third": 0.12, "full": 0.0, "half": 0.06}


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    torch.manual_seed(0)
    return nest(Perceptron(dropout=0.0).double(), vectors(2)[0], {}).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


def _learned(
    nested: NestedModel, sparsity: Sparsity
) -> tuple[LevelMasks, list[str], list[dict[str, torch.Tensor]]]:
    """The masks, the phases in order, and the weights after each."""
    phases, weights = list[str](), list[dict[str, torch.Tensor]]()

    def phase(level: str, threshold: float) -> None:
        optimizer = SGD(nested.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
        with_masks = sparsity.attach(optimizer, threshold=threshold)
        objective = _full
        train(nested, [vectors(16)] * 5, epochs=2, objective=objective, optimizer=optimizer)
        with_masks.remove()
        phases.append(level)
        weights.append(copy.deepcopy(nested.state_dict()))

    return learn_connections(nested, sparsity, THRESHOLDS, phase), phases, weights


def _full(nested: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[torch.Tensor]:
    yield cross_entropy(nested(inputs), target)


def test_each_phase_is_sparser_and_inside_the_one_before(nested: NestedModel) -> None:
    sparsity = Sparsity(nested)
    masks, phases, weights = _learned(nested, sparsity)
    assert phases == list(masks) == ["full", "half", "third"]
    densities = [np.concatenate([m.ravel() for m in masks[p].values()]).mean() for p in phases]
    assert 1.0 >= densities[0] > densities[1] > densities[2] > 0
    for name, mask in masks["full"].items():
        assert (masks["half"][name] <= mask).all()
        assert (masks["third"][name] <= masks["half"][name]).all()
        last = weights[-1][f"shared.{name}"].numpy()
        assert (last[~masks["third"][name]] == 0).all()
        assert (np.abs(last[masks["third"][name]]) > THRESHOLDS["third"]).mean() > 0.9


def test_joint_training_begins_with_the_weights_of_the_first_phase(nested: NestedModel) -> None:
    _, _, weights = _learned(nested, Sparsity(nested))
    for name, tensor in nested.state_dict().items():
        assert torch.equal(tensor, weights[0][name]), name
    assert not torch.equal(
        nested.state_dict()["shared.first.weight"], weights[1]["shared.first.weight"]
    )


def test_the_levels_are_trained_together_and_materialise_as_they_are(nested: NestedModel) -> None:
    masks, *_ = _learned(nested, Sparsity(nested))
    for level, of_level in masks.items():
        nested.add_level(level, Level(masks=of_level))
    assert nested.nesting.is_chain()
    optimizer = SGD(nested.parameters(), 0.05)
    objective = joint_objective(list(masks), cross_entropy)
    train(nested, [vectors(16)] * 5, epochs=2, objective=objective, optimizer=optimizer)
    x = vectors(4)[0]
    nested.eval()
    for level in masks:
        with nested.at(level), torch.no_grad():
            torch.testing.assert_close(materialize(nested, level).module()(x), nested(x))


@pytest.mark.parametrize(
    ("thresholds", "found"),
    [({}, r"\[\]"), ({"a": -0.1}, r"\[-0.1\]"), ({"a": 0.1, "b": 0.1}, r"\[0.1, 0.1\]")],
)
def test_thresholds_that_make_no_levels_are_refused(
    nested: NestedModel, thresholds: dict[str, float], found: str
) -> None:
    with pytest.raises(UsageError, match=f"expected different ones of 0 or more.*found {found}"):
        learn_connections(nested, Sparsity(nested), thresholds, lambda level, threshold: None)
