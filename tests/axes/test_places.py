"""Levels that keep places in all heads or groups, beside the network with zeros in the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import Attention, MultiheadAttention
from nestedge.intervals import entries
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import load
from tests.networks import images


class Grouped(nn.Module):
    """Grouped convolutions, one of them transposed, and a shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 1)
        self.first = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.second = nn.Conv2d(24, 16, 1, groups=2)
        self.up = nn.ConvTranspose2d(16, 24, 2, stride=2, groups=4)
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of shape (batch, 5, 16, 16)."""
        x = self.first(self.stem(x)).relu().unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        y: Tensor = self.last(self.up(self.second(x).relu()).relu())
        return y


class Tokens(nn.Module):
    """An attention between linear layers, on the pixels of an image."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.stem, self.attention, self.last = nn.Linear(3, 24), attention, nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of shape (batch, pixels, 5)."""
        y: Tensor = self.last(self.attention(self.stem(x.flatten(2).transpose(1, 2))))
        return y


class ByHand(nn.Module):
    """Attention by products that a user writes, with queries and keys narrower than values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(24, 16), nn.Linear(24, 16)
        self.value, self.out = nn.Linear(24, 32), nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, 24), as `x`."""
        heads = [part(x).unflatten(-1, (4, -1)) for part in (self.query, self.key, self.value)]
        query, key, value = (head.transpose(1, 2) for head in heads)
        scores = (query @ key.transpose(-1, -2) / 3).softmax(-1)
        y: Tensor = self.out((scores @ value).transpose(1, 2).flatten(2))
        return y


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "grouped convolutions": Grouped,
    "attention by hand": lambda: Tokens(ByHand()),
    "attention": lambda: Tokens(Attention(24, 4, head_dim=6)),
    "attention of torch": lambda: Tokens(MultiheadAttention(24, 4, head_dim=6)),
}
ASKED: dict[str, Level] = {
    "head width": Level(head_width=0.5),
    "heads and their width": Level(0.5, head_width=0.5),
    "places in a list": Level(head_width={"*": [0, 2]}),
}


def _zero_what_is_absent(model: nn.Module, nested: NestedModel, level: str) -> None:
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            for dim, kept in enumerate(nested.nesting.uses(level, name) or ()):
                gone = torch.from_numpy(~entries(kept, tensor.shape[dim])).nonzero().flatten()
                tensor.index_fill_(dim, gone, 0)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_places_that_a_level_lacks_are_zeros_in_the_network(
    make: Callable[[], nn.Module], asked: Level
) -> None:
    model = make().double().eval()
    redraw(model, seed=0)
    inputs = images(2)[0].double()
    nested = nest(model, inputs, {"small": asked}, card=Card(divisor=1))
    with nested.at("small"):
        found = nested(inputs)
    assert not torch.allclose(found, nested(inputs))
    physical = materialize(nested, "small").module()
    _zero_what_is_absent(model, nested, "small")
    expected = model(inputs)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(physical(inputs), expected, rtol=0, atol=1e-12)


def test_queries_and_keys_lose_the_same_places_and_values_their_own() -> None:
    level = Level(head_width={"*query*": 2, "*value*": 5})
    nested = nest(Tokens(ByHand()), images(2)[0].float(), {"small": level})
    shapes = {name: tuple(t.shape) for name, t in state_dict(nested, "small").items()}
    assert shapes["attention.query.weight"] == shapes["attention.key.weight"] == (4 * 2, 24)
    assert shapes["attention.value.weight"] == (4 * 5, 24)
    assert shapes["attention.out.weight"] == (24, 4 * 5)


def test_every_group_of_a_convolution_keeps_as_many_channels() -> None:
    level = Level(head_width={"stem*": 4, "first*": 2})
    nested = nest(Grouped(), images(2)[0].float(), {"small": level})
    tensors = state_dict(nested, "small")
    # Groups of 4 channels, 4 of them, go in; of 4, 2 of which go to each group of the next, out.
    assert tuple(tensors["first.weight"].shape) == (4 * 4, 4, 3, 3)
    assert tuple(tensors["second.weight"].shape) == (16, 2 * 4, 1, 1)
    assert nested.nesting.axes["stem"].size == 1


def test_levels_of_head_widths_nest_and_come_back_from_a_file(tmp_path: Path) -> None:
    model = Tokens(Attention(24, 4, head_dim=6))
    redraw(model, seed=0)
    levels = {
        "small": Level(0.5, head_width=0.7),
        "wide": Level(0.5),
        "thin": Level(head_width=0.1),
    }
    inputs = images(2)[0].float()
    nested = nest(model, inputs, levels, card=Card(divisor=2))
    assert set(nested.nesting.order()) == {("small", "wide")}
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert loaded.nesting == nested.nesting
    for level in levels:
        with nested.at(level), loaded.at(level):
            assert torch.equal(nested(inputs), loaded(inputs))


def test_pixels_made_of_channels_are_no_places() -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.PixelShuffle(2), nn.Conv2d(6, 5, 1))
    nested = nest(model, images(2)[0].float(), {"half": 0.5}, card=Card(divisor=1))
    assert {name: axis.kind for name, axis in nested.nesting.axes.items()} == {"0": "width"}
    assert tuple(state_dict(nested, "half")["2.weight"].shape) == (5, 3, 1, 1)
