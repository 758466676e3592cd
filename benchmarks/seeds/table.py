"""The results as Markdown: means and deviations over seeds, and what of the papers was seen."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.seeds.experiments import CRITERIA, EXPERIMENTS, Criterion, Place
from benchmarks.seeds.trial import Record

Key = tuple[str, str, int, float]
"""Experiment, variant, seed and learning rate."""

EXTRAS = (
    "sparsity",
    "macs",
    "parameters",
    "error",
    "loss",
    "pruned_loss",
    "bytes",
    "dense_bytes",
    "numbers",
    "empty_filters",
    "epochs",
)


@dataclass(frozen=True)
class Figures:
    """The records of a variant at its better learning rate.

    Attributes:
        rate: the learning rate.
        records: by seed.
    """

    rate: float
    records: Mapping[int, Record]

    def of(self, name: str) -> dict[int, float]:
        """An accuracy, or another number of the records, by seed."""
        return {
            seed: record["accuracies"].get(name, record.get(name))
            for seed, record in self.records.items()
        }


def figures(records: Mapping[Key, Record], experiment: str, variant: str) -> Figures | None:
    """The records of the learning rate whose mean accuracy is better; None without any."""
    rates: dict[float, dict[int, Record]] = {}
    for (name, of, seed, rate), record in records.items():
        if (name, of) == (experiment, variant):
            rates.setdefault(rate, {})[seed] = record
    if not rates:
        return None
    # Of those with the most seeds: a rate that was not finished is not compared.
    most = max(len(by_seed) for by_seed in rates.values())
    whole = {rate: by_seed for rate, by_seed in rates.items() if len(by_seed) == most}
    best = max(whole, key=lambda rate: statistics.fmean(map(_mean, whole[rate].values())))
    return Figures(best, whole[best])


def _mean(record: Record) -> float:
    return statistics.fmean(record["accuracies"].values())


def page(records: Mapping[Key, Record]) -> list[str]:
    """Lines of Markdown: a table for every experiment, and one of the criteria."""
    lines: list[str] = []
    for name, experiment in EXPERIMENTS.items():
        budget = experiment.budget
        lines += [
            f"### {experiment.title}",
            "",
            (
                f"{budget.images} images of {budget.pixels}x{budget.pixels}, {budget.epochs} "
                f"epochs, batch {budget.batch}, {budget.precision}; the better learning rate of "
                f"{_listed(budget.rates)}."
            ),
            "",
            "| trained | learning rate | seeds | accuracy (%) | beside it |",
            "|---|---:|---:|---|---|",
            *_rows(records, name, experiment.variants),
            "",
        ]
    lines += [
        "### What was seen",
        "",
        "| criterion | seen | verdict |",
        "|---|---:|---|",
    ]
    lines += [_verdict(records, criterion) for criterion in CRITERIA]
    return lines


def _rows(records: Mapping[Key, Record], name: str, variants: Iterable[str]) -> Iterator[str]:
    for variant in variants:
        found = figures(records, name, variant)
        if found is None:
            yield f"| {variant} | | 0 | not run | |"
            continue
        first = next(iter(found.records.values()))
        accuracies = ", ".join(f"{n} {_spread(found.of(n).values())}" for n in first["accuracies"])
        beside = ", ".join(
            f"{extra} {_number([r[extra] for r in found.records.values()])}"
            for extra in EXTRAS
            if extra in first
        )
        yield f"| {variant} | {found.rate:g} | {len(found.records)} | {accuracies} | {beside} |"


def _verdict(records: Mapping[Key, Record], criterion: Criterion) -> str:
    one = _at(records, criterion.one)
    other = _at(records, criterion.other) if criterion.other else dict.fromkeys(one, 0.0)
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return f"| {criterion.text} | | not run |"
    differences = [one[seed] - other[seed] for seed in seeds]
    mean, noise = statistics.fmean(differences), _deviation(differences)
    above = mean - criterion.margin
    if len(seeds) == 1 or abs(above) <= noise:
        said = "undecided"
    else:
        said = "seen" if (above > 0) == criterion.at_least else "**not seen**"
    sign = "+" if criterion.other else ""
    return f"| {criterion.text} | {mean:{sign}.3g} ± {noise:.2g} | {said} |"


def _at(records: Mapping[Key, Record], place: Place) -> dict[int, float]:
    found = figures(records, place.experiment, place.variant)
    return {} if found is None else found.of(place.name)


def _spread(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{statistics.fmean(listed):.2f} ± {_deviation(listed):.2f}"


def _number(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4g}"


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _listed(rates: Sequence[float]) -> str:
    return " and ".join(f"{rate:g}" for rate in rates)
