"""Which modules of a program are branches side by side, and the program without some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.axes.blocks import find_stages
from nestedge.axes.parallel import find_branches, without_branches
from nestedge.program.capture import capture
from nestedge.program.graph import Program, run
from tests.branching import silence

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))

Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Three(nn.Module):
    """Three layers of one module, used in a way that a case says."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.d = nn.Linear(6, 1)
        self.scale = nn.Parameter(torch.randn(6))
        self.shape = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the case says."""
        return self.shape(self, x)


def _groups(model: nn.Module) -> dict[str, tuple[list[str], list[str]]]:
    program = capture(model.eval(), (X,)).program
    groups = find_branches(program, find_stages(program))
    return {g.name: (list(g.branches), list(g.removable)) for g in groups}


ALL = {"m": (["m.a", "m.b", "m.c"], ["m.a", "m.b", "m.c"])}
TWO = {"m": (["m.a", "m.b"], ["m.a", "m.b"])}

FOUND: dict[str, tuple[Forward, object]] = {
    "a sum": (lambda m, x: m.a(x) + m.b(x) + m.c(x), ALL),
    "sum()": (lambda m, x: torch.as_tensor(sum(f(x) for f in (m.a, m.b, m.c))), ALL),
    "a tree of sums": (lambda m, x: x + (m.a(x) + (m.b(x) + m.c(x))), ALL),
    "a concatenation": (lambda m, x: torch.cat([m.a(x), x, m.b(x), m.c(x)], 1), ALL),
    "a stack": (lambda m, x: torch.stack([m.a(x), m.b(x), m.c(x)]).sum(0), ALL),
    "a weighed stack": (
        lambda m, x: (torch.stack([m.a(x), m.b(x), m.c(x)], 1) * x.unsqueeze(1)).mean(1),
        ALL,
    ),
    "functions with zero at zero": (
        lambda m, x: F.gelu(m.a(x)).unsqueeze(0).squeeze(0) + m.scale * m.b(x) / 2 + -m.c(x),
        ALL,
    ),
    "any function, concatenated": (
        lambda m, x: torch.cat([m.a(x).sigmoid(), m.b(x).exp(), m.c(x)], 1),
        ALL,
    ),
    "a function without": (lambda m, x: m.a(x) + m.b(x) + m.c(x).sigmoid(), TWO),
    "a difference": (lambda m, x: m.a(x) + m.b(x) - m.c(x), TWO),
    "a multiple": (lambda m, x: torch.add(m.a(x) + m.b(x), m.c(x), alpha=2), TWO),
    "a divisor": (lambda m, x: m.a(x) + m.b(x) + x / m.c(x), TWO),
    "another input": (lambda m, x: m.a(x) + m.b(x) + m.c(x.relu()), TWO),
    "in a row": (lambda m, x: m.a(x) + m.b(x) + m.c(m.a(x)), {}),
    "read twice": (lambda m, x: (y := m.c(x)) + m.a(x) + m.b(x) + y.relu(), TWO),
    "a product": (lambda m, x: m.a(x) * m.b(x) + m.c(x), {}),
    "a stack that stays": (lambda m, x: torch.stack([m.a(x), m.b(x), m.c(x)], 1), {}),
    "a stack summed elsewhere": (lambda m, x: torch.stack([m.a(x), m.b(x)], 1).sum(2), {}),
    "only apart": (lambda m, x: torch.cat([m.a(x) + x, m.b(x) * x], 1).relu() + 1, {}),
    "broadcast": (
        lambda m, x: m.a(x) + m.d(x),
        {"m": (["m.a", "m.d"], ["m.d"])},
    ),
    "two groups": (
        lambda m, x: torch.cat([m.a(x) + m.b(x), m.c(x), m.d(x)], 1),
        {"m.a": (["m.a", "m.b"], ["m.a", "m.b"]), "m.c": (["m.c", "m.d"], ["m.c", "m.d"])},
    ),
}


class Around(nn.Module):
    """A module between two layers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.m = nn.Linear(6, 6), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the inner module gives, made positive."""
        return F.softplus(self.m(self.stem(x)))


@pytest.mark.parametrize(("forward", "expected"), list(FOUND.values()), ids=list(FOUND))
def test_branches_read_the_same_and_meet_in_a_sum_or_a_concatenation(
    forward: Forward, expected: object
) -> None:
    assert _groups(Around(Three(forward))) == expected


class Block(nn.Module):
    """A residual block, with a projection where its width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.project = nn.Linear(before, after) if before != after else None
        self.body = nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Linear(after, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of width `after`."""
        found: torch.Tensor = (x if self.project is None else self.project(x)) + self.body(x)
        return found


def test_a_projection_beside_a_residual_branch_is_none() -> None:
    assert _groups(nn.Sequential(Block(6, 8), Block(8, 8))) == {}
    # Where no block of the class has a plain shortcut, the two are alike.
    assert _groups(nn.Sequential(Block(6, 8), Block(8, 4))) == {
        str(i): ([f"{i}.project", f"{i}.body"],) * 2 for i in range(2)
    }


class Residual(nn.Module):
    """A sum of what goes in and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape as `x`."""
        found: torch.Tensor = x + self.layer(x)
        return found


def test_residual_blocks_side_by_side_are_no_branches() -> None:
    model = Three(lambda m, x: m.layers[0](x) + m.layers[1](x))
    model.layers = nn.ModuleList([Residual(), Residual()])
    program = capture(Around(model).eval(), (X,)).program
    stages = find_stages(program)
    assert [stage.blocks for stage in stages] == [("m.layers.0", "m.layers.1")]
    assert find_branches(program, stages) == ()


def _without(model: nn.Module, paths: list[str]) -> tuple[Program, torch.Tensor]:
    captured = capture(model.eval(), (X,))
    program = without_branches(captured.program, paths)
    (found,) = run(program, captured.tensors, [X])
    return program, found


@pytest.mark.parametrize("dropped", [["m.a"], ["m.c"], ["m.a", "m.b"], ["m.b", "m.c"]], ids=str)
@pytest.mark.parametrize(
    "forward",
    [FOUND[name][0] for name in FOUND if FOUND[name][1] is ALL and "concat" not in name],
    ids=[name for name in FOUND if FOUND[name][1] is ALL and "concat" not in name],
)
def test_without_branches_a_sum_is_that_of_the_others(forward: Forward, dropped: list[str]) -> None:
    model = Around(Three(forward))
    program, found = _without(model, dropped)
    for path in dropped:
        silence(model.get_submodule(path))
    torch.testing.assert_close(found, model(X))
    assert not any(name.startswith(tuple(dropped)) for name in program.used_tensors())


def test_without_branches_a_concatenation_has_less() -> None:
    model = Around(Three(lambda m, x: torch.cat([m.a(x), m.b(x).exp(), m.c(x)], 1)))
    whole = model(X)
    _, found = _without(model, ["m.b"])
    torch.testing.assert_close(found, torch.cat([whole[:, :6], whole[:, 12:]], 1))
    program, found = _without(model, ["m.a", "m.b"])
    torch.testing.assert_close(found, whole[:, 12:])
    assert "aten.cat.default" not in [node.op for node in program.nodes]
