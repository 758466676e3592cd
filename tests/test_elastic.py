"""Which modules a level may leave out, and what it computes without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.redraw import redraw
from nestedge.elastic import study
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import load
from nestedge.program.capture import capture
from tests.branching import Experts, Inception, Pyramid, Residuals, silence


class Token(nn.Module):
    """Appends a learned token: a piece that no axis covers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.token.expand(x.shape[0], -1, -1)], 1)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.blocks = nn.Sequential(Token(), Token())
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.blocks(self.inner(x)).mean(1))
        return y


def test_a_block_whose_piece_every_level_has_is_not_left_out() -> None:
    x = torch.randn(2, 5, 4)
    nested = nest(Tokens().eval(), x, {"shallow": Level(depth=0.5)})
    assert nested.elastic.stages == ()
    with nested.at("shallow"), torch.no_grad():
        shallow = nested(x)
    with torch.no_grad():
        assert torch.equal(shallow, nested(x))


def test_a_dense_layer_is_a_block_and_takes_its_channels_along() -> None:
    x = torch.randn(1, 3, 16, 16)
    nested = nest(DenseNet(num_layers=(2, 2)).eval(), x, {"shallow": Level(depth=(1, 2))})
    assert [len(stage.removable) for stage in nested.elastic.stages] == [2, 2]
    kept = nested.nesting.choice("shallow").kept
    assert () in kept.values()
    assert nested.nesting.uses("shallow", "stages.0.1.conv2.weight") is None


VECTORS = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

Twin = Callable[..., nn.Module]

NETWORKS: dict[str, tuple[Twin, torch.Tensor]] = {
    **{
        f"experts, {gates}": (partial(Experts, gates=gates), VECTORS)
        for gates in ("slice", "unbind", "select", "stack", "einsum")
    },
    "inception": (Inception, IMAGES),
    "pyramid": (Pyramid, IMAGES),
    "residuals": (Residuals, VECTORS),
}


def _listed(network: str, units: list[int]) -> dict[str, list[int]]:
    names = {"experts": "experts", "inception": "block", "pyramid": "convs"}
    return {names.get(network.split(",", maxsplit=1)[0], "blocks.*"): units}


@pytest.fixture(scope="module")
def networks() -> dict[str, NestedModel]:
    """The networks that were nested already, by name."""
    return {}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> str:
    """The name of a network."""
    name: str = request.param
    return name


@pytest.fixture
def nested(network: str, networks: dict[str, NestedModel]) -> NestedModel:
    """A network in evaluation mode, nested once for all tests of it."""
    if network not in networks:
        networks[network] = _nested(network)
    return networks[network].eval()


def _nested(network: str) -> NestedModel:
    make, x = NETWORKS[network]
    model = make().double()
    redraw(model, seed=0)
    levels = {
        "tiny": Level(0.5, branches=1),
        "less": Level(0.5, branches=_listed(network, [0, 2])),
        "wide": Level(branches=_listed(network, [1, 2])),
        "narrow": Level(0.5),
    }
    return nest(model, x, levels, card=Card(divisor=1))


KEPT: Mapping[str, tuple[float, list[int] | None]] = {
    "tiny": (0.5, [0]),
    "less": (0.5, [0, 2]),
    "wide": (1.0, [1, 2]),
    "narrow": (0.5, None),
}


def _twin(network: str, nested: NestedModel, level: str) -> nn.Module:
    """The level written by hand; strictly, so that it has the tensors of the level and no other."""
    width, kept = KEPT[level]
    twin = NETWORKS[network][0](width, kept=kept).double()
    twin.load_state_dict(state_dict(nested, level), strict=True)
    return twin


def test_a_level_is_the_network_written_without_some_branches(
    network: str, nested: NestedModel
) -> None:
    x = NETWORKS[network][1]
    for level in nested.levels:
        twin = _twin(network, nested, level).eval()
        physical = materialize(nested, level)
        with nested.at(level), torch.no_grad():
            expected = twin(x)
            torch.testing.assert_close(nested(x), expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(physical.module()(x), expected, rtol=1e-12, atol=1e-12)
        # All that a twin reads: no tensor of a branch is left, nor is one that nothing reads.
        used = sum(p.numel() for p in physical.module().parameters())
        assert used == sum(p.numel() for p in twin.parameters())
    assert ("tiny", "less") in nested.nesting.order()
    assert ("less", "narrow") in nested.nesting.order()


def test_a_level_without_branches_is_trained_as_its_twin(network: str, nested: NestedModel) -> None:
    x = NETWORKS[network][1]
    nested.train()
    for level in ("tiny", "less"):
        twin = _twin(network, nested, level).train()
        with nested.at(level):
            found, expected = nested(x), twin(x)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        nested.zero_grad()
        found.square().sum().backward()
        expected.square().sum().backward()
        squares = sum(
            float(p.grad.square().sum()) for p in nested.parameters() if p.grad is not None
        )
        assert squares == pytest.approx(
            sum(float(p.grad.square().sum()) for p in twin.parameters() if p.grad is not None)
        )


@pytest.mark.parametrize("network", ["experts, stack", "inception", "residuals"], indirect=True)
def test_branches_are_saved_and_loaded(network: str, nested: NestedModel, tmp_path: Path) -> None:
    x = NETWORKS[network][1]
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert loaded.nesting == nested.nesting
    for level in nested.levels:
        with nested.at(level), loaded.at(level), torch.no_grad():
            assert torch.equal(loaded(x), nested(x))


def test_a_dropped_branch_gives_zero_and_gates_stay() -> None:
    model = Experts().double().eval()
    redraw(model, seed=0)
    nested = nest(model, VECTORS, {"two": Level(branches={"experts": [0, 1]})})
    silence(model.experts["2"])
    with nested.at("two"), torch.no_grad():
        torch.testing.assert_close(nested(VECTORS), model(VECTORS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", ["residuals"], indirect=True)
def test_a_level_keeps_all_branches_when_none_are_asked_for(nested: NestedModel) -> None:
    axes = {
        name: axis.size for name, axis in nested.nesting.axes.items() if axis.kind == "branches"
    }
    assert axes == {f"blocks.{i}.branches": 3 for i in range(3)}
    assert not axes.keys() & nested.nesting.choice("narrow").kept.keys()


@pytest.mark.parametrize(("depth", "branches"), [(1, 2), (2, 1), (3, 2)])
def test_branches_of_a_block_go_with_it_or_without_it(depth: int, branches: int) -> None:
    model = Residuals().double()
    redraw(model, seed=0)
    level = Level(0.5, depth=depth, branches=branches)
    nested = nest(model, VECTORS, {"less": level}, card=Card(divisor=1))
    twin = Residuals(0.5, kept=range(branches), depth=depth).double()
    twin.load_state_dict(state_dict(nested, "less"), strict=True)
    with nested.at("less"), torch.no_grad():
        torch.testing.assert_close(nested(VECTORS), twin.eval()(VECTORS), rtol=1e-12, atol=1e-12)
    assert nested.nesting.tensors["blocks.2.scales.1"].requires == (
        ("blocks", 2),
        ("blocks.2.branches", 1),
    )


ERRORS: dict[str, tuple[object, str]] = {
    "an unknown name": ({"expert": 1}, "no axis fits 'expert'.*'experts'"),
    "an empty list": ({"experts": []}, "expected different numbers of 0 to 2, found \\[\\]"),
    "a number too large": ({"experts": [3]}, "expected different numbers of 0 to 2"),
    "too many": (4, "expected 1 to 3 branches, found 4"),
    "none": (0, "above 0, found 0"),
}


@pytest.mark.parametrize(("branches", "message"), list(ERRORS.values()), ids=list(ERRORS))
def test_branches_that_are_not_there_are_refused(branches: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nest(Experts().double(), VECTORS, {"less": Level(branches=branches)})  # type: ignore[arg-type]


class Named(nn.Module):
    """Experts beside a parameter of the module that holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 6))
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(x, self.first)
        found: torch.Tensor = self.one(x) + self.two(x)
        return found


def test_branches_have_a_name_of_their_own_where_their_module_has_an_axis() -> None:
    model = nn.Sequential(Named(), nn.Linear(8, 3)).double()
    nested = nest(model, VECTORS, {"one": Level(branches=1)})
    kinds = {name: axis.kind for name, axis in nested.nesting.axes.items()}
    assert kinds == {"0": "width", "0.one": "width", "0.branches": "branches"}
    assert nested.nesting.uses("one", "0.two.weight") is None


class Averaged(nn.Module):
    """Two branches, of whose channels no tensor reads anything but their mean."""

    def __init__(self, branches: int = 2) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(6, 4) for _ in range(branches))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], 1)
        return joined.reshape(x.shape[0], 4 * len(self.branches)).mean(1)


def test_channels_that_no_tensor_reads_go_with_their_branch() -> None:
    nested = nest(Averaged().double(), VECTORS, {"one": Level(branches=1)})
    twin = Averaged(1).double()
    twin.load_state_dict(state_dict(nested, "one"), strict=True)
    with nested.at("one"), torch.no_grad():
        torch.testing.assert_close(nested(VECTORS), twin(VECTORS), rtol=1e-12, atol=1e-12)


class Tied(nn.Module):
    """Two branches whose channels are concatenated and then added to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(6, 4) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], 1)
        found: torch.Tensor = self.head(joined[:, :4] + joined[:, 4:])
        return found


def test_channels_that_others_need_keep_their_branch() -> None:
    nested = nest(Tied().double(), VECTORS, {"narrow": 0.5})
    assert nested.elastic.groups == ()


class Spread(nn.Module):
    """Two branches of which one is added to every entry of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 1)])
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.branches[0](x) + self.branches[1](x))
        return found


def test_a_branch_that_has_to_stay_is_not_left_out() -> None:
    nested = nest(Spread().double(), VECTORS, {"one": Level(branches=1)})
    assert nested.nesting.uses("one", "branches.1.weight") is None
    with pytest.raises(UsageError, match=r"branches 'branches': 'branches\.0' has to stay"):
        nested.add_level("other", Level(branches={"branches": [1]}))


class Branching(nn.Module):
    """Two branches; in training what the second one gives is a result too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = self.one(x), self.two(x)
        found = {"logits": self.head(first + second)}
        return {**found, "second": second} if self.training else found


def test_a_branch_that_training_needs_is_not_left_out_there() -> None:
    nested = nest(Branching().double(), VECTORS, {"one": Level(branches=1)})
    with nested.at("one"), torch.no_grad():
        assert nested(VECTORS)["logits"].shape == (4, 6)
        nested.train()
        with pytest.raises(UsageError, match=r"branches \['two'\]: in training.*it is an output"):
            nested(VECTORS)


class Stacked(nn.Module):
    """Experts as one tensor: every expert a slice of it."""

    def __init__(self, experts: int = 4, *, contraction: str = "einsum") -> None:
        super().__init__()
        self.contraction = contraction
        self.gate = nn.Linear(6, experts)
        self.inner = nn.Parameter(torch.randn(experts, 6, 5))
        self.outer = nn.Parameter(torch.randn(experts, 5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.gate(x))
        if self.contraction == "einsum":
            hidden = torch.relu(torch.einsum("bi,eij->bej", x, self.inner))
            return torch.einsum("be,bej,ejo->bo", gates, hidden, self.outer)
        hidden = torch.relu(torch.bmm(x.expand(self.inner.shape[0], -1, -1), self.inner))
        return (torch.bmm(hidden, self.outer) * gates.t().unsqueeze(-1)).sum(0)


@pytest.mark.parametrize("contraction", ["einsum", "bmm"])
def test_experts_in_one_tensor_are_an_axis_of_width(contraction: str) -> None:
    model = Stacked(contraction=contraction).double()
    nested = nest(model, VECTORS, {"two": Level({"gate": [0, 2]})}, card=Card(divisor=1))
    assert nested.nesting.axes["gate"].kind == "width"
    twin = Stacked(2, contraction=contraction).double()
    twin.load_state_dict(state_dict(nested, "two"), strict=True)
    with nested.at("two"), torch.no_grad():
        torch.testing.assert_close(nested(VECTORS), twin(VECTORS), rtol=1e-12, atol=1e-12)


class Added(nn.Module):
    """What goes in and a layer of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the shape of `x`."""
        y: torch.Tensor = x + self.layer(x)
        return y


class Holder(nn.Module):
    """A residual block of its own, and perhaps a shortcut around it."""

    def __init__(self, *, is_residual: bool) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.layer, self.inner = nn.Conv2d(8, 8, 1), Added()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the shape of `x`."""
        y: torch.Tensor = self.inner(self.layer(x))
        return x + y if self.is_residual else y


def test_every_row_of_blocks_has_a_name_of_its_own() -> None:
    holders = [Holder(is_residual=i % 2 == 1) for i in range(4)]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *holders[:2], nn.Conv2d(8, 8, 1), *holders[2:])
    stages = study(capture(model.eval(), (torch.randn(2, 3, 4, 4),)).program).stages
    assert {stage.blocks for stage in stages} == {
        *(("1", "2"), ("4", "5"), ("1.inner",), ("4.inner",))
    }
    assert len({stage.name for stage in stages}) == 4


class Product(nn.Module):
    """A residual block with weights of its own, which its width is called by."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.randn(*shape)) for shape in ((8, 6), (6, 8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 8), as `x`."""
        y: torch.Tensor = x + torch.relu(x @ self.one) @ self.other
        return y


def test_a_row_of_blocks_is_not_called_like_a_width(tmp_path: Path) -> None:
    rows = [Product(), Product(), nn.Linear(8, 8), Product(), Product()]
    nested = nest(nn.Sequential(*rows), torch.randn(2, 8), {"half": Level(0.5, depth=0.5)})
    kinds = {name: axis.kind for name, axis in nested.nesting.axes.items()}
    assert (kinds["0"], kinds["0.blocks"]) == ("width", "depth")
    nested.save(tmp_path / "net.nest")
    assert load(tmp_path / "net.nest").nesting == nested.nesting
