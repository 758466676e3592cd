from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.elastic import Elastic, study
from nestedge.program.capture import capture
from nestedge.training.channel_gates import channel_gates, positions
from tests.networks import resnet
from tests.training.selectable import Grouped, preactivation

Middle = Callable[[torch.Tensor], torch.Tensor]


class _Between(nn.Module):
    """A convolution, a batch norm, something, and another convolution."""

    def __init__(self, middle: Middle | nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        self.middle = middle
        self.last = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.middle(self.bn(self.conv(x))))
        return logits


def _elastic(model: nn.Module) -> Elastic:
    return study(capture(model.eval(), (torch.zeros(2, 3, 8, 8),), kwargs={}).program)


class _Squeezed(nn.Module):
    """Channels multiplied by gates that come from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Linear(8, 4)
        self.expand = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gates[:, :, None, None]


class _Tied(nn.Module):
    """A convolution whose outputs are added to its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.inner(torch.sigmoid(x))
        return x + inner


@pytest.mark.parametrize(
    ("middle", "is_gated"),
    [
        pytest.param(F.relu, True, id="relu"),
        pytest.param(F.hardswish, True, id="hardswish"),
        pytest.param(lambda x: F.max_pool2d(F.gelu(x), 2), True, id="gelu and pool"),
        pytest.param(lambda x: torch.cat((x, -x), 1)[:, :8], True, id="part of a concatenation"),
        pytest.param(nn.Conv2d(8, 8, 3, groups=8, bias=False), True, id="depthwise"),
        pytest.param(_Squeezed(), True, id="squeeze and excite"),
        pytest.param(torch.sigmoid, False, id="sigmoid"),
        pytest.param(lambda x: x + 1, False, id="a constant added"),
        pytest.param(nn.Conv2d(8, 8, 3, groups=8), False, id="depthwise with bias"),
        pytest.param(lambda x: x * torch.softmax(x, 1), False, id="softmax"),
        pytest.param(lambda x: x / (1 + x.mean(1, keepdim=True)), False, id="mean over channels"),
        pytest.param(nn.GroupNorm(1, 8), False, id="group norm"),
        pytest.param(_Tied(), False, id="tied to what it makes"),
    ],
)
def test_channels_are_gated_where_their_zero_reaches_all_readers(
    middle: Middle | nn.Module, is_gated: bool
) -> None:
    elastic = _elastic(_Between(middle))
    (axis,) = elastic.layout.axes.keys() & {"conv", "conv[0:8]"}
    assert (axis in channel_gates(elastic, ())) == is_gated


def test_of_a_groups_batch_norms_the_last_one_is_the_gate() -> None:
    gates = channel_gates(_elastic(Grouped()), ())
    assert {axis: [node.args[1].name for node in nodes] for axis, nodes in gates.items()} == {
        f"blocks.{i}.conv1": [f"blocks.{i}.bn2.weight"] for i in (0, 1)
    }


def test_a_trunk_has_all_of_its_batch_norms_as_gates_where_it_is_named() -> None:
    elastic = _elastic(resnet())
    assert "conv1" not in channel_gates(elastic, ())
    nodes = channel_gates(elastic, ("conv1",))["conv1"]
    weights = [node.args[1].name for node in nodes]
    assert weights == ["bn1.weight", *(f"layer{i}.{j}.bn2.weight" for i in (1, 2) for j in (0, 1))]


def test_a_preactivation_trunk_is_gated_by_the_norms_that_read_it() -> None:
    elastic = _elastic(preactivation())
    axes = elastic.layout.axes
    trunk = "stages.0.0.projection"
    assert trunk in axes
    assert trunk not in channel_gates(elastic, ())
    nodes = channel_gates(elastic, (trunk,))[trunk]
    assert [node.scope for node in nodes] == ["stages.0.1.bn1", "stages.1.0.bn1"]


def test_the_entries_of_a_group_have_its_number() -> None:
    elastic = _elastic(Grouped())
    found = positions(elastic, "blocks.0.bn2.weight", "blocks.0.conv1")
    assert found == (0, 0, 1, 1, 2, 2, 3, 3)
    assert positions(elastic, "blocks.0.bn2.weight", "stem") == (-1,) * 8
