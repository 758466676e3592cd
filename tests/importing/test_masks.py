from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from benchmarks.networks.redraw import redraw
from nestedge.cost import count_parameters
from nestedge.errors import UsageError
from nestedge.importing import from_masks
from nestedge.inspection import inspect
from nestedge.materialization import level_program
from nestedge.nested import Card
from tests.importing.exactness import assert_exact, at_level, relative_error, saved_and_loaded
from tests.networks import resnet

Masks = dict[str, npt.NDArray[np.bool_]]
X = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0) -> nn.Module:
    model = resnet().double().eval()
    redraw(model, seed)
    return model


def ones(model: nn.Module, *names: str) -> Masks:
    """Masks that keep everything, to be emptied in places."""
    return {name: np.ones(model.state_dict()[name].shape, dtype=bool) for name in names}


def masked(model: nn.Module, masks: Mapping[str, npt.NDArray[np.bool_]]) -> torch.Tensor:
    """What the module computes with its weights multiplied by the masks."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            twin.get_parameter(name).mul_(torch.from_numpy(mask))
        y: torch.Tensor = twin(X)
    return y


def random_masks(model: nn.Module) -> tuple[Masks, Masks]:
    """Masks of two levels, the first inside the second, filters and inputs gone in both."""
    rng = np.random.default_rng(1)
    small, large = {}, {}
    for name, parameter in model.named_parameters():
        if "conv" in name and parameter.dim() == 4:
            mask = rng.random(parameter.shape) < 0.8
            mask[rng.random(len(mask)) < 0.3] = False
            mask[:, 1:][:, rng.random(mask.shape[1] - 1) < 0.2] = False
            large[name] = mask
            small[name] = mask & (rng.random(mask.shape) < 0.6)
    return small, large


def test_levels_of_nested_masks_are_the_masked_module_and_become_smaller(tmp_path: Path) -> None:
    model = network()
    small, large = random_masks(model)
    nested = from_masks(model, X, {"small": small, "large": large, "full": {}})
    assert ("small", "large") in nested.nesting.order()
    assert ("large", "full") in nested.nesting.order()
    for found in (nested, saved_and_loaded(nested, tmp_path)):
        for level, masks in {"small": small, "large": large, "full": {}}.items():
            assert_exact(found, level, X, masked(model, masks))
    whole = sum(p.numel() for p in model.parameters())
    sizes = {level: report.parameters for level, report in inspect(nested).levels.items()}
    assert sizes["small"] <= sizes["large"] < sizes["full"] == whole


def test_the_zeros_of_a_pruned_module_are_its_mask() -> None:
    model = network()
    conv = model.get_parameter("layer1.0.conv1.weight")
    with torch.no_grad():
        conv[[2, 5]] = 0
        conv[3, 1] = 0
        model.get_parameter("layer1.0.conv2.weight")[:, [2, 5, 7]] = 0
    nested = from_masks(model, X)
    assert nested.levels == ("sparse",)
    assert_exact(nested, "sparse", X, masked(model, {}))
    assert inspect(nested).levels["sparse"].removed == {"layer1.0.conv1": 3}


def test_a_module_with_pruning_hooks_is_folded_and_stays_as_it_is() -> None:
    model = network()
    for name in ("layer1.1.conv1", "layer2.0.conv2"):
        layer = model.get_submodule(name)
        prune.ln_structured(layer, "weight", amount=4, n=1, dim=0)  # type: ignore[no-untyped-call]
        prune.random_unstructured(layer, "weight", amount=0.2)  # type: ignore[no-untyped-call]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(X).detach()
    nested = from_masks(model, X)
    assert_exact(nested, "sparse", X, expected)
    assert set(nested.elastic.program.tensors) == set(network().state_dict())
    assert prune.is_pruned(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_masked_norms_silence_a_channel_so_that_it_goes_before_padding() -> None:
    model = network()
    masks = ones(model, "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias")
    silent = {name: mask.copy() for name, mask in masks.items()}
    for mask in silent.values():
        mask[[1, 4, 9]] = False
    nested = from_masks(model, X, {"silent": silent})
    assert_exact(nested, "silent", X, masked(model, silent))
    report = inspect(nested).levels["silent"]
    assert report.removed == {"layer1.0.conv1": 3}
    assert report.stayed == ()


def test_what_stays_is_named_with_the_reason() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("layer1.0.bn1.bias")[1] = 5.0
    masks = ones(model, "layer1.0.conv1.weight")
    masks["layer1.0.conv1.weight"][1] = False
    nested = from_masks(model, X, {"sparse": masks})
    assert_exact(nested, "sparse", X, masked(model, masks))
    (stayed,) = inspect(nested).levels["sparse"].stayed
    assert (stayed.axis, stayed.units) == ("layer1.0.conv1", 1)
    assert stayed.reason == "the padding of layer1.0.conv2 would meet it"


def dead_block(model: nn.Module, path: str) -> Masks:
    """Masks under which a block's branch is exactly zero."""
    names = [f"{path}.{name}" for name in ("conv2.weight", "bn2.weight", "bn2.bias")]
    return {name: ~mask for name, mask in ones(model, *names).items()}


@pytest.mark.parametrize("level", ["masks", "zeros"])
@pytest.mark.parametrize("path", ["layer1.0", "layer2.1"], ids=["first", "last"])
def test_a_dead_block_goes_wherever_it_stands(level: str, path: str) -> None:
    model = network()
    masks = dead_block(model, path)
    expected = masked(model, masks)
    if level == "zeros":
        with torch.no_grad():
            for name in masks:
                model.get_parameter(name).zero_()
    nested = from_masks(model, X, {"sparse": masks} if level == "masks" else None)
    assert_exact(nested, "sparse", X, expected)
    report = inspect(nested).levels["sparse"]
    assert report.branches == (path,)
    left = {n: p for n, p in model.named_parameters() if not n.startswith(path)}
    assert report.parameters == sum(p.numel() for p in left.values())


def test_a_block_whose_norm_still_says_something_stays() -> None:
    model = network()
    masks = dead_block(model, "layer2.1")
    del masks["layer2.1.bn2.bias"]
    nested = from_masks(model, X, {"sparse": masks})
    assert_exact(nested, "sparse", X, masked(model, masks))
    assert inspect(nested).levels["sparse"].branches == ()
    # Its addition is left, and of its first convolution the one channel that a layer has at least.
    assert level_program(nested, "sparse").tensors["layer2.1.conv1.weight"].shape[0] == 1


def test_a_level_without_a_block_nests_in_one_with_it() -> None:
    model = network()
    large = ones(model, "layer1.1.conv1.weight")
    large["layer1.1.conv1.weight"][3] = False
    small = {**large, **dead_block(model, "layer2.1")}
    nested = from_masks(model, X, {"small": small, "large": large})
    assert ("small", "large") in nested.nesting.order()
    assert_exact(nested, "small", X, masked(model, small))
    assert_exact(nested, "large", X, masked(model, large))


def test_a_ring_of_zeros_makes_the_kernel_smaller() -> None:
    model = network()
    masks = ones(model, "layer1.0.conv1.weight")
    masks["layer1.0.conv1.weight"][:, :, [0, 2]] = False
    nested = from_masks(model, X, {"sparse": masks})
    assert_exact(nested, "sparse", X, masked(model, masks))
    assert inspect(nested).levels["sparse"].kernels == {"layer1.0.conv1.weight": (1, 3)}


def test_shared_norm_weights_are_masked_where_only_statistics_are_a_level_s_own() -> None:
    model = network()
    masks = ones(model, "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias")
    for mask in masks.values():
        mask[2] = False
    nested = from_masks(model, X, {"silent": masks}, card=Card(batch_norm="statistics"))
    assert_exact(nested, "silent", X, masked(model, masks))
    assert inspect(nested).levels["silent"].removed == {"layer1.0.conv1": 1}


class Tied(nn.Module):
    """A table that is read twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(F.relu(self.first(x)))
        return y


def test_a_tied_tensor_is_masked_under_either_of_its_names() -> None:
    model = Tied().double().eval()
    redraw(model, 0)
    x = torch.randn(2, 6, dtype=torch.float64)
    mask = np.random.default_rng(0).random((6, 6)) < 0.7
    by_name = [from_masks(model, x, {"a": {n: mask}}) for n in ("first.weight", "second.weight")]
    assert torch.equal(at_level(by_name[0], "a", x), at_level(by_name[1], "a", x))
    other = {"first.weight": mask, "second.weight": ~mask}
    with pytest.raises(UsageError, match="are one tensor; give them one mask"):
        from_masks(model, x, {"a": other})


def test_masks_may_be_tensors_of_any_number_type() -> None:
    model = network()
    small, _ = random_masks(model)
    given = {name: torch.from_numpy(mask).float() for name, mask in small.items()}
    nested = from_masks(model, X, {"small": given})
    assert relative_error(at_level(nested, "small", X), masked(model, small)) <= 1e-6
    assert count_parameters(level_program(nested, "small").program) < sum(
        p.numel() for p in model.parameters()
    )


def _halves() -> dict[str, Masks]:
    upper, lower = (np.zeros((16, 3, 3, 3), dtype=bool) for _ in range(2))
    upper[:8], lower[8:] = True, True
    return {"a": {"conv1.weight": upper}, "b": {"conv1.weight": lower}}


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "shape": (
        lambda: {"a": {"conv1.weight": np.ones((16, 3, 1, 1))}},
        r"level 'a': mask of 'conv1.weight': expected shape \[16, 3, 3, 3\], found \[16, 3, 1, 1\]",
    ),
    "name": (
        lambda: {"a": {"conv1.weights": np.ones((16, 3, 3, 3))}},
        "mask for 'conv1.weights', which the network does not have; did you mean 'conv1.weight'",
    ),
    "values": (
        lambda: {"a": {"conv1.weight": np.full((16, 3, 3, 3), 2)}},
        "mask of 'conv1.weight': expected only 0 and 1",
    ),
    "buffer": (
        lambda: {"a": {"bn1.running_mean": np.ones(16)}},
        "mask of 'bn1.running_mean': expected a parameter's, found a buffer's",
    ),
    "not nested": (_halves, "masks of levels 'b' and 'a' are not nested: 'conv1.weight' has 216"),
    "empty": (
        lambda: {"a": {"conv1.weight": np.zeros((16, 3, 3, 3))}},
        "level 'a' leaves nothing of 'conv1.weight', and no shortcut passes by it",
    ),
    "nothing to do": (lambda: None, "no weight of the model is zero: prune it first"),
}


@pytest.mark.parametrize(("masks", "message"), list(WRONG.values()), ids=list(WRONG))
def test_wrong_masks_are_one_clear_error(masks: Callable[[], Masks], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_masks(network(), X, masks())  # type: ignore[arg-type]
