from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.wrn import WideResNet
from nestedge.convert import LevelProgram
from nestedge.expressions import evaluate, from_json, to_json
from nestedge.folding import fold_batch_norms, lower_batch_norms
from nestedge.levels import Level
from nestedge.materialization import level_program
from nestedge.nested import Card, nest
from nestedge.program.graph import run
from tests.axes.small import Op

NORM = "aten.batch_norm.default"


def _net(function: Callable[[Any, Any], Any], **parts: object) -> Callable[[], nn.Module]:
    return lambda: Op(function, **parts)


def _shared(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.h(F.relu(s.n(s.c(x))) + s.m(s.c(x * 0.5)))  # type: ignore[no-any-return]


def _twice(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.c(x)
    found: torch.Tensor = s.h(y + s.n(y))
    return found


class Sharing(nn.Module):
    """Two layers with weights of their own and one bias, behind which one has a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.n = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(3, 8, 1)
        self.b.bias = self.a.bias
        self.h = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 2, height, width)."""
        found: torch.Tensor = self.h(self.n(self.a(x)) + self.b(x))
        return found


IMAGES = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
VECTORS = IMAGES[:, 0, 0]
TOKENS = IMAGES[:, 0, :5]

FOLDED: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, int]] = {
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        IMAGES,
        0,
    ),
    "conv without bias": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
        ),
        IMAGES,
        0,
    ),
    "norm without weights": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 2, 1)
        ),
        IMAGES,
        0,
    ),
    "linear": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)),
        VECTORS,
        0,
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 16, 3, groups=4),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 2, 1),
        ),
        IMAGES,
        0,
    ),
    "in front of its layer": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3)
        ),
        IMAGES,
        1,
    ),
    "shared weight": (
        _net(
            _shared,
            c=nn.Conv2d(3, 8, 3),
            n=nn.BatchNorm2d(8),
            m=nn.BatchNorm2d(8),
            h=nn.Conv2d(8, 2, 1),
        ),
        IMAGES,
        0,
    ),
    "read twice": (
        _net(
            _twice,
            c=nn.Conv2d(3, 8, 3),
            n=nn.BatchNorm2d(8),
            h=nn.Conv2d(8, 2, 1),
        ),
        IMAGES,
        1,
    ),
    "pre-activation": (lambda: WideResNet(8, 1), torch.randn(2, 3, 32, 32), 4),
}

SUSPECT = {
    "tokens": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)),
        TOKENS,
        "a norm over dimension 1 of a linear layer's outputs, which are the last",
    ),
    "statistics of the batch": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, track_running_stats=False), nn.Conv2d(8, 2, 1)
        ),
        IMAGES,
        "a norm without statistics",
    ),
    "shared bias": (Sharing, IMAGES, "the bias of another layer is replaced too"),
}


def _level(make: Callable[[], nn.Module], x: torch.Tensor) -> LevelProgram:
    torch.manual_seed(0)
    model = make().eval()
    redraw(model, seed=0)
    nested = nest(model, x, {"half": Level(0.5)}, card=Card(divisor=4))
    return level_program(nested, "half")


def _difference(one: LevelProgram, other: LevelProgram, x: torch.Tensor) -> float:
    found, expected = (run(p.program, p.tensors, [x])[0] for p in (one, other))
    assert expected.abs().max() > 0.01
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("make", "x", "left"), list(FOLDED.values()), ids=list(FOLDED))
def test_a_folded_level_computes_what_it_did(
    make: Callable[[], nn.Module], x: torch.Tensor, left: int
) -> None:
    level = _level(make, x)
    folded = fold_batch_norms(level)
    assert sum(node.op == NORM for node in folded.program.nodes) == left
    assert _difference(folded, level, x) <= 2e-6
    lowered = lower_batch_norms(folded)
    assert not any(node.op == NORM for node in lowered.program.nodes)
    assert _difference(lowered, level, x) <= 2e-6


@pytest.mark.parametrize(("make", "x", "left"), list(FOLDED.values()), ids=list(FOLDED))
def test_the_expressions_of_constants_give_their_bytes_from_what_is_stored(
    make: Callable[[], nn.Module], x: torch.Tensor, left: int
) -> None:
    level = lower_batch_norms(fold_batch_norms(_level(make, x)))
    assert set(level.expressions) == set(level.tensors) == level.program.used_tensors()
    for name, expression in level.expressions.items():
        read = from_json(to_json(expression), path=name)
        made = evaluate(read, level.stored)
        assert made.tobytes() == level.tensors[name].numpy().tobytes(), name


@pytest.mark.parametrize(("make", "x", "reason"), list(SUSPECT.values()), ids=list(SUSPECT))
def test_what_cannot_be_folded_is_left(
    make: Callable[[], nn.Module], x: torch.Tensor, reason: str
) -> None:
    level = _level(make, x)
    assert _difference(fold_batch_norms(level), level, x) <= 2e-6, reason
