from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.graphs import command, disabling
from benchmarks.graphs.descriptions import describe
from benchmarks.graphs.mixing import MIXING
from benchmarks.graphs.networks import build, images
from benchmarks.graphs.presence import ABSENT, FREE, GENERAL, PRESENT, Value, least
from benchmarks.graphs.summary import TRAINING_ONLY, covering, summary
from nestedge.axes.rules import RULES
from nestedge.program.capture import capture

# fmt: off
COVERING = (
    49, 55, 59, 95, 98, 223, 226, 275, 318, 351, 368, 372, 467, 493, 620, 1127, 1242, 1588,
    1882,
)
# fmt: on
"""Seeds whose networks have every operator with a rule: `summary.covering` of a run."""


def test_random_networks_have_every_operator_that_has_a_rule() -> None:
    found = {TRAINING_ONLY}
    for seed in COVERING:
        description = describe(seed)
        captured = capture(build(description), (images(description),))
        found |= {node.op for node in captured.program.nodes}
    assert RULES.keys() - found == set()


def test_the_oracle_knows_every_operator_that_has_a_rule() -> None:
    assert RULES.keys() - GENERAL.keys() - MIXING.keys() == {TRAINING_ONLY}


def test_of_what_meets_the_least_present_counts_and_one_channel_decides_nothing() -> None:
    free, present = torch.full((2, 3, 4), FREE), torch.full((2, 3, 4), PRESENT)
    absent = torch.full((3, 1), ABSENT)
    assert torch.equal(least(free, present), present)
    assert torch.equal(least(free, present[:, :1]), free)
    assert torch.equal(least(present, absent), torch.full((2, 3, 4), ABSENT))


def test_an_absent_entry_may_be_anything() -> None:
    value = Value(torch.tensor([1.0, float("nan")]), torch.tensor([PRESENT, ABSENT]))
    assert value.neutral(0.0).tolist() == [1.0, 0.0]


def test_a_seed_is_one_network_whenever_it_is_run() -> None:
    first, second = (command.record_of(3) for _ in range(2))
    assert "levels" in first
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_broken_record_is_run_again_and_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "graphs.jsonl"
    path.write_text('{"seed": 1, "failed": "once"}\n{"seed": 1}\n{"seed": 2, "fai')
    assert command.read_records(path) == {1: {"seed": 1}}


def test_a_run_is_resumed_and_its_summary_names_what_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "graphs.jsonl"
    record = command.record_of(3)
    path.write_text(
        f'{json.dumps(record)}\n{{"seed": 4, "failed": "level0: the twin: error 1.0e+00"}}\n'
    )
    assert command.main(["--graphs", "2", "--seed", "3", "--results", str(path)]) == 1
    found = capsys.readouterr().out
    assert "2 networks: 1 checked, 1 failed, 0 rejected" in found
    assert "FAILED 4: level0: the twin: error 1.0e+00" in found
    assert f"| the level, against absent entries | {len(record['levels'])} |" in found


def test_a_rule_hit_too_rarely_is_named_and_seeds_that_hit_all_are_found() -> None:
    record = command.record_of(3)
    lines, is_clean = summary([record])
    assert not is_clean
    assert any("hit in fewer than 50: {'aten._to_copy.default'" in line for line in lines)
    other = {**record, "seed": 5, "ops": [*record["ops"], "aten.other.default"]}
    assert covering([record, other]) == (5,)


@pytest.mark.parametrize("op", ["aten.add.Tensor", "aten.cat.default"])
def test_a_broken_rule_is_noticed(op: str) -> None:
    record = command.record_of(3)
    assert op in record["ops"]
    found = disabling.rule_noticed(op, [record])
    assert (found.how, found.seed) == ("fresh", 3)
    assert disabling.is_refused(op, 3)


def test_sizes_that_are_not_rewritten_are_noticed() -> None:
    record = command.record_of(3)
    found = disabling.rewrite_noticed("aten.reshape.default", [record])
    assert found.seed == 3
