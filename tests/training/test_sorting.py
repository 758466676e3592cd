from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import InvertedResidual
from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import VisionTransformer
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.training import Step, train
from nestedge.training.objectives import joint_objective
from nestedge.training.sorting import reading_importance, sort_after, sort_channels
from tests.networks import cross_entropy, nested_perceptron, resnet, vectors


class Inverted(nn.Module):
    """Two inverted residual blocks with squeeze-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.blocks = nn.Sequential(_block((8, 24, 6, 8)), _block((8, 32, 8, 8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 5)."""
        logits: torch.Tensor = self.last(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def _block(channels: tuple[int, int, int, int]) -> InvertedResidual:
    return InvertedResidual(channels, stride=1, expands=True, residual=True, activation="hardswish")


class Grouped(nn.Module):
    """Two grouped convolutions with a shuffle of channels between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 5, 1)
        self.first = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.second = nn.Conv2d(24, 24, 1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of shape (batch, 5, height, width)."""
        x = self.first(self.stem(x).relu()).unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        y: torch.Tensor = self.last(self.second(x).relu())
        return y


def _transformer() -> nn.Module:
    return VisionTransformer(num_blocks=1)


def _densenet() -> nn.Module:
    return DenseNet((3, 1), 8)


def _nested(model: nn.Module, size: int, levels: dict[str, Level] | None = None) -> NestedModel:
    model.double()
    redraw(model, seed=0)
    example = torch.zeros(2, 3, size, size, dtype=torch.float64)
    return nest(model, example, levels or {}, card=Card(divisor=4))


def _inputs(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(3, 3, size, size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("make", "size", "axes"),
    [
        (Inverted, 8, {"blocks.1.expand.0", "blocks.1.excite.reduce", "stem"}),
        (resnet, 8, {"conv1", "layer1.0.conv1"}),
        (_transformer, 32, {"patch", "blocks.0.attn.qkv", "blocks.0.attn.qkv.head_width"}),
        (_densenet, 8, {"stem", "stages.0.1.conv1"}),
        (Grouped, 8, {"stem.head_width", "second.head_width"}),
    ],
    ids=["inverted residual", "residual", "attention", "concatenation", "groups and shuffle"],
)
def test_the_full_network_computes_the_same_when_it_is_sorted(
    make: Callable[[], nn.Module], size: int, axes: set[str]
) -> None:
    nested = _nested(make(), size)
    with torch.no_grad():
        before = nested(_inputs(size))
        sorting = sort_channels(nested)
        torch.testing.assert_close(nested(_inputs(size)), before, rtol=1e-12, atol=1e-12)
    moved = {axis for axis, order in sorting.orders.items() if list(order) != sorted(order)}
    assert axes <= set(sorting.orders)
    assert len(moved) >= len(sorting.orders) / 2
    assert sorting.left == ()
    for axis in moved:
        scores = reading_importance(nested, axis)
        assert (scores[:-1] >= scores[1:] - 1e-9).all(), axis


def test_importance_is_that_of_the_weights_that_read_a_channel() -> None:
    nested = _nested(Inverted(), 8)
    weights = dict(nested.shared.named_parameters())
    block = "blocks.1"
    readers = ("excite.reduce", "project.0")
    expected = sum(weights[f"{block}.{n}.weight"].abs().sum((0, 2, 3)) for n in readers)
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(reading_importance(nested, f"{block}.expand.0"), expected.detach())


def test_places_in_queries_and_keys_count_by_the_weights_that_make_them() -> None:
    nested = _nested(_transformer(), 32)
    axis = next(n for n, a in nested.nesting.axes.items() if a.kind == "head_width")
    assert reading_importance(nested, axis).min() > 0


def test_levels_keep_the_most_important_channels_after_sorting() -> None:
    nested = nested_perceptron()
    scores = dict(nested.shared.named_parameters())["last.weight"].detach().abs().sum(0)
    best = scores.sort(descending=True).values
    sort_channels(nested, axes=["first"])
    for level, count in {"tiny": 4, "small": 8, "medium": 12}.items():
        kept = state_dict(nested, level)["last.weight"].abs().sum(0)
        torch.testing.assert_close(kept, best[:count], rtol=1e-12, atol=1e-12)


def test_an_importance_of_ones_own_decides_the_order() -> None:
    nested = nested_perceptron()
    scores = torch.arange(16.0)
    sorting = sort_channels(nested, axes=["first"], importance=lambda n, axis: scores)
    assert sorting.orders == {"first": tuple(range(15, -1, -1))}


def _step(nested: NestedModel, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(list(_objective(nested, *vectors(8), Step(0, 1, 0, 1, 0, 0))))
    optimizer.step()


_objective = joint_objective(["full"], cross_entropy)


@pytest.mark.parametrize(
    "make",
    [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: Adam(p, 0.01)],
    ids=["momentum", "adam"],
)
def test_training_goes_on_as_without_sorting(
    make: Callable[[list[nn.Parameter]], Optimizer],
) -> None:
    nested = nested_perceptron(dropout=0.0).train()
    twin = copy.deepcopy(nested)
    optimizers = [make(list(network.parameters())) for network in (nested, twin)]
    orders: dict[str, tuple[int, ...]] = {}
    for step in range(6):
        for network, optimizer in zip((nested, twin), optimizers, strict=True):
            _step(network, optimizer)
        if step == 2:
            orders.update(sort_channels(nested, axes=["first"], optimizer=optimizers[0]).orders)
    assert list(orders["first"]) != list(range(16))
    inputs, _ = vectors(8, seed=2)
    found, expected = (network.eval()(inputs)["logits"] for network in (nested, twin))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def _redraw_own(nested: NestedModel) -> None:
    generator = torch.Generator().manual_seed(1)
    for level in nested.levels:
        for tensor in nested.own_tensors(level).values():
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.data.copy_(drawn + 0.5)


@pytest.mark.parametrize(
    ("make", "size", "cut", "axes"),
    [
        (resnet, 8, "conv1", ["layer*.conv1"]),
        (_densenet, 8, "stem", ["stages.0.*.conv2", "stages.0.*.conv1"]),
    ],
    ids=["residual", "concatenation"],
)
def test_a_level_with_all_sorted_channels_keeps_its_function(
    make: Callable[[], nn.Module], size: int, cut: str, axes: list[str]
) -> None:
    levels = {"shallow": Level(depth=0.5), "narrow": Level({cut: 0.5})}
    nested = _nested(make(), size, levels)
    _redraw_own(nested)
    with torch.no_grad(), nested.at(*levels):
        before = nested(_inputs(size))
        if make is _densenet:
            # A layer that goes takes its piece along: that level cuts what is sorted.
            nested.remove_level("shallow")
            del before["shallow"]
    sorting = sort_channels(nested, axes=axes)
    assert len(sorting.orders) > 2
    with torch.no_grad():
        for level, expected in before.items():
            with nested.at(level):
                torch.testing.assert_close(nested(_inputs(size)), expected, rtol=1e-12, atol=1e-12)


def test_a_level_that_cuts_sorted_channels_starts_anew() -> None:
    nested = _nested(resnet(), 8, {"narrow": Level(0.5)})
    _redraw_own(nested)
    optimizer = SGD(nested.parameters(), 0.1, momentum=0.9)
    own = nested.own_tensors("narrow")
    for parameter in nested.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    sort_channels(nested, axes=["layer1.0.conv1"], optimizer=optimizer)
    shared = dict(nested.shared.named_parameters())
    assert torch.equal(own["layer1.0.bn1.weight"], shared["layer1.0.bn1.weight"][:8])
    assert own["layer1.0.bn1.weight"] not in optimizer.state
    assert not torch.equal(own["layer1.1.bn1.weight"], shared["layer1.1.bn1.weight"][:8])
    assert own["layer1.1.bn1.weight"] in optimizer.state


def test_masks_move_with_their_weights() -> None:
    nested = nested_perceptron()
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 16, generator=generator) < 0.5
    for level in ("tiny", "small", "medium"):
        nested.remove_level(level)
    nested.add_level("sparse", Level(masks={"last.weight": mask.numpy()}))
    inputs, _ = vectors(5)
    with nested.at("sparse"):
        before = nested(inputs)["logits"]
        sort_channels(nested)
        torch.testing.assert_close(nested(inputs)["logits"], before, rtol=1e-12, atol=1e-12)


def test_channels_are_sorted_once_after_the_epoch_asked_for() -> None:
    nested = nested_perceptron(dropout=0.0)
    optimizer = SGD(nested.parameters(), 0.0)
    sorted_after = []
    hook = sort_after(1, nested, axes=["first"], optimizer=optimizer)

    def after_epoch(epoch: int) -> None:
        hook(epoch)
        scores = reading_importance(nested, "first")
        sorted_after.append(bool((scores[:-1] >= scores[1:]).all()))

    train(
        nested,
        [vectors(4)],
        epochs=3,
        objective=_objective,
        optimizer=optimizer,
        after_epoch=after_epoch,
    )
    assert sorted_after == [False, True, True]


def test_what_cannot_be_sorted_is_refused() -> None:
    nested = nested_perceptron()
    with pytest.raises(UsageError, match=r"axes: no axis fits 'frist'.*did you mean 'first'"):
        sort_channels(nested, axes=["frist"])
    with pytest.raises(UsageError, match=r"importance of axis 'first': expected 16 finite.*\(3,\)"):
        sort_channels(nested, importance=lambda n, axis: torch.ones(3))
    nested.add_level("listed", Level(width={"first": [1, 5]}))
    with pytest.raises(UsageError, match=r"level 'listed', axis 'first': expected its first units"):
        sort_channels(nested)
    nested.remove_level("listed")
    optimizer = SGD(nested.parameters(), 0.1)
    weight = nested.get_parameter("shared.first.weight")
    optimizer.state[weight]["rows"] = torch.ones(16)
    with pytest.raises(UsageError, match=r"optimizer, 'rows' of 'first.weight': expected shape"):
        sort_channels(nested, optimizer=optimizer)


def test_a_refused_sorting_changes_nothing() -> None:
    nested = _nested(resnet(), 8, {"listed": Level({"conv1": [1, 2, 3]})})
    before = {name: tensor.clone() for name, tensor in nested.state_dict().items()}
    with pytest.raises(UsageError, match="expected its first units"):
        sort_channels(nested)
    assert all(torch.equal(t, before[name]) for name, t in nested.state_dict().items())
