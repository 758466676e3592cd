from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nestedge.errors import UsageError
from nestedge.materialization import materialize
from nestedge.nested import nest
from nestedge.program.capture import capture

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Parts(nn.Module):
    """Computes a gate in a context, and once more in each that it enters there."""

    def __init__(self, *contexts: Any) -> None:
        super().__init__()
        self.contexts = contexts
        self.conv = nn.Conv2d(3, 16, 1)
        self.gate = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        found: Tensor = self.head(x * self._gated(x, self.contexts))
        return found

    def _gated(self, x: Tensor, contexts: Any) -> Tensor:
        if not contexts:
            return x.sigmoid_()
        with contexts[0]():
            return self._gated(self.gate(x), contexts[1:])


def _without_autocast() -> Any:
    return torch.autocast("cpu", enabled=False)


CONTEXTS = {
    "no grad": (torch.no_grad,),
    "without autocast": (_without_autocast,),
    "without both": (_without_autocast, torch.no_grad),
    "autocast in no grad": (torch.no_grad, _without_autocast),
    "grad in no grad": (torch.no_grad, torch.enable_grad),
}


@pytest.mark.parametrize("contexts", list(CONTEXTS.values()), ids=list(CONTEXTS))
def test_what_stands_in_a_context_is_nested_too(contexts: Any) -> None:
    model = Parts(*contexts)
    nested = nest(model, X, {"half": 0.5})
    with torch.no_grad(), nested.at("half"):
        expected = nested(X)
    torch.testing.assert_close(materialize(nested, "half").module()(X), expected)
    assert nested.plan("half").program.tensors["gate.weight"].shape == (8, 8, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(nested(X), model(X))


@pytest.mark.parametrize(("name", "is_trained"), [("no grad", False), ("grad in no grad", True)])
def test_what_is_computed_without_gradients_is_not_trained(name: str, is_trained: bool) -> None:
    model = Parts(*CONTEXTS[name])
    nested = nest(model, X, {"half": 0.5}).train()
    nested(X).sum().backward()
    for trained in (nested.shared, model):
        if trained is model:
            model(X).sum().backward()
        assert trained.get_parameter("conv.weight").grad is not None
        assert (trained.get_parameter("gate.weight").grad is not None) == is_trained


def test_what_is_computed_with_gradients_is_not_detached() -> None:
    with torch.no_grad():
        captured = capture(Parts(torch.enable_grad), (X,))
    assert "aten.detach.default" not in {node.op for node in captured.program.nodes}


def test_autocast_is_refused_where_it_stands() -> None:
    model = Parts(lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    with pytest.raises(UsageError, match=r"under torch\.autocast \(.*self\._gated\(.*\); nest it"):
        capture(model, (X,))
