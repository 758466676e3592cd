from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.profiling.measurement import describe_device, save_measurements
from nestedge.verify import load_verifications, save_verifications, verify_artifact
from tests.fakes import FakeRuntime, fake_build, measurement
from tests.matrices import device, fake_matrix


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
    here = [replace(found, device=describe_device()) for found in measurements]
    save_measurements(tmp_path / "dist", here)
    artifacts = (small, full)
    save_verifications(
        tmp_path / "dist", [verify_artifact(found, FakeRuntime()) for found in artifacts]
    )
    devices = [device(name, {"fake": ["fp32"]}) for name in ("local", "pixel-8")]
    fake_matrix(tmp_path / "dist", artifacts, devices=devices)
    return tmp_path / "dist"


def test_the_choice_and_every_reason_are_printed(dist: Path) -> None:
    result = _run(dist, "--latency", "8ms")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].endswith("latency 9 ms is 12.5 % over")
    assert "chosen: 1 of 2 fit" in lines[2]
    assert lines[-2] == f"latencies measured on {describe_device()}"
    assert lines[-1] == f"for local and a budget of latency 8 ms: {dist / 'small' / 'fake-fp32'}"


def test_on_another_device_latencies_are_unmeasured_and_that_is_said(dist: Path) -> None:
    result = _run(dist, "-d", "pixel-8", "--latency", "1ms", "--memory", "92B", "--size", "1MB")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["cell", "p50", "ms", "accuracy", "%", "size", "memory", "reason"]
    assert lines[1].split()[:3] == ["full/fake-fp32", "unmeasured", "95"]
    assert lines[1].split()[5:7] == ["92", "B"]
    assert lines[3].startswith("note: latency limit of 1 ms not applied: unmeasured on pixel-8; ")
    budget = "latency 1 ms and size 1 MB and memory 92 B"
    assert lines[-1] == f"for pixel-8 and a budget of {budget}: {dist / 'full' / 'fake-fp32'}"


def test_a_device_that_was_not_built_for_exits_2(dist: Path) -> None:
    result = _run(dist, "-d", "pixel-9", "--size", "1MB")
    assert result.exit_code == 2
    assert "not built for device 'pixel-9'" in result.stderr
    assert "did you mean 'pixel-8'?" in result.stderr


def test_json_has_the_choice_and_the_reasons(dist: Path) -> None:
    result = _run(dist, "--latency", "10ms", "--min-accuracy", "94", "--json")
    document = json.loads(result.stdout)
    assert document["chosen"] == "full/fake-fp32"
    assert (document["device"], document["notes"]) == ("local", [])
    assert document["folder"] == str(dist / "full" / "fake-fp32")
    full, small = document["candidates"]
    assert (full["cell"], full["latency_ms"], full["peak_memory_bytes"]) == (
        "full/fake-fp32",
        9.0,
        92,
    )
    assert small["reason"] == "accuracy 90.00 % is 4.00 points short"
    document = json.loads(_run(dist, "-d", "pixel-8", "--latency", "1ms", "--json").stdout)
    assert document["candidates"][0]["latency_ms"] is None
    assert "not applied: unmeasured on pixel-8" in document["notes"][0]


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
        ([], "error: empty budget: give a latency, a size, a memory or a least accuracy"),
        (["--latency", "8"], "error: duration '8': expected a number and a unit of us, ms, s"),
        (["--size", "8XB"], "error: size '8XB': expected a number and a unit of B, "),
    ],
)
def test_an_impossible_budget_exits_2(dist: Path, options: list[str], message: str) -> None:
    result = _run(dist, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_what_was_never_measured_says_so(tmp_path: Path) -> None:
    artifacts = fake_build(tmp_path)
    save_verifications(tmp_path, [verify_artifact(found, FakeRuntime()) for found in artifacts])
    result = _run(tmp_path, "--size", "1MB")
    assert result.exit_code == 0
    assert result.stdout.count("unmeasured  unmeasured") == 2
    assert "so the most parameters: 30" in result.stdout


def test_what_was_never_verified_exits_2_with_what_to_do(tmp_path: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--size", "1MB")
    assert result.exit_code == 2
    assert "not verified: run 'nestedge verify'" in result.stderr


def test_what_failed_its_verification_exits_3(dist: Path, fake_runtime: Path) -> None:
    found = [
        replace(result, max_error=1.0, passed=False, reason="error 1 is above 1e-05")
        for result in load_verifications(dist)
    ]
    save_verifications(dist, found)
    result = _run(dist, "--size", "1MB")
    assert result.exit_code == 3
    assert "failed its verification in fake 1.0: error 1 is above 1e-05" in result.stderr
