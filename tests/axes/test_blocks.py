from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.networks.redraw import redraw
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.vit import VisionTransformer
from benchmarks.networks.wrn import WideResNet
from nestedge.axes.blocks import find_blocks, find_stages, without_blocks
from nestedge.levels import Level
from nestedge.nested import Card, nest
from nestedge.program.capture import capture
from nestedge.program.graph import Program, run

IMAGES = torch.zeros(2, 3, 32, 32)


def _program(model: nn.Module, x: torch.Tensor = IMAGES) -> Program:
    return capture(model.eval(), (x,)).program


STAGES = {
    "resnet": (
        CifarResNet(),
        {f"layer{i}": (3, [f"layer{i}.{j}" for j in range(i > 1, 3)]) for i in (1, 2, 3)},
    ),
    "wrn": (WideResNet(), {f"stages.{i}": (2, [f"stages.{i}.1"]) for i in range(3)}),
    "mobilenet": (
        MobileNet(),
        {
            "stages": (1, ["stages.0"]),
            "stages.1": (2, ["stages.1.1"]),
            "stages.2": (3, ["stages.2.1", "stages.2.2"]),
            "stages.3": (2, ["stages.3.1"]),
        },
    ),
    "densenet": (
        DenseNet(),
        {f"stages.{i}": (4, [f"stages.{i}.{j}" for j in range(4)]) for i in range(3)},
    ),
    "vit": (VisionTransformer(), {"blocks": (4, [f"blocks.{i}" for i in range(4)])}),
    "vit-multihead": (
        VisionTransformer(attention="multihead"),
        {"blocks": (4, [f"blocks.{i}" for i in range(4)])},
    ),
}


@pytest.mark.parametrize(("model", "expected"), list(STAGES.values()), ids=list(STAGES))
def test_the_stages_of_a_network_are_found(
    model: nn.Module, expected: dict[str, tuple[int, list[str]]]
) -> None:
    stages = find_stages(_program(model))
    found = {stage.name: (len(stage.blocks), list(stage.removable)) for stage in stages}
    assert found == expected


def test_a_block_of_a_dense_net_takes_its_piece_along() -> None:
    block = find_blocks(_program(DenseNet((2, 2, 2))))["stages.0.1"]
    assert len(block.pieces) == 1
    assert sorted(t.removeprefix("stages.0.1.") for t in block.tensors)[0] == "conv1.weight"


class Residual(nn.Module):
    """A sum of what goes in and a layer."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape as `x`."""
        found: torch.Tensor = x + self.layer(x)
        return found


class Activated(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layer(x) + x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Residual()
        self.other = Residual()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + self.other(self.inner(x))
        return found


class Broadcasting(Residual):
    """What goes in has one channel, and what comes out has eight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 8, 1)


class Shifted(Residual):
    """Puts a layer beside what goes in, and adds to both."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layer(x)], 1) + self.layer.weight.mean()


class Doubled(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 1)


class Scaled(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x * self.layer(x)
        return found


class Reading(Residual):
    """Two values go in."""

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        found: torch.Tensor = x + self.layer(x if y is None else y)
        return found


class Twice(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.block = block
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        found: torch.Tensor = self.head(self.block(x, x.relu()))
        return found


def _around(*blocks: nn.Module, width: int = 8, last: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 1), *blocks, nn.Conv2d(last, 2, 1))


FOUND: dict[str, tuple[nn.Module, list[str]]] = {
    "residual": (_around(Residual(), Residual()), ["1", "2"]),
    "relu of the sum": (_around(Activated()), ["1"]),
    "blocks in a block": (_around(Outer(), Outer()), ["1", "2"]),
    "in a sequence": (_around(nn.Sequential(Residual(), Residual())), ["1.0", "1.1"]),
    "none": (_around(nn.ReLU()), []),
    "a product": (_around(Scaled()), []),
    "a broadcast sum": (_around(Broadcasting(), width=1), []),
    "a copy beside itself": (_around(Doubled(), last=16), []),
    "two values": (Twice(Reading()), []),
}


@pytest.mark.parametrize(("model", "paths"), list(FOUND.values()), ids=list(FOUND))
def test_a_block_is_a_module_whose_output_is_its_input_and_more(
    model: nn.Module, paths: list[str]
) -> None:
    program = _program(model, torch.zeros(2, 3, 4, 4))
    assert list(find_blocks(program)) == paths


def test_without_a_block_what_goes_in_comes_out() -> None:
    model = _around(Activated(), Activated(), Residual()).eval()
    redraw(model, seed=0)
    images = torch.randn(2, 3, 4, 4)
    captured = capture(model, (images,))
    program = without_blocks(captured.program, ["2"])
    (found,) = run(program, captured.tensors, [images])
    expected = model[4](model[3](model[1](model[0](images))))
    torch.testing.assert_close(found, expected)
    assert not any(name.startswith("2.") for name in program.used_tensors())


def test_without_all_blocks_the_rest_is_left() -> None:
    model = _around(Residual(), Residual()).eval()
    captured = capture(model, (torch.randn(2, 3, 4, 4),))
    program = without_blocks(captured.program, ["1", "2"])
    assert [node.op for node in program.nodes] == ["aten.conv2d.default"] * 2


def test_a_level_keeps_the_first_blocks() -> None:
    model = _around(Residual(), Residual(), Residual()).eval()
    redraw(model, seed=0)
    images = torch.randn(2, 3, 4, 4)
    nested = nest(model, images, {"one": Level(depth=(1,))}, card=Card(divisor=1))
    with nested.at("one"), torch.no_grad():
        torch.testing.assert_close(nested(images), model[4](model[1](model[0](images))))
    assert nested.nesting.uses("one", "3.layer.weight") is None
    assert nested.nesting.uses("one", "1.layer.weight") is not None


class Masked(nn.Module):
    """A residual block that is told which tokens there are, as a row of them is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 8), as `x`."""
        y: torch.Tensor = x + self.layer(x) * mask
        return y


class Row(nn.Module):
    """Blocks that all read one mask, or the second only, which is worked out for it."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.mask = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(Masked() for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 2) for `x` of shape (batch, 8)."""
        mask, ones = self.mask(x), torch.ones_like(x)
        for i, block in enumerate(self.blocks):
            x = block(x, mask if self.shared or i == 1 else ones)
        y: torch.Tensor = self.head(x)
        return y


def test_a_mask_that_all_blocks_read_is_nothing_that_passes_through_them() -> None:
    vectors = torch.randn(2, 8)
    model = Row(shared=True)
    (stage,) = find_stages(_program(model, vectors))
    assert list(stage.removable) == ["blocks.0", "blocks.1", "blocks.2"]
    redraw(model, seed=0)
    nested = nest(model, vectors, {"small": Level(depth=(1,))})
    del model.blocks[1:]
    with nested.at("small"):
        torch.testing.assert_close(nested(vectors), model(vectors))


def test_a_block_is_not_left_out_when_something_is_worked_out_for_it_alone() -> None:
    stages = find_stages(_program(Row(shared=False), torch.randn(2, 8)))
    assert [path for stage in stages for path in stage.removable] == ["blocks.0", "blocks.2"]


def test_what_is_put_beside_the_input_and_added_to_is_no_block() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Shifted(), nn.Conv2d(16, 4, 1))
    assert find_blocks(_program(model, torch.zeros(2, 3, 4, 4))) == {}
