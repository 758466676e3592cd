from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nestedge.errors import UsageError
from nestedge.materialization import materialize
from nestedge.nested import NestedModel, nest
from nestedge.nestfile import load

LEVELS = {"half": 0.5}


def _level(nested: NestedModel, *inputs: Tensor) -> Any:
    with nested.at("half"), torch.no_grad():
        return nested(*inputs)


class Ordered(nn.Module):
    """Gives an OrderedDict, as segmentation networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        features = self.conv(x)
        return OrderedDict([("out", self.head(features)), ("mean", features.mean((1, 2, 3)))])


def test_an_ordered_dict_is_a_dict() -> None:
    x = torch.randn(2, 3, 8, 8)
    nested = nest(Ordered(), x, LEVELS)
    found = materialize(nested, "half").module()(x)
    assert list(found) == ["out", "mean"]
    assert torch.equal(found["out"], _level(nested, x)["out"])


class Pair(NamedTuple):
    """An output of a class of the user's."""

    found: Tensor
    mean: Tensor


class Output(OrderedDict[str, Any]):
    """Another one, that leaves out what is not there, as those of text networks do."""


pytree.register_pytree_node(
    Output,
    lambda value: (list(value.values()), list(value)),
    lambda values, keys: Output(zip(keys, values, strict=True)),
    serialized_type_name="tests.program.test_capture.Output",
)


class Paired(nn.Module):
    """Gives outputs in classes of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Output:
        features = self.conv(x)
        return Output(pair=Pair(self.head(features), features.mean((1, 2, 3))), kind="pair")


def test_outputs_in_classes_of_the_users_are_dicts_and_tuples(tmp_path: Any) -> None:
    x = torch.randn(2, 3, 8, 8)
    nest(Paired(), x, LEVELS).save(tmp_path / "net.nest")
    nested = load(tmp_path / "net.nest")
    found, expected = materialize(nested, "half").module()(x), _level(nested, x)
    assert (type(found), type(found["pair"]), found["kind"]) == (dict, tuple, "pair")
    for one, other in zip(found["pair"], expected["pair"], strict=True):
        assert torch.equal(one, other)


class Dashed(nn.Module):
    """Has modules whose names are no identifiers."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("block-1", "block_1"):
            self.add_module(name, nn.Conv2d(3, 16, 1))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.get_submodule(name)(x) for name in ("block-1", "block_1"))
        found: Tensor = self.head(first - 2 * second)
        return found


def test_modules_may_have_any_name(tmp_path: Any) -> None:
    x = torch.randn(2, 3, 4, 4)
    nested = nest(Dashed(), x, LEVELS)
    assert torch.equal(materialize(nested, "half").module()(x), _level(nested, x))
    nested.save(tmp_path / "net.nest")
    assert torch.equal(_level(load(tmp_path / "net.nest"), x), _level(nested, x))


class TwoFrames(nn.Module):
    """Both inputs in one batch, as optical flow networks do it: torch proves this for no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        first, second = torch.chunk(self.conv(torch.cat([one, other])), 2)
        found: Tensor = self.head(first * second)
        return found


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_that_cannot_have_any_batch_has_that_of_the_examples(batch: int) -> None:
    one, other = torch.randn(2, batch, 3, 4, 4)
    nested = nest(TwoFrames(), (one, other), LEVELS)
    assert [spec.shape for spec in nested.elastic.program.inputs] == [(batch, 3, 4, 4)] * 2
    found = materialize(nested, "half").module()(one, other)
    assert torch.equal(found, _level(nested, one, other))
    with pytest.raises(UsageError, match=rf"expected shape \[{batch}, 3, 4, 4\], found \[3, "):
        nested(torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4))


class Shifted(nn.Module):
    """Writes into parts of values before it reads the whole, around a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)) + 1
        features[:, :, 1:, :2] += 1
        features[:, :, 0].mul_(2)
        found: Tensor = self.head(features)
        return found


def test_parts_may_be_changed_in_place() -> None:
    x = torch.randn(2, 3, 4, 4)
    model = Shifted().eval()
    model.norm.load_state_dict({"running_var": torch.rand(16) + 0.5}, strict=False)
    nested = nest(model, x, LEVELS)
    with torch.no_grad():
        torch.testing.assert_close(nested(x), model(x))
    assert torch.equal(materialize(nested, "half").module()(x), _level(nested, x))
    assert "aten.batch_norm.default" in {node.op for node in nested.elastic.program.nodes}


class Unread(nn.Module):
    """Has a parameter of many dimensions that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = nn.Parameter(torch.zeros(4, 5, 6))
        self.conv = nn.Conv2d(3, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x))
        return found


def test_every_axis_has_a_name_of_its_own() -> None:
    nested = nest(Unread(), torch.zeros(1, 3, 4, 4), LEVELS)
    assert len(nested.nesting.axes) == 4


class Chosen(nn.Module):
    """As many rows as are positive, or a branch by a number."""

    def __init__(self, *, is_branch: bool) -> None:
        super().__init__()
        self.is_branch = is_branch
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (rows, 4) for `x` of shape (batch, 4)."""
        y: torch.Tensor = self.layer(x)
        if self.is_branch:
            return y if y.sum().item() > 0 else -y
        return y[y.sum(1) > 0]


@pytest.mark.parametrize("is_branch", [True, False], ids=["branch", "rows"])
def test_what_depends_on_data_is_refused_with_its_line(is_branch: bool) -> None:
    with pytest.raises(UsageError, match=r"depends on data \(.*test_capture\.py:\d+"):
        nest(Chosen(is_branch=is_branch).eval(), torch.randn(2, 4), {"half": 0.5})
