from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from nestedge.cli import main
from tests.fakes import DESCRIPTION, fake_artifact, fake_build


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, args)])


def test_good_artifacts_are_listed(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path / "dist")
    result = _run(tmp_path / "dist")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["cell", "max", "error", "tolerance", "output", "cases", "runtime"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["full/fake-fp32", "ok"],
        ["small/fake-fp32", "ok"],
    ]


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
    found = {entry["cell"]: entry for entry in json.loads(result.stdout)}
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
