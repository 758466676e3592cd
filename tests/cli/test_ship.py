from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from tests.packaging.builds import CELLS, change, verified_build


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    verified_build(tmp_path / "dist")
    return tmp_path / "dist"


def _ship(dist: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["ship", str(dist), "--to", str(dist.parent / "repo"), *args])


def test_all_devices_are_shipped_where_none_is_named(dist: Path) -> None:
    result = _ship(dist)
    assert result.exit_code == 0, result.stderr
    header, board, phone, where = result.stdout.splitlines()
    assert header.split() == ["device", "cells", "size", "default", "folder"]
    assert [board.split()[0], board.split()[1], phone.split()[1]] == ["board", "2", "4"]
    assert where == f"in {dist.parent / 'repo'}"


def test_the_document_says_what_the_index_says(dist: Path) -> None:
    result = _ship(dist, "-d", "phone", "--default", CELLS[0], "--json")
    (shipment,) = json.loads(result.stdout)
    index = json.loads((dist.parent / "repo" / "index.json").read_text())
    assert index["devices"] == {
        "phone": {key: shipment[key] for key in ("folder", "sha256", "bytes")}
    }
    assert shipment["cells"] == list(CELLS)
    assert shipment["default"] == CELLS[0]


def test_only_the_chosen_cells_are_shipped(dist: Path) -> None:
    result = _ship(dist, "-d", "phone", "-l", "small", "-p", "int8", "-t", "fake", "--json")
    assert json.loads(result.stdout)[0]["cells"] == ["small/fake-int8"]


@pytest.mark.parametrize(
    ("damage", "exit_code", "message"),
    [
        ("model.fake", 6, "small/fake-int8: model.fake: expected sha256"),
        ("verifications.json", 3, "not verified: full/fake-fp32: never ran"),
        ("build.json", 2, "no build.json: make one with 'nestedge build'"),
    ],
)
def test_what_cannot_be_shipped_is_refused_with_its_exit_code(
    dist: Path, damage: str, exit_code: int, message: str
) -> None:
    if damage == "model.fake":
        change(dist / "small" / "fake-int8" / damage)
    else:
        (dist / damage).unlink()
    result = _ship(dist)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (dist.parent / "repo").exists()


def test_a_default_cell_that_a_device_has_not_is_refused(dist: Path) -> None:
    result = _ship(dist, "--default", "small/fake-fp32")
    assert result.exit_code == 2
    assert "device 'board': no cell 'small/fake-fp32' to run first; there are" in result.stderr
