"""A build and a repository for each test, copied from ones that are made once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nestedge.packaging.shipping import ship
from tests.packaging.builds import verified_build


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power in a test: to wait for the disk takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dist/ and repo/, for tests to copy: to write them waits for the disk."""
    folder = tmp_path_factory.mktemp("made")
    verified_build(folder / "dist")
    ship(folder / "dist", folder / "repo", devices=["phone", "board"])
    return folder


@pytest.fixture
def dist(tmp_path: Path, made: Path) -> Path:
    """A build of four cells, verified, for a phone and a board."""
    return shutil.copytree(made / "dist", tmp_path / "dist")


@pytest.fixture
def repo(tmp_path: Path, made: Path) -> Path:
    """The repository with both shipments of that build."""
    return shutil.copytree(made / "repo", tmp_path / "repo")
