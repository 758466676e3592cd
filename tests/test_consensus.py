"""Levels that join the outputs of others."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import counting
from nestedge.building.cells import level_hashes
from nestedge.consensus import add_consensus
from nestedge.cost import count_macs, count_parameters
from nestedge.errors import UsageError
from nestedge.inspection import inspect
from nestedge.levels import Level
from nestedge.materialization import (
    harvest_level,
    level_program,
    materialize,
    state_dict,
    stored_tensors,
)
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import load
from nestedge.training import recalibrate
from nestedge.verify import verify_folder
from tests.builds import build_here
from tests.golden import make
from tests.networks import Perceptron, images, nested_resnet, resnet, resnet_twins

MEMBERS = ("small", "medium", "full")
X = images(4)[0]


@pytest.fixture(scope="module")
def built() -> NestedModel:
    nested = nested_resnet()
    add_consensus(nested, "vote", MEMBERS)
    add_consensus(nested, "probable", ("small", "full"), of="probabilities")
    add_consensus(nested, "learned", MEMBERS, learned=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in nested.own_tensors("learned").values():
            tensor += 0.1 * torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
    return nested


@pytest.fixture
def nested(built: NestedModel) -> NestedModel:
    return copy.deepcopy(built)


def _at(nested: NestedModel, level: str, x: Tensor = X) -> Any:
    with nested.at(level), torch.no_grad():
        return nested(x)


def test_a_consensus_is_the_average_of_its_members(built: NestedModel) -> None:
    small, medium, full = (_at(built, member) for member in MEMBERS)
    torch.testing.assert_close(_at(built, "vote"), (small + medium + full) / 3)
    torch.testing.assert_close(_at(built, "probable"), (small.softmax(1) + full.softmax(1)) / 2)


def test_a_learned_consensus_is_a_layer_on_the_concatenation(built: NestedModel) -> None:
    layer = built.own_tensors("learned")
    assert {name: tuple(t.shape) for name, t in layer.items()} == {
        "weight": (10, 30),
        "bias": (10,),
    }
    joined = torch.cat([_at(built, member) for member in MEMBERS], 1)
    expected = F.linear(joined, layer["weight"], layer["bias"])
    torch.testing.assert_close(_at(built, "learned"), expected)


def test_a_learned_consensus_starts_as_the_average() -> None:
    nested = nested_resnet()
    add_consensus(nested, "vote", MEMBERS)
    add_consensus(nested, "learned", MEMBERS, learned=True)
    torch.testing.assert_close(_at(nested, "learned"), _at(nested, "vote"))


def test_twins_written_by_hand_vote_alike(built: NestedModel) -> None:
    votes = []
    for member, twin in resnet_twins().items():
        twin.double().load_state_dict(state_dict(built, member), strict=True)
        votes.append(twin.eval()(X))
    torch.testing.assert_close(_at(built, "vote"), sum(votes) / 3)


@pytest.mark.parametrize("level", ["vote", "learned"])
def test_gradients_reach_the_members(nested: NestedModel, level: str) -> None:
    nested.train()
    with nested.at(level):
        torch.autograd.backward(F.cross_entropy(nested(X), torch.arange(4)))
    for tensors in (nested.own_tensors("small"), nested.own_tensors("medium")):
        assert all(p.grad is not None for p in tensors.values() if p.requires_grad)
    weight = nested.get_parameter("shared.conv1.weight")
    assert weight.grad is not None
    gradient = weight.grad.clone()
    # The same by hand: the gradient of a sum is the sum of the members'.
    nested.zero_grad()
    nested.requires_grad_(True)
    outputs = []
    for member in MEMBERS:
        with nested.at(member):
            outputs.append(nested(X))
    layer = nested.own_tensors("learned")
    joined = (
        sum(outputs) / 3
        if level == "vote"
        else F.linear(torch.cat(outputs, 1), layer["weight"], layer["bias"])
    )
    torch.autograd.backward(F.cross_entropy(torch.as_tensor(joined), torch.arange(4)))
    torch.testing.assert_close(weight.grad, gradient)


def test_the_layer_alone_learns_where_the_members_take_no_gradient(nested: NestedModel) -> None:
    nested.requires_grad_(False)
    layer = nested.own_tensors("learned")
    for parameter in layer.values():
        parameter.requires_grad_(True)
    with nested.at("learned"):
        before = F.cross_entropy(nested(X), torch.arange(4))
    torch.autograd.backward(before)
    with torch.no_grad():
        for parameter in layer.values():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad
    assert F.cross_entropy(_at(nested, "learned"), torch.arange(4)) < before
    assert all(p.grad is None for p in nested.shared.parameters())


def test_every_member_runs_once(nested: NestedModel) -> None:
    nested.train()
    with nested.at("vote"):
        nested(X)
    counters = {m: nested.own_tensors(m)["bn1.num_batches_tracked"] for m in ("small", "medium")}
    counters["full"] = nested.get_buffer("shared.bn1.num_batches_tracked")
    assert {member: int(counter) for member, counter in counters.items()} == dict.fromkeys(
        MEMBERS, 1
    )


@pytest.mark.parametrize("level", ["vote", "probable", "learned"])
def test_a_consensus_is_materialised_as_one_program(built: NestedModel, level: str) -> None:
    members = built.nesting.members(level)
    physical = materialize(built, level)
    found = physical.module()(X)
    torch.testing.assert_close(found, _at(built, level), rtol=0, atol=0)
    assert physical.module()(X[:1]).shape == (1, 10)
    convolutions = [n for n in physical.graph.nodes if str(n.target) == "aten.conv2d.default"]
    assert len(convolutions) == sum(_convolutions(built, member) for member in members)
    assert physical.state_dict["small/conv1.weight"].shape[0] == 4


def _convolutions(nested: NestedModel, level: str) -> int:
    return sum(node.op == "aten.conv2d.default" for node in nested.plan(level).program.nodes)


def test_its_tensors_are_expressions_over_the_same_stored_ones(built: NestedModel) -> None:
    names = set(stored_tensors(built))
    assert {n for n in names if n.startswith(("levels/vote", "levels/learned"))} == {
        "levels/learned/weight",
        "levels/learned/bias",
    }
    vote, small = level_program(built, "vote"), level_program(built, "small")
    of_small = {n: e for n, e in vote.expressions.items() if n.startswith("small/")}
    assert of_small == {f"small/{name}": e for name, e in small.expressions.items()}
    assert level_program(built, "learned").expressions.keys() - vote.expressions.keys() == {
        "weight",
        "bias",
    }


def test_it_costs_what_its_members_do_and_the_layer(built: NestedModel) -> None:
    found = inspect(built).levels
    for cost in ("parameters", "macs"):
        total = sum(getattr(found[member], cost) for member in MEMBERS)
        assert getattr(found["vote"], cost) == total
    twins = sum(counting.count_parameters(twin) for twin in resnet_twins().values())
    assert found["vote"].parameters == twins
    assert found["learned"].parameters == twins + 10 * 30 + 10
    assert found["learned"].macs == found["vote"].macs + 10 * 30


def test_it_contains_its_members_and_what_lies_in_them(built: NestedModel) -> None:
    nesting = built.nesting.with_level(
        "tiny",
        built.elastic.choose(Level(0.25, depth=(1, 1)), "tiny", built.nesting.axes, divisor=4),
    )
    order = set(nesting.order())
    assert {(level, "vote") for level in (*MEMBERS, "tiny")} <= order
    assert ("probable", "vote") in order
    assert not {(small, large) for small, large in order if small in ("vote", "learned")}
    assert inspect(built).levels["small"].inside == (*MEMBERS[1:], "vote", "probable", "learned")


def test_it_comes_back_from_its_file(built: NestedModel, tmp_path: Path) -> None:
    built.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert loaded.levels == built.levels
    for level in loaded.levels:
        assert torch.equal(_at(loaded, level), _at(built, level))
    loaded.train()
    with loaded.at("learned"):
        loaded(X).sum().backward()
    assert all(p.grad is not None for p in loaded.own_tensors("learned").values())


def test_its_state_dict_has_its_members_by_name(built: NestedModel) -> None:
    found = state_dict(built, "learned")
    small = state_dict(built, "small")
    assert all(torch.equal(found[f"small/{name}"], tensor) for name, tensor in small.items())
    assert {name for name in found if "/" not in name} == {"weight", "bias"}


def test_its_hash_changes_with_its_members_and_its_layer(nested: NestedModel) -> None:
    before = level_hashes(nested)
    with torch.no_grad():
        nested.own_tensors("medium")["bn1.weight"].add_(1)
    medium = level_hashes(nested)
    assert {n for n in before if before[n] != medium[n]} == {"medium", "vote", "learned"}
    with torch.no_grad():
        nested.own_tensors("learned")["bias"].add_(1)
    assert {n for n, found in level_hashes(nested).items() if found != medium[n]} == {"learned"}


def test_a_member_is_removed_after_the_consensus_only(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match="'small' is in the consensus 'vote'; remove that first"):
        nested.remove_level("small")
    for level in ("vote", "probable", "learned", "small"):
        nested.remove_level(level)
    assert nested.levels == ("medium", "full")
    add_consensus(nested, "vote", ("full", "medium"))
    torch.testing.assert_close(
        _at(nested, "vote"), (_at(nested, "full") + _at(nested, "medium")) / 2
    )


@pytest.mark.parametrize("policy", ["switchable", "shared"])
def test_recalibrating_it_recalibrates_its_members(policy: Any) -> None:
    nested, expected = (nested_resnet(card=Card(divisor=4, batch_norm=policy)) for _ in range(2))
    add_consensus(nested, "learned", ("small", "full"), learned=True)
    batches = [(images(6, seed=1)[0], None)]
    recalibrate(nested, batches, levels=["learned"])
    recalibrate(expected, batches, levels=["small", "full"])
    for member in MEMBERS:
        assert torch.equal(_at(nested, member), _at(expected, member))


def test_masks_of_members_let_go_of_what_is_dead() -> None:
    mask = torch.ones(16, 6, dtype=torch.bool)
    mask[:5] = False
    dead = {"first.weight": mask.numpy(), "first.bias": mask[:, 0].numpy()}
    model = nn.Sequential()
    model.add_module("first", nn.Linear(6, 16))
    model.add_module("relu", nn.ReLU())
    model.add_module("last", nn.Linear(16, 3))
    x = torch.randn(5, 6)
    nested = nest(model, x, {"sparse": Level(masks=dead), "full": 1.0})
    add_consensus(nested, "vote", ("sparse", "full"))
    found = harvest_level(nested, "vote")
    assert found.removed == {"sparse/first": 5}
    assert found.level.tensors["sparse/first.weight"].shape == (11, 6)
    torch.testing.assert_close(materialize(nested, "vote").module()(x), _at(nested, "vote", x))
    assert inspect(nested).levels["vote"].removed == {"sparse/first": 5}


@pytest.fixture(scope="module")
def hierarchy() -> NestedModel:
    return make.hierarchy()


def test_the_joined_output_is_where_it_is_in_the_network_and_others_are_gone(
    hierarchy: NestedModel,
) -> None:
    x = make.inputs()[0]
    half, full = _at(hierarchy, "half", x), _at(hierarchy, "full", x)
    found = _at(hierarchy, "average", x)
    assert found.keys() == {"fine"}
    expected = (half["fine"].softmax(1) + full["fine"].softmax(1)) / 2
    torch.testing.assert_close(found["fine"], expected)
    program = level_program(hierarchy, "average").program
    assert not any("coarse" in tensor for tensor in program.used_tensors())
    members = sum(
        count_parameters(level_program(hierarchy, member).program) for member in ("half", "full")
    )
    assert count_parameters(program) < members
    assert count_macs(program) < sum(
        count_macs(hierarchy.plan(member).program) for member in ("half", "full")
    )


def test_the_counters_of_other_heads_stand_still(hierarchy: NestedModel) -> None:
    nested = copy.deepcopy(hierarchy)
    add_consensus(nested, "coarse", ("core", "half"), output="coarse")
    nested.train()
    with nested.at("coarse"):
        nested(make.inputs()[0])
    own = nested.own_tensors("half")
    assert int(own["norm.num_batches_tracked"]) == 1
    assert int(own["late.1.num_batches_tracked"]) == 0


def test_levels_of_outputs_and_consensus_are_built_and_verified(
    hierarchy: NestedModel, tmp_path: Path
) -> None:
    levels = ("core", "half", "average", "learned")
    made = build_here(hierarchy, tmp_path, levels=levels)
    assert [[info.name for info in artifact.outputs] for artifact in made] == [
        *(["coarse"], ["coarse", "fine"], ["fine"], ["fine"])
    ]
    results = verify_folder(tmp_path)
    assert len(results) == 4
    assert all(result.passed for result in results)
    assert made[3].parameters == made[2].parameters + 5 * 10 + 5


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is taken": ({"name": "half"}, "level 'half' exists already"),
    "a name of a path": ({"name": "a/b"}, "level 'a/b': expected letters"),
    "an unknown member": ({"members": ("half", "fill")}, "no level 'fill'; .* mean 'full'"),
    "one member": ({"members": ("half",)}, "expected two or more different levels of"),
    "a member twice": ({"members": ("half", "half")}, "expected two or more different levels of"),
    "a consensus of a consensus": (
        {"members": ("half", "average")},
        r"level 'average' is a consensus of \['half', 'full'\]; ask for one of these",
    ),
    "several outputs in common": (
        {"output": None},
        r"expected one output that all of them give, found \['coarse', 'fine'\]; name one",
    ),
    "no output in common": (
        {"members": ("core", "far"), "output": None},
        r"found \[\]; give them one in common",
    ),
    "an output that one lacks": (
        {"members": ("half", "core")},
        r"not all of \['half', 'core'\] give 'fine'; in common they give \['coarse'\]",
    ),
    "an unknown output": ({"output": "fime"}, "give 'fime'; .*; did you mean 'fine'"),
    "something else": ({"of": "ranks"}, r"expected one of \['outputs', 'probabilities'\]"),
}


@pytest.mark.parametrize(("changes", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_consensus_that_cannot_be_is_refused(
    hierarchy: NestedModel, changes: dict[str, Any], message: str
) -> None:
    asked = {"name": "x", "members": ("half", "full"), "output": "fine", **changes}
    before = hierarchy.nesting
    with pytest.raises(UsageError, match=message):
        add_consensus(hierarchy, asked.pop("name"), asked.pop("members"), **asked)
    assert hierarchy.nesting is before


class Maps(nn.Module):
    """Class scores for each pixel, and a number for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Shapes (batch, 2, height, width) and (batch,)."""
        maps = self.last(F.relu(self.first(x)))
        return {"maps": maps, "mean": maps.mean((1, 2, 3))}


def test_outputs_of_other_shapes_are_averaged_but_need_classes_for_more() -> None:
    x = torch.randn(2, 3, 4, 4)
    nested = nest(Maps(), x, {"half": 0.5, "full": 1.0}, card=Card(divisor=4))
    members = ("half", "full")
    for output in ("maps", "mean"):
        add_consensus(nested, output, members, output=output)
        expected = (_at(nested, "half", x)[output] + _at(nested, "full", x)[output]) / 2
        torch.testing.assert_close(_at(nested, output, x), {output: expected})
    add_consensus(nested, "probable", members, output="maps", of="probabilities")
    assert torch.allclose(_at(nested, "probable", x)["maps"].sum(1), torch.ones(2, 4, 4))
    with pytest.raises(UsageError, match="with the classes along dimension 1, found shape"):
        add_consensus(nested, "x", members, output="mean", of="probabilities")
    with pytest.raises(UsageError, match=r"takes outputs of shape \(batch, classes\), here of"):
        add_consensus(nested, "x", members, output="maps", learned=True)


class Silent(Perceptron):
    """Logits by another name in training."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The perceptron's."""
        found = super().forward(x)
        return {"scores": found["logits"]} if self.training else found


def test_a_network_without_the_output_in_training_runs_a_consensus_in_evaluation_only() -> None:
    x = torch.randn(2, 6)
    nested = nest(Silent(), x, {"half": 0.5, "full": 1.0})
    add_consensus(nested, "vote", ("half", "full"))
    assert _at(nested, "vote", x).keys() == {"logits"}
    nested.train()
    with (
        nested.at("vote"),
        pytest.raises(UsageError, match="in training the network has no output 'logits', of which"),
    ):
        nested(x)


def test_levels_are_added_beside_a_consensus(nested: NestedModel) -> None:
    expected = _at(nested, "learned")
    nested.add_level("tiny", Level(0.25, depth=(1, 1)))
    assert nested.levels == ("small", "medium", "full", "tiny", "vote", "probable", "learned")
    assert torch.equal(_at(nested, "learned"), expected)
    assert _at(nested, "tiny").shape == resnet(0.25, depth=(1, 1)).double()(X).shape


def test_what_a_consensus_uses_of_a_tensor_is_asked_of_its_members(built: NestedModel) -> None:
    with pytest.raises(UsageError, match=r"level 'vote' is a consensus of \['small', 'medium', "):
        built.nesting.uses("vote", "conv1.weight")
