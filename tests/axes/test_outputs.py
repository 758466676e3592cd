"""Levels that give only some of the outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.cost import count_parameters
from nestedge.errors import UsageError
from nestedge.inspection import inspect
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import load
from nestedge.tree import named

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Coarse(nn.Module):
    """What gives the coarse classes: written by hand."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.coarse = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Logits of 2 classes, shape (batch, 2)."""
        return {"coarse": self.coarse(self.features(x))}

    def features(self, x: Tensor) -> Tensor:
        """What both parts read."""
        return F.relu(self.norm(self.stem(x)))


class Hierarchy(Coarse):
    """Coarse classes early, fine ones and a distance from more layers; two heads in training."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.late = nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.fine = nn.Linear(8, 8)
        self.distance = nn.Linear(8, 1)
        self.early_aux = nn.Linear(width, 2)
        self.late_aux = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Logits of 2 and 8 classes, and a pair of which one tensor is an input."""
        early = self.features(x)
        late = self.late(early)
        found = {
            "coarse": self.coarse(early),
            "fine": self.fine(late),
            "more": {"distance": self.distance(late), "pair": (x, None)},
        }
        aux = {"early_aux": self.early_aux(early), "late_aux": self.late_aux(late)}
        return {**found, **aux} if self.training else found


LEVELS = {
    "core": Level(0.5, outputs=("coarse",)),
    "coarse": Level(outputs="coarse"),
    "fine": Level(outputs=["fine", "coarse"]),
    "near": Level(outputs=("more_distance", "coarse")),
    "full": Level(),
}


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return _nested()


def _nested(levels: dict[str, Level] = LEVELS) -> NestedModel:
    model = Hierarchy().double()
    redraw(model, seed=0)
    return nest(model, X, levels, card=Card(divisor=4))


@pytest.mark.parametrize(("level", "width"), [("core", 8), ("coarse", 16)])
def test_a_level_of_some_outputs_is_the_network_without_the_others(
    nested: NestedModel, level: str, width: int
) -> None:
    twin = Coarse(width).double().eval()
    tensors = state_dict(nested, level)
    # The heads of training are read by nothing here.
    twin.load_state_dict({n: t for n, t in tensors.items() if "aux" not in n}, strict=True)
    with nested.at(level), torch.no_grad():
        found = nested(X)
    assert found.keys() == {"coarse"}
    torch.testing.assert_close(found["coarse"], twin(X)["coarse"])
    physical = materialize(nested, level)
    torch.testing.assert_close(physical.module()(X), found)
    expected = sum(p.numel() for p in twin.parameters())
    assert count_parameters(nested.plan(level).program) == expected
    assert sum(p.numel() for p in physical.parameters()) == expected
    assert inspect(nested).levels[level].parameters == expected


def test_results_are_nested_as_before_without_what_is_not_given(nested: NestedModel) -> None:
    with nested.at("full"), torch.no_grad():
        full = nested(X)
    with nested.at("near"), torch.no_grad():
        near = nested(X)
    assert near.keys() == {"coarse", "more"}
    assert near["more"].keys() == {"distance"}
    assert torch.allclose(near["more"]["distance"], full["more"]["distance"])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("level", list(LEVELS))
def test_a_level_reads_no_tensor_that_only_other_outputs_need(level: str, mode: Any) -> None:
    nested = _nested()
    lacking = {"core": "late", "coarse": "late", "fine": "distance", "near": "fine"}.get(level)
    read = nested.plan(level, mode).program.used_tensors()
    assert all(nested.nesting.uses(level, tensor) is not None for tensor in read)
    assert lacking is None or not any(tensor.startswith(f"{lacking}.") for tensor in read)
    assert lacking is None or not any(
        tensor.startswith(f"{lacking}.") for tensor in state_dict(nested, level)
    )


IN_TRAINING = {
    "core": {"coarse", "early_aux"},
    "fine": {"coarse", "fine", "early_aux", "late_aux"},
    "full": {"coarse", "fine", "more", "early_aux", "late_aux"},
}


@pytest.mark.parametrize(("level", "outputs"), list(IN_TRAINING.items()), ids=list(IN_TRAINING))
def test_in_training_a_level_gives_the_auxiliary_outputs_that_need_nothing_it_lacks(
    level: str, outputs: set[str]
) -> None:
    nested = _nested().train()
    with nested.at(level):
        found = nested(X)
    assert found.keys() == outputs
    total = torch.stack([value.sum() for key, value in found.items() if key != "more"]).sum()
    torch.autograd.backward(total)
    reached = {name for name, p in nested.shared.named_parameters() if p.grad is not None}
    assert ("fine.weight" in reached) == ("fine" in outputs)
    assert "coarse.weight" in reached


def test_the_counters_of_batch_norms_that_a_level_lacks_stand_still() -> None:
    # With shared statistics the counters of the full network are the level's.
    nested = nest(Hierarchy().double(), X, LEVELS, card=Card(divisor=4, batch_norm="shared"))
    nested.train()
    with nested.at("core"):
        nested(X)
    counters = {n: int(b) for n, b in nested.shared.named_buffers() if n.endswith("tracked")}
    assert counters == {"norm.num_batches_tracked": 1, "late.1.num_batches_tracked": 0}


def test_levels_of_fewer_outputs_lie_inside_those_of_more(nested: NestedModel) -> None:
    order = set(nested.nesting.order())
    assert ("core", "fine") in order
    assert ("fine", "near") not in order
    assert ("near", "fine") not in order
    assert inspect(nested).levels["near"].outputs == ("coarse", "more_distance")


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown name": (
        ("corse",),
        r"^level 'x': no output 'corse'; the network has \['coarse', .*did you mean 'coarse'",
    ),
    "a name twice": (
        ("fine", "fine"),
        r"outputs: expected some of .*, each once, found \['fine', ",
    ),
    "none": ((), r"outputs: expected some of .*, found \[\]"),
}


@pytest.mark.parametrize(("outputs", "message"), list(WRONG.values()), ids=list(WRONG))
def test_outputs_that_cannot_be_are_refused(
    nested: NestedModel, outputs: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        nested.add_level("x", Level(outputs=outputs))


def test_the_only_output_may_be_named() -> None:
    nested = nest(nn.Linear(6, 2).double(), X, {"full": Level(outputs=("output",))})
    assert "outputs" not in nested.nesting.axes
    with pytest.raises(UsageError, match=r"no output 'logits'; the network has \['output'\]"):
        nested.add_level("x", Level(outputs=("logits",)))


class Tied(nn.Module):
    """A pair that only in training depends on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two kinds of logits."""
        one, other = self.one(x), self.other(x)
        return one + other if self.training else one, other


def test_an_output_that_needs_in_training_what_the_level_lacks_is_refused() -> None:
    nested = nest(Tied().double(), X, {"one": Level(outputs="output_0")})
    with nested.at("one"), torch.no_grad():
        (found,) = nested(X)
        assert torch.equal(found, nested.eval()(X)[0])
    nested.train()
    with (
        nested.at("one"),
        pytest.raises(UsageError, match="level 'one': in training the output 'output_0' needs 'ot"),
    ):
        nested(X)


class Renamed(nn.Module):
    """In training it returns a tuple, and no output by its name."""

    def __init__(self, *, lost: bool) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(6, 2), nn.Linear(6, 2)
        self.lost = lost

    def forward(self, x: Tensor) -> Any:
        """Two kinds of logits, or in training only the other one."""
        one, other = self.one(x), self.other(x)
        if self.training:
            return [other] if self.lost else [one, other]
        return {"one": one, "other": other}


def test_outputs_of_other_names_in_training_are_told_by_what_they_need() -> None:
    nested = nest(Renamed(lost=False).double(), X, {"one": Level(outputs="one")}).train()
    with nested.at("one"):
        (found,) = nested(X)
    assert torch.equal(found, _linear(nested, "one"))


def _linear(nested: NestedModel, layer: str) -> Tensor:
    tensors = dict(nested.shared.named_parameters())
    return F.linear(X, tensors[f"{layer}.weight"], tensors[f"{layer}.bias"])


def test_a_network_that_gives_none_of_a_level_s_outputs_in_training_is_refused() -> None:
    nested = nest(Renamed(lost=True).double(), X, {"one": Level(outputs="one")}).train()
    with (
        nested.at("one"),
        pytest.raises(UsageError, match=r"in training the network has none of \['one'\]"),
    ):
        nested(X)


class Scaled(nn.Module):
    """An output of a parameter, one of an input, and a module called outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = nn.Linear(6, 8)
        self.last = nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, factors, and the input."""
        return self.last(self.outputs(x)), self.scale, x


def test_outputs_may_be_parameters_and_inputs_and_the_axis_has_a_free_name() -> None:
    nested = nest(Scaled().double(), X, {"x": Level(outputs=("output_1", "output_2"))})
    assert nested.nesting.axes["outputs"].kind == "width"
    assert nested.nesting.axes["outputs.axis"].kind == "outputs"
    with nested.at("x"):
        scale, x = nested(X)
    assert torch.equal(scale, named(nested.shared)["scale"])
    assert torch.equal(x, X)
    assert list(state_dict(nested, "x")) == ["scale"]


def test_a_network_with_outputs_comes_back_from_its_file(tmp_path: Path) -> None:
    nested = _nested()
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert loaded.nesting == nested.nesting
    for level in nested.levels:
        with nested.at(level), loaded.at(level), torch.no_grad():
            torch.testing.assert_close(loaded(X), nested(X), rtol=0, atol=0)
