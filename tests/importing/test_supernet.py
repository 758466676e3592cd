from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.importing import Subnet, from_supernet
from nestedge.inspection import inspect
from nestedge.model import NestedModel
from nestedge.training import recalibrate
from tests.importing.exactness import assert_exact, saved_and_loaded

X = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
State = dict[str, Tensor]

STEM = 8
STAGES = ((16, 2, False), (24, 2, True))
"""Channels, stride and whether there is squeeze-excite, of stages of three blocks."""


def divisible(channels: float) -> int:
    """Channels rounded as in once-for-all."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class Excite(nn.Module):
    """Squeeze-excite with a quarter of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        mid = divisible(channels // 4)
        self.fc = nn.ModuleDict(
            {"reduce": nn.Conv2d(channels, mid, 1), "expand": nn.Conv2d(mid, channels, 1)}
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc["reduce"](x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.fc["expand"](y))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection."""

    def __init__(self, first: int, last: int, expand: float, k: int, *, stride: int, se: bool):
        super().__init__()
        n = divisible(first * expand) if expand != 1 else first
        self.inverted_bottleneck: nn.Module | None = None
        if expand != 1:
            self.inverted_bottleneck = nn.Sequential()
            self.inverted_bottleneck.add_module("conv", nn.Conv2d(first, n, 1, bias=False))
            self.inverted_bottleneck.add_module("bn", nn.BatchNorm2d(n))
            self.inverted_bottleneck.add_module("act", nn.Hardswish())
        self.depth_conv = nn.Sequential()
        conv = nn.Conv2d(n, n, k, stride, k // 2, groups=n, bias=False)
        self.depth_conv.add_module("conv", conv)
        self.depth_conv.add_module("bn", nn.BatchNorm2d(n))
        self.depth_conv.add_module("act", nn.Hardswish())
        if se:
            self.depth_conv.add_module("se", Excite(n))
        self.point_linear = nn.Sequential()
        self.point_linear.add_module("conv", nn.Conv2d(n, last, 1, bias=False))
        self.point_linear.add_module("bn", nn.BatchNorm2d(last))

    def forward(self, x: Tensor) -> Tensor:
        if self.inverted_bottleneck is not None:
            x = self.inverted_bottleneck(x)
        y: Tensor = self.point_linear(self.depth_conv(x))
        return y


class Residual(nn.Module):
    """A block and its shortcut, where it has one."""

    def __init__(self, conv: Inverted, *, shortcut: bool) -> None:
        super().__init__()
        self.conv, self.shortcut = conv, shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y + x if self.shortcut else y


class Network(nn.Module):
    """A static network of the space: what a subnet is when it is cut out.

    Args:
        depth: blocks of each of the two stages, of three.
        expand: for each of the six blocks, left-out ones too.
        kernel: likewise.
    """

    def __init__(
        self,
        depth: Sequence[int] = (3, 3),
        expand: Sequence[float] = (6,) * 6,
        kernel: Sequence[int] = (5,) * 6,
    ) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(nn.Conv2d(3, STEM, 3, 1, 1, bias=False))
        self.first_conv.append(nn.BatchNorm2d(STEM))
        first = Inverted(STEM, STEM, 1, 3, stride=1, se=False)
        self.blocks = nn.ModuleList([Residual(first, shortcut=True)])
        channels = STEM
        for stage, (last, stride, se) in enumerate(STAGES):
            for i in range(depth[stage]):
                e, k = expand[3 * stage + i], kernel[3 * stage + i]
                block = Inverted(channels, last, e, k, stride=stride if i == 0 else 1, se=se)
                self.blocks.append(Residual(block, shortcut=i > 0))
                channels = last
        self.classifier = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.first_conv(x))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def supernet(*, matrices: bool, kernel: int = 5) -> State:
    """A supernet's state dict under the names that once-for-all's elastic layers give."""
    model = Network(kernel=(kernel,) * 6).double()
    redraw(model, 1)
    state = {}
    generator = torch.Generator().manual_seed(2)
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if name.startswith("blocks.") and not name.startswith("blocks.0.") and "se" not in parts:
            parts.insert(-1, parts[-2])  # conv.conv.weight, bn.bn.bias
            if matrices and parts[-4:-1] == ["depth_conv", "conv", "conv"]:
                for large in range(kernel, 3, -2):
                    key = ".".join([*parts[:-2], f"{large}to{large - 2}_matrix"])
                    size = (large - 2) ** 2
                    state[key] = torch.randn(size, size, generator=generator).double() / large
        state[".".join(parts)] = tensor
    return state


def cropped(state: State, name: str, size: int) -> Tensor:
    """A depthwise weight with a smaller kernel, written as loops over single filters."""
    weight = state[name]
    while weight.shape[-1] > size:
        large = weight.shape[-1]
        weight = weight[:, :, 1:-1, 1:-1]
        key = name.replace(".conv.weight", f".{large}to{large - 2}_matrix")
        if key in state:
            rows = [(state[key] @ row[0].reshape(-1)).reshape(1, *row.shape[1:]) for row in weight]
            weight = torch.stack(rows)
    return weight


def reference(
    state: State, depth: Sequence[int], expand: Sequence[float], kernel: Sequence[int]
) -> nn.Module:
    """A subnet cut out of a supernet by hand."""
    model = Network(depth, expand, kernel).double().eval()
    # A stage's blocks stand behind those of the whole stage before.
    places = {0: 0, **{1 + i: 1 + i for i in range(depth[0])}}
    places |= {1 + depth[0] + i: 4 + i for i in range(depth[1])}
    for name, target in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[1] = str(places[int(parts[1])])
        source = ".".join(parts)
        if source not in state:
            source = ".".join([*parts[:-1], parts[-2], parts[-1]])
        value = state[source]
        if value.dim() == 4 and value.shape[-1] > target.shape[-1]:
            value = cropped(state, source, target.shape[-1])
        target.copy_(value[tuple(slice(n) for n in target.shape)])
    return model


SUBNETS = {
    "small": Subnet((1, 2), 3),
    "mixed": Subnet((2, 3), (4, 3, 6, 6, 4, 3)),
    "full": Subnet(3, 6),
}


def imported(
    state: State, subnets: Mapping[str, Subnet] = SUBNETS, *, kernel: int = 5
) -> NestedModel:
    model = Network(kernel=(kernel,) * 6).double()
    redraw(model, 3)
    return from_supernet(model, X, state, subnets)


def whole(subnet: Subnet, *, kernel: int) -> tuple[list[int], list[float], list[int]]:
    """A subnet's numbers, one for each stage or block."""
    depth, expand, given = subnet.depth, subnet.expand, subnet.kernel or kernel
    return (
        [depth] * 2 if isinstance(depth, int) else list(depth),
        list(expand) if isinstance(expand, Sequence) else [expand] * 6,
        [given] * 6 if isinstance(given, int) else list(given),
    )


CASES = {
    "as stored": ({"matrices": False}, 5),
    "matrices unused": ({"matrices": True}, 5),
    "cropped": ({"matrices": False}, 3),
    "transformed": ({"matrices": True}, 3),
    "transformed twice": ({"matrices": True, "kernel": 7}, 3),
}


@pytest.mark.parametrize(("made", "kernel"), list(CASES.values()), ids=list(CASES))
def test_subnets_are_those_that_are_cut_out_by_hand(
    made: dict[str, int], kernel: int, tmp_path: Path
) -> None:
    state = supernet(**made)  # type: ignore[arg-type]
    nested = imported(state, kernel=kernel)
    loaded = saved_and_loaded(nested, tmp_path)
    for level, subnet in SUBNETS.items():
        twin = reference(state, *whole(subnet, kernel=kernel))
        with torch.no_grad():
            assert_exact(nested, level, X, twin(X))
            assert_exact(loaded, level, X, twin(X))
        count = sum(p.numel() for p in twin.parameters())
        assert inspect(nested).levels[level].parameters == count
    assert ("small", "full") in nested.nesting.order()


def test_kernels_without_matrices_may_differ_between_levels() -> None:
    state = supernet(matrices=False)
    subnets = {
        "small": Subnet((1, 2), 3, 3),
        "medium": Subnet((2, 3), 4, (3, 5, 3, 5, 5, 3)),
        "full": Subnet(3, 6, 5),
    }
    nested = imported(state, subnets)
    for level, subnet in subnets.items():
        twin = reference(state, *whole(subnet, kernel=5))
        with torch.no_grad():
            assert_exact(nested, level, X, twin(X))
        count = sum(p.numel() for p in twin.parameters())
        assert inspect(nested).levels[level].parameters == count
    assert nested.nesting.is_chain()


def test_a_subnet_is_recalibrated_as_torch_recalibrates_it() -> None:
    state = supernet(matrices=False)
    nested = imported(state)
    recalibrate(nested, [(X, None), (X * 2 + 1, None)])
    twin = reference(state, *whole(SUBNETS["small"], kernel=5))
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for batch in (X, X * 2 + 1):
            twin.train()(batch)
        assert_exact(nested, "small", X, twin.eval()(X))


def test_the_old_names_of_blocks_are_known() -> None:
    state = supernet(matrices=True)
    old = {name.replace(".conv.", ".mobile_inverted_conv.", 1): t for name, t in state.items()}
    assert old.keys() != state.keys()
    nested = imported({f"module.{name}": tensor for name, tensor in old.items()})
    twin = reference(state, *whole(SUBNETS["mixed"], kernel=5))
    assert_exact(nested, "mixed", X, twin(X).detach())


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "depths": (
        lambda: imported(supernet(matrices=False), {"a": Subnet((1, 2, 3), 3)}),
        "level 'a': depth: expected 2 numbers for .*'blocks.1', 'blocks.4'.*, found 3",
    ),
    "depth": (
        lambda: imported(supernet(matrices=False), {"a": Subnet(4, 3)}),
        "level 'a', stage 'blocks.1': expected 1 to 3 blocks, found 4",
    ),
    "expands": (
        lambda: imported(supernet(matrices=False), {"a": Subnet(3, (3, 6))}),
        "level 'a': expand: expected 6 numbers for .*, found 2",
    ),
    "expand": (
        lambda: imported(supernet(matrices=False), {"a": Subnet(3, 8)}),
        "block of 'blocks.1.conv.depth_conv.conv.weight': expand 8 of 8 channels is 64, and the",
    ),
    "kernel": (
        lambda: imported(supernet(matrices=False), {"a": Subnet(3, 6, 7)}),
        "expected kernel 5, or 2, 4, ... less, found 7",
    ),
    "transformed kernel": (
        lambda: imported(supernet(matrices=True), {"a": Subnet(3, 6, 3)}),
        "the checkpoint makes a kernel of 3 by a matrix of the one of 5 that the model has",
    ),
    "larger kernel": (
        lambda: imported(supernet(matrices=False), kernel=7),
        r"a kernel of \[5, 5\] cannot become one of 7",
    ),
    "no expansion": (
        lambda: from_supernet(nn.Conv2d(3, 4, 1), X.float(), nn.Conv2d(3, 4, 1).state_dict(), {}),
        "found no expanding block",
    ),
}


@pytest.mark.parametrize(("act", "message"), list(WRONG.values()), ids=list(WRONG))
def test_what_cannot_be_imported_is_refused(act: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        act()


def test_a_missing_matrix_is_refused_by_name() -> None:
    state = {n: t for n, t in supernet(matrices=True, kernel=7).items() if "5to3" not in n}
    with pytest.raises(UsageError, match=r"no matrix from a kernel of 5 towards 3; .*7to5_matrix"):
        imported(state, kernel=3)


def test_other_squeezed_channels_than_a_quarter_are_refused() -> None:
    model = copy.deepcopy(Network())
    for block in model.blocks[4:]:
        excite = block.get_submodule("conv.depth_conv.se.fc")
        assert isinstance(excite, nn.ModuleDict)
        n = block.get_parameter("conv.depth_conv.conv.weight").shape[0]
        excite["reduce"], excite["expand"] = nn.Conv2d(n, 12, 1), nn.Conv2d(12, n, 1)
    with pytest.raises(UsageError, match=r"expected 24 squeezed channels of 96 inside .* found 12"):
        from_supernet(model.float(), X.float(), model.state_dict(), {"a": Subnet(3, 6)})
