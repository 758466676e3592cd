from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.profiling.measure import save_measurements
from tests.fakes import fake_build, measurement


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["pick", *map(str, args)])


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    small, full = fake_build(tmp_path / "dist")
    measurements = [
        measurement(small, "latency_ms", 2.0, width=0.1),
        measurement(full, "latency_ms", 9.0, width=0.1),
        measurement(small, "accuracy_percent", 90.0, width=1.0),
        measurement(full, "accuracy_percent", 95.0, width=1.0),
    ]
    save_measurements(tmp_path / "dist", measurements)
    return tmp_path / "dist"


def test_the_choice_and_every_reason_are_printed(dist: Path) -> None:
    result = _run(dist, "--latency", "8ms")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].endswith("latency 9 ms is 12.5 % over")
    assert "chosen: 1 of 2 fit" in lines[2]
    assert lines[-2] == "measured on a test"
    assert lines[-1] == f"for latency 8 ms: {dist / 'small' / 'fake-fp32'}"


def test_json_has_the_choice_and_the_reasons(dist: Path) -> None:
    result = _run(dist, "--latency", "10ms", "--min-accuracy", "94", "--json")
    document = json.loads(result.stdout)
    assert document["chosen"] == "full/fake-fp32"
    assert document["reasons"]["small/fake-fp32"] == "accuracy 90.00 % is 4.00 points short"


def test_no_fitting_level_exits_5_and_names_the_nearest(dist: Path) -> None:
    result = _run(dist, "--latency", "1ms", "--json")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert result.stderr == (
        "error: none of 2 fits latency 1 ms; "
        "the nearest is small/fake-fp32: latency 2 ms is 100 % over\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: empty budget: give a latency, a size or a least accuracy"),
        (["--latency", "8"], "error: duration '8': expected a number and a unit of us, ms, s"),
        (["--size", "8XB"], "error: size '8XB': expected a number and a unit of B, "),
    ],
)
def test_an_impossible_budget_exits_2(dist: Path, options: list[str], message: str) -> None:
    result = _run(dist, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_what_was_never_measured_says_so(tmp_path: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--size", "1MB")
    assert result.exit_code == 0
    assert result.stdout.count("unmeasured  unmeasured") == 2
    assert "so the most parameters: 30" in result.stdout
