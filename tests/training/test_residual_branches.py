from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.elastic import study
from nestedge.program.capture import capture
from nestedge.training.residual_branches import Branch, residual_branches
from tests.networks import resnet
from tests.training.selectable import preactivation


def _branches(model: nn.Module) -> dict[str, Branch]:
    program = capture(model.eval(), (torch.zeros(2, 3, 8, 8),), kwargs={}).program
    found = residual_branches(study(program))
    return {path: branch for of_stage in found.values() for path, branch in of_stage.items()}


def test_a_branch_that_ends_with_a_batch_norm_has_its_weights_scaled() -> None:
    found = _branches(resnet())
    assert list(found) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    for path, branch in found.items():
        assert branch.scaled == (f"{path}.bn2.weight", f"{path}.bn2.bias")
        assert branch.silenced == (*branch.scaled, f"{path}.conv2.weight")
        assert branch.is_removable == (path != "layer2.0")


def test_a_preactivation_branch_has_its_convolution_scaled_but_not_the_projection() -> None:
    found = _branches(preactivation())
    assert list(found) == ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"]
    for path, branch in found.items():
        assert branch.scaled == branch.silenced == (f"{path}.conv3.weight",)
        assert branch.is_removable == path.endswith("1")


class _Block(nn.Module):
    def __init__(self, forward: Callable[[_Block, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.body = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


class _Row(nn.Module):
    def __init__(
        self, forward: Callable[[_Block, torch.Tensor], torch.Tensor], *, rectified: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.rectified = rectified
        self.blocks = nn.Sequential(_Block(forward), _Block(forward))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.max_pool2d(F.relu(x), 2) if self.rectified else x
        features: torch.Tensor = self.blocks(x)
        return features.mean((2, 3))


def _twice(block: _Block, x: torch.Tensor) -> torch.Tensor:
    x = x + block.bn(block.conv(x))
    other: torch.Tensor = block.other(torch.sigmoid(x))
    return x + other


@pytest.mark.parametrize(
    ("forward", "scaled"),
    [
        pytest.param(lambda b, x: x + b.conv(x), ("conv.weight", "conv.bias"), id="convolution"),
        pytest.param(lambda b, x: b.scale * b.bn(x) + x, ("scale",), id="layer scale"),
        pytest.param(
            lambda b, x: x + F.dropout(b.conv(x).flatten(2).reshape(x.shape), 0.5, b.training),
            ("conv.weight", "conv.bias"),
            id="moved",
        ),
        pytest.param(
            _twice, ("other.weight", "other.bias", "bn.weight", "bn.bias"), id="two additions"
        ),
    ],
)
def test_the_tensors_of_a_branchs_last_layer_are_found(
    forward: Callable[[_Block, torch.Tensor], torch.Tensor], scaled: tuple[str, ...]
) -> None:
    branch = _branches(_Row(forward, rectified=False))["blocks.1"]
    assert set(branch.scaled) == {f"blocks.1.{name}" for name in scaled}
    assert branch.is_removable


def _shared(block: _Block, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = block.bn(block.conv(x))
    return x + out * out.mean((2, 3), keepdim=True)


def _again(block: _Block, x: torch.Tensor) -> torch.Tensor:
    again: torch.Tensor = block.conv(block.bn(block.conv(x)))
    return x + again


def _half(block: _Block, x: torch.Tensor) -> torch.Tensor:
    both: torch.Tensor = block.conv(x)
    one, other = both.chunk(2, 1)
    norm: torch.Tensor = block.bn(other.repeat(1, 2, 1, 1))
    return x + one.repeat(1, 2, 1, 1) + norm


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda b, x: x + torch.sigmoid(b.conv(x)), id="activation"),
        pytest.param(_shared, id="read elsewhere"),
        pytest.param(_again, id="layer called twice"),
        pytest.param(_half, id="part of a value"),
        pytest.param(lambda b, x: x + b.bn(x) + b.conv(x).sigmoid(), id="one branch of two"),
    ],
)
def test_a_branch_without_a_last_layer_of_its_own_is_left_aside(
    forward: Callable[[_Block, torch.Tensor], torch.Tensor],
) -> None:
    assert _branches(_Row(forward, rectified=False)) == {}


def _rectified(block: _Block, x: torch.Tensor) -> torch.Tensor:
    return F.relu(x + block.bn(block.conv(x)))


def test_a_block_that_rectifies_what_enters_is_not_what_enters_without_its_branch() -> None:
    found = _branches(_Row(_rectified, rectified=False))
    assert [branch.is_removable for branch in found.values()] == [False, True]
    found = _branches(_Row(_rectified, rectified=True))
    assert [branch.is_removable for branch in found.values()] == [True, True]


def test_a_block_that_adds_a_table_too_is_not_what_enters_without_its_branch() -> None:
    found = _branches(_Row(lambda b, x: x + b.scale + b.conv(x), rectified=False))
    assert found
    assert not any(branch.is_removable for branch in found.values())
