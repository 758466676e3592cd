from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.axes.analysis import analyse
from nestedge.axes.rewrite import Survival, specialise
from nestedge.nested import NestedModel
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Ref, Weight
from nestedge.program.shapes import trace_shapes
from tests.axes.small import Case, Op, nested_case, op, sized

REWRITTEN: dict[str, tuple[Callable[[int], nn.Module], str, dict[str, Any]]] = {
    "reshape": (
        sized(lambda x, c: x.reshape(-1, c, 16).unflatten(2, (4, 4))),
        "reshape",
        {"shape": [-1, 8, 16]},
    ),
    "unflatten": (
        sized(lambda x, c: x.unflatten(1, (c // 4, 4)).flatten(1, 2)),
        "unflatten",
        {"sizes": [2, 4]},
    ),
    "expand": (
        sized(lambda x, c: x.mean(1, keepdim=True).expand(-1, c, -1, -1)),
        "expand",
        {"size": [-1, 8, -1, -1]},
    ),
    "slice": (
        sized(lambda x, c: torch.cat([x[:, 4:], x[:, :4] * 2], 1)),
        "slice",
        {"start": 2, "end": 8},
    ),
    "narrow": (
        sized(lambda x, c: torch.cat([x[:, :4], torch.ops.aten.narrow(x, 1, 4, 12)], 1)),
        "narrow",
        {"start": 2, "length": 6},
    ),
    "chunk": (
        sized(lambda x, c: torch.cat(x.chunk(2, 1)[::-1], 1)),
        "split_with_sizes",
        {"split_sizes": [4, 4]},
    ),
    "split": (
        op(lambda x: torch.cat(x.split(6, 1)[::-1], 1)),
        "split_with_sizes",
        {"split_sizes": [3, 3, 2]},
    ),
    "pad in front": (
        op(lambda x: F.pad(x, (0, 0, 0, 0, 4, 8))),
        "pad",
        {"pad": [0, 0, 0, 0, 2, 4]},
    ),
    "crop": (op(lambda x: F.pad(x, (0, 0, 0, 0, -4, -4))), "pad", {"pad": [0, 0, 0, 0, -2, -2]}),
    "group norm": (lambda c: nn.GroupNorm(4, c), "group_norm", {"num_groups": 2}),
    "layer norm": (
        lambda c: nn.LayerNorm([c, 4, 4]),
        "layer_norm",
        {"normalized_shape": [8, 4, 4]},
    ),
    "groups": (lambda c: nn.Conv2d(c, c, 3, groups=4), "conv2d", {"groups": 2}),
    "groups, transposed": (
        lambda c: nn.ConvTranspose2d(c, c, 3, groups=4),
        "conv_transpose2d",
        {"groups": 2},
    ),
    "squeeze": (
        op(lambda x: x.mean((2, 3), True).squeeze()[:, :, None, None]),
        "squeeze",
        {"dim": [2, 3]},
    ),
    # Channel 11 stays in every level, as the seventh or eighth of its 8.
    "select": (op(lambda x: x + x.select(1, -5).unsqueeze(1)), "select", {"index": 6}),
    "select_scatter": (
        op(lambda x: x.select_scatter(x[:, 1].relu(), 1, -5)),
        "select_scatter",
        {"index": 7},
    ),
    "squeeze of channels": (op(lambda x: x.squeeze(1)), "squeeze", {"dim": []}),
    "squeeze of channels and columns": (
        op(lambda x: x.mean(3, True).squeeze((1, 3))[..., None]),
        "squeeze",
        {"dim": [3]},
    ),
    "zeros": (
        sized(lambda x, c: torch.cat([x, torch.zeros(x.shape[0], c, 4, 4, dtype=x.dtype)], 1)),
        "zeros",
        {},
    ),
}


def _rewritten(make: Callable[[int], nn.Module], name: str) -> dict[str, Any]:
    program = nested_case(Case(make)).plan("half").program
    last = [n for n in program.nodes if n.op.split(".")[1] == name and n.scope in ("op", "")][-1]
    return named_arguments(last, lambda leaf: leaf)


@pytest.mark.parametrize(
    ("make", "name", "expected"), list(REWRITTEN.values()), ids=list(REWRITTEN)
)
def test_a_size_is_the_levels(
    make: Callable[[int], nn.Module], name: str, expected: dict[str, Any]
) -> None:
    nested = nested_case(Case(make))
    found = [
        named_arguments(node, lambda leaf: leaf)
        for node in nested.plan("half").program.nodes
        if node.op.split(".")[1] == name and node.scope.startswith("op")
    ]
    assert any({key: a[key] for key in expected} == expected for a in found), found


def _nested() -> NestedModel:
    return nested_case(
        Case(lambda c: Op(lambda s, x: torch.cat([s.n(x), x], 1), n=nn.BatchNorm2d(c)))
    )


def test_a_specialised_program_has_the_shapes_that_survive() -> None:
    nested = _nested()
    analysis = analyse(nested.elastic.program)
    rng = np.random.default_rng(0)
    for _ in range(10):
        live = rng.random(analysis.count) < 0.6
        live[0] = True
        survival = Survival(analysis, live)
        program = specialise(survival)
        values = trace_shapes(program, batch=2)
        for node in program.nodes:
            expected = [
                n if size is None else size
                for n, size in zip(
                    analysis.shape_of(Ref(node.output)),
                    survival.sizes(Ref(node.output)),
                    strict=True,
                )
            ]
            assert list(values[node.output].shape) == expected
        for name, spec in program.tensors.items():
            sizes = survival.sizes(Weight(name))
            full = analysis.shape_of(Weight(name))
            assert spec.shape == tuple(
                n if size is None else size for n, size in zip(full, sizes, strict=True)
            )


def test_with_every_unit_alive_nothing_changes_but_the_names_of_dimensions() -> None:
    nested = _nested()
    analysis = analyse(nested.elastic.program)
    survival = Survival(analysis, np.ones(analysis.count, dtype=bool))
    assert specialise(survival) == nested.elastic.program
