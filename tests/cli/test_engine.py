from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from nestedge.engines import EngineModel, EngineReport, EngineRequest
from nestedge.errors import VerificationError
from tests.fakes import declare_plugins, fake_artifact

ENTRY = "tests.cli.test_engine:FakeEngines"


class FakeEngines:
    """An engine plug-in that writes down what it was asked for."""

    asked: list[object] = []  # noqa: RUF012 - the plug-in is made anew for each verb

    def build(self, folder: Path, request: EngineRequest) -> EngineReport:
        """What it says of an engine that nobody ran."""
        self.asked.append(request)
        return _report(folder, "built, unverified")

    def model(self, folder: Path, request: EngineRequest, *, version: str) -> EngineModel:
        """What it would send."""
        self.asked.append((request, version))
        return EngineModel(b"onnx", "in a form", "build it")

    def verify(self, folder: Path, *, on: str | None) -> EngineReport:
        """What it says of an engine that ran well, and elsewhere badly."""
        self.asked.append(on)
        if on == "ssh://bad":
            raise VerificationError("the engine is not its level")
        return _report(folder, "verified", error=2e-6)

    def engines(self, folder: Path) -> list[EngineReport]:
        """None yet."""
        return []


def _report(folder: Path, state: str, error: float | None = None) -> EngineReport:
    return EngineReport(
        folder=folder / "engines" / "0123",
        state=state,
        fingerprint={"device": "NVIDIA Jetson", "jetpack": ""},
        build_seconds=12.5,
        max_error=error,
    )


@pytest.fixture
def cell(tmp_path: Path, site: Path) -> Path:
    """The folder of an artifact for which there is an engine plug-in."""
    declare_plugins(site, group="nestedge.engines", entries={"fake": ENTRY})
    FakeEngines.asked.clear()
    return fake_artifact(tmp_path / "dist").folder


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["engine", *map(str, args)])


def test_an_engine_is_built_as_asked(cell: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    options = ("--by", "python", "--strongly-typed", "--dla", 1, "--version-compatible")
    more = ("--strip-weights", "--workspace", 64, "--timing-cache", cache, "--on", "ssh://me@x")
    result = _run("build", cell, *options, *more, "--batch", "1:4:8")
    assert result.exit_code == 0, result.stderr
    asked = [
        EngineRequest(
            on="ssh://me@x",
            by="python",
            strongly_typed=True,
            dla_core=1,
            version_compatible=True,
            strip_weights=True,
            workspace_mib=64,
            timing_cache=cache,
            batches=(1, 4, 8),
        )
    ]
    assert _declared().asked == asked


def _declared() -> type[FakeEngines]:
    """The class that the entry point loads, which may be another copy of this module's."""
    found = import_module("tests.cli.test_engine").FakeEngines
    assert isinstance(found, type)
    return found


def test_without_options_nothing_is_asked_for(cell: Path) -> None:
    _declared().asked.clear()
    assert _run("build", cell).exit_code == 0
    assert _declared().asked == [
        EngineRequest(
            on=None,
            by="trtexec",
            strongly_typed=False,
            dla_core=None,
            version_compatible=False,
            strip_weights=False,
            workspace_mib=None,
            timing_cache=None,
        )
    ]


def test_what_is_known_of_an_engine_is_printed(cell: Path) -> None:
    lines = [" ".join(line.split()) for line in _run("build", cell).stdout.splitlines()]
    assert lines[0] == f"{cell / 'engines' / '0123'}: built, unverified"
    assert {"device NVIDIA Jetson", "jetpack -", "build_s 12.5", "max_error -"} <= set(lines)


def test_the_document_is_one_line(cell: Path) -> None:
    result = _run("verify", cell, "--json")
    (report,) = json.loads(result.stdout)
    assert report["state"] == "verified"
    assert report["max_error"] == 2e-6
    assert report["folder"] == str(cell / "engines" / "0123")


def test_an_engine_that_is_not_its_level_ends_with_3(cell: Path) -> None:
    result = _run("verify", cell, "--on", "ssh://bad")
    assert result.exit_code == 3
    assert result.stderr == "error: the engine is not its level\n"


def test_no_engine_is_said(cell: Path) -> None:
    assert _run("list", cell).stdout == "no engine was built\n"
    assert json.loads(_run("list", cell, "--json").stdout) == []


def test_a_runtime_that_needs_no_engine_is_refused(tmp_path: Path) -> None:
    result = _run("build", fake_artifact(tmp_path).folder)
    assert result.exit_code == 2
    assert "no engine builder 'fake'" in result.stderr


def test_an_unknown_tool_is_refused(cell: Path) -> None:
    result = _run("build", cell, "--by", "polygraphy")
    assert result.exit_code == 2
    assert "'polygraphy' is not one of" in result.stderr


@pytest.mark.parametrize("sizes", ["4", "1:4", "1:x:8", "1:4:8:16"])
def test_batches_are_three_numbers(cell: Path, sizes: str) -> None:
    result = _run("build", cell, "--batch", sizes)
    assert result.exit_code == 2
    assert f"--batch: expected MIN:OPT:MAX, as in 1:4:8, found '{sizes}'" in result.stderr


def test_a_model_is_written_as_asked(cell: Path, tmp_path: Path) -> None:
    _declared().asked.clear()
    options = ("--tensorrt", "11.0", "--strongly-typed", "--batch", "1:2:4")
    result = _run("model", cell, "-o", tmp_path / "m.onnx", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'm.onnx'}: in a form\nbuild it\n"
    assert (tmp_path / "m.onnx").read_bytes() == b"onnx"
    request = EngineRequest(strongly_typed=True, batches=(1, 2, 4))
    assert _declared().asked == [(request, "11.0")]
