from __future__ import annotations

import pytest
import torch
from torch import nn

from nestedge.errors import UsageError
from nestedge.nested import Card, NestedModel, nest
from nestedge.training import accuracy


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    """Its full level says the index of the largest input; its half is blind to inputs 2 and 3."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Dropout(0.9), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.eye(4))
    return nest(model, torch.zeros(2, 4), {"half": 0.5}, card=Card(divisor=1))


def test_accuracy_is_the_percentage_that_is_right(nested: NestedModel) -> None:
    inputs = torch.eye(4)
    batches = [(inputs[:3], torch.tensor([0, 1, 2])), (inputs[3:], torch.tensor([3]))]
    assert accuracy(nested, batches) == 100.0
    # Of nothing but zeros the first is the largest: inputs 2 and 3 are taken for 0.
    assert accuracy(nested, batches, "half") == 50.0
    assert accuracy(nested, batches, "half", logits=lambda y: y.flip(1)) == 0.0


def test_accuracy_is_measured_in_evaluation_mode_which_does_not_last(nested: NestedModel) -> None:
    nested.train()
    inputs = torch.eye(4).repeat(16, 1)
    assert accuracy(nested, [(inputs, torch.arange(4).repeat(16))]) == 100.0
    assert nested.training


def test_class_numbers_of_another_shape_are_refused(nested: NestedModel) -> None:
    message = r"expected class numbers of shape \(4,\), found shape \(4, 1\)"
    with pytest.raises(UsageError, match=message):
        accuracy(nested, [(torch.eye(4), torch.arange(4)[:, None])])


def test_an_unknown_level_is_refused_with_a_proposal(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match=r"no level 'hal'.*did you mean 'half'"):
        accuracy(nested, [(torch.eye(4), torch.arange(4))], "hal")


def test_no_batch_is_refused(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match="batches: expected at least one, found none"):
        accuracy(nested, [])
