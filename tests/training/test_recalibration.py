from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.plan import BatchNorm
from nestedge.training import Batch, recalibrate
from tests.networks import images, nested_resnet, resnet, resnet_twins, vectors


@pytest.fixture(scope="module")
def built() -> NestedModel:
    return nested_resnet()


@pytest.fixture
def nested(built: NestedModel) -> NestedModel:
    return copy.deepcopy(built)


def _batches() -> list[Batch]:
    return [(images(count, seed=count)[0], None) for count in (4, 8, 5)]


def _recalibrated(twin: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A twin recalibrated with torch's own cumulative average."""
    twin.double().load_state_dict(weights)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    twin.train()
    for inputs, _ in _batches():
        twin(inputs)
    return twin.eval()


def _statistics(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if "running" in name}


@pytest.mark.parametrize("policy", ["switchable", "statistics"])
def test_every_level_gets_the_statistics_that_torch_gives_its_twin(policy: BatchNorm) -> None:
    nested = nested_resnet(card=Card(divisor=4, batch_norm=policy))
    twins = {
        level: _recalibrated(twin, state_dict(nested, level))
        for level, twin in resnet_twins().items()
    }
    before = {name: p.detach().clone() for name, p in nested.named_parameters()}
    recalibrate(nested, _batches())
    inputs, _ = images(3)
    for level, twin in twins.items():
        found, expected = state_dict(nested, level), twin.state_dict()
        for name in _statistics(found):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)
        with nested.at(level), torch.no_grad():
            torch.testing.assert_close(nested(inputs), twin(inputs), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(p, before[name]) for name, p in nested.named_parameters())


def test_a_level_added_after_training_becomes_its_twin(nested: NestedModel) -> None:
    nested.train()
    optimizer = torch.optim.SGD(nested.parameters(), 0.05)
    for seed in range(3):
        inputs, target = images(8, seed=seed)
        with nested.at("small", "full"):
            found = nested(inputs)
        torch.autograd.backward([F.cross_entropy(y, target) for y in found.values()])
        optimizer.step()
    nested.eval()
    stored = {name: tensor.clone() for name, tensor in nested.state_dict().items()}
    nested.add_level("late", Level(width=0.75, depth=(2, 1)))
    assert all(torch.equal(nested.state_dict()[name], stored[name]) for name in stored)
    twin = resnet(0.75, depth=(2, 1))
    twin = _recalibrated(twin, state_dict(nested, "late"))  # type: ignore[assignment]
    inputs, _ = images(3)
    with nested.at("late"), torch.no_grad():
        stale = nested(inputs)
        recalibrate(nested, _batches(), levels=["late"])
        torch.testing.assert_close(nested(inputs), twin(inputs), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(nested(inputs), stale, rtol=0.1)
    assert all(torch.equal(nested.state_dict()[name], stored[name]) for name in stored)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_mode_does_not_matter_and_stays(nested: NestedModel, training: bool) -> None:
    other = copy.deepcopy(nested).train(training)
    recalibrate(nested, _batches())
    recalibrate(other, _batches())
    assert other.training is training
    for name, tensor in nested.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_level_that_is_the_whole_network_shares_its_statistics(nested: NestedModel) -> None:
    before = _statistics(state_dict(nested, "small"))
    recalibrate(nested, _batches(), levels=["full"])
    after = _statistics(state_dict(nested, "small"))
    assert all(torch.equal(after[name], before[name]) for name in before)
    inputs, _ = images(2)
    with nested.at("full"):
        assert torch.equal(nested(inputs), nested.forward(inputs))
    twin = _recalibrated(resnet(), state_dict(nested, "full"))
    with torch.no_grad():
        torch.testing.assert_close(nested(inputs), twin(inputs), rtol=1e-9, atol=1e-9)


def _nested_vectors() -> NestedModel:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    return nest(model, vectors(2)[0], {"half": 0.5}, card=Card(divisor=4))


def test_without_a_list_of_levels_the_full_network_is_recalibrated_too() -> None:
    nested = _nested_vectors()
    inputs, _ = vectors(32)
    recalibrate(nested, [(inputs, None)])
    shared = dict(nested.shared.named_parameters())
    expected = (inputs @ shared["0.weight"].T + shared["0.bias"]).mean(0).detach()
    found = {name: tensor for name, tensor in nested.named_buffers() if name.endswith("_mean")}
    torch.testing.assert_close(found["shared.1.running_mean"], expected)
    torch.testing.assert_close(found["own.level_half.1.running_mean"], expected[:4])


class _Twice(nn.Module):
    """A batch norm that is called twice, behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(F.relu(self.norm(self.first(x))))
        features: torch.Tensor = self.norm(self.second(x))
        return features.mean((2, 3))


def test_a_batch_norm_called_twice_averages_over_its_calls_and_dropout_is_off() -> None:
    model = _Twice().double()
    redraw(model, seed=0)
    nested = nest(model, images(2)[0], {"full": 1.0})
    twin = copy.deepcopy(model)
    twin.dropout.p = 0.0
    twin = _recalibrated(twin, model.state_dict())  # type: ignore[assignment]
    recalibrate(nested, _batches())
    found = state_dict(nested, "full")
    for name in _statistics(found):
        torch.testing.assert_close(found[name], twin.state_dict()[name], rtol=1e-9, atol=1e-12)


def test_batches_may_come_from_a_generator(nested: NestedModel) -> None:
    other = copy.deepcopy(nested)
    recalibrate(nested, _batches())
    recalibrate(other, (batch for batch in _batches()))
    for name, tensor in nested.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


FAILURES = {
    "infinite": (
        [(images(2)[0] * float("inf"), None)],
        UsageError,
        "batch 0, level 'small': .* give batches of finite inputs",
    ),
    "channels": (
        [*_batches(), (images(2)[0][:, :1], None)],
        UsageError,
        r"input 'x': expected shape \['batch', 3, 8, 8\], found \[\d+, 1, 8, 8\]",
    ),
    "no batch": ([], UsageError, "batches: expected at least one, found none"),
}


@pytest.mark.parametrize(
    ("batches", "error", "message"), list(FAILURES.values()), ids=list(FAILURES)
)
def test_a_batch_that_fails_is_an_error_and_changes_nothing(
    nested: NestedModel, batches: list[Batch], error: type[Exception], message: str
) -> None:
    before = {name: tensor.clone() for name, tensor in nested.state_dict().items()}
    with pytest.raises(error, match=message):
        recalibrate(nested, batches)
    assert all(torch.equal(nested.state_dict()[name], before[name]) for name in before)


def test_a_batch_of_one_value_per_channel_is_an_error() -> None:
    message = r"batch 1, level 'half': '1.running_var' .* several images where a batch norm sees"
    with pytest.raises(UsageError, match=message):
        recalibrate(_nested_vectors(), [vectors(4), vectors(1)])


def test_an_unknown_level_is_refused_with_a_proposal(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match=r"no level 'smal'.*did you mean 'small'"):
        recalibrate(nested, _batches(), levels=["smal"])
