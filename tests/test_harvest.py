"""What element masks leave dead is removed, exactly, and what stays is reported."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.networks.redraw import redraw
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.vit import VisionTransformer
from benchmarks.networks.wrn import WideResNet
from nestedge.cost import count_parameters
from nestedge.harvest import Harvest
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import NestedModel, nest
from nestedge.program.graph import run

Mask = npt.NDArray[np.bool_]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert torch.isfinite(found).all()
    return float((found - expected).abs().max() / expected.abs().max())


def at_level(nested: NestedModel, level: str, x: torch.Tensor) -> torch.Tensor:
    with nested.at(level), torch.no_grad():
        y: torch.Tensor = nested(x)
    return y


def harvested(nested: NestedModel, level: str, x: torch.Tensor) -> tuple[Harvest, torch.Tensor]:
    found = harvest_level(nested, level)
    return found, run(found.level.program, found.level.tensors, [x])[0]


def random_masks(
    model: nn.Module, rng: np.random.Generator, *, skip: tuple[str, ...]
) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """Masks of two levels, the first inside the second, with whole rows and columns gone."""
    smaller, larger = {}, {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or any(part in name for part in skip):
            continue
        mask = rng.random(parameter.shape) < 0.8
        mask[rng.random(parameter.shape[0]) < 0.3] = False
        if parameter.shape[1] > 1:
            mask[:, rng.random(parameter.shape[1]) < 0.2] = False
        larger[name] = mask
        smaller[name] = mask & (rng.random(parameter.shape) < 0.6)
    return smaller, larger


NETWORKS = {
    "resnet": lambda: CifarResNet(num_blocks=(1, 1, 1)),
    "wrn": lambda: WideResNet(layers=8, widen=1),
    "mobilenet": MobileNet,
    "densenet": lambda: DenseNet(num_layers=(2, 2, 2)),
    "vit": lambda: VisionTransformer(num_blocks=2),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_arbitrary_nested_masks_come_out_equal_to_the_masked_network(make: object) -> None:
    model = make()  # type: ignore[operator]
    redraw(model, 1)
    model.eval()
    skip = ("pos", "token", "head", "classifier", "linear")
    smaller, larger = random_masks(model, np.random.default_rng(2), skip=skip)
    # The transformer's positions are for 32 x 32; the others take any size.
    x = (
        torch.randn(1, 3, 32, 32)
        if isinstance(model, VisionTransformer)
        else torch.randn(1, 3, 16, 16)
    )
    nested = nest(
        model,
        x,
        {
            "sparse": Level(masks=smaller),
            "denser": Level(masks=larger),
            "narrow": Level(width=0.5, masks=smaller),
        },
    )
    assert ("sparse", "denser") in nested.nesting.order()
    masked = make()  # type: ignore[operator]
    masked.load_state_dict(model.state_dict())
    for name, parameter in masked.named_parameters():
        if name in smaller:
            parameter.data *= torch.from_numpy(smaller[name])
    expected = masked.eval()(x).detach()
    assert error(at_level(nested, "sparse", x), expected) <= 1e-6
    for level in nested.levels:
        y = at_level(nested, level, x)
        assert y.abs().max() > 0.1
        found, z = harvested(nested, level, x)
        assert error(z, y) <= 1e-5
        whole = count_parameters(nested.plan(level).program)
        assert count_parameters(found.level.program) < whole
        assert sum(found.removed.values()) > 0


class Chain(nn.Module):
    """Two convolutions with batch norm between them, and a linear head."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, kernel, padding=padding, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)))
        y: torch.Tensor = self.head(F.relu(self.second(x)).mean((2, 3)))
        return y


def chain(kernel: int, padding: int, *, bias: float) -> tuple[NestedModel, torch.Tensor]:
    """A chain whose channel 2 between the convolutions is relu(batch norm of `bias`)."""
    model = Chain(kernel, padding)
    redraw(model, 3)
    with torch.no_grad():
        for name, value in (("norm.running_mean", 0.0), ("norm.bias", bias), ("first.bias", 0.0)):
            model.state_dict()[name].fill_(value)
    mask = np.ones((8, 3, 3, 3), dtype=bool)
    mask[2] = False
    x = torch.randn(2, 3, 9, 9)
    return nest(model.eval(), x, {"sparse": Level(masks={"first.weight": mask})}), x


@pytest.mark.parametrize(
    ("kernel", "padding", "bias", "folded"),
    [
        (1, 0, 0.7, True),
        (3, 0, 0.7, True),
        (3, 1, 0.7, False),
        (3, 1, -0.7, None),
    ],
    ids=["1x1", "unpadded", "padded", "padded-but-zero"],
)
def test_a_constant_channel_is_folded_where_that_is_exact(
    kernel: int, padding: int, bias: float, folded: bool | None
) -> None:
    nested, x = chain(kernel, padding, bias=bias)
    found, y = harvested(nested, "sparse", x)
    assert error(y, at_level(nested, "sparse", x)) <= 1e-6
    if folded is False:
        assert found.removed == {}
        (stayed,) = found.stayed
        assert (stayed.axis, stayed.units) == ("first", 1)
        assert "padding of second" in stayed.reason
    else:
        assert found.removed == {"first": 1}
        assert found.folded == (("second",) if folded else ())
        assert found.stayed == ()
        assert found.level.program.tensors["first.weight"].shape == (7, 3, 3, 3)


def test_a_channel_that_nothing_reads_goes_whatever_it_holds() -> None:
    model = Chain(3, 1)
    redraw(model, 4)
    mask = np.ones((6, 8, 3, 3), dtype=bool)
    mask[:, [1, 5]] = False
    x = torch.randn(2, 3, 9, 9)
    nested = nest(model.eval(), x, {"sparse": Level(masks={"second.weight": mask})})
    found, y = harvested(nested, "sparse", x)
    assert found.removed == {"first": 2}
    assert error(y, at_level(nested, "sparse", x)) <= 1e-6


def test_what_fed_a_removed_channel_alone_goes_with_it() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)
            self.b = nn.Linear(6, 5)
            self.c = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
            return y

    model = Deep()
    redraw(model, 5)
    reads = np.ones((3, 5), dtype=bool)
    reads[:, 0] = False  # nothing reads b's channel 0,
    feeds = np.zeros((5, 6), dtype=bool)
    feeds[1:, 1:] = True  # and a's channel 0 feeds that one only
    feeds[0, 0] = True
    x = torch.randn(3, 4)
    masks = {"c.weight": reads, "b.weight": feeds}
    nested = nest(model.eval(), x, {"sparse": Level(masks=masks)})
    found, y = harvested(nested, "sparse", x)
    assert found.removed == {"a": 1, "b": 1}
    assert error(y, at_level(nested, "sparse", x)) <= 1e-6


def test_a_constant_that_a_layer_norm_sees_stays_and_is_reported() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)
            self.norm = nn.LayerNorm(6)
            self.b = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(self.norm(self.a(x)))
            return y

    model = Normalised()
    redraw(model, 6)
    mask = np.ones((6, 4), dtype=bool)
    mask[3] = False
    x = torch.randn(3, 4)
    nested = nest(model.eval(), x, {"sparse": Level(masks={"a.weight": mask})})
    found, y = harvested(nested, "sparse", x)
    assert found.removed == {}
    assert found.stayed[0].reason == "layer_norm in norm mixes it with others"
    assert error(y, at_level(nested, "sparse", x)) <= 1e-6


def test_a_layer_that_is_dead_keeps_one_channel() -> None:
    model = Chain(1, 0)
    redraw(model, 7)
    mask = np.zeros((8, 3, 3, 3), dtype=bool)
    x = torch.randn(2, 3, 9, 9)
    nested = nest(model.eval(), x, {"sparse": Level(masks={"first.weight": mask})})
    found, y = harvested(nested, "sparse", x)
    assert found.removed["first"] == 7
    assert error(y, at_level(nested, "sparse", x)) <= 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.6))
def test_any_mask_on_any_weight_is_exact(seed: int, share: float) -> None:
    model = Chain(3, 1)
    redraw(model, seed)
    rng = np.random.default_rng(seed)
    masks = {
        name: rng.random(p.shape) < share for name, p in model.named_parameters() if p.dim() > 1
    }
    masks["first.weight"][rng.random(8) < 0.4] = False
    x = torch.randn(2, 3, 9, 9)
    nested = nest(model.eval(), x, {"sparse": Level(masks=masks)})
    y = at_level(nested, "sparse", x)
    found, z = harvested(nested, "sparse", x)
    torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-6)
    exported = materialize(nested, "sparse").module()(x)
    torch.testing.assert_close(exported, y, rtol=1e-5, atol=1e-6)
    assert count_parameters(found.level.program) <= sum(p.numel() for p in model.parameters())


class _Einsum(nn.Module):
    """A convolution, and a product with a matrix that is spelt by its letters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.matrix = nn.Parameter(torch.ones(5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,oc->bohw", self.conv(x), self.matrix)


class _Recurrent(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(6, 5)
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.lstm(self.first(x.flatten(2).transpose(1, 2)))[0])
        return y


MIXING = {
    "recurrent": (_Recurrent, "last.weight"),
    "recurrent inputs": (_Recurrent, "lstm.weight_ih_l0"),
    "weight norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.ReLU(),
            nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 1)),
        ),
        "0.weight, 0.bias",
    ),
    "one group": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(1, 8), nn.Conv2d(8, 4, 1)),
        "2.weight",
    ),
    "einsum": (_Einsum, "matrix"),
}


@pytest.mark.parametrize(("make", "name"), MIXING.values(), ids=MIXING)
def test_channels_that_are_mixed_with_others_stay_although_nothing_reads_them(
    make: object, name: str
) -> None:
    model: nn.Module = make()  # type: ignore[operator]
    redraw(model, 0)
    x = torch.randn(2, 3, 4, 4)
    masks = {}
    for each in name.split(", "):
        masks[each] = np.ones(dict(model.named_parameters())[each].shape, dtype=bool)
        # Columns that nothing reads, or rows that say nothing.
        masks[each][(slice(None), slice(3)) if name == each else slice(3)] = False
    nested = nest(model.eval(), x, {"sparse": Level(masks=masks)})
    found, y = harvested(nested, "sparse", x)
    assert error(y, at_level(nested, "sparse", x)) < 1e-5
    assert not found.removed


class Recurring(nn.Module):
    """A layer whose two results are read, and linear layers of which a mask leaves some dead."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(3, 4, batch_first=True)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 2) for `x` of shape (batch, steps, 3)."""
        states, (last, _) = self.recurrent(x)
        y: torch.Tensor = self.last(self.first(states.mean(1) + last[0]).relu())
        return y


def test_channels_behind_a_layer_of_several_results_are_harvested() -> None:
    model = Recurring().double()
    redraw(model, seed=0)
    mask = np.ones((2, 6), dtype=bool)
    mask[:, 2:4] = False
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    nested = nest(model, x, {"sparse": Level(masks={"last.weight": mask})})
    assert harvest_level(nested, "sparse").removed == {"first": 2}
    with nested.at("sparse"), torch.no_grad():
        torch.testing.assert_close(materialize(nested, "sparse").module()(x), nested(x))
