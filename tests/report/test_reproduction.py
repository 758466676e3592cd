from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import DropRecord
from nestedge.cli import main
from nestedge.matrix import Matrix, read_matrix, write_matrix
from nestedge.profiling.measurement import save_measurements
from nestedge.report.records import read_records
from nestedge.report.reproduction import reproduction
from nestedge.selection import Budget
from tests.fakes import DESCRIPTION, fake_artifact, fake_build, measurement
from tests.matrices import device, fake_matrix


def _commands(dist: Path, *, budget: Budget | None = None) -> tuple[str, ...]:
    return reproduction(read_records(dist, root=dist), budget=budget).commands


def _build(dist: Path) -> str:
    (line,) = [line for line in _commands(dist) if line.startswith("nestedge build ")]
    return line


def _rewrite(dist: Path, **changes: object) -> None:
    matrix: Matrix = read_matrix(dist)
    write_matrix(dist, replace(matrix, **changes))  # type: ignore[arg-type]


def test_every_command_is_one_that_the_command_line_takes(original: Path) -> None:
    lines = _commands(original, budget=Budget(8.5, 40_000, 30_000, 90.0))
    ours = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nestedge ")]
    assert [words[0] for words in ours] == ["build", "verify", "profile", "report"]
    for verb, *words in ours:
        command = main.get_command(main.make_context("nestedge", ["--version"]), verb)
        assert command is not None
        assert command.make_context(verb, words).params


def test_packages_are_pinned_without_the_label_of_a_build(original: Path) -> None:
    assert _commands(original)[:2] == (
        "pip install 'nestedge[convert,report]==0.1.0' onnx==1.22.0 torch==2.13.0",
        f"sha256sum digits.nest  # {'d1' * 32}",
    )


def test_the_build_names_every_device(original: Path) -> None:
    assert _build(original).startswith(
        "nestedge build digits.nest -d jetson-orin-nano-8gb -d local -d pixel-8 "
    )


def test_a_partial_build_names_what_it_was_asked_for(tmp_path: Path) -> None:
    artifacts = fake_build(tmp_path)
    targets = {"fake": ["fp32", "int8"], "other": ["fp32"]}
    fake_matrix(tmp_path, artifacts[:1], devices=[device("local", targets)])
    source = replace(read_matrix(tmp_path).source, levels={"small": "0" * 64, "full": "0" * 64})
    _rewrite(tmp_path, source=source)
    options = "-d local -t fake -l small -p fp32 -o dist/"
    assert _build(tmp_path) == f"nestedge build net.nest {options}"


def test_calibration_data_from_a_folder_is_asked_for_again(dist: Path) -> None:
    matrix = read_matrix(dist)
    assert "--calibration CALIBRATION_FOLDER" in _build(dist)
    _rewrite(dist, source=replace(matrix.source, calibration=matrix.calibration))
    assert "--calibration" not in _build(dist)


def test_a_name_with_spaces_is_quoted(dist: Path) -> None:
    _rewrite(dist, source=replace(read_matrix(dist).source, model="my net; rm.nest"))
    assert _build(dist).startswith("nestedge build 'my net; rm.nest' ")


@pytest.mark.parametrize(
    ("quantities", "line"),
    [
        ([], []),
        (["latency_ms"], ["nestedge profile dist/ --threads 1"]),
        (["accuracy_percent"], ["nestedge profile dist/ --threads 1 --data TEST_SET.npz"]),
    ],
    ids=["nothing", "latency", "accuracy"],
)
def test_measuring_is_repeated_as_far_as_it_was_done(
    tmp_path: Path, quantities: Sequence[str], line: list[str]
) -> None:
    artifacts = fake_build(tmp_path)
    fake_matrix(tmp_path, artifacts, devices=[device("local", {"fake": ["fp32"]})])
    save_measurements(
        tmp_path, [measurement(artifacts[0], name, 50.0, width=1.0) for name in quantities]
    )
    assert [found for found in _commands(tmp_path) if "profile" in found] == line


def test_the_budget_is_given_again(original: Path) -> None:
    assert _commands(original)[-1] == "nestedge report dist/ -o report.html"
    budget = Budget(8.5, 40_000, 30_000, 90.0)
    assert _commands(original, budget=budget)[-1] == (
        "nestedge report dist/ --latency 8.5ms --size 40000B --memory 30000B "
        "--min-accuracy 90 -o report.html"
    )


def test_a_limit_of_what_8_bits_cost_is_given_again(tmp_path: Path) -> None:
    drop = DropRecord(
        allowed=0.5, before=2.0, after=0.0, exact_percent=90.0, data_sha256="da" * 32, samples=9
    )
    fallen = replace(DESCRIPTION, half_layers=("stem",), drop=drop)
    artifacts = [fake_artifact(tmp_path, fallen)]
    fake_matrix(tmp_path, artifacts, devices=[device("local", {"fake": ["fp32"]})])
    assert "--max-drop 0.5 --data TEST_SET.npz" in _build(tmp_path)
    fake_artifact(tmp_path)
    assert "--max-drop" not in _build(tmp_path)
