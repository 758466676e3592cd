"""Which blocks a level may leave out, and that training ties no more than evaluation."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.networks.densenet import DenseNet
from nestedge.levels import Level
from nestedge.nested import nest


class Token(nn.Module):
    """Appends a learned token: a piece that no axis covers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.token.expand(x.shape[0], -1, -1)], 1)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.blocks = nn.Sequential(Token(), Token())
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.blocks(self.inner(x)).mean(1))
        return y


def test_a_block_whose_piece_every_level_has_is_not_left_out() -> None:
    x = torch.randn(2, 5, 4)
    nested = nest(Tokens().eval(), x, {"shallow": Level(depth=0.5)})
    assert nested.elastic.stages == ()
    with nested.at("shallow"), torch.no_grad():
        shallow = nested(x)
    with torch.no_grad():
        assert torch.equal(shallow, nested(x))


def test_a_dense_layer_is_a_block_and_takes_its_channels_along() -> None:
    x = torch.randn(1, 3, 16, 16)
    nested = nest(DenseNet(num_layers=(2, 2)).eval(), x, {"shallow": Level(depth=(1, 2))})
    assert [len(stage.removable) for stage in nested.elastic.stages] == [2, 2]
    kept = nested.nesting.choice("shallow").kept
    assert () in kept.values()
    assert nested.nesting.uses("shallow", "stages.0.1.conv2.weight") is None
