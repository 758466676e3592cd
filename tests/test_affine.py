from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.affine import fold_affine
from nestedge.convert import LevelProgram
from nestedge.expressions import evaluate
from nestedge.folding import fold_batch_norms, lower_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.program.graph import run


class Net(nn.Module):
    """Layers for the cases below, of which each uses some."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.plain = nn.Conv2d(3, 6, 3, bias=False)
        self.linear = nn.Linear(6, 5)
        self.bare = nn.Linear(6, 5, bias=False)
        self.four = nn.Linear(4, 5)
        self.square = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.half_norm = nn.LayerNorm(6, bias=False)
        self.wide_norm = nn.LayerNorm([4, 6])
        self.batch_norm = nn.BatchNorm1d(6)
        self.scale = nn.Parameter(torch.ones(5))
        self.six = nn.Parameter(torch.ones(6))
        self.one = nn.Parameter(torch.ones(1))
        self.planes = nn.Parameter(torch.ones(6, 1, 1))
        self.rows = nn.Parameter(torch.ones(4, 1))
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        """What the case gives for x."""
        return self.run(self, x)


IMAGE, TOKENS, VECTOR = (2, 3, 7, 7), (2, 4, 6), (2, 6)


def _tied(net: Net, x: Tensor) -> Tensor:
    # One weight, used with a factor and without.
    inner: Tensor = net.square(x)
    outer: Tensor = net.square(net.six * inner)
    return outer


def _two_readers(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.linear(x)
    return y * net.scale + y.exp()


def _norm_of_two(net: Net, x: Tensor) -> Tensor:
    y = net.norm(x)
    return torch.cat([net.linear(y), net.bare(y)], dim=-1)


def _norm_and_more(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.norm(x)
    wide: Tensor = net.square(y)
    return wide + y.exp()


# name: (network, shape of its input, operators that are left)
CASES: dict[str, tuple[Callable[[Net, Tensor], Tensor], tuple[int, ...], str]] = {
    "a factor behind a linear layer": (lambda n, x: n.scale * n.linear(x), TOKENS, "linear"),
    "and before it in the product": (lambda n, x: n.linear(x) * n.scale, VECTOR, "linear"),
    "a summand behind one without bias": (lambda n, x: n.bare(x) + n.scale, VECTOR, "linear"),
    "several": (lambda n, x: (n.bare(x) * n.scale - 1.5) / 3 + n.scale, VECTOR, "linear"),
    "a number behind a convolution": (lambda n, x: n.plain(x) * 0.5 + 2, IMAGE, "conv2d"),
    "one stored number": (lambda n, x: n.conv(x) * n.one + n.one, IMAGE, "conv2d"),
    "channels of a convolution": (lambda n, x: n.conv(x) * n.planes, IMAGE, "conv2d"),
    "a layer norm in front": (lambda n, x: n.linear(n.norm(x)), TOKENS, "layer_norm linear"),
    "without a bias": (lambda n, x: n.bare(n.half_norm(x)), TOKENS, "layer_norm linear"),
    "in front of two": (_norm_of_two, TOKENS, "layer_norm linear linear cat"),
    "read by something else too": (_norm_and_more, TOKENS, "layer_norm mul add linear exp add"),
    "tokens in another order": (
        lambda n, x: n.linear(n.norm(x).transpose(0, 1)),
        TOKENS,
        "layer_norm transpose linear",
    ),
    "tokens in one row": (
        lambda n, x: n.linear(n.norm(x).reshape(-1, 6)),
        TOKENS,
        "layer_norm reshape linear",
    ),
    "not channels that move": (
        lambda n, x: n.four(n.norm(x).transpose(1, 2)),
        TOKENS,
        "layer_norm transpose linear",
    ),
    "a factor in front": (lambda n, x: n.linear(x * n.six), VECTOR, "linear"),
    "a summand in front": (lambda n, x: n.bare(x - 2), VECTOR, "linear"),
    "a batch norm in front": (lambda n, x: n.linear(n.batch_norm(x)), VECTOR, "linear"),
    "a hard sigmoid": (lambda n, x: F.hardsigmoid(n.plain(x)), IMAGE, "conv2d clamp mul"),
    "a weight used twice": (_tied, VECTOR, "linear linear"),
    "not a layer that others read": (_two_readers, VECTOR, "linear mul exp add"),
    "not a factor for rows": (lambda n, x: n.linear(x) * n.rows, TOKENS, "linear mul"),
    "not one for pixels": (lambda n, x: n.conv(x) * n.six[:1], IMAGE, "conv2d slice mul"),
    "not a norm of two dimensions": (
        lambda n, x: n.linear(n.wide_norm(x)),
        TOKENS,
        "layer_norm linear",
    ),
    "not a hard sigmoid of an input": (
        lambda n, x: n.linear(F.hardsigmoid(x)),
        VECTOR,
        "hardsigmoid linear",
    ),
    "not what a number is divided by": (
        lambda n, x: 2 - n.linear(x).exp(),
        VECTOR,
        "linear exp rsub",
    ),
}


def _level(forward: Callable[[Net, Tensor], Tensor], shape: tuple[int, ...]) -> LevelProgram:
    model = Net(forward).double()
    redraw(model, seed=0)
    x = torch.zeros(shape, dtype=torch.float64)
    return fold_batch_norms(level_program(nest(model, x, {"full": 1.0}), "full"))


@pytest.mark.parametrize(("forward", "shape", "left"), CASES.values(), ids=list(CASES))
def test_a_fold_changes_operators_and_not_what_is_computed(
    forward: Callable[[Net, Tensor], Tensor], shape: tuple[int, ...], left: str
) -> None:
    level = _level(forward, shape)
    folded = fold_affine(lower_batch_norms(level))
    found = Counter(node.op.split(".")[1] for node in folded.program.nodes)
    assert found == Counter(left.split())
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (expected,) = run(level.program, level.tensors, [x])
    (output,) = run(folded.program, folded.tensors, [x])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("forward", "shape", "left"), CASES.values(), ids=list(CASES))
def test_every_folded_tensor_is_its_expression(
    forward: Callable[[Net, Tensor], Tensor], shape: tuple[int, ...], left: str
) -> None:
    folded = fold_affine(lower_batch_norms(_level(forward, shape)))
    assert folded.tensors.keys() == folded.expressions.keys() == folded.program.used_tensors()
    for name, expression in folded.expressions.items():
        array = folded.tensors[name].numpy()
        assert np.array_equal(evaluate(expression, folded.stored), array), name
        assert folded.program.tensors[name].shape == array.shape
