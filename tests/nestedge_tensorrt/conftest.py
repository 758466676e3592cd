"""A device of scripts, and an artifact to build an engine of."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestedge.artifact import Artifact
from tests.nestedge_tensorrt.devices import FakeDevice, make_cell, make_device


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A device with TensorRT 10.3."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return make_device(folder, monkeypatch)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A cell of fp32."""
    return make_cell(tmp_path / "cell")
