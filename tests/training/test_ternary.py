from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.nested import NestedModel, nest
from nestedge.training.sparsity import Sparsity, prunable
from nestedge.training.ternary import TernaryStart, start_from, ternary_start
from nestedge.tree import named
from tests.networks import RESNET_LEVELS, images, resnet


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    model = resnet().double()
    redraw(model, seed=0)
    levels = {"small": RESNET_LEVELS["small"]}
    return nest(model, torch.zeros(2, 3, 8, 8, dtype=torch.float64), levels).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


@pytest.fixture
def pruned(nested: NestedModel) -> NestedModel:
    sparsity = Sparsity(nested)
    sparsity.prune(int(0.95 * sparsity.survivors()))
    return nested


@pytest.fixture(scope="module")
def linear() -> NestedModel:
    return nest(nn.Linear(3, 2).double(), torch.zeros(2, 3, dtype=torch.float64), {}).train()


def _linear(model: NestedModel, *weights: float) -> NestedModel:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        named(copied.shared)["weight"].copy_(
            torch.tensor(weights, dtype=torch.float64).reshape(2, 3)
        )
    return copied


@pytest.mark.parametrize(
    ("weights", "positive", "negative", "started"),
    [
        pytest.param([1, 0, 3, -1, -2, 0], 2.0, -1.5, [2, 0, 2, -1.5, -1.5, 0], id="both"),
        pytest.param([1, 0, 3, 0, 0, 0], 2.0, 0.0, [2, 0, 2, 0, 0, 0], id="no-negative"),
        pytest.param([0, 0, -3, 0, -1, 0], 0.0, -2.0, [0, 0, -2, 0, -2, 0], id="no-positive"),
        pytest.param([1, 1, 1, 1, 1, 2], 7 / 6, 0.0, [7 / 6] * 6, id="dense"),
    ],
)
def test_two_means_stand_for_a_layer(
    linear: NestedModel,
    weights: list[float],
    positive: float,
    negative: float,
    started: list[float],
) -> None:
    nested = _linear(linear, *weights)
    (layer,) = ternary_start(nested).layers
    assert (layer.positive, layer.negative) == (np.float32(positive), np.float32(negative))
    start_from(TernaryStart((layer,)), nested)
    found = named(nested.shared)["weight"].detach().flatten()
    np.testing.assert_array_equal(found, np.array(started, dtype=np.float32))
    np.testing.assert_array_equal(layer.mask().ravel(), np.array(started) != 0)


def test_a_network_starts_with_two_values_per_layer_and_new_norms(
    trainable: NestedModel, pruned: NestedModel
) -> None:
    start = ternary_start(pruned)
    assert tuple(layer.name for layer in start.layers) == prunable(pruned)
    nested = copy.deepcopy(trainable)
    for name, buffer in nested.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(7)
    start_from(start, nested)
    tensors, twins = named(nested.shared), named(pruned.shared)
    for name in prunable(nested):
        assert torch.equal(tensors[name].sign(), twins[name].sign())
        assert len(set(tensors[name].flatten().tolist())) == 3
    # A norm starts alike in every channel, so that a level's own are the first of the network's.
    fresh = resnet().double().state_dict()
    for group in (tensors, nested.own_tensors("small")):
        assert any(name.endswith("num_batches_tracked") for name in group)
        for name in group.keys() - set(prunable(nested)):
            biased = name.endswith("bias")
            expected = torch.zeros_like(fresh[name]) if biased else fresh[name]
            assert torch.equal(
                group[name], expected[: len(group[name])] if expected.dim() else expected
            )


def test_only_what_lives_is_trained_from_a_start(
    trainable: NestedModel, pruned: NestedModel
) -> None:
    start = ternary_start(pruned)
    nested = copy.deepcopy(trainable)
    sparsity = start_from(start, nested)
    optimizer = SGD(nested.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    sparsity.attach(optimizer)
    losses = []
    inputs, target = images(16)
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(nested(inputs), target)
        torch.autograd.backward(loss)
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    for layer in start.layers:
        weight = named(nested.shared)[layer.name].detach().numpy()
        np.testing.assert_array_equal(weight != 0, layer.mask())
        np.testing.assert_array_equal(sparsity.masks()[layer.name], layer.mask())


class Scaled(nn.Module):
    """A linear layer and a factor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two scaled sums."""
        scaled: torch.Tensor = self.factor * self.layer(x)
        return scaled


def test_parameters_that_two_numbers_do_not_give_are_refused(linear: NestedModel) -> None:
    scaled = nest(Scaled(), torch.zeros(2, 3), {})
    with pytest.raises(UsageError, match="parameter 'factor': expected only weights and biases"):
        ternary_start(scaled)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.0] * 6, "'weight': expected weights that are not zero, found none"),
        ([1.0, np.nan, 0, 0, 0, 0], "'weight' is infinite or not a number"),
        ([1.0, 2, -np.inf, 0, 0, 0], "'weight' is infinite or not a number"),
    ],
    ids=["empty", "nan", "infinite"],
)
def test_a_layer_without_means_is_refused(
    linear: NestedModel, weights: list[float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ternary_start(_linear(linear, *weights))


def _other(make: Callable[[], nn.Module], width: int) -> TernaryStart:
    return ternary_start(nest(make(), torch.zeros(2, width), {}))


OTHERS: dict[str, tuple[Callable[[], TernaryStart], str]] = {
    "name": (
        lambda: _other(lambda: nn.Sequential(nn.Linear(3, 2)), 3),
        "start: '0.weight' is no layer of the network",
    ),
    "shape": (
        lambda: _other(lambda: nn.Linear(4, 2), 4),
        r"start: 'weight' has shape \[2, 4\], the network's has \[2, 3\]",
    ),
    "missing": (lambda: TernaryStart(()), "start: nothing of the network's layer 'weight'"),
}


@pytest.mark.parametrize(("make", "message"), OTHERS.values(), ids=OTHERS)
def test_the_start_of_another_network_is_refused_and_changes_nothing(
    linear: NestedModel, make: Callable[[], TernaryStart], message: str
) -> None:
    nested = _linear(linear, 1, 2, 3, 4, 5, 6)
    before = {name: tensor.clone() for name, tensor in nested.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        start_from(make(), nested)
    assert all(torch.equal(before[name], t) for name, t in nested.state_dict().items())
