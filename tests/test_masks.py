from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nestedge.errors import UsageError
from nestedge.layouts import TensorLayout
from nestedge.levels import Level
from nestedge.masks import encode_masks
from nestedge.materialization import state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.nesting import Choice, Nesting

Mask = npt.NDArray[np.bool_]


@st.composite
def nested_masks(draw: st.DrawFn) -> dict[str, Mask]:
    """Masks of a few levels, each inside the one before; given in any order."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    size = shape[0] * shape[1]
    mask = np.ones(shape, dtype=bool)
    found = {}
    for i in range(draw(st.integers(1, 5))):
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        mask = mask & np.array(bits).reshape(shape)
        found[f"l{i}"] = mask
    return {name: found[name] for name in draw(st.permutations(list(found)))}


@settings(deadline=None)
@given(nested_masks())
def test_the_codes_give_back_the_masks_of_all_levels(masks: dict[str, Mask]) -> None:
    nesting = Nesting({}, {"w": TensorLayout(((), ()))})
    codes: dict[str, npt.NDArray[np.uint8]] = {}
    for name, mask in masks.items():
        nesting = nesting.with_level(name, Choice())
        patterns, codes = encode_masks(nesting, codes, name, {"w": mask})
        nesting = Nesting(nesting.axes, nesting.tensors, nesting.levels, {}, patterns)
    for name, mask in masks.items():
        used = [code for code, levels in enumerate(nesting.patterns["w"]) if name in levels]
        assert (np.isin(codes["w"], used) == mask).all()
    assert nesting.patterns["w"][0] == frozenset()
    assert set(np.unique(codes["w"])) <= set(range(len(nesting.patterns["w"])))
    assert nesting.is_chain()


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def _nested(**masks: object) -> NestedModel:
    levels = {
        name: Level(masks={"0.weight": np.asarray(mask, dtype=bool)})
        for name, mask in masks.items()
    }
    return nest(_model(), torch.zeros(2, 4), levels, card=Card(divisor=1))


def _random(share: float, *, seed: int = 0) -> Mask:
    mask: Mask = np.random.default_rng(seed).random((6, 4)) < share
    return mask


def test_a_masked_level_has_the_masked_weights_and_the_network_has_all() -> None:
    nested = _nested(small=_random(0.3), large=_random(0.8))
    original = _model().state_dict()["0.weight"]
    for name, share in (("small", 0.3), ("large", 0.8)):
        expected = original * torch.from_numpy(_random(share))
        assert torch.equal(state_dict(nested, name)["0.weight"], expected)
    assert torch.equal(nested.shared.get_parameter("0.weight"), original)
    assert nested.nesting.order() == (("small", "large"),)


def test_levels_added_later_leave_those_before_as_they_were() -> None:
    nested = _nested(large=_random(0.8))
    before = state_dict(nested, "large")
    nested.add_level("small", Level(masks={"0.weight": _random(0.3)}))
    nested.add_level("plain", Level(0.5))
    nested.add_level("full", 1.0)
    assert all(torch.equal(t, before[n]) for n, t in state_dict(nested, "large").items())
    original = _model().state_dict()["0.weight"]
    assert torch.equal(state_dict(nested, "plain")["0.weight"], original[:3])
    assert torch.equal(state_dict(nested, "full")["0.weight"], original)
    assert ("large", "full") in nested.nesting.order()
    assert ("plain", "large") not in nested.nesting.order()


def test_a_masked_weight_gets_no_gradient_from_the_level() -> None:
    mask = _random(0.5)
    nested = _nested(half=mask)
    with nested.at("half"):
        nested(torch.randn(3, 4)).sum().backward()
    gradient = nested.shared.get_parameter("0.weight").grad
    assert gradient is not None
    assert (gradient[torch.from_numpy(~mask)] == 0).all()


def test_masks_that_do_not_nest_are_refused_with_tensor_and_count() -> None:
    one = np.ones((6, 4), dtype=bool)
    other = np.ones((6, 4), dtype=bool)
    one[0, :3] = False
    other[1, :2] = False
    message = r"'one' and 'other'|'other' and 'one'"
    with pytest.raises(UsageError, match=message) as caught:
        _nested(one=one, other=other)
    assert "'0.weight' has " in str(caught.value)
    count = int(str(caught.value).split("'0.weight' has ")[1].split()[0])
    assert count in (2, 3)


def test_a_refused_level_leaves_the_network_as_it_was() -> None:
    nested = _nested(one=_random(0.5))
    before = state_dict(nested, "one")
    with pytest.raises(UsageError, match="not nested"):
        nested.add_level("two", Level(masks={"0.weight": _random(0.5, seed=1)}))
    assert nested.levels == ("one",)
    assert all(torch.equal(t, before[n]) for n, t in state_dict(nested, "one").items())


WRONG: dict[str, tuple[str, npt.ArrayLike, str]] = {
    "shape": ("0.weight", np.ones((4, 6)), r"'0.weight': expected shape \[6, 4\], found \[4, 6\]"),
    "name": ("0.weigth", np.ones((6, 4)), "mask for '0.weigth', .*did you mean '0.weight'"),
    "value": ("0.weight", np.full((6, 4), 0.5), "mask of '0.weight': expected only 0 and 1"),
}


@pytest.mark.parametrize(("tensor", "mask", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_mask_that_does_not_fit_is_refused(
    tensor: str, mask: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        nest(_model(), torch.zeros(2, 4), {"x": Level(masks={tensor: np.asarray(mask)})})


def test_masks_of_a_batch_norm_hold_in_the_levels_own_copy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
    mask = np.arange(8) < 4
    nested = nest(model, torch.zeros(1, 3, 2, 2), {"half": Level(masks={"1.bias": mask})})
    with torch.no_grad():
        nn.init.ones_(nested.shared.get_parameter("1.bias"))
    nested.add_level("later", Level(masks={"1.bias": mask}))
    own = nested.own_tensors("later")["1.bias"]
    assert own.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
