from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nestedge.program.capture import capture
from nestedge.program.graph import run

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


SPELLINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "view": (lambda x: x.view(-1, 12), "aten.reshape.default"),
    "view_as": (lambda x: x.view_as(x.exp()), "aten.reshape_as.default"),
    "concat": (lambda x: torch.concat([x, -x], 1), "aten.cat.default"),
    "and": (lambda x: (x > 0) & (x < 1), "aten.bitwise_and.Tensor"),
    "or": (lambda x: (x < 0) | (x > 1), "aten.bitwise_or.Tensor"),
    "clip": (lambda x: torch.clip(x, -1, 1), "aten.clamp.default"),
    "min": (lambda x: torch.min(x, -x), "aten.minimum.default"),
    "max": (lambda x: torch.max(x, -x), "aten.maximum.default"),
    "empty": (lambda x: x + torch.empty(3, 4).fill_(2), "aten.zeros.default"),
    "empty_like": (lambda x: x + torch.empty_like(x).fill_(2), "aten.zeros_like.default"),
    "new_empty": (lambda x: x + x.new_empty(3, 4).fill_(2), "aten.new_zeros.default"),
    "device": (lambda x: x.to("cpu", torch.float64), "aten.to.dtype"),
    "other": (lambda x: x.to(torch.zeros(1, dtype=torch.float64)), "aten.to.dtype"),
    "type_as": (lambda x: x.type_as(torch.zeros(1, dtype=torch.int64)), "aten.to.dtype"),
}


@pytest.mark.parametrize(("function", "op"), list(SPELLINGS.values()), ids=list(SPELLINGS))
def test_operators_of_one_meaning_have_one_name(function: Callable[[Any], Any], op: str) -> None:
    captured = capture(Function(function), (X,))
    assert op in {node.op for node in captured.program.nodes}
    (found,) = run(captured.program, captured.tensors, [X])
    expected = function(X)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
