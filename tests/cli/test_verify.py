from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.matrix import Cell
from nestedge.verify import ENGINE_UNBUILT, load_verifications
from tests.fakes import DESCRIPTION, fake_artifact, fake_build
from tests.matrices import fake_matrix


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, args)])


def test_good_artifacts_are_listed(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path / "dist")
    result = _run(tmp_path / "dist")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    header = ["cell", "max", "error", "tolerance", "output", "cases", "runtime", "note"]
    assert lines[0].split() == header
    assert [line.split()[:2] for line in lines[1:]] == [
        ["full/fake-fp32", "ok"],
        ["small/fake-fp32", "ok"],
    ]
    assert all(line.endswith("  fake 1.0") for line in lines[1:])


def test_results_are_kept_even_of_what_failed(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, level="bad", model="constants.json"))
    assert _run(tmp_path).exit_code == 3
    assert [(found.cell, found.passed) for found in load_verifications(tmp_path)] == [
        ("bad/fake-fp32", False),
        ("full/fake-fp32", True),
        ("small/fake-fp32", True),
    ]


def test_what_a_verification_leaves_open_is_told(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    result = _run(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].endswith(f"fake 1.0  {ENGINE_UNBUILT}")


def test_cells_without_an_artifact_are_listed_and_are_no_failure(
    tmp_path: Path, fake_runtime: Path
) -> None:
    unbuilt = [
        Cell("small", "fake", "int8", state="skipped", reason="int8 needs calibration data: x"),
        Cell("full", "fake", "fp16", state="failed", reason="unsupported", log="logs/x.log"),
    ]
    fake_matrix(tmp_path, [fake_artifact(tmp_path)], devices=[], unbuilt=unbuilt)
    result = _run(tmp_path)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2] == ["full/fake-fp16", "failed", "-", "-", "-", "unsupported"]
    assert lines[3][:2] == ["small/fake-int8", "skipped"]
    assert result.stdout.endswith("int8 needs calibration data: x\n")
    document = json.loads(_run(tmp_path, "--json").stdout)
    assert [(cell["cell"], cell["state"]) for cell in document["unbuilt"]] == [
        ("full/fake-fp16", "failed"),
        ("small/fake-int8", "skipped"),
    ]


def test_another_runtime_may_be_asked_for(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="other", checked_by="other"))
    result = _run(tmp_path, "--runtime", "fake")
    assert result.exit_code == 0
    assert "other" not in result.stdout
    result = _run(tmp_path, "--runtime", "fakke")
    assert result.exit_code == 2
    assert "no runtime 'fakke'" in result.stderr


def test_an_artifact_that_is_not_its_level_exits_3_by_name(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_build(tmp_path / "dist")
    # A model that the runtime refuses has no error as a number.
    fake_artifact(tmp_path / "dist", replace(DESCRIPTION, level="bad", model="constants.json"))
    result = _run(tmp_path / "dist", "--json")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: 1 of 3 failed: bad/fake-fp32: ")
    assert result.stderr.count("\n") == 1
    found = {entry["cell"]: entry for entry in json.loads(result.stdout)["verifications"]}
    assert [entry["passed"] for entry in found.values()] == [False, True, True]
    assert found["bad/fake-fp32"]["max_error"] is None
    text = _run(tmp_path / "dist")
    assert text.exit_code == 3
    assert "bad/fake-fp32    FAILED" in text.stdout


def test_a_changed_file_exits_6_and_nothing_runs(tmp_path: Path, fake_runtime: Path) -> None:
    artifact = fake_build(tmp_path / "dist")[0]
    artifact.model_path.write_bytes(artifact.model_path.read_bytes() + b"\0")
    result = _run(tmp_path / "dist")
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.startswith("error: small/fake-fp32: model.fake: expected sha256 ")


def test_a_truncated_description_exits_2(tmp_path: Path) -> None:
    path = fake_build(tmp_path / "dist")[0].folder / "artifact.json"
    path.write_text(path.read_text()[:100])
    result = _run(tmp_path / "dist")
    assert result.exit_code == 2
    assert "artifact.json: not JSON: " in result.stderr


def test_a_folder_without_artifacts_exits_2(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert result.exit_code == 2
    assert "holds no artifact: make some with 'nestedge build'" in result.stderr
