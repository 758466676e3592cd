from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize
from nestedge.nested import NestedModel, nest
from nestedge.training.nested_masks import nested_masks
from nestedge.training.sparsity import Sparsity, prunable
from nestedge.tree import named
from tests.networks import images, resnet

Make = Callable[[Iterable[torch.Tensor]], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: SGD(p, 0.05),
    "sgd-momentum": lambda p: SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "sgd-nesterov": lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, 0.01, momentum=0.9, centered=True),
}


class Mixed(nn.Module):
    """Every kind of layer that is pruned, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 12)
        self.tied = nn.Linear(12, 5, bias=False)
        self.tied.weight = self.table.weight
        self.wide = nn.Linear(12, 16)
        self.norm = nn.LayerNorm(16)
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.slope = nn.PReLU(4)
        self.up = nn.ConvTranspose1d(4, 2, 2, stride=2)
        self.down = nn.Linear(64, 12, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of five tokens for each token."""
        x = self.norm(self.wide(self.table(tokens)))
        x = self.up(self.slope(self.conv(x.unsqueeze(1))))
        scores: torch.Tensor = self.tied(self.down(x.flatten(1)))
        return scores


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    torch.manual_seed(0)
    return nest(resnet().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64), {}).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


@pytest.fixture(scope="module")
def linear() -> NestedModel:
    return nest(nn.Linear(3, 2).double(), torch.zeros(2, 3, dtype=torch.float64), {}).train()


def _linear(model: NestedModel, *weights: float) -> tuple[NestedModel, torch.Tensor]:
    copied = copy.deepcopy(model)
    weight = named(copied.shared)["weight"]
    with torch.no_grad():
        weight.copy_(torch.tensor(weights, dtype=torch.float64).reshape(2, 3))
    return copied, weight


def _train(nested: NestedModel, optimizer: Optimizer, steps: int = 3, *, seed: int = 0) -> None:
    for step in range(steps):
        inputs, target = images(4, seed=100 * seed + step)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(nested(inputs), target))
        optimizer.step()


def test_only_weights_of_convolutions_and_linear_layers_are_pruned() -> None:
    nested = nest(Mixed(), torch.zeros(2, dtype=torch.int64), {})
    assert prunable(nested) == ("wide.weight", "conv.weight", "up.weight", "down.weight")


def test_a_network_without_layers_cannot_be_pruned() -> None:
    with pytest.raises(UsageError, match="expected a convolution or a linear layer to prune"):
        Sparsity(nest(nn.LayerNorm(4), torch.zeros(2, 4), {}))


def test_the_smallest_survivors_of_all_layers_die(nested: NestedModel) -> None:
    sparsity = Sparsity(nested)
    before = {name: weight.detach().clone() for name, weight in sparsity.weights.items()}
    total = sparsity.survivors()
    assert total == sum(weight.numel() for weight in before.values())
    sparsity.prune(total // 2)
    sparsity.prune(total // 4)
    flat = torch.cat([weight.abs().flatten() for weight in before.values()])
    threshold = flat.sort().values[total // 2 + total // 4 - 1]
    for name, weight in sparsity.weights.items():
        expected = before[name].abs() > threshold
        np.testing.assert_array_equal(sparsity.masks()[name], expected.numpy())
        assert torch.equal(weight, before[name] * expected)
    assert sparsity.survivors() == total - total // 2 - total // 4
    assert sparsity.density() == sparsity.survivors() / total


def test_weights_as_large_as_the_last_die_with_it(linear: NestedModel) -> None:
    nested, weight = _linear(linear, 1, -2, 2, 3, 2, -4)
    Sparsity(nested).prune(2)
    assert weight.flatten().tolist() == [0, 0, 0, 3, 0, -4]


@pytest.mark.parametrize(
    ("minimum", "expected"),
    [(1, [0, 0, 0, 0, 0, -4]), (3, [0, -2, 0, 3, 0, -4]), (9, [1, -2, 2, 3, 2, -4])],
)
def test_no_layer_loses_its_minimum(linear: NestedModel, minimum: int, expected: list[int]) -> None:
    nested, weight = _linear(linear, 1, -2, 2, 3, 2, -4)
    sparsity = Sparsity(nested, minimum=minimum)
    sparsity.cut(100.0)
    sparsity.prune(sparsity.survivors())
    assert weight.flatten().tolist() == expected


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_dead_weights_stay_exactly_zero(nested: NestedModel, make: Make) -> None:
    optimizer = make(nested.parameters())
    sparsity = Sparsity(nested)
    sparsity.attach(optimizer)
    _train(nested, optimizer)
    sparsity.prune(sparsity.survivors() * 9 // 10)
    masks = sparsity.masks()
    # Pruned in full swing: what the optimizer remembers of the dead must not lift them.
    _train(nested, optimizer)
    for name, weight in sparsity.weights.items():
        dead = torch.from_numpy(~masks[name])
        state = [t for t in optimizer.state[weight].values() if t.shape == weight.shape]
        for tensor in (weight, *state):
            assert not tensor[dead].any()
            assert tensor[~dead].any()
    assert all(np.array_equal(mask, masks[name]) for name, mask in sparsity.masks().items())


def test_dead_weights_that_became_infinite_are_zero_again(nested: NestedModel) -> None:
    optimizer = SGD(nested.parameters(), 0.1)
    sparsity = Sparsity(nested)
    sparsity.prune(100)
    sparsity.attach(optimizer)
    for weight in nested.parameters():
        weight.grad = torch.full_like(weight, torch.inf)
    optimizer.step()
    zeros = sum(int((weight == 0).sum()) for weight in sparsity.weights.values())
    assert zeros == 100


def test_what_lives_learns_as_without_masks(linear: NestedModel) -> None:
    nested, weight = _linear(linear, 1, -2, 2.5, 3, 0.5, -4)
    sparsity = Sparsity(nested)
    sparsity.cut(1.0)
    optimizer = SGD(nested.parameters(), 0.1, momentum=0.5)
    sparsity.attach(optimizer)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    np.testing.assert_allclose(
        weight.detach().flatten(), [0, -2.25, 2.25, 2.75, 0, -4.25], atol=1e-12
    )


def test_a_removed_handle_lets_weights_go(linear: NestedModel) -> None:
    nested, weight = _linear(linear, 1, -2, 2.5, 3, 0.5, -4)
    sparsity = Sparsity(nested)
    sparsity.cut(1.0)
    optimizer = SGD(nested.parameters(), 0.1)
    sparsity.attach(optimizer).remove()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight.all()


def test_with_a_threshold_weights_die_at_once_and_after_every_step(linear: NestedModel) -> None:
    nested, weight = _linear(linear, 0.2, -0.2, 0.9, 0.5, -0.5, 1)
    optimizer = SGD(nested.parameters(), 1.0)
    Sparsity(nested).attach(optimizer, threshold=0.2)
    assert weight.flatten().tolist() == [0, 0, 0.9, 0.5, -0.5, 1]
    weight.grad = torch.tensor([[1, 1, 1, 0.4, -0.2, 0]], dtype=torch.float64).reshape(2, 3)
    optimizer.step()
    # One passed through the band to its other side, and lives.
    np.testing.assert_allclose(weight.detach().flatten(), [0, 0, 0, 0, -0.3, 1], atol=1e-12)


def test_the_hard_mask_has_not_the_gradient_of_the_soft_one(linear: NestedModel) -> None:
    threshold, above = 0.015, 0.015 + 1e-7
    soft = torch.tensor(above, dtype=torch.float64, requires_grad=True)
    (soft * torch.tanh(1e5 * F.relu(soft.abs() - threshold))).backward()  # type: ignore[no-untyped-call]
    assert soft.grad is not None
    assert soft.grad.item() == pytest.approx(1500, rel=1e-3)
    nested, weight = _linear(linear, above, 1, 1, 1, 1, 1)
    optimizer = SGD(nested.parameters(), 1.0)
    Sparsity(nested).attach(optimizer, threshold=threshold)
    inputs = torch.tensor([[-1.0, 0, 0]], dtype=torch.float64)
    torch.autograd.backward(nested(inputs)[0, 0])
    optimizer.step()
    assert weight[0, 0].item() == pytest.approx(above + 1)


def test_training_resumes_with_the_same_weights(nested: NestedModel) -> None:
    def begin(network: NestedModel) -> tuple[Sparsity, Optimizer]:
        optimizer = Adam(network.parameters(), 0.01)
        sparsity = Sparsity(network)
        sparsity.attach(optimizer, threshold=1e-3)
        return sparsity, optimizer

    twin = copy.deepcopy(nested)
    sparsity, optimizer = begin(nested)
    sparsity.prune(20_000)
    _train(nested, optimizer)
    saved = copy.deepcopy([nested.state_dict(), optimizer.state_dict(), sparsity.state_dict()])
    assert all(isinstance(value, torch.Tensor) for value in saved[2].values())
    _train(nested, optimizer, seed=1)
    again, other = begin(twin)
    twin.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    _train(twin, other, seed=1)
    for name, tensor in nested.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name
    for name, live in sparsity.state_dict().items():
        assert torch.equal(live, again.state_dict()[name]), name


def test_a_state_is_a_copy(linear: NestedModel) -> None:
    nested, _ = _linear(linear, 1, -2, 2.5, 3, 0.5, -4)
    sparsity = Sparsity(nested)
    state, masks = sparsity.state_dict(), sparsity.masks()
    sparsity.cut(1.0)
    assert state["weight"].all()
    assert masks["weight"].all()
    sparsity.load_state_dict(state)
    sparsity.state_dict()["weight"].fill_(False)
    state["weight"].fill_(False)
    assert sparsity.survivors() == 6


def test_a_level_of_the_masks_materialises_to_the_pruned_network(nested: NestedModel) -> None:
    optimizer = SGD(nested.parameters(), 0.05, momentum=0.9)
    sparsity = Sparsity(nested)
    sparsity.attach(optimizer)
    sparsity.prune(int(0.97 * sparsity.survivors()))
    _train(nested, optimizer)
    nested.eval()
    nested.add_level("sparse", Level(masks=sparsity.masks()))
    inputs, _ = images(4)
    expected = nested(inputs)
    with nested.at("sparse"):
        torch.testing.assert_close(nested(inputs), expected, rtol=0, atol=0)
    found = materialize(nested, "sparse").module()(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_levels_of_nested_masks_are_kept_one_after_the_other(nested: NestedModel) -> None:
    sparsity = Sparsity(nested)
    levels = nested_masks(sparsity.weights, {"small": 0.1, "large": 0.5})
    sparsity.keep(levels["large"])
    assert sparsity.density() == pytest.approx(0.5, abs=1e-4)
    sparsity.keep(levels["small"])
    assert sparsity.density() == pytest.approx(0.1, abs=1e-4)
    for name, mask in sparsity.masks().items():
        np.testing.assert_array_equal(mask, levels["small"][name])
    # What has died does not come back with a mask that has it.
    sparsity.keep(levels["large"])
    assert sparsity.density() == pytest.approx(0.1, abs=1e-4)
    for name in ("large", "small"):
        nested.add_level(name, Level(masks=levels[name]))


def _other_optimizer(sparsity: Sparsity) -> None:
    sparsity.attach(SGD([nn.Parameter(torch.zeros(2))], 0.1))


REFUSED: dict[str, tuple[Callable[[Sparsity], object], str]] = {
    "minimum": (lambda s: s.prune(-1), "count: expected 0 to 6 survivors, found -1"),
    "count": (lambda s: s.prune(7), "count: expected 0 to 6 survivors, found 7"),
    "name": (
        lambda s: s.keep({"weigth": np.ones((2, 3))}),
        "mask for 'weigth', which is not pruned; did you mean 'weight'",
    ),
    "shape": (
        lambda s: s.keep({"weight": np.ones((1, 3))}),
        r"mask of 'weight': expected shape \[2, 3\], found \[1, 3\]",
    ),
    "empty": (
        lambda s: s.keep({"weight": np.zeros((2, 3))}),
        "mask of 'weight': expected at least 1 weights that live, found 0",
    ),
    "optimizer": (_other_optimizer, "optimizer: expected weights that are pruned"),
    "state-names": (lambda s: s.load_state_dict({}), r"expected masks of \['weight'\], found \[\]"),
    "state-shape": (
        lambda s: s.load_state_dict({"weight": torch.ones(6, dtype=torch.bool)}),
        r"expected shape \[2, 3\], found \[6\]",
    ),
    "state-dtype": (
        lambda s: s.load_state_dict({"weight": torch.ones(2, 3)}),
        "mask of 'weight': expected torch.bool, found torch.float32",
    ),
    "state-empty": (
        lambda s: s.load_state_dict({"weight": torch.zeros(2, 3, dtype=torch.bool)}),
        "expected at least 1 weights that live, found 0",
    ),
}


@pytest.mark.parametrize(("ask", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(
    linear: NestedModel, ask: Callable[[Sparsity], object], message: str
) -> None:
    nested, weight = _linear(linear, 1, -2, 2.5, 3, 0.5, -4)
    sparsity = Sparsity(nested)
    with pytest.raises(UsageError, match=message):
        ask(sparsity)
    assert sparsity.survivors() == 6
    assert weight.all()


def test_a_minimum_of_no_weight_is_refused(linear: NestedModel) -> None:
    with pytest.raises(UsageError, match="minimum: expected 1 weight or more"):
        Sparsity(linear, minimum=0)
