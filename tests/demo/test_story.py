"""The demo from end to end, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import nestedge
from nestedge.cli import main
from nestedge.demo.story import DEVICES
from nestedge.matrix import read_matrix
from nestedge.profiling.measure import load_measurements
from nestedge.verify import load_verifications

LEVELS = ("small", "medium", "full")
CELLS = [
    f"{level}/{runtime}-{precision}"
    for level in LEVELS
    for runtime in ("onnx", "tensorrt", "tflite")
    for precision in ("fp16", "fp32", "int8")
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the demo has run, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, ["demo", "--size", "100KB"])
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def test_the_demo_trains_three_levels_and_builds_all_cells_of_four_devices(
    demo: tuple[Path, str],
) -> None:
    folder, said = demo
    assert "epoch 10/10" in said
    assert nestedge.load(folder / "digits.nest").levels == LEVELS
    matrix = read_matrix(folder / "dist")
    assert sorted(matrix.devices) == sorted(DEVICES)
    assert sorted(matrix.cells) == sorted(CELLS)
    assert {cell.state for cell in matrix.cells.values()} == {"built"}


def test_every_cell_is_its_level_and_int8_loses_less_than_a_point(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    results = {result.cell: result for result in load_verifications(folder / "dist")}
    assert sorted(results) == sorted(CELLS)
    assert all(result.passed for result in results.values())
    accuracies = {
        found.cell: found.value
        for found in load_measurements(folder / "dist")
        if found.quantity == "accuracy_percent"
    }
    for level in LEVELS:
        for runtime in ("onnx", "tensorrt", "tflite"):
            full = accuracies[f"{level}/{runtime}-fp32"]
            assert accuracies[f"{level}/{runtime}-fp16"] == pytest.approx(full, abs=0.5)
            assert accuracies[f"{level}/{runtime}-int8"] > full - 1


def test_only_what_runs_here_has_a_latency(demo: tuple[Path, str]) -> None:
    folder, said = demo
    timed = {f.cell for f in load_measurements(folder / "dist") if f.quantity == "latency_ms"}
    assert timed == {cell for cell in CELLS if "tensorrt" not in cell}
    (line,) = [line for line in said.splitlines() if line.startswith("full/tensorrt-fp16")]
    assert "unmeasured" in line
    assert "its ONNX" in line


def test_something_is_picked_for_every_device_that_it_runs(demo: tuple[Path, str]) -> None:
    folder, said = demo
    picked = dict(
        line.split()[:2]
        for line in said.splitlines()
        if line.split()[:1] and line.split()[0] in DEVICES
    )
    assert sorted(picked) == sorted(DEVICES)
    matrix = read_matrix(folder / "dist")
    for device, cell in picked.items():
        assert cell in [found.name for found in matrix.of_device(device)]


def test_what_was_shipped_runs_and_every_level_sees_the_same_digit(demo: tuple[Path, str]) -> None:
    folder, said = demo
    (line,) = [line for line in said.splitlines() if line.startswith("digit.png, run by")]
    assert [line.count(f"{level}/") for level in LEVELS] == [1, 1, 1]
    runtime = nestedge.NestedRuntime(folder / "device")
    assert runtime.levels == LEVELS
    assert len({answer.split(": ")[-1] for answer in line.split(", ")[2:]}) == 1
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_next_steps_that_it_names_work(
    demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = demo
    monkeypatch.chdir(folder)
    for verb in (
        ["verify", "dist"],
        ["run", "device", "digit.png"],
        ["run", "dist/small/onnx-fp32", "digit.png"],
        ["pick", "dist", "-d", "pixel-8", "--size", "100KB"],
        ["fetch", "repo", "--device", "pixel-8", "-o", "pixel", "-p", "int8"],
        ["inspect", "digits.nest"],
    ):
        result = CliRunner().invoke(main, verb)
        assert result.exit_code == 0, result.output
