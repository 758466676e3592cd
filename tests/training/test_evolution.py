from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from nestedge.cost import count_macs, count_parameters
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.nested import NestedModel
from nestedge.training import Batch, accuracy, recalibrate
from nestedge.training.evolution import (
    Evolution,
    macs_of,
    parameters_of,
    recalibrated_accuracy,
    search,
)
from nestedge.training.space import Choices, Space
from tests.networks import (
    RESNET_LEVELS,
    images,
    logits_of,
    nested_perceptron,
    nested_resnet,
    vectors,
)

SIZES = (10, 20, 30, 40, 50)
AXES = tuple(f"layer{i}" for i in range(8))
SPACE = Space(tuple(Choices("width", {axis: SIZES}) for axis in AXES))
VALUES = dict(zip(AXES, (9, 1, 8, 2, 7, 3, 6, 4), strict=True))
SMALL = Evolution(population=40, generations=30)


def _widths(level: Level) -> dict[str, int]:
    assert isinstance(level.width, dict)
    return {axis: units for axis, units in level.width.items() if isinstance(units, int)}


def _cost(level: Level) -> float:
    return float(sum(_widths(level).values()))


def _fitness(level: Level) -> float:
    """Additive: within a cost the best takes the axes of the highest values whole."""
    return float(sum(VALUES[axis] * size for axis, size in _widths(level).items()))


def test_the_planted_optimum_is_found_within_the_limit() -> None:
    settings = Evolution(population=100, generations=60)
    found = search(SPACE, _fitness, cost=_cost, limit=240, evolution=settings)
    assert found.best.cost <= 240
    # 80 for the smallest; 160 more go to the four best axes, 40 for each.
    best = {axis: 50 if VALUES[axis] > 5 else 10 for axis in AXES}
    assert _widths(found.best.level) == best
    assert found.best.fitness == 50 * 30 + 10 * 10


@pytest.mark.parametrize("limit", [80, 95, 120, 399])
def test_no_candidate_is_above_the_limit(limit: float) -> None:
    measured: list[float] = []

    def fitness(level: Level) -> float:
        measured.append(_cost(level))
        return _fitness(level)

    settings = Evolution(population=10, generations=5)
    found = search(SPACE, fitness, cost=_cost, limit=limit, evolution=settings)
    assert max(measured) <= limit
    assert max(c.cost for c in found.pareto) <= limit


def test_a_subnet_above_the_limit_is_made_no_smaller_than_it_has_to_be() -> None:
    settings = Evolution(population=10, generations=0)
    measured: list[float] = []

    def fitness(level: Level) -> float:
        measured.append(_cost(level))
        return _fitness(level)

    search(SPACE, fitness, cost=_cost, limit=95, evolution=settings)
    assert len(measured) > 1
    # Drawn subnets cost 240 on average, and a size costs 10 more than the one before.
    assert set(measured) == {90}


def test_every_subnet_is_measured_once() -> None:
    fits: Counter[tuple[int, ...]] = Counter()
    costs: Counter[tuple[int, ...]] = Counter()

    def fitness(level: Level) -> float:
        fits[tuple(_widths(level).values())] += 1
        return _fitness(level)

    def cost(level: Level) -> float:
        costs[tuple(_widths(level).values())] += 1
        return _cost(level)

    found = search(SPACE, fitness, cost=cost, limit=200, evolution=SMALL)
    assert set(fits.values()) == set(costs.values()) == {1}
    assert found.evaluated == len(fits) > 40


def test_a_search_is_repeated_by_its_seed() -> None:
    settings = Evolution(population=8, generations=3)
    runs = [
        search(SPACE, _fitness, cost=_cost, limit=200, evolution=settings, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_pareto_set_has_no_candidate_that_another_dominates() -> None:
    found = search(SPACE, _fitness, cost=_cost, limit=300, evolution=SMALL)
    costs, fits = ([getattr(c, n) for c in found.pareto] for n in ("cost", "fitness"))
    assert len(costs) > 5
    assert costs == sorted(set(costs))
    assert fits == sorted(set(fits))
    assert found.pareto[-1].fitness == found.best.fitness


def test_more_generations_find_fitter_subnets_than_drawing() -> None:
    drawn = Evolution(population=40, generations=0)
    first = search(SPACE, _fitness, cost=_cost, limit=200, evolution=drawn)
    assert first.evaluated <= 40
    found = search(SPACE, _fitness, cost=_cost, limit=200, evolution=SMALL)
    assert found.best.fitness > first.best.fitness


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "a population of 1 or more"),
        ({"mutated": 1.5}, "mutated: expected a share of 0 to 1, found 1.5"),
        ({"parents": -0.1}, "parents: expected a share of 0 to 1, found -0.1"),
    ],
    ids=["population", "mutated", "parents"],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Evolution(**settings)  # type: ignore[arg-type]


def test_a_limit_below_the_smallest_subnet_is_refused_with_its_cost() -> None:
    with pytest.raises(UsageError, match=r"limit: expected at least 80, .*, found 79"):
        search(SPACE, _fitness, cost=_cost, limit=79)


@pytest.fixture(scope="module")
def built() -> NestedModel:
    return nested_resnet()


@pytest.fixture
def nested(built: NestedModel) -> NestedModel:
    return copy.deepcopy(built)


@pytest.mark.parametrize("name", list(RESNET_LEVELS))
def test_costs_are_those_of_the_level_and_leave_the_network_as_it_is(
    nested: NestedModel, name: str
) -> None:
    before, level = nested.nesting, RESNET_LEVELS[name]
    program = nested.plan(name).program
    assert macs_of(nested)(level) == count_macs(program) > 0
    assert parameters_of(nested)(level) == count_parameters(program) > 0
    assert nested.nesting is before


@pytest.mark.parametrize("level", [Level(0.5), Level()], ids=["half", "full"])
def test_accuracy_is_that_of_a_recalibrated_level_and_nothing_of_it_stays(
    nested: NestedModel, level: Level
) -> None:
    calibration: list[Batch] = [images(16, seed=seed) for seed in range(3)]
    inputs, _ = images(64, seed=9)
    twin = copy.deepcopy(nested)
    twin.add_level("other", level, batch_norm="statistics")
    with torch.no_grad(), twin.at("other"):
        before = twin(inputs).argmax(1)
        recalibrate(twin, calibration, levels=["other"])
        expected = twin(inputs).argmax(1)
    assert not torch.equal(before, expected)
    stored = {name: tensor.clone() for name, tensor in nested.state_dict().items()}
    levels, test = nested.levels, [(inputs, expected)]
    assert recalibrated_accuracy(nested, level, calibration=calibration, test=test) == 100
    assert nested.levels == levels
    assert all(torch.equal(t, stored[n]) for n, t in nested.state_dict().items())


def test_a_network_without_batch_norm_needs_no_recalibration() -> None:
    nested = nested_perceptron()
    test: list[Batch] = [vectors(32)]
    level = Level(width={"first": 8})
    found = recalibrated_accuracy(nested, level, calibration=[], test=test, logits=logits_of)
    assert found == accuracy(nested, test, "small", logits=logits_of)
