from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.importing import from_slimmable
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.nested import Card
from nestedge.training import recalibrate
from tests.importing.exactness import assert_exact, saved_and_loaded

STEM, INNER, TAIL = (4, 10, 16), (6, 18, 24), 40
LEVELS = {"small": 0.25, "medium": 0.5, "full": 1.0}
X = torch.randn(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
State = dict[str, Tensor]


class Plain(nn.Module):
    """An inverted residual block between a stem and a tail that every width has whole."""

    def __init__(self, stem: int = STEM[-1], inner: int = INNER[-1]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, bias=False), nn.BatchNorm2d(stem))
        self.body = nn.Sequential(
            nn.Conv2d(stem, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, stem, 1, bias=False),
            nn.BatchNorm2d(stem),
        )
        self.tail = nn.Sequential(nn.Conv2d(stem, TAIL, 1, bias=False), nn.BatchNorm2d(TAIL))
        self.classifier = nn.Linear(TAIL, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = F.relu6(self.tail(x + self.body(x)))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class Switchable(nn.Module):
    """A batch norm for every width."""

    def __init__(self, channels: tuple[int, ...], *, affine: bool) -> None:
        super().__init__()
        self.bn = nn.ModuleList(nn.BatchNorm2d(n, affine=affine) for n in channels)
        if not affine:
            self.weight = nn.Parameter(torch.ones(max(channels)))
            self.bias = nn.Parameter(torch.ones(max(channels)))

    def forward(self, x: Tensor, index: int) -> Tensor:
        norm, n = self.bn[index], x.shape[1]
        assert isinstance(norm, nn.BatchNorm2d)
        owner = norm if norm.affine else self
        weight, bias = owner.get_parameter("weight"), owner.get_parameter("bias")
        return F.batch_norm(x, norm.running_mean, norm.running_var, weight[:n], bias[:n])


class Slimmable(nn.Module):
    """The same network as slimmable ones are written: each width slices the shared weights."""

    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        plain = Plain()
        norms = {"1": INNER, "4": INNER, "7": STEM}
        self.stem = nn.Sequential(plain.stem[0], Switchable(STEM, affine=affine))
        self.body = nn.Sequential(
            *(
                Switchable(norms[name], affine=affine) if name in norms else layer
                for name, layer in plain.body.named_children()
            )
        )
        self.tail, self.classifier = plain.tail, plain.classifier

    def forward(self, x: Tensor, index: int) -> Tensor:
        c, n, weight = STEM[index], INNER[index], self.get_parameter

        def norm(name: str, x: Tensor) -> Tensor:
            y: Tensor = self.get_submodule(name)(x, index)
            return y

        x = F.relu6(norm("stem.1", F.conv2d(x, weight("stem.0.weight")[:c], stride=2)))
        y = F.conv2d(x, weight("body.0.weight")[:n, :c], weight("body.0.bias")[:n])
        y = F.conv2d(F.relu6(norm("body.1", y)), weight("body.3.weight")[:n], padding=1, groups=n)
        y = F.conv2d(F.relu6(norm("body.4", y)), weight("body.6.weight")[:c, :n])
        x = F.conv2d(x + norm("body.7", y), weight("tail.0.weight")[:, :c])
        x = F.relu6(self.get_submodule("tail.1")(x))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def reference(*, affine: bool = True) -> Slimmable:
    model = Slimmable(affine=affine).double().eval()
    redraw(model, 1)
    return model


def imported(state: State, *, card: Card | None = None) -> NestedModel:
    model = Plain().double()
    redraw(model, 2)
    return from_slimmable(model, X, state, LEVELS, card=card)


@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "data-parallel"])
def test_every_width_is_the_slimmable_network_at_that_width(prefix: str, tmp_path: Path) -> None:
    slimmable = reference()
    state = {prefix + name: tensor for name, tensor in slimmable.state_dict().items()}
    nested = imported(state)
    for found in (nested, saved_and_loaded(nested, tmp_path)):
        for index, level in enumerate(LEVELS):
            with torch.no_grad():
                assert_exact(found, level, X, slimmable(X, index))
    assert nested.nesting.is_chain()
    assert nested.nesting.segments["stem.0"] == (0, 4, 10, 16)


@pytest.mark.parametrize("policy", ["switchable", "statistics"])
def test_norms_that_share_weights_but_not_statistics_are_known_too(policy: str) -> None:
    slimmable = reference(affine=False)
    nested = imported(slimmable.state_dict(), card=Card(batch_norm=policy))  # type: ignore[arg-type]
    for index, level in enumerate(LEVELS):
        with torch.no_grad():
            assert_exact(nested, level, X, slimmable(X, index))


def test_levels_in_another_order_than_by_width_are_those_of_the_lists() -> None:
    state = {}
    for name, tensor in reference().state_dict().items():
        parts = name.split(".bn.")
        if len(parts) == 2:
            place, leaf = parts[1].split(".")
            name = f"{parts[0]}.bn.{2 - int(place)}.{leaf}"
        state[name] = tensor
    model = Plain().double()
    nested = from_slimmable(model, X, state, dict(reversed(LEVELS.items())))
    for index, level in enumerate(LEVELS):
        with torch.no_grad():
            assert_exact(nested, level, X, reference()(X, index))


def test_an_imported_network_can_be_recalibrated_and_given_more_levels() -> None:
    nested = imported(reference().state_dict())
    nested.add_level("other", Level(0.75))
    recalibrate(nested, [(X, None)], levels=["other"])
    with torch.no_grad():
        assert_exact(nested, "small", X, reference()(X, 0))


def _without(*names: str) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in state.items() if n not in names}


def _with(**changes: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, **{n.replace("__", "."): t for n, t in changes.items()}}


def _narrower(state: State) -> State:
    return {n: t[:15] if n.startswith("stem.1.bn.2") and t.dim() else t for n, t in state.items()}


def _disagreeing(state: State) -> State:
    return {n: t[:5] if n.startswith("body.4.bn.0") and t.dim() else t for n, t in state.items()}


def _third(state: State) -> State:
    return {n: t for n, t in state.items() if ".bn.2." not in n}


WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (
        _without("body.0.weight", "tail.1.running_mean", "tail.1.num_batches_tracked"),
        "does not fit the model: it lacks 'body.0.weight', 'tail.1.running_mean'$",
    ),
    "unread": (_with(extra__weight=X), "the model has nothing called 'extra.weight'$"),
    "shape": (
        _with(classifier__bias=torch.ones(7)),
        r"'classifier.bias': expected shape \[5\], found \[7\]",
    ),
    "narrower": (_narrower, "norm 'stem.1': the widest level has 15 channels in the checkpoint"),
    "disagreeing": (_disagreeing, "norms 'body.1' and 'body.4' are of one axis.* 6 and 5 channels"),
    "fewer": (
        _third,
        r"norm 'stem.1': the checkpoint has \w+ for widths \[0, 1\], and there are 3",
    ),
    "no lists": (
        lambda state: {n: t for n, t in state.items() if ".bn." not in n},
        "no list of batch norms for any of the model's, as in 'stem.1.bn.0.weight'",
    ),
}


@pytest.mark.parametrize(("change", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        imported(change(reference().state_dict()))


def test_norms_with_weights_of_their_own_need_the_policy_that_has_them() -> None:
    with pytest.raises(UsageError, match=r"norm 'stem\.1': each width has a weight of its own"):
        imported(reference().state_dict(), card=Card(batch_norm="statistics"))


class Headed(nn.Module):
    """A norm, and hidden units that none is of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.hidden, self.last = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(F.relu(self.hidden(F.relu(self.bn(self.first(x))))))
        return logits


@pytest.mark.parametrize(
    ("level", "units"), [(0.5, 6), (Level({"hidden": 7}), 7), (Level({}), 12)], ids=str
)
def test_where_no_norm_tells_the_width_that_is_given_counts(
    level: Level | float, units: int
) -> None:
    model = Headed().double()
    redraw(model, 3)
    norms = {
        f"bn.{i}.{n}": t[: 3 + 5 * i]
        for n, t in model.bn.state_dict().items()
        if t.dim()
        for i in range(2)
    }
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("bn.")}
    x = torch.randn(4, 6, dtype=torch.float64)
    nested = from_slimmable(model, x, {**state, **norms}, {"small": level, "full": 1.0})
    twin = (
        nn.Sequential(
            nn.Linear(6, 3),
            nn.BatchNorm1d(3),
            nn.ReLU(),
            nn.Linear(3, units),
            nn.ReLU(),
            nn.Linear(units, 3),
        )
        .double()
        .eval()
    )
    targets = zip(twin.state_dict().values(), model.state_dict().values(), strict=True)
    for target, tensor in targets:
        target.copy_(tensor[tuple(slice(n) for n in target.shape)])
    assert_exact(nested, "small", x, twin(x).detach())
    with pytest.raises(UsageError, match=r"axis 'hidden': 0\.3 of 12 units is no whole number"):
        from_slimmable(model, x, {**state, **norms}, {"small": 0.3, "full": 1.0})
