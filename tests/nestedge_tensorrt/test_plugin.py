from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from nestedge.artifact import Artifact
from nestedge.cli import main
from nestedge.engines import EngineRequest
from nestedge.errors import UsageError
from nestedge.plugins import engine_builders
from nestedge.toml import read_toml
from nestedge_tensorrt.plugin import TensorrtEngines
from tests.fakes import declare_plugins
from tests.nestedge_tensorrt.devices import FakeDevice, make_cell, real_model

ROOT = Path(__file__).parents[2]
ENTRY = "nestedge_tensorrt.plugin:TensorrtEngines"


@pytest.fixture
def declared(site: Path) -> None:
    """The plug-in, as an installed nestedge declares it."""
    declare_plugins(site, group="nestedge.engines", entries={"tensorrt": ENTRY})


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["engine", *map(str, args)])


def test_the_plug_ins_are_declared() -> None:
    project = read_toml(ROOT / "pyproject.toml").members()["project"].members()
    groups = project["entry-points"].members()
    assert groups["nestedge.engines"].members()["tensorrt"].data == ENTRY
    runtime = groups["nestedge.runtimes"].members()["tensorrt"].data
    assert runtime == "nestedge_tensorrt.runtime:TensorrtRuntime"


def test_an_engine_is_built_verified_and_listed_by_the_verb(
    artifact: Artifact, device: FakeDevice, declared: None
) -> None:
    assert "tensorrt" in engine_builders()
    built = _run("build", artifact.folder, "--by", "python", "--on", "ssh://me@jetson", "--json")
    assert built.exit_code == 0, built.stderr
    (report,) = json.loads(built.stdout)
    assert report["state"] == "built, unverified"
    assert report["max_error"] is None
    verified = _run("verify", artifact.folder, "--on", "ssh://me@jetson")
    assert verified.exit_code == 0, verified.stderr
    (listed,) = json.loads(_run("list", artifact.folder, "--json").stdout)
    assert listed["state"] == "verified"
    assert listed["fingerprint"] == report["fingerprint"]
    assert listed["folder"] == report["folder"]
    assert Path(listed["folder"], "model.engine").is_file()


def test_the_model_of_a_version_is_written_with_the_line_that_builds_it(
    tmp_path: Path, declared: None
) -> None:
    artifact = make_cell(tmp_path / "cell", model=real_model())
    output = tmp_path / "old.onnx"
    result = _run("model", artifact.folder, "--tensorrt", "8.2.1", "-o", output)
    assert result.exit_code == 0, result.stderr
    said, line = result.stdout.splitlines()
    assert said == f"{output}: in opset 13"
    assert line.startswith("trtexec --onnx=model.onnx --saveEngine=model.engine --noTF32 ")
    assert line.endswith(" --buildOnly")
    assert onnx.load(output).opset_import[0].version == 13
    result = _run("model", artifact.folder, "--tensorrt", "10.3", "-o", output)
    assert result.stdout.startswith(f"{output}: as it is shipped\n")
    assert output.read_bytes() == artifact.model_path.read_bytes()
    batches = ("--tensorrt", "8.2.1", "-o", output, "--batch", "1:2:4")
    result = _run("model", artifact.folder, *batches)
    assert result.stdout.startswith(f"{output}: in opset 13, for batches of any size\ntrtexec ")
    assert "--maxShapes=x:4x2,bias:4x3" in result.stdout
    result = _run("model", artifact.folder, "--tensorrt", "8.0", "-o", output)
    assert result.exit_code == 2
    assert "the model needs TensorRT 8.2, found 8.0" in result.stderr


def test_what_goes_wrong_is_one_line(
    artifact: Artifact, device: FakeDevice, declared: None
) -> None:
    device.say("mode", "failed")
    result = _run("build", artifact.folder)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: small/tensorrt-fp32 on this machine: the engine could not be built: trtexec: "
        "Error[10]: Could not find any implementation for node {x}.: no kernel fits"
    )
    assert result.stderr.count("\n") == 1


def test_an_unknown_tool_is_refused(artifact: Artifact) -> None:
    request = EngineRequest(by="polygraphy")
    with pytest.raises(UsageError, match="built by trtexec or python, not 'polygraphy'"):
        TensorrtEngines().build(artifact.folder, request)
