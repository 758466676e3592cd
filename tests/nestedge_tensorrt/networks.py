"""Levels with all that changed between opsets, and their shipped files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.nested import nest
from nestedge_tensorrt.converter import TensorrtConverter
from tests.conversions import CASES, Case, case_of, spec_of


class Newer(nn.Module):
    """Norms of layers and of groups, parts, both resizings, and attention on a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.groups = nn.GroupNorm(2, 8)
        self.norm = nn.LayerNorm(8)
        self.projection = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 4) for images of shape (batch, 3, 8, 8)."""
        first, second = F.hardswish(self.conv(x)).chunk(2, 1)
        x = torch.cat([F.leaky_relu(first), second.clamp(0, 6)], 1)
        x = F.interpolate(self.groups(x), scale_factor=2, mode="bilinear")
        tokens = F.interpolate(x, size=(6, 6)).flatten(2).transpose(1, 2)
        batch, count, channels = tokens.shape
        heads = self.projection(self.norm(tokens)).reshape(batch, count, 3, 2, 4)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(batch, count, channels)
        logits: Tensor = self.head((tokens + mixed).mean(1))
        return logits


class Token(nn.Module):
    """A transformer's class token, learned places, and torch's attention, with tokens in front."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.ones(1, 1, 8))
        self.places = nn.Parameter(torch.ones(1, 5, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 4) for images of shape (batch, 3, 8, 8)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(self.norm(tokens)[:, 0])
        return logits


def _of(model: nn.Module) -> Case:
    redraw(model, seed=0)
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return case_of(nest(model, image, {"full": 1.0}), "full", {"x": image})


NETWORKS: dict[str, Callable[[], Case]] = {
    **CASES,
    "newer": lambda: _of(Newer()),
    "token": lambda: _of(Token()),
}


@cache
def shipped(name: str, precision: str) -> tuple[Case, bytes]:
    """A level, and the file that is shipped of it."""
    case = NETWORKS[name]()
    return case, TensorrtConverter().export(case.level).convert(spec_of(case, precision)).model
