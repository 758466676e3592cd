"""A complete build folder, and the page about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.builds import complete_folder, page
from tests.report.markup import Element


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a machine that no device profile knows."""
    return tmp_path / "root"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build folder that no test changes."""
    folder = tmp_path_factory.mktemp("original")
    complete_folder(folder / "dist", folder / "root")
    return folder / "dist"


@pytest.fixture
def dist(tmp_path: Path, original: Path) -> Path:
    """A complete build folder that a test may change."""
    shutil.copytree(original, tmp_path / "dist")
    return tmp_path / "dist"


@pytest.fixture(scope="module")
def document(original: Path) -> Element:
    """The page about a complete build folder."""
    return page(original, original.parent / "root")
