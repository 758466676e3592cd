from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from nestedge.errors import UsageError
from nestedge.importing import fold_pruning


def test_originals_and_masks_become_the_weights_that_pruning_leaves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    prune.l1_unstructured(model[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]
    prune.random_unstructured(model[0], "bias", amount=1)  # type: ignore[no-untyped-call]
    prune.ln_structured(model[2], "weight", amount=3, n=2, dim=1)  # type: ignore[no-untyped-call]
    plain.load_state_dict(fold_pruning(model.state_dict()))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(plain(x), model(x))
    assert int((plain.state_dict()["0.weight"] == 0).sum()) == 54


def test_an_original_without_a_mask_is_left_as_it_is() -> None:
    state = {"a.weight_orig": torch.ones(2), "a.weight_u": torch.ones(2), "b_mask": torch.ones(1)}
    assert fold_pruning(state).keys() == state.keys()


def test_a_mask_of_another_shape_is_refused() -> None:
    state = {"a.weight_orig": torch.ones(2, 3), "a.weight_mask": torch.ones(3)}
    with pytest.raises(UsageError, match=r"'a.weight_mask': expected shape \[2, 3\], found \[3\]"):
        fold_pruning(state)


def test_a_weight_beside_its_original_is_refused() -> None:
    names = ["a.weight_orig", "a.weight_mask", "a.weight"]
    state: dict[str, torch.Tensor] = {name: torch.ones(2) for name in names}
    with pytest.raises(UsageError, match=r"'a\.weight_orig' and 'a\.weight' are both there"):
        fold_pruning(state)
