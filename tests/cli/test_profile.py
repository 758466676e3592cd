from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.profiling.measure import load_measurements
from tests.fakes import DESCRIPTION, fake_artifact, fake_build
from tests.nestedge_onnx.graphs import linear_artifact


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, args)])


def test_measurements_are_printed_and_kept(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--rounds", 3)
    assert result.exit_code == 0
    assert "full/fake-fp32   latency_ms" in result.stdout
    assert f"threads: 1; kept in {tmp_path / 'measurements.json'}" in result.stdout
    assert len(load_measurements(tmp_path)) == 4


def test_json_is_what_is_kept(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    data = tmp_path / "test.npz"
    images = np.zeros((5, 2, 2, 1), np.uint8)
    np.savez(data, inputs=images, labels=np.zeros(5, np.int64))
    result = _run(tmp_path, "--rounds", 3, "--data", data, "--json")
    assert result.exit_code == 0
    kept = json.loads((tmp_path / "measurements.json").read_text())["measurements"]
    assert json.loads(result.stdout) == kept
    quantities = ["accuracy_percent", "latency_ms", "load_ms"]
    assert [entry["quantity"] for entry in kept] == quantities * 2


@pytest.mark.parametrize("arrays", [{}, {"inputs": np.zeros(1)}, {"x": np.zeros(1)}])
def test_a_data_set_without_labels_is_refused(
    tmp_path: Path,
    fake_runtime: Path,
    arrays: dict[str, npt.NDArray[np.float64]],
) -> None:
    fake_build(tmp_path)
    np.savez(tmp_path / "test.npz", **arrays)
    result = _run(tmp_path, "--rounds", 1, "--data", tmp_path / "test.npz")
    assert result.exit_code == 2
    assert "expected the arrays 'inputs' and 'labels', found" in result.stderr


def test_an_engine_that_only_a_device_can_build_is_named_and_not_timed(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    result = _run(tmp_path, "--rounds", 1)
    assert result.exit_code == 2
    assert "every artifact needs an engine that only its device can build" in result.stderr
    fake_artifact(tmp_path)
    result = _run(tmp_path, "--rounds", 1)
    assert result.exit_code == 0
    assert "small/engine-fp32: no latency: its engine can only be built on" in result.stdout
    assert {found.cell for found in load_measurements(tmp_path)} == {"small/fake-fp32"}


def test_a_test_set_that_does_not_fit_is_told_with_its_file_before_anything_is_timed(
    tmp_path: Path, fake_runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_build(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("latencies were measured")

    monkeypatch.setattr("nestedge.cli.profile.profile_folder", refuse)
    np.savez(tmp_path / "test.npz", inputs=np.array(3), labels=np.array([0]))
    result = _run(tmp_path, "--rounds", 1, "--data", tmp_path / "test.npz")
    assert result.exit_code == 2
    assert "test.npz: expected inputs of shape (cases, ...) and labels of shape" in result.stderr


def test_a_provider_is_told_and_kept(tmp_path: Path, fake_runtime: Path) -> None:
    linear_artifact(tmp_path)
    fake_artifact(tmp_path)
    result = _run(tmp_path, "--rounds", 1, "--provider", "cpu")
    assert result.exit_code == 2
    assert "runtime 'fake' takes no provider, and 'cpu' was asked for" in result.stderr
    result = _run(tmp_path, "--rounds", 1, "--provider", "cpu", "--runtime", "onnx")
    assert result.exit_code == 0, result.stderr
    said = f"onnxruntime {onnxruntime.__version__} (CPUExecutionProvider)"
    assert said in result.stdout
    assert {(m.cell, m.runtime_version) for m in load_measurements(tmp_path)} == {
        ("small/onnx-fp32", said)
    }
    assert json.loads((tmp_path / "measurements.json").read_bytes())["format"] == 1
