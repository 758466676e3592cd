from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.packaging.shipping import ship
from tests.packaging.builds import CELLS, change, verified_build


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    verified_build(tmp_path / "dist")
    ship(tmp_path / "dist", tmp_path / "repo", devices=["phone"])
    return tmp_path / "repo"


def _fetch(repo: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["fetch", str(repo), "-o", str(repo.parent / "net"), *args])


def test_what_was_fetched_is_listed_and_runs(repo: Path, fake_runtime: Path) -> None:
    result = _fetch(repo, "-d", "phone")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["cell", *CELLS]
    net = repo.parent / "net"
    assert lines[-1] == f"for phone in {net}; default: full/fake-int8"
    np.save(repo.parent / "x.npy", np.zeros((2, 2), np.uint8))
    assert CliRunner().invoke(main, ["run", str(net), str(repo.parent / "x.npy")]).exit_code == 0


def test_the_document_has_the_chosen_cells(repo: Path) -> None:
    args = ("-d", "phone", "-l", "small", "-p", "fp32", "-t", "fake", "--json")
    document = json.loads(_fetch(repo, *args).stdout)
    assert list(document["cells"]) == ["small/fake-fp32"]
    assert document["default"] == "small/fake-fp32"
    assert document["device"] == "phone"


def test_a_changed_file_exits_6_and_leaves_nothing(repo: Path) -> None:
    (path,) = repo.glob("*/full/fake-fp32/model.fake")
    change(path)
    result = _fetch(repo, "-d", "phone")
    assert result.exit_code == 6
    assert "error: full/fake-fp32: model.fake: expected sha256" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (repo.parent / "net").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-d", "fone"), "nothing for device 'fone'; the repository has ['phone']; did you mean"),
        (("-d", "phone", "-l", "smal"), "no level 'smal'"),
    ],
)
def test_what_is_not_there_exits_2(repo: Path, args: tuple[str, ...], message: str) -> None:
    result = _fetch(repo, *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_device_is_this_machine_where_none_is_named(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestedge.packaging.fetching.matching_profile", lambda: "phone")
    assert json.loads(_fetch(repo, "--json").stdout)["device"] == "phone"
