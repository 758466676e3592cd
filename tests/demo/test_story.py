"""The demo from end to end, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import nestedge
from nestedge.cli import main
from nestedge.profiling.measure import load_measurements


def test_the_demo_trains_builds_verifies_measures_and_picks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo", "--size", "100KB"])
    assert result.exit_code == 0, result.output
    assert nestedge.load("digits.nest").levels == ("small", "medium", "full")
    assert len(load_measurements(tmp_path / "dist")) == 6 * 3
    lines = [line for line in result.stdout.splitlines() if "-fp32 " in line and "%" in line]
    assert len(lines) == 6
    (picked,) = [line for line in lines if "<- picked" in line]
    assert picked.startswith("small/")
    assert "epoch 10/10" in result.stdout
    for verb in (["verify", "dist"], ["run", "dist/small/onnx-fp32", "digit.npy"]):
        assert CliRunner().invoke(main, verb).exit_code == 0
