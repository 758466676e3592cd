"""Rings of zeros around kernels go where the padding allows it, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.cost import count_macs, count_parameters
from nestedge.expressions import evaluate
from nestedge.harvest import Harvest
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import Card, NestedModel, nest
from nestedge.program.graph import run
from nestedge.rings import zero_rings

_LAYERS: dict[tuple[int, bool], type[nn.Module]] = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


class Single(nn.Module):
    """One convolution between two of 1 x 1."""

    def __init__(self, dims: int, *, transposed: bool = False, **options: Any) -> None:
        super().__init__()
        self.first = _LAYERS[dims, False](2, 4, 1)
        self.conv = _LAYERS[dims, transposed](4, 6, **options)
        self.last = _LAYERS[dims, False](6, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(F.relu(self.conv(F.relu(self.first(x)))))
        return y


def harvested(
    model: nn.Module, x: torch.Tensor, masks: dict[str, np.ndarray[Any, Any]]
) -> tuple[NestedModel, Harvest]:
    """The network with a masked level, and what is left of it, which computes the same."""
    nested = nest(model.eval(), x, {"sparse": Level(masks=masks)}, card=Card(divisor=1))
    found = harvest_level(nested, "sparse")
    with torch.no_grad(), nested.at("sparse"):
        expected = nested(x)
        (result,) = run(found.level.program, found.level.tensors, [x])
        exported = materialize(nested, "sparse").module()(x)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(exported, expected, rtol=1e-10, atol=1e-10)
    return nested, found


def centred(weight: torch.Tensor, rings: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A mask without that many rings of every dimension of a kernel."""
    mask = np.ones(weight.shape, dtype=bool)
    for dim, count in enumerate(rings, start=2):
        gone = [*range(count), *range(weight.shape[dim] - count, weight.shape[dim])]
        np.moveaxis(mask, dim, 0)[gone] = False
    return mask


@dataclass(frozen=True)
class Case:
    """A convolution with rings of zeros, and what its kernel becomes; None where nothing goes."""

    dims: int
    options: dict[str, Any]
    rings: tuple[int, ...]
    kernel: tuple[int, ...] | None
    stuck: int = 0
    transposed: bool = False


CASES = {
    "1d": Case(1, {"kernel_size": 5, "padding": 2}, (1,), (3,)),
    "2d, all at once": Case(2, {"kernel_size": 7, "padding": 3}, (2, 2), (3, 3)),
    "3d": Case(3, {"kernel_size": 3, "padding": 1}, (1, 1, 1), (1, 1, 1)),
    "in one dimension only": Case(2, {"kernel_size": 5, "padding": 2}, (0, 1), (5, 3)),
    "strided": Case(2, {"kernel_size": 5, "padding": 2, "stride": 2}, (1, 1), (3, 3)),
    "dilated": Case(2, {"kernel_size": 5, "padding": 4, "dilation": 2}, (1, 1), (3, 3)),
    "grouped": Case(2, {"kernel_size": 5, "padding": 2, "groups": 2}, (1, 1), (3, 3)),
    "same": Case(2, {"kernel_size": 5, "padding": "same"}, (1, 2), (3, 1)),
    "same, even": Case(1, {"kernel_size": 4, "padding": "same"}, (1,), (2,)),
    "even": Case(1, {"kernel_size": 6, "padding": 2}, (2,), (2,)),
    "more padding than the kernel": Case(1, {"kernel_size": 3, "padding": 3}, (1,), (1,)),
    "unpadded": Case(2, {"kernel_size": 5}, (1, 1), None, stuck=2),
    "valid": Case(1, {"kernel_size": 5, "padding": "valid"}, (1,), None, stuck=1),
    "less padding than rings": Case(2, {"kernel_size": 7, "padding": 1}, (2, 2), (5, 5), stuck=2),
    "less padding than a dilation": Case(
        2, {"kernel_size": 3, "padding": 1, "dilation": 2}, (1, 1), None, stuck=2
    ),
    "circular": Case(
        2, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (1, 1), None, stuck=2
    ),
    "two taps": Case(1, {"kernel_size": 2, "padding": 1}, (0,), None),
    "transposed": Case(
        2, {"kernel_size": 5, "padding": 2, "stride": 2}, (1, 1), (3, 3), transposed=True
    ),
    "transposed, grouped": Case(
        1, {"kernel_size": 5, "padding": 1, "groups": 2}, (2,), (3,), stuck=1, transposed=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_ring_of_zeros_goes_where_there_is_padding_for_it(case: Case) -> None:
    model = Single(case.dims, transposed=case.transposed, **case.options).double()
    redraw(model, seed=0)
    weight = model.get_parameter("conv.weight")
    x = torch.randn(2, 2, *(8, 9, 10)[: case.dims], dtype=torch.float64)
    mask = centred(weight, case.rings)
    mask[0, 0].reshape(-1)[mask[0, 0].size // 2] = False
    nested, found = harvested(model, x, {"conv.weight": mask})
    kernel = tuple(weight.shape[2:]) if case.kernel is None else case.kernel
    assert found.kernels == ({} if case.kernel is None else {"conv.weight": kernel})
    assert found.level.program.tensors["conv.weight"].shape == (*weight.shape[:2], *kernel)
    stayed = {s.axis: s.units for s in found.stayed}
    assert stayed == ({"conv.weight's rings": case.stuck} if case.stuck else {})
    array = evaluate(found.level.expressions["conv.weight"], found.level.stored)
    assert np.array_equal(array, found.level.tensors["conv.weight"].numpy())
    whole = nested.plan(None).program
    is_smaller = count_parameters(found.level.program) < count_parameters(whole)
    assert is_smaller == (case.kernel is not None)
    assert (count_macs(found.level.program) < count_macs(whole)) == is_smaller


def test_a_ring_that_is_zero_on_one_side_only_stays() -> None:
    model = Single(1, kernel_size=3, padding=1).double()
    redraw(model, seed=1)
    mask = np.ones((6, 4, 3), dtype=bool)
    mask[:, :, 0] = False
    _, found = harvested(model, torch.randn(2, 2, 8).double(), {"conv.weight": mask})
    assert (found.kernels, found.stayed) == ({}, ())


class Shared(nn.Module):
    """Two convolutions with one weight and paddings of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(x, self.weight, padding=1) + F.conv1d(F.pad(x, (1, 1)), self.weight)


def test_a_weight_that_several_layers_share_keeps_its_rings() -> None:
    mask = np.ones((3, 2, 3), dtype=bool)
    mask[:, :, [0, 2]] = False
    _, found = harvested(Shared().double(), torch.randn(2, 2, 8).double(), {"weight": mask})
    assert found.kernels == {}
    assert {s.reason for s in found.stayed} == {"the network shares its weight"}


def test_a_channel_that_is_constant_folds_into_what_was_a_padded_layer() -> None:
    model = Single(2, kernel_size=3, padding=1).double()
    redraw(model, seed=2)
    model.state_dict()["first.bias"].fill_(0.7)
    rows = np.ones((4, 2, 1, 1), dtype=bool)
    rows[1] = False
    masks = {
        "first.weight": rows,
        "conv.weight": centred(model.get_parameter("conv.weight"), (1, 1)),
    }
    _, found = harvested(model, torch.randn(2, 2, 8, 8).double(), masks)
    assert found.kernels == {"conv.weight": (1, 1)}
    assert found.removed == {"first": 1}
    assert found.folded == ("conv",)


def test_a_channel_that_fed_a_ring_alone_goes_and_so_does_the_ring() -> None:
    model = Single(2, kernel_size=3, padding=1).double()
    redraw(model, seed=3)
    mask = centred(model.get_parameter("conv.weight"), (1, 1))
    # Only the first output has taps on the ring, and nothing reads it.
    mask[0] = True
    read = np.ones((3, 6, 1, 1), dtype=bool)
    read[:, 0] = False
    masks = {"conv.weight": mask, "last.weight": read}
    _, found = harvested(model, torch.randn(2, 2, 8, 8).double(), masks)
    assert found.removed == {"conv": 1}
    assert found.kernels == {"conv.weight": (1, 1)}


@pytest.mark.parametrize(
    ("taps", "rings"),
    [
        ([0, 0, 1, 0, 0], 2),
        ([0, 1, 1, 0, 0], 1),
        ([1, 0, 0, 0, 0], 0),
        ([0, 0, 0, 0], 1),
        ([0, 0, 0], 1),
        ([0, 0], 0),
        ([0], 0),
    ],
)
def test_rings_are_counted_from_both_ends_and_leave_a_tap(taps: list[int], rings: int) -> None:
    assert zero_rings(torch.tensor([[taps]])) == (rings,)
