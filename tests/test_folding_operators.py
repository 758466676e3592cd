from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
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
        self.bare = nn.Conv2d(3, 6, 3, bias=False)
        self.kernel = nn.Parameter(torch.ones(6, 3, 3, 3))
        self.bn = nn.BatchNorm2d(6, eps=1e-3)
        self.other = nn.BatchNorm2d(6)
        self.plain = nn.BatchNorm2d(6, affine=False)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        """What the case gives for x."""
        return self.run(self, x)


# name: (network, operators that are left, and those left once the rest is lowered)
CASES: dict[str, tuple[Callable[[Net, Tensor], Tensor], str, str]] = {
    "behind a convolution": (lambda n, x: n.bn(n.conv(x)), "conv2d", "conv2d"),
    "behind one without bias": (lambda n, x: n.bn(n.bare(x)), "conv2d", "conv2d"),
    "without weights": (lambda n, x: n.plain(n.bare(x)), "conv2d", "conv2d"),
    "a weight that is not called one": (
        lambda n, x: n.bn(F.conv2d(x, n.kernel)),
        "conv2d",
        "conv2d",
    ),
    "one weight, two norms": (
        lambda n, x: n.bn(n.conv(x)) + n.other(n.conv(x + 1)),
        "conv2d conv2d add add",
        "conv2d conv2d add add",
    ),
    "one weight, with a norm and without": (
        lambda n, x: n.bn(n.conv(x)) + n.conv(x + 1),
        "conv2d conv2d add add",
        "conv2d conv2d add add",
    ),
    "behind a ReLU": (
        lambda n, x: n.bn(n.conv(x).relu()),
        "conv2d relu batch_norm",
        "conv2d relu mul add",
    ),
    "behind what others read": (
        lambda n, x: n.bn(y := n.conv(x)) + y,
        "conv2d batch_norm add",
        "conv2d mul add add",
    ),
}


def _level(forward: Callable[[Net, Tensor], Tensor]) -> LevelProgram:
    model = Net(forward).double()
    redraw(model, seed=0)
    x = torch.zeros(2, 3, 7, 7, dtype=torch.float64)
    return level_program(nest(model, x, {"full": 1.0}), "full")


def _operators(level: LevelProgram) -> Counter[str]:
    return Counter(node.op.split(".")[1] for node in level.program.nodes)


@pytest.mark.parametrize(("forward", "folds", "lowers"), CASES.values(), ids=list(CASES))
def test_batch_norms_go_and_what_is_computed_stays(
    forward: Callable[[Net, Tensor], Tensor], folds: str, lowers: str
) -> None:
    level = _level(forward)
    folded = fold_batch_norms(level)
    lowered = lower_batch_norms(folded)
    assert _operators(folded) == Counter(folds.split())
    assert _operators(lowered) == Counter(lowers.split())
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (expected,) = run(level.program, level.tensors, [x])
    for changed in (folded, lowered):
        (output,) = run(changed.program, changed.tensors, [x])
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        for name, expression in changed.expressions.items():
            array = changed.tensors[name].numpy()
            assert np.array_equal(evaluate(expression, changed.stored), array), name


def test_a_lowered_norm_has_constants_of_four_dimensions() -> None:
    # A converter that moves channels behind pixels leaves others with a transpose on each side.
    lowered = lower_batch_norms(_level(lambda n, x: n.bn(n.conv(x).relu())))
    added = [t for t in lowered.program.used_tensors() if not t.startswith("conv")]
    assert [lowered.program.tensors[name].shape for name in sorted(added)] == [(1, 6, 1, 1)] * 2
