"""Tensors that every level has a copy of its own of, besides those of batch norms."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import counting
from nestedge.building.cells import level_hashes
from nestedge.cost import count_parameters
from nestedge.errors import UsageError
from nestedge.expressions import stored
from nestedge.levels import Level
from nestedge.materialization import level_program, materialize, state_dict, stored_tensors
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import load
from nestedge.training import recalibrate
from nestedge.verify import verify_folder
from tests.builds import build_here
from tests.golden import make
from tests.networks import RESNET_LEVELS, images, nested_resnet, resnet_twins

OWN = ("linear.*", "conv1.weight")
X = images(4)[0]


def _nested() -> NestedModel:
    return nested_resnet(card=Card(divisor=4, own=OWN))


@pytest.fixture(scope="module")
def trained() -> NestedModel:
    """After a step of one level, whose head is then another."""
    nested = _nested()
    _step(nested, "small")
    return nested


def _step(nested: NestedModel, level: str) -> None:
    nested.train()
    optimizer = torch.optim.SGD(nested.parameters(), lr=0.1)
    with nested.at(level):
        torch.autograd.backward(F.cross_entropy(nested(X), torch.arange(4)))
    optimizer.step()
    nested.eval()


def _at(nested: NestedModel, level: str, x: Tensor = X) -> Tensor:
    with nested.at(level), torch.no_grad():
        found: Tensor = nested(x)
    return found


def test_copies_start_as_those_of_the_full_network_cut_to_the_level() -> None:
    nested, shared = _nested(), nested_resnet()
    for level in RESNET_LEVELS:
        assert torch.equal(_at(nested, level), _at(shared, level))
    own, expected = nested.own_tensors("small"), state_dict(shared, "small")
    assert torch.equal(own["linear.weight"], expected["linear.weight"])
    assert torch.equal(own["conv1.weight"], nested.get_parameter("shared.conv1.weight")[:4])
    assert {"linear.weight", "linear.bias", "conv1.weight"} <= own.keys()
    assert own["linear.weight"].requires_grad


def test_the_whole_network_has_no_copies() -> None:
    assert _nested().own_tensors("full") == {}


def test_a_step_of_a_level_changes_its_own_head_and_no_other(trained: NestedModel) -> None:
    before = _nested()
    for level in ("medium", "full"):
        head = state_dict(trained, level)["linear.weight"]
        assert torch.equal(head, state_dict(before, level)["linear.weight"])
    assert not torch.equal(
        trained.own_tensors("small")["linear.weight"], before.own_tensors("small")["linear.weight"]
    )
    # What is between stem and head is shared still.
    assert not torch.equal(
        state_dict(trained, "full")["layer1.0.conv1.weight"],
        state_dict(before, "full")["layer1.0.conv1.weight"],
    )


@pytest.mark.parametrize("level", list(RESNET_LEVELS))
def test_a_level_with_a_head_of_its_own_equals_its_twin(trained: NestedModel, level: str) -> None:
    twin = resnet_twins()[level].double().eval()
    twin.load_state_dict(state_dict(trained, level), strict=True)
    torch.testing.assert_close(_at(trained, level), twin(X))
    physical = materialize(trained, level)
    torch.testing.assert_close(physical.module()(X), _at(trained, level), rtol=0, atol=0)
    program = level_program(trained, level).program
    assert count_parameters(program) == counting.count_parameters(twin)


def test_the_head_comes_back_from_the_file_and_new_levels_get_one(
    trained: NestedModel, tmp_path: Path
) -> None:
    trained.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert loaded.card.own == OWN
    assert "levels/small/linear.weight" in stored_tensors(loaded)
    for level in RESNET_LEVELS:
        assert torch.equal(_at(loaded, level), _at(trained, level))
        assert torch.equal(materialize(loaded, level).module()(X), _at(trained, level))
    loaded.add_level("tiny", Level(0.25, depth=(1, 1)))
    assert {"linear.weight", "conv1.weight"} <= loaded.own_tensors("tiny").keys()


def test_constants_of_an_own_head_are_expressions_over_it(trained: NestedModel) -> None:
    level = level_program(trained, "small")
    for name in ("linear.weight", "conv1.weight"):
        assert level.expressions[name] == stored(f"levels/small/{name}")


def test_the_hash_of_a_level_knows_its_head(trained: NestedModel) -> None:
    nested, before = copy.deepcopy(trained), level_hashes(trained)
    with torch.no_grad():
        nested.own_tensors("medium")["linear.weight"].add_(1)
    assert {n for n, found in level_hashes(nested).items() if found != before[n]} == {"medium"}


def test_recalibration_leaves_heads_alone(trained: NestedModel) -> None:
    nested = copy.deepcopy(trained)
    recalibrate(nested, [(images(8, seed=3)[0], None)])
    before, after = trained.own_tensors("small"), nested.own_tensors("small")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("running" in name for name in changed)


def test_a_network_with_heads_of_its_levels_is_built_and_verified(tmp_path: Path) -> None:
    made = build_here(make.hierarchy(), tmp_path, levels=("half", "full"))
    assert len(made) == 2
    assert all(result.passed for result in verify_folder(tmp_path))


def test_a_level_may_have_others_of_its_own_than_the_card_says() -> None:
    nested = _nested()
    nested.add_level("drawn", Level(0.5), batch_norm="shared", own=())
    assert nested.own_tensors("drawn") == {}
    nested.add_level("headed", Level(0.5), batch_norm="shared", own=("linear.bias",))
    assert nested.own_tensors("headed").keys() == {"linear.bias"}


class Tied(nn.Module):
    """Two layers that share a weight, a constant, and a parameter of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.twin = nn.Linear(16, 4, bias=False)
        self.twin.weight = self.last.weight
        self.steps = nn.Parameter(torch.arange(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 4)."""
        x = F.relu(self.first(x))
        found: Tensor = self.last(x) + self.twin(x) * self.steps + torch.tensor(2.0)
        return found


def test_tied_weights_are_found_by_any_of_their_names() -> None:
    nested = nest(Tied(), torch.zeros(2, 6), {"half": 0.5}, card=Card(own=("twin.*", "steps")))
    own = nested.own_tensors("half")
    assert own.keys() == {"last.weight", "steps"}
    assert own["last.weight"].shape == (4, 8)
    assert not own["steps"].requires_grad


WRONG = {
    "a module that is not there": (
        "fd.*",
        r"own: no tensor fits 'fd\.\*'; the network has 'steps', ",
    ),
    "a slip": ("first.wieght", r"no tensor fits 'first\.wieght'; .*; did you mean 'first\.weight'"),
    "constants": ("lifted*", r"no tensor fits 'lifted\*'"),
}


@pytest.mark.parametrize(("pattern", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_pattern_that_fits_no_tensor_is_refused(pattern: str, message: str) -> None:
    card = Card(own=("last.*", pattern))
    for level in (0.5, 1.0):
        with pytest.raises(UsageError, match=message):
            nest(Tied(), torch.zeros(2, 6), {"level": level}, card=card)


def test_what_a_mask_leaves_out_of_an_own_head_stays_out() -> None:
    mask = np.ones((4, 16), dtype=bool)
    mask[:, 1::2] = False
    levels = {"sparse": Level(0.5, masks={"last.weight": mask}), "full": Level()}
    layers = {"first": nn.Linear(6, 16), "relu": nn.ReLU(), "last": nn.Linear(16, 4)}
    model = nn.Sequential(OrderedDict(layers))
    x = torch.randn(8, 6)
    nested = nest(model, x, levels, card=Card(own=("last.*",)))
    own = nested.own_tensors("sparse")
    with torch.no_grad():
        own["last.weight"].fill_(1.0)  # as momentum may
    found = state_dict(nested, "sparse")["last.weight"]
    assert torch.equal(found, torch.tensor([1.0, 0.0] * 4).expand(4, 8))
    torch.testing.assert_close(materialize(nested, "sparse").module()(x), _at(nested, "sparse", x))
    assert level_program(nested, "sparse").tensors["last.weight"].shape == (4, 4)
    with nested.at("sparse"):
        torch.autograd.backward(nested(x).sum())
    gradient = own["last.weight"].grad
    assert gradient is not None
    assert not gradient[:, 1::2].any()
    assert gradient[:, ::2].any()
