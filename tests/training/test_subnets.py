from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.nested import NestedModel
from nestedge.training.subnets import Subnets
from tests.networks import images, logits_of, nested_perceptron, nested_resnet, vectors


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_perceptron(dropout=0.5).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


def _hidden(count: int) -> Level:
    return Level(width={"first": count})


def test_the_subnet_not_asked_for_the_longest_goes_first(nested: NestedModel) -> None:
    before = nested.levels
    with Subnets(nested, limit=2) as subnets:
        first, second = subnets.name_of(_hidden(3)), subnets.name_of(_hidden(5))
        assert subnets.name_of(_hidden(3)) == first
        third = subnets.name_of(_hidden(7))
        assert nested.levels == (*before, first, third)
        assert second not in nested.levels
    assert nested.levels == before


def test_subnets_are_removed_when_the_block_ends_in_an_error(nested: NestedModel) -> None:
    before = nested.levels
    with pytest.raises(UsageError, match="found 17"), Subnets(nested) as subnets:
        _ask_for(subnets, 3, 17)
    assert nested.levels == before


def _ask_for(subnets: Subnets, *counts: int) -> None:
    for count in counts:
        subnets.name_of(_hidden(count))


def test_names_of_subnets_leave_out_those_of_the_users_levels(nested: NestedModel) -> None:
    nested.add_level("_subnet-0", 0.5)
    with Subnets(nested) as subnets:
        assert subnets.name_of(_hidden(3)) == "_subnet-1"
    assert "_subnet-0" in nested.levels


def test_a_subnet_runs_without_dropout_and_the_full_network_with_it(nested: NestedModel) -> None:
    inputs, _ = vectors(8)
    with Subnets(nested) as subnets:
        found = [logits_of(subnets.run(_hidden(16), inputs)) for _ in range(2)]
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[0], nested.eval()(inputs)["logits"], rtol=1e-12, atol=1e-12)
    assert not torch.equal(nested.train()(inputs)["logits"], found[0])


def test_a_subnet_leaves_the_stored_statistics_alone() -> None:
    nested = nested_resnet().train()
    inputs, _ = images(4)
    before = {name: buffer.clone() for name, buffer in nested.named_buffers()}
    with Subnets(nested) as subnets:
        found = subnets.run(Level(0.5), inputs)
        for name, buffer in nested.named_buffers():
            assert torch.equal(buffer, before[name]), name
        with nested.at(subnets.name_of(Level(0.5))):
            torch.testing.assert_close(nested(inputs), found, rtol=1e-12, atol=1e-12)
    assert any(not torch.equal(b, before[name]) for name, b in nested.named_buffers())


def test_subnets_refuse_masks_and_a_limit_of_none(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match="limit: expected 1 or more subnets, found 0"):
        Subnets(nested, limit=0)
    masked = Level(masks={"first.weight": np.ones((16, 6), dtype=bool)})
    with pytest.raises(UsageError, match="expected a level without masks"), Subnets(nested) as some:
        some.name_of(masked)
