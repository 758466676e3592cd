"""What is compared: the variants of every experiment, their budgets, and what is to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.seeds import asni, family, hierarchy, scaling, selection, shrinking, weights
from benchmarks.seeds.budget import Budget
from benchmarks.seeds.trial import FULL, Variant


@dataclass(frozen=True)
class Experiment:
    """Methods and baselines that are trained alike.

    Attributes:
        title: of its table.
        variants: by name.
        budget: of every training.
    """

    title: str
    variants: Mapping[str, Variant]
    budget: Budget


@dataclass(frozen=True)
class Place:
    """A figure: of an experiment's variant, that with a name."""

    experiment: str
    variant: str
    name: str


@dataclass(frozen=True)
class Criterion:
    """What is to hold: one figure, at least another and a margin.

    Attributes:
        text: in words.
        one: the figure of the method.
        other: what it is compared with; None for nothing but the margin.
        margin: that it is to be above the other, in its unit; below where negative.
        at_least: False for a figure that is to be at most the other and the margin.
    """

    text: str
    one: Place
    other: Place | None
    margin: float = 0.0
    at_least: bool = True


EXPERIMENTS: dict[str, Experiment] = {
    "family": Experiment("NestedNet: widths and depths", family.VARIANTS, Budget(20_000, 10)),
    "weights": Experiment("NestedNet: weights", weights.VARIANTS, Budget(20_000, 10)),
    "trained": Experiment(
        "NestedNet: weights of a trained ResNet-20",
        weights.STARTED,
        Budget(10_000, 4, pixels=32, rates=(0.01, 0.05), start="resnet20-cifar10.safetensors"),
    ),
    "hierarchy": Experiment("NestedNet: classes", hierarchy.VARIANTS, Budget(10_000, 10)),
    "shrinking": Experiment("Delayed epsilon-shrinking", shrinking.VARIANTS, Budget(10_000, 10)),
    "selection": Experiment(
        "Sparse structure selection", selection.VARIANTS, Budget(20_000, 10, rates=(0.05, 0.1))
    ),
    "scaling": Experiment("SSGD", scaling.VARIANTS, Budget(20_000, 10, rates=(0.02, 0.05))),
    "asni": Experiment(
        "ASNI: Conv-4",
        asni.VARIANTS,
        Budget(5_000, 25, batch=64, rates=(3e-4, 1e-3), constant=True),
    ),
}


def _place(text: str) -> Place:
    experiment, variant, name = text.split("/")
    return Place(experiment, variant, name)


def _row(text: str, one: str, other: str | None, margin: float = 0.0) -> Criterion:
    return Criterion(text, _place(one), _place(other) if other else None, margin)


def _at_most(text: str, one: str, other: str | None, margin: float) -> Criterion:
    return replace(_row(text, one, other, margin), at_least=False)


_DENSE = {"weights": f"family/{FULL} alone/{FULL}", "trained": f"trained/dense/{FULL}"}
_OF = {"weights": "", "trained": "trained: "}

CRITERIA: tuple[Criterion, ...] = (
    *(
        _row(
            f"level {name} within 0.5 points of a network of its size alone",
            f"family/nested/{name}",
            f"family/{name} alone/{name}",
            -0.5,
        )
        for name in family.LEVELS
    ),
    *(
        _row(
            f"{name} consensus above the full level", f"family/nested/{name}", "family/nested/full"
        )
        for name in family.CONSENSUS
    ),
    *(
        _row(
            f"{_OF[start]}{name} of the weights within 0.6 points of dense",
            f"{start}/learned/{name}",
            _DENSE[start],
            -0.6,
        )
        for start in _OF
        for name in weights.DENSITIES
    ),
    *(
        _row(
            f"{_OF[start]}{name} of the weights above as many random ones",
            f"{start}/learned/{name}",
            f"{start}/drawn/{name}",
        )
        for start in _OF
        for name in weights.DENSITIES
    ),
    *(
        _row(
            f"level {name} within 0.5 points of the same alone",
            f"hierarchy/nested/{name}",
            f"hierarchy/{name} alone/{name}",
            -0.5,
        )
        for name in hierarchy.LEVELS
    ),
    *(
        _row(
            f"{name} subnet above {other} shrinking",
            f"shrinking/delayed/{name}",
            f"shrinking/{other}/{name}",
        )
        for name in ("smallest", "largest")
        for other in ("early", "late", "without ramp")
    ),
    *(
        _row(
            f"SSGD, epsilon {epsilon:g}: after pruning above {other}",
            f"scaling/SSGD, epsilon {epsilon:g}/pruned",
            f"scaling/{other}/pruned",
        )
        for epsilon, epochs in scaling.EPSILONS.items()
        for other in ("SGD", f"SGD, {epochs} epochs")
    ),
    *(
        _at_most(
            f"SSGD, epsilon {epsilon:g}: training loss at most 0.02 above that of {other}",
            f"scaling/SSGD, epsilon {epsilon:g}/loss",
            f"scaling/{other}/loss",
            0.02,
        )
        for epsilon, epochs in scaling.EPSILONS.items()
        for other in ("SGD", f"SGD, {epochs} epochs")
    ),
    *(
        _at_most(f"{name}: at most 70 % of the MACs are left", f"selection/{name}/macs", None, 0.7)
        for name in selection.VARIANTS
    ),
    *(
        _at_most(f"{name}: materialised within 1e-5", f"selection/{name}/error", None, 1e-5)
        for name in selection.VARIANTS
    ),
    _row("ASNI-I within 1 point of dense", "asni/sparse/ASNI-I", f"asni/dense/{FULL}", -1.0),
    _row("ASNI-II within 1 point of ASNI-I", "asni/sparse/ASNI-II", "asni/sparse/ASNI-I", -1.0),
)
