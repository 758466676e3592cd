"""Levels with smaller kernels, beside the network whose outer taps are zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.axes.kernels import padding_without, spare_rings
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict
from nestedge.nested import NestedModel, nest

Make = Callable[[], nn.Module]

LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "7x7 with a stride": (lambda: nn.Conv2d(4, 6, 7, stride=2, padding=3), (3, 3)),
    "5x5 depthwise": (lambda: nn.Conv2d(4, 4, 5, padding=2, groups=4), (3, 3)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (1, 1)),
    "dilated": (lambda: nn.Conv2d(4, 6, 5, padding=4, dilation=2), (3, 3)),
    "more padding than it needs": (lambda: nn.Conv2d(4, 6, 3, padding=5), (1, 1)),
    "same": (lambda: nn.Conv2d(4, 6, 5, padding="same"), (3, 3)),
    "even": (lambda: nn.Conv2d(4, 6, 4, padding=1), (2, 2)),
    "rows alone": (lambda: nn.Conv2d(4, 6, (1, 5), padding=(0, 2)), (1, 3)),
    "along a line": (lambda: nn.Conv1d(4, 6, 5, padding=2), (3,)),
    "in space": (lambda: nn.Conv3d(4, 6, 3, padding=1), (1, 1, 1)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (2, 2)),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2), (1, 1)),
}


def _nested(layer: nn.Module, levels: dict[str, Level]) -> tuple[nn.Module, NestedModel, Any]:
    dims = next(layer.parameters()).dim() - 2
    first = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    model = nn.Sequential(first(3, 4, 1), layer, nn.ReLU(), nn.Flatten(2)).double().eval()
    redraw(model, seed=0)
    images = torch.randn(2, 3, *[9] * dims, dtype=torch.float64)
    return model, nest(model, images, levels), images


def _zero_outer_taps(weight: torch.Tensor, kernel: tuple[int, ...]) -> None:
    with torch.no_grad():
        for dim, kept in enumerate(kernel, start=2):
            rings = (weight.shape[dim] - kept) // 2
            for start in (0, weight.shape[dim] - rings):
                weight.narrow(dim, start, rings).zero_()


@pytest.mark.parametrize(("make", "kernel"), list(LAYERS.values()), ids=list(LAYERS))
def test_a_cropped_kernel_is_the_one_with_zeros_around_it(
    make: Make, kernel: tuple[int, ...]
) -> None:
    model, nested, images = _nested(make(), {"small": Level(kernel=max(kernel))})
    weight = model.get_parameter("1.weight")
    with nested.at("small"):
        found = nested(images)
    physical = materialize(nested, "small").module()
    assert tuple(state_dict(nested, "small")["1.weight"].shape[2:]) == kernel
    assert not torch.allclose(found, model(images))
    _zero_outer_taps(weight, kernel)
    expected = model(images)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(physical(images), expected, rtol=0, atol=1e-12)


def test_a_kernel_is_cropped_no_further_than_its_padding_goes() -> None:
    wrong = "axis '1.kernel': expected 5 or 7, found 3"
    with pytest.raises(UsageError, match=wrong):
        _nested(nn.Conv2d(4, 6, 7, padding=1), {"small": Level(kernel=3)})
    with pytest.raises(UsageError, match="kernel: found 3, and no axis of this kind"):
        _nested(nn.Conv2d(4, 6, 7, padding=0), {"small": Level(kernel=3)})


def test_dimensions_of_different_sizes_are_cropped_by_themselves() -> None:
    layer = nn.Conv2d(4, 6, (3, 7), padding=(1, 3))
    _, nested, _ = _nested(layer, {"small": Level(kernel=5), "tiny": Level(kernel=1)})
    assert tuple(state_dict(nested, "small")["1.weight"].shape[2:]) == (3, 5)
    assert tuple(state_dict(nested, "tiny")["1.weight"].shape[2:]) == (1, 1)
    assert nested.nesting.contains("small", "tiny")


def test_a_weight_of_two_layers_is_cropped_as_far_as_both_can_spare() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 4, 7, padding=3)
            self.second = nn.Conv2d(4, 4, 7, padding=2)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(self.first(x))
            return y

    model, nested, images = _nested(Shared(), {"small": Level(kernel=3)})
    with nested.at("small"):
        found = nested(images)
    _zero_outer_taps(model.get_parameter("1.first.weight"), (3, 3))
    torch.testing.assert_close(found, model(images), rtol=0, atol=1e-12)
    with pytest.raises(UsageError, match="expected 3, 5 or 7, found 1"):
        nested.add_level("tiny", Level(kernel=1))


def test_rings_go_as_far_as_padding_reaches() -> None:
    assert spare_rings({"padding": "valid"}, 2) == [0, 0]
    assert min(spare_rings({"padding": "same"}, 2)) > 100
    assert spare_rings({"padding": [5], "dilation": [2]}, 2) == [2, 2]
    assert padding_without({"padding": [5], "dilation": [2]}, [2, 1]) == (1, 3)
    assert padding_without({"padding": "same"}, [2, 1]) == "same"
