from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.networks.conv import Conv4
from benchmarks.networks.counting import count_parameters
from benchmarks.seeds import command
from benchmarks.seeds.experiments import CRITERIA, EXPERIMENTS
from benchmarks.seeds.family import CONSENSUS, LEVELS
from benchmarks.seeds.table import Key, figures, page

FULL_ALONE = ("family", "full alone")


def _records(**accuracies: list[float]) -> dict[Key, dict[str, Any]]:
    """The full level nested and alone, a seed for each accuracy; all other levels alike."""
    names = (*LEVELS, *CONSENSUS)
    return {
        ("family", variant.replace("_", " "), seed, 0.05): {
            "accuracies": dict.fromkeys(names, accuracy)
        }
        for variant, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    }


def _verdict(records: dict[Key, dict[str, Any]]) -> str:
    text = "level full within 0.5 points of a network of its size alone"
    (row,) = [line for line in page(records) if text in line]
    return row.split("|")[3].strip()


@pytest.mark.parametrize(
    ("nested", "alone", "verdict"),
    [
        ([80.0, 81.0, 82.0], [80.0, 81.1, 81.9], "seen"),
        ([78.0, 79.0, 80.0], [80.0, 81.1, 81.9], "**not seen**"),
        ([80.0, 80.0, 82.5], [80.0, 81.5, 82.0], "undecided"),
        ([90.0], [80.0], "undecided"),
        ([90.0], [], "not run"),
    ],
    ids=["above", "below", "inside the noise", "one seed", "no baseline"],
)
def test_a_criterion_is_decided_by_the_noise_of_its_seeds(
    nested: list[float], alone: list[float], verdict: str
) -> None:
    assert _verdict(_records(nested=nested, full_alone=alone)) == verdict


def test_the_better_learning_rate_counts_among_those_with_all_seeds() -> None:
    records: dict[Key, dict[str, Any]] = {
        (*FULL_ALONE, 0, 0.05): {"accuracies": {"full": 70.0}},
        (*FULL_ALONE, 1, 0.05): {"accuracies": {"full": 72.0}},
        (*FULL_ALONE, 0, 0.2): {"accuracies": {"full": 75.0}},
        (*FULL_ALONE, 1, 0.2): {"accuracies": {"full": 75.0}},
        (*FULL_ALONE, 0, 0.1): {"accuracies": {"full": 99.0}},
    }
    found = figures(records, *FULL_ALONE)
    assert found is not None
    assert (found.rate, found.of("full")) == (0.2, {0: 75.0, 1: 75.0})
    assert figures(records, "family", "nested") is None


def test_every_criterion_is_about_a_variant_that_is_trained() -> None:
    for criterion in CRITERIA:
        for place in filter(None, (criterion.one, criterion.other)):
            assert place.variant in EXPERIMENTS[place.experiment].variants, place


def test_nothing_is_trained_twice_with_one_budget(tmp_path: Path) -> None:
    every = command.missing(list(EXPERIMENTS), 0, {})
    assert len(set(every)) == len(every)
    name, variant, seed, rate = every[0]
    path = tmp_path / "seeds.jsonl"
    record = {"experiment": name, "variant": variant, "seed": seed, "rate": rate}
    record["budget"] = command.plain_budget(EXPERIMENTS[name].budget)
    path.write_text(json.dumps(record) + '\n{"cut off')
    known = command.read_records(path)
    assert command.missing(list(EXPERIMENTS), 0, known) == every[1:]
    path.write_text(json.dumps(record | {"budget": {"epochs": 1}}))
    assert command.read_records(path) == {}, "another budget's"


def test_the_first_seed_decides_the_learning_rate_of_the_others() -> None:
    rates = EXPERIMENTS["asni"].budget.rates
    known = {
        ("asni", "dense", 0, rate): {"accuracies": {"full": 70 + rate}} for rate in sorted(rates)
    }
    left = [key for key in command.missing(["asni"], 1, known) if key[1] == "dense"]
    assert left == [("asni", "dense", 1, max(rates))]


def test_a_share_of_the_macs_is_held_against_its_limit() -> None:
    variant = next(iter(EXPERIMENTS["selection"].variants))
    text = f"{variant}: at most 70 % of the MACs are left"
    for macs, verdict in ((0.5, "seen"), (0.8, "**not seen**")):
        records: dict[Key, dict[str, Any]] = {
            ("selection", variant, seed, 0.1): {
                "accuracies": {"full": 70.0},
                "macs": macs + seed / 100,
                "error": 0.0,
            }
            for seed in range(3)
        }
        (row,) = [line for line in page(records) if text in line]
        assert row.split("|")[2:4] == [f" {macs + 0.01:.3g} ± 0.01 ", f" {verdict} "]


def test_the_pages_are_those_of_the_results() -> None:
    lines = page(command.read_records(command.RESULTS))
    root = Path(__file__).parents[2]
    assert (root / "docs" / "comparisons.md").read_text() == "\n".join(lines) + "\n"
    seen = lines[lines.index("| criterion | seen | verdict |") :]
    assert "\n".join(seen) in (root / "README.md").read_text()


def test_without_data_the_command_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NESTEDGE_DATA", raising=False)
    assert command.main(["--results", str(tmp_path / "seeds.jsonl")]) == 2
    assert "expected the images, found neither" in capsys.readouterr().err


def test_conv_4_has_the_parameters_of_the_paper() -> None:
    model = Conv4()
    # Frankle & Carbin, figure 2: 2.4 million.
    assert count_parameters(model) == 2_425_930
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert Conv4(pixels=16)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
