from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import counting
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.vit import VisionTransformer
from nestedge.devices.widths import width_multiple
from nestedge.inspection import WastedWidth, inspect
from nestedge.levels import Level
from nestedge.nested import Card, nest
from tests.networks import images, nested_resnet, resnet, resnet_twins


def test_every_level_is_described_as_its_twin() -> None:
    nested = nested_resnet()
    found = inspect(nested)
    assert list(found.levels) == ["small", "medium", "full"]
    for name, twin in resnet_twins().items():
        assert found.levels[name].parameters == counting.count_parameters(twin)
        macs = counting.count_macs(twin.double(), images(1)[0])
        assert found.levels[name].macs == macs
    assert found.stored_parameters == sum(p.numel() for p in nested.parameters())


def test_levels_inside_others_and_blocks_are_listed() -> None:
    found = inspect(nested_resnet())
    assert found.levels["small"].inside == ("medium", "full")
    assert found.levels["full"].inside == ()
    assert found.is_chain
    assert found.levels["small"].blocks == {"layer1": (1, 2), "layer2": (2, 2)}
    assert found.levels["full"].blocks == {"layer1": (2, 2), "layer2": (2, 2)}


def test_kernels_and_head_widths_that_a_level_has_less_of_are_listed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 7, padding=3), nn.Conv2d(16, 8, 3, groups=2))
    level = Level(kernel={"0.kernel": 3}, head_width={"0.head_width": 6})
    nested = nest(model, torch.randn(1, 3, 8, 8), {"small": level, "full": 1.0})
    found = inspect(nested).levels
    assert found["small"].finer == {"0.kernel": (3, 7), "0.head_width": (6, 8)}
    assert found["full"].finer == {}


def test_axes_are_cut_at_the_widths_of_all_levels() -> None:
    found = inspect(nested_resnet())
    assert found.axes["layer1.0.conv1"] == (0, 4, 8, 16)
    assert "layer1" not in found.axes
    nesting = nested_resnet().nesting
    assert found.tiles == sum(nesting.tiles(tensor) for tensor in nesting.tensors)


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 10))


def test_widths_that_are_no_multiple_of_eight_are_reported() -> None:
    levels = {"odd": Level({"0": 13}), "even": Level({"0": 16}), "full": Level()}
    found = inspect(nest(_perceptron(), torch.zeros(2, 4), levels, card=Card(divisor=1)))
    assert found.levels["odd"].wasted == (WastedWidth("0", "0", 13, 16, 3 / 16),)
    assert found.levels["even"].wasted == ()
    # The ten logits are no choice of a level's.
    assert found.levels["full"].wasted == ()


@pytest.mark.parametrize(
    ("multiple", "widths"),
    [
        (1, {}),
        (8, {"odd": (13, 16)}),
        (16, {"odd": (13, 16), "full": (24, 32)}),
        (32, {"odd": (13, 32), "even": (16, 32), "full": (24, 32)}),
    ],
)
def test_a_width_is_compared_with_the_multiple_that_is_asked_for(
    multiple: int, widths: dict[str, tuple[int, int]]
) -> None:
    levels = {"odd": Level({"0": 13}), "even": Level({"0": 16}), "full": Level()}
    nested = nest(_perceptron(), torch.zeros(2, 4), levels, card=Card(divisor=1))
    found = inspect(nested, multiple=multiple)
    wasted = {level: (w.width, w.padded) for level, r in found.levels.items() for w in r.wasted}
    assert wasted == widths
    assert found.multiple == multiple


_DEVICE_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: CifarResNet((1, 1), (32, 64)),
    "vit": lambda: VisionTransformer(1),
    "vit-multihead": lambda: VisionTransformer(1, attention="multihead"),
}


def _wasted(network: str, *, divisor: int, multiple: int) -> list[WastedWidth]:
    """The wasted widths of a network whose levels are rounded to a divisor."""
    levels = {"third": 0.3, "half": 0.5, "most": 0.7, "full": 1.0}
    example = torch.zeros(2, 3, 32, 32)
    nested = nest(_DEVICE_NETWORKS[network](), example, levels, card=Card(divisor=divisor))
    found = inspect(nested, multiple=multiple)
    return [width for level in found.levels.values() for width in level.wasted]


@pytest.mark.parametrize("network", _DEVICE_NETWORKS)
@pytest.mark.parametrize(
    ("device", "runtime", "precision"),
    [
        ("jetson-orin-nano-8gb", "tensorrt", "fp16"),
        ("jetson-orin-nano-8gb", "tensorrt", "int8"),
        ("raspberry-pi-5", "tflite", "int8"),
    ],
)
def test_levels_that_are_rounded_for_a_device_waste_nothing_of_it(
    network: str, device: str, runtime: str, precision: str
) -> None:
    multiple = width_multiple(device, runtime=runtime, precision=precision)
    assert _wasted(network, divisor=multiple, multiple=multiple) == []
    # Else nothing would have been at stake.
    assert _wasted(network, divisor=1, multiple=multiple)


def test_only_layers_that_are_wholly_no_multiple_waste_when_levels_are_rounded() -> None:
    model = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 32), nn.Linear(32, 2))
    levels = {"half": 0.5, "most": 0.7, "full": 1.0}
    multiple = width_multiple("pixel-8", precision="int8")
    nested = nest(model, torch.zeros(2, 4), levels, card=Card(divisor=multiple))
    found = inspect(nested, multiple=multiple)
    wasted = {name: [w.layer for w in level.wasted] for name, level in found.levels.items()}
    assert wasted == {"half": [], "most": [], "full": ["0"]}


def test_a_width_of_several_axes_side_by_side_names_them_all() -> None:
    nested = nested_resnet()
    found = inspect(nested, multiple=32)
    (entry,) = (w for w in found.levels["small"].wasted if w.layer == "layer2.0.conv2")
    assert entry.axis == "layer2.0.conv2[0:8] + conv1 + layer2.0.conv2[24:32]"
    assert (entry.width, entry.padded, entry.wasted) == (12, 32, 1 - 12 / 32)


def test_a_transposed_convolutions_outputs_are_its_width() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 12, 2), nn.ReLU(), nn.Conv2d(12, 2, 1))
    levels = {"half": Level({"0": 6}), "full": Level()}
    nested = nest(model, torch.zeros(2, 3, 4, 4), levels, card=Card(divisor=1))
    found = inspect(nested, multiple=4)
    assert found.levels["half"].wasted == (WastedWidth("0", "0", 6, 8, 0.25),)
    assert found.levels["full"].wasted == ()


def test_a_multiple_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple must be at least 1, got 0"):
        inspect(nested_resnet(), multiple=0)


def test_smaller_kernels_and_silent_branches_are_described() -> None:
    model = resnet().eval()
    silent = np.zeros((16, 16, 3, 3), dtype=bool)
    centre = np.zeros((16, 16, 3, 3), dtype=bool)
    centre[:, :, 1:2, 1:2] = True
    # What a norm makes of zero is zero where it neither shifts nor has a mean.
    model.state_dict()["layer1.1.bn2.bias"].zero_()
    model.state_dict()["layer1.1.bn2.running_mean"].zero_()
    masks = {"layer1.1.conv2.weight": silent, "layer1.0.conv1.weight": centre}
    levels = {"sparse": Level(masks=masks), "full": Level()}
    found = inspect(nest(model, torch.zeros(2, 3, 8, 8), levels)).levels
    assert found["sparse"].kernels == {"layer1.0.conv1.weight": (1, 1)}
    assert found["sparse"].branches == ("layer1.1",)
    assert (found["full"].kernels, found["full"].branches) == ({}, ())


def test_levels_of_different_shape_are_no_chain() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    levels = {"a": Level({"0": 4}), "b": Level({"2": 4})}
    found = inspect(nest(model, torch.zeros(2, 4), levels, card=Card(divisor=1)))
    assert not found.is_chain
    assert found.levels["a"].inside == ()
