"""The best subnet of a space for a budget, by evolutionary search.

As in once-for-all (Cai et al., 2020, arXiv:1908.09791), after regularised evolution (Real et al.,
2019, arXiv:1802.01548): the fittest of a generation are the parents of the next, half of which are
mutations of one parent and half crossings of two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from nestedge.cost import count_macs, count_parameters
from nestedge.elastic import program_at
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.plan import batch_norm_tensors
from nestedge.program.graph import Program
from nestedge.training.accuracy import accuracy
from nestedge.training.batches import Batches, same
from nestedge.training.recalibration import recalibrate
from nestedge.training.space import Picks, Space
from nestedge.training.subnets import temporary_level
from nestedge.tree import named

Measure = Callable[[Level], float]
"""A number of a subnet: its accuracy, its multiply-accumulates, its latency on a device."""

_TRIES = 20
"""How often a subnet above the limit is drawn anew before it is made smaller."""


@dataclass(frozen=True)
class Candidate:
    """A subnet within the budget.

    Attributes:
        level: the subnet.
        picks: the same, by the options of the space.
        fitness: higher is better.
        cost: at most the limit.
    """

    level: Level
    picks: Picks
    fitness: float
    cost: float


@dataclass(frozen=True)
class Found:
    """What a search gives.

    Attributes:
        best: the fittest candidate; the cheapest of those that are equally fit.
        pareto: the candidates than which no other is as fit for less, or fitter for as much; by
            ascending cost.
        evaluated: how many subnets' fitness was measured, each once.
    """

    best: Candidate
    pareto: tuple[Candidate, ...]
    evaluated: int


@dataclass(frozen=True)
class Evolution:
    """Settings of the search, once-for-all's unless given.

    Attributes:
        population: candidates of a generation.
        generations: after the first, which is drawn.
        parents: share of a generation that the next comes from.
        mutated: share of the children that are mutations; the rest are crossings.
        probability: with which a mutation draws each choice anew.
    """

    population: int = 100
    generations: int = 500
    parents: float = 0.25
    mutated: float = 0.5
    probability: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: a number is out of range.
        """
        if self.population < 1 or self.generations < 0:
            raise UsageError(
                "expected a population of 1 or more and 0 or more generations, found "
                f"{self.population} and {self.generations}"
            )
        for name in ("parents", "mutated", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected a share of 0 to 1, found {getattr(self, name)}")


def search(
    space: Space,
    fitness: Measure,
    *,
    cost: Measure,
    limit: float,
    evolution: Evolution | None = None,
    seed: int = 0,
) -> Found:
    """Search a space for the fittest subnet within a budget.

    Args:
        space: the subnets.
        fitness: is called once for each of them that comes up; `recalibrated_accuracy`, say.
        cost: `macs_of` or `parameters_of` a network, or any other, measured or predicted. It is
            expected not to grow where a size shrinks.
        limit: the most that a subnet may cost.
        evolution: settings of the search.
        seed: of all draws.

    Raises:
        UsageError: the smallest subnet is above the limit.
    """
    run = _Search(space, fitness, cost, limit, evolution or Evolution(), random.Random(seed))
    return run.result()


@dataclass
class _Search:
    """One call of `search`, and what it has measured."""

    space: Space
    fitness: Measure
    cost: Measure
    limit: float
    settings: Evolution
    generator: random.Random
    costs: dict[Picks, float] = field(default_factory=dict)
    seen: dict[Picks, Candidate] = field(default_factory=dict)

    def result(self) -> Found:
        """Search."""
        smallest = self.space.settled((0,) * len(self.space.choices))
        if not self._cost(smallest) <= self.limit:
            raise UsageError(
                f"limit: expected at least {self._cost(smallest):g}, what the smallest subnet "
                f"costs, found {self.limit:g}"
            )
        settings, draw = self.settings, self.space.draw_picks
        drawn = range(settings.population)
        population = [self._fitting(lambda: draw(self.generator)) for _ in drawn]
        for _ in range(settings.generations):
            population = self._next(population)
        best = max(self.seen.values(), key=lambda c: (c.fitness, -c.cost))
        return Found(best, _pareto(self.seen.values()), len(self.seen))

    def _next(self, population: list[Candidate]) -> list[Candidate]:
        """The next generation: the parents and their children."""
        settings = self.settings
        ranked = sorted(population, key=lambda c: (-c.fitness, c.cost))
        parents = ranked[: max(1, round(settings.parents * len(ranked)))]
        children = len(population) - len(parents)
        mutations = round(settings.mutated * children)
        found = [self._fitting(lambda: self._mutation(parents)) for _ in range(mutations)]
        crossings = range(children - mutations)
        found += [self._fitting(lambda: self._crossing(parents)) for _ in crossings]
        return [*parents, *found]

    def _mutation(self, parents: list[Candidate]) -> Picks:
        parent = self.generator.choice(parents).picks
        return self.space.mutated(parent, self.generator, probability=self.settings.probability)

    def _crossing(self, parents: list[Candidate]) -> Picks:
        one, other = (self.generator.choice(parents).picks for _ in range(2))
        return self.space.crossed(one, other, self.generator)

    def _fitting(self, draw: Callable[[], Picks]) -> Candidate:
        """A candidate within the limit."""
        drawn = (draw() for _ in range(_TRIES))
        picks = next((found for found in drawn if self._cost(found) <= self.limit), None)
        if picks is None:
            picks = self._made_to_fit(draw())
        if picks not in self.seen:
            level = self.space.level(picks)
            self.seen[picks] = Candidate(level, picks, self.fitness(level), self._cost(picks))
        return self.seen[picks]

    def _made_to_fit(self, picks: Picks) -> Picks:
        """A subnet with some sizes smaller: the fewest steps of a random way to the smallest."""
        steps = [place for place, pick in enumerate(picks) for _ in range(pick)]
        self.generator.shuffle(steps)

        def after(count: int) -> Picks:
            found = list(picks)
            for place in steps[:count]:
                found[place] -= 1
            return self.space.settled(found)

        above, within = 0, len(steps)
        while within - above > 1:
            middle = (above + within) // 2
            if self._cost(after(middle)) <= self.limit:
                within = middle
            else:
                above = middle
        return after(within)

    def _cost(self, picks: Picks) -> float:
        if picks not in self.costs:
            self.costs[picks] = self.cost(self.space.level(picks))
        return self.costs[picks]


def _pareto(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.cost, -c.fitness)):
        if not found or candidate.fitness > found[-1].fitness:
            found.append(candidate)
    return tuple(found)


def macs_of(nested: NestedModel) -> Measure:
    """How many multiply-accumulates a subnet takes for one input; the levels stay as they are."""
    return lambda level: count_macs(_program_of(nested, level))


def parameters_of(nested: NestedModel) -> Measure:
    """How many parameters a subnet has; the network's levels stay as they are."""
    return lambda level: count_parameters(_program_of(nested, level))


def _program_of(nested: NestedModel, level: Level) -> Program:
    nesting, elastic, name = nested.nesting, nested.elastic, "subnet to measure"
    choice = elastic.choose(level, name, nesting.axes, divisor=nested.card.divisor)
    return program_at(elastic.analysis, elastic, nesting.with_level(name, choice), name)


def recalibrated_accuracy(
    nested: NestedModel,
    level: Level,
    *,
    calibration: Batches,
    test: Batches,
    logits: Callable[[Any], torch.Tensor] = same,
) -> float:
    """The accuracy of a subnet with batch-norm statistics of its own; nothing of it stays.

    Args:
        nested: the network; its weights, levels and mode are as before afterwards.
        level: the subnet.
        calibration: what the statistics are gathered from, as `recalibrate` takes it.
        test: as `accuracy` takes it.
        logits: likewise.

    Returns:
        Percentage of predictions that are right.

    Raises:
        UsageError: the level is out of range, or the batches do not fit.
    """
    norms = set(batch_norm_tensors(nested.elastic.program, "statistics"))
    # The whole network has no statistics beside the shared ones.
    stored = {n: t.clone() for n, t in named(nested.shared).items() if n in norms}
    try:
        with temporary_level(nested, level, batch_norm="statistics") as name:
            if norms:
                recalibrate(nested, calibration, levels=[name])
            return accuracy(nested, test, name, logits=logits)
    finally:
        for key, tensor in named(nested.shared).items():
            if key in stored:
                tensor.copy_(stored[key])
