"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Networks this small take several times as long on two threads that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fakes import declare_plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on sys.path, where tests declare plug-ins."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def fake_runtime(site: Path) -> Path:
    """The folder on sys.path in which the runtime "fake" is declared."""
    declare_plugins(site, group="nestedge.runtimes", entries={"fake": "tests.fakes:FakeRuntime"})
    return site


@pytest.fixture
def provider_runtime(site: Path) -> Path:
    """The folder on sys.path in which the runtime "fake" is declared, one that takes providers."""
    declare_plugins(site, group="nestedge.runtimes", entries={"fake": "tests.fakes:ProviderFake"})
    return site
