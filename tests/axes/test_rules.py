from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nestedge.cost import count_parameters
from nestedge.errors import UsageError
from nestedge.intervals import entries
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.program import operators
from nestedge.tree import named
from tests.axes.cases_of_entries import ELEMENTWISE, MOVEMENTS
from tests.axes.cases_of_indexing import INDEXING
from tests.axes.cases_of_layers import LAYERS, REDUCTIONS, SPATIAL
from tests.axes.small import WIDTHS, Case, distance, nested_case, op, tiny

CASES = {**ELEMENTWISE, **INDEXING, **MOVEMENTS, **LAYERS, **REDUCTIONS, **SPATIAL}

ZERO_NEUTRAL = (
    "in place",
    "tied",
    "concat of three",
    "chunk",
    "split",
    "flatten",
    "flip",
    "channel shuffle",
    "channel_shuffle",
    "gather",
    "patches added up",
    "pixel_shuffle",
    "pixel_unshuffle",
    "repeat",
    "crop",
    "depthwise",
    "grouped",
    "transposed",
    "grouped transposed",
    "batch norm",
    "squeeze-excite",
    "prelu",
    "sums",
)

UNCALLABLE = {
    "aten.add_.Tensor": "updates a counter of a batch norm in training",
    "sym.sub": "arithmetic on the batch size",
    "sym.add": "arithmetic on the batch size",
    "sym.floordiv": "arithmetic on the batch size",
    "sym.mod": "arithmetic on the batch size",
    "sym.neg": "arithmetic on the batch size",
}


def _run(nested: NestedModel, level: str, x: torch.Tensor) -> torch.Tensor:
    with nested.at(level), torch.no_grad():
        found: torch.Tensor = nested(x)
    return found


@pytest.mark.parametrize("level", WIDTHS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kept != "some"])
def test_a_level_is_the_network_made_narrower_by_hand(name: str, level: str) -> None:
    case, nested = CASES[name], nested_case(CASES[name])
    share = WIDTHS[level] if case.kept == "share" else 1
    twin = tiny(case, int(case.channels * share))
    twin.load_state_dict(state_dict(nested, level))
    with torch.no_grad():
        expected = twin(case.x)
    assert expected.abs().max() > 1e-3
    assert distance(_run(nested, level, case.x), expected) < 1e-9
    own = sum(p.numel() for p in twin.parameters())
    assert count_parameters(nested.plan(level).program) == own


@pytest.mark.parametrize("name", CASES)
def test_a_materialised_level_is_the_level(name: str) -> None:
    case, nested = CASES[name], nested_case(CASES[name])
    program = materialize(nested, "quarter")
    with torch.no_grad():
        found = program.module()(case.x)
    assert distance(found, _run(nested, "quarter", case.x)) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_every_axis_may_have_a_width_of_its_own(name: str) -> None:
    # At one width for all, sizes fit even where two axes should have been one.
    case, full = CASES[name], nested_case(CASES[name])
    axes = [axis for axis, found in full.nesting.axes.items() if found.kind == "width"]
    shares = {axis: (0.25, 0.5, 0.75)[i % 3] for i, axis in enumerate(axes)}
    nested = NestedModel(
        full.elastic, named(full.shared), examples=full.examples, card=Card(divisor=1)
    )
    nested.add_level("uneven", Level(width=shares))
    with torch.no_grad():
        found = materialize(nested, "uneven").module()(case.x)
    assert distance(found, _run(nested, "uneven", case.x)) < 1e-9


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kept != "all"])
def test_a_level_has_fewer_weights(name: str) -> None:
    nested = nested_case(CASES[name])
    full = count_parameters(nested.elastic.program)
    assert count_parameters(nested.plan("half").program) < full


@pytest.mark.parametrize("name", ZERO_NEUTRAL)
def test_where_zero_is_neutral_a_level_is_the_network_with_zeros(name: str) -> None:
    case, nested = CASES[name], nested_case(CASES[name])
    model = tiny(case, case.channels)
    zeroed = {
        tensor: value * _used(nested, "half", tensor)
        for tensor, value in model.state_dict().items()
    }
    zeroed |= {t: v for t, v in model.state_dict().items() if t.endswith("running_var")}
    model.load_state_dict(zeroed)
    with torch.no_grad():
        expected = model(case.x)
    assert distance(_run(nested, "half", case.x), expected) < 1e-9


def _used(nested: NestedModel, level: str, tensor: str) -> torch.Tensor:
    shape = nested.elastic.program.tensors[tensor].shape
    used = np.ones(shape, dtype=bool)
    for dim, intervals in enumerate(nested.nesting.uses(level, tensor) or ()):
        view = [1] * len(shape)
        view[dim] = shape[dim]
        used &= entries(intervals, shape[dim]).reshape(view)
    return torch.from_numpy(used)


def test_every_operator_of_the_allow_list_is_in_a_case() -> None:
    found = {node.op for case in CASES.values() for node in nested_case(case).elastic.program.nodes}
    found |= {"aten.squeeze.dims"}  # what the others are rewritten to
    assert operators.ALLOWED - found == set(UNCALLABLE)


class _Inverse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.erfinv()


class _Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x.mean(0))
        return found


class _SharedKeys(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.reshape(x.shape[0], 4, 4, 3)
        k = q[:, :2]
        return nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "no rule": (_Inverse(), r"no rule for operator aten\.erfinv\.default \(.*x\.erfinv\(\)"),
    "no batch": (_Unbatched(), r"aten\.conv2d\.default without a batch.*\(.*self\.conv\(x\.mean"),
    "shared keys": (_SharedKeys(), r"enable_gqa; repeat keys.*\(.*enable_gqa=True\)"),
}


@pytest.mark.parametrize(("model", "message"), list(REFUSED.values()), ids=list(REFUSED))
def test_what_has_no_rule_is_one_error_that_names_it_and_the_line(
    model: nn.Module, message: str
) -> None:
    with pytest.raises(UsageError, match=message + ".*"):
        nest(model, torch.zeros(2, 3, 4, 4), {})


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        out += x
        return out


def test_a_sum_in_place_ties_its_operands() -> None:
    case = Case(_Residual)
    twin = tiny(case, 8)
    nested = nested_case(case)
    twin.load_state_dict(state_dict(nested, "half"))
    with torch.no_grad():
        assert distance(_run(nested, "half", case.x), twin(case.x)) < 1e-9
        found = materialize(nested, "half").module()(case.x)
        assert distance(found, twin(case.x)) < 1e-9


def test_the_scale_of_one_head_is_that_of_the_full_width() -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    nested = nested_case(Case(op(lambda x: attend(x).mean(1)), head="linear"))
    program = nested.plan("quarter").program
    (node,) = [n for n in program.nodes if n.op == "aten.scaled_dot_product_attention.default"]
    assert node.kwargs["scale"] == 1 / math.sqrt(16)
