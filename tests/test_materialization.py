from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks import counting
from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.networks.redraw import redraw
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.vit import VisionTransformer
from benchmarks.networks.wrn import WideResNet
from nestedge.cost import count_macs, count_parameters
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import level_program, materialize, state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.program.graph import run

Depth = tuple[int, ...] | None


@dataclass(frozen=True)
class Network:
    """A network of the benchmarks, small, and a depth that some of its blocks are left out at."""

    make: Callable[..., nn.Module]
    shallow: tuple[int, ...]


NETWORKS = {
    "resnet": Network(lambda **k: CifarResNet((2, 2, 2), **k), (1, 2, 1)),
    "wrn-projection": Network(WideResNet, (1, 2, 1)),
    "wrn-pad": Network(lambda **k: WideResNet(shortcut="pad", **k), (2, 1, 1)),
    "mobilenet-hardswish": Network(MobileNet, (1, 1, 2, 1)),
    "mobilenet-relu6": Network(lambda **k: MobileNet(activation="relu6", **k), (1, 2, 1, 1)),
    "densenet": Network(lambda **k: DenseNet((2, 2, 2), **k), (2, 1, 2)),
    "vit-qkv": Network(lambda **k: VisionTransformer(2, **k), (1,)),
    "vit-multihead": Network(lambda **k: VisionTransformer(2, attention="multihead", **k), (1,)),
}
WIDTHS = (0.25, 0.5, 0.75, 1.0)
CELLS = [
    pytest.param(name, width, deep, id=f"{name}-{width}-{'deep' if deep else 'shallow'}")
    for name in NETWORKS
    for width in WIDTHS
    for deep in (True, False)
]


def _images(batch: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@cache
def _nested(name: str) -> NestedModel:
    model = NETWORKS[name].make()
    redraw(model, seed=0)
    levels = {
        _level(width, deep=deep): Level(width, 1.0 if deep else NETWORKS[name].shallow)
        for width in WIDTHS
        for deep in (True, False)
    }
    return nest(model, _images(2), levels)


def _level(width: float, *, deep: bool) -> str:
    return f"w{int(width * 100)}{'deep' if deep else 'shallow'}"


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest value; no number counts as infinite."""
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max())
    return math.inf if math.isnan(error) else error


@pytest.mark.parametrize(("name", "width", "deep"), CELLS)
def test_a_materialised_level_is_the_level_and_its_hand_written_twin(
    name: str, width: float, deep: bool
) -> None:
    nested, level, images = _nested(name), _level(width, deep=deep), _images(8, seed=1)
    twin = NETWORKS[name].make(width=width, depth=None if deep else NETWORKS[name].shallow).eval()
    twin.load_state_dict(state_dict(nested, level), strict=True)
    program = materialize(nested, level)
    with torch.no_grad(), nested.at(level):
        found, expected, by_hand = program.module()(images), nested(images), twin(images)
    assert expected.abs().max() > 0.1
    assert _error(found, expected) <= 1e-5
    assert _error(expected, by_hand) <= 1e-5
    ours = nested.plan(level).program
    parameters = counting.count_parameters(twin)
    assert count_parameters(ours) == parameters
    assert sum(p.numel() for p in program.module().parameters()) == parameters
    assert count_macs(ours) == counting.count_macs(twin, images[:1])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_a_level_matters_to_its_output(name: str) -> None:
    physical = level_program(_nested(name), "w50shallow")
    images = _images(4, seed=2)
    before = run(physical.program, physical.tensors, [images])[0]
    tensors = [n for n, t in physical.tensors.items() if t.is_floating_point()]
    for tensor in tensors[:: max(1, len(tensors) // 12)]:
        old = physical.tensors[tensor]
        other = torch.rand(old.shape, generator=torch.Generator().manual_seed(3)) + 0.5
        after = run(physical.program, {**physical.tensors, tensor: other}, [images])[0]
        assert _error(after, before) > 1e-4, tensor


@pytest.mark.parametrize("name", ["resnet", "mobilenet-hardswish", "vit-qkv", "vit-multihead"])
def test_a_materialised_level_takes_any_batch(name: str) -> None:
    nested = _nested(name)
    module = materialize(nested, "w50shallow").module()
    images = _images(8)
    with torch.no_grad(), nested.at("w50shallow"):
        for batch in (1, 3, 8):
            assert _error(module(images[:batch]), nested(images[:batch])) <= 1e-5


class _TwoInputs(nn.Module):
    """An image and a vector in, nested outputs."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = int(16 * width)
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.linear = nn.Linear(5, channels)
        self.head = nn.Linear(channels, 4)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> dict[str, Any]:
        features = F.relu(self.conv(image) + self.linear(vector)[:, :, None, None])
        logits = self.head(features.mean((2, 3)))
        return {"logits": logits, "more": [logits.softmax(1), {"map": features.mean(1)}]}


def test_two_inputs_of_different_ranks_and_nested_outputs_stay_as_they_are() -> None:
    model = _TwoInputs()
    redraw(model, seed=0)
    inputs = (_images(2)[:, :, :6, :6], torch.randn(2, 5))
    nested = nest(model, inputs, {"half": 0.5})
    twin = _TwoInputs(0.5)
    twin.load_state_dict(state_dict(nested, "half"))
    module = materialize(nested, "half").module()
    for batch in (1, 3):
        given = (_images(batch)[:, :, :6, :6], torch.randn(batch, 5))
        with torch.no_grad(), nested.at("half"):
            results = [module(*given), nested(image=given[0], vector=given[1])]
            expected = twin(*given)
        for found in results:
            assert list(found) == ["logits", "more"]
            assert _error(found["logits"], expected["logits"]) <= 1e-5
            assert _error(found["more"][0], expected["more"][0]) <= 1e-5
            assert _error(found["more"][1]["map"], expected["more"][1]["map"]) <= 1e-5


class _Tied(nn.Module):
    """A table of words that also makes the logits."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = int(16 * width)
        self.words = nn.Embedding(7, channels)
        self.hidden = nn.Linear(channels, channels)
        self.logits = nn.Linear(channels, 7, bias=False)
        self.logits.weight = self.words.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.logits(F.relu(self.hidden(self.words(tokens))))
        return logits


def test_tied_weights_stand_under_both_names_and_count_once() -> None:
    model = _Tied()
    redraw(model, seed=0)
    tokens = torch.tensor([[1, 2, 6], [0, 3, 4]])
    nested = nest(model, tokens, {"half": 0.5})
    found = state_dict(nested, "half")
    assert torch.equal(found["words.weight"], found["logits.weight"])
    twin = _Tied(0.5)
    twin.load_state_dict(found, strict=True)
    with torch.no_grad(), nested.at("half"):
        assert _error(nested(tokens), twin(tokens)) <= 1e-6
        assert _error(materialize(nested, "half").module()(tokens), twin(tokens)) <= 1e-6
    assert count_parameters(nested.plan("half").program) == counting.count_parameters(twin)


def test_the_state_dict_of_a_level_is_a_copy() -> None:
    nested = _nested("resnet")
    before = state_dict(nested, "w100deep")
    for tensor in state_dict(nested, "w100deep").values():
        tensor.zero_()
    assert all(torch.equal(t, before[n]) for n, t in state_dict(nested, "w100deep").items())


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no level 'w50deepp'.*did you mean 'w50deep'"):
        materialize(_nested("resnet"), "w50deepp")


def test_a_masked_level_is_materialised_with_zeros_in_place() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    level = Level(0.5, masks={"0.weight": mask.numpy()})
    nested = nest(model, torch.zeros(2, 4), {"half": level}, card=Card(divisor=1))
    weights = state_dict(nested, "half")
    assert torch.equal(weights["0.weight"], (model.state_dict()["0.weight"] * mask)[:3])
    x = torch.randn(3, 4)
    with torch.no_grad(), nested.at("half"):
        assert _error(materialize(nested, "half").module()(x), nested(x)) <= 1e-6
