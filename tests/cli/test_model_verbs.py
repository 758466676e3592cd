"""`nestedge inspect`, `export` and `build`: the verbs that read a .nest."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from nestedge.artifact import find_artifacts
from nestedge.cli import main
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.nested import nest


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def model() -> NestedModel:
    """A small network with a narrow level and one with a mask that leaves channels dead."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    # Of the channels that the mask empties, ReLU leaves four at 0.5 and four at zero.
    network.state_dict()["1.bias"][:8] = torch.tensor([0.5] * 4 + [-0.5] * 4)
    network.state_dict()["0.bias"].zero_()
    mask = np.ones((16, 3, 3, 3), dtype=bool)
    mask[:8] = False
    levels: dict[str, Level | float] = {
        "small": 0.5,
        "sparse": Level(masks={"0.weight": mask}),
        "full": 1.0,
    }
    return nest(network.eval(), torch.randn(2, 3, 8, 8), levels)


@pytest.fixture(scope="module")
def path(model: NestedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model") / "net.nest"
    model.save(found)
    return found


def test_inspect_shows_sizes_order_and_what_masks_leave(path: Path) -> None:
    result = run("inspect", str(path))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["level", "parameters", "share", "MACs", "blocks", "inside"]
    assert lines[1].split()[0] == "small"
    assert "full" in lines[1].split(" - ")[-1]
    assert "a partial order, proved on 3 axes" in result.stdout
    assert "sparse: dead through masks and removed: 4 of 0" in result.stdout
    assert "sparse: 4 of 0 constant, kept: the padding of 3 would meet it" in result.stdout
    assert "sparse: no multiple of 8 outputs in 0 (12)" in result.stdout


def test_inspect_as_json_has_the_same(path: Path) -> None:
    found = json.loads(run("inspect", str(path), "--json").stdout)
    assert list(found["levels"]) == ["full", "small", "sparse"]
    assert found["levels"]["sparse"]["removed"] == {"0": 4}
    assert found["levels"]["small"]["inside"] == ["full"]
    assert not found["is_chain"]
    assert found["axes"]["0"] == [0, 8, 16]


def test_an_exported_onnx_computes_what_the_level_does(
    path: Path, model: NestedModel, tmp_path: Path
) -> None:
    output = tmp_path / "small.onnx"
    result = run("export", str(path), "small", "-o", str(output), "--batch", "3", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["bytes"] == output.stat().st_size
    x = torch.randn(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(output)
    (found,) = session.run(None, {"input": x.numpy()})
    with model.at("small"), torch.no_grad():
        np.testing.assert_allclose(np.asarray(found), model(x).numpy(), atol=1e-5)


def test_an_exported_pt2_loads_in_torch(path: Path, model: NestedModel, tmp_path: Path) -> None:
    output = tmp_path / "small.pt2"
    result = run("export", str(path), "small", "-o", str(output))
    assert result.exit_code == 0, result.output
    assert "level 'small'" in result.stdout
    x = torch.randn(5, 3, 8, 8)
    with model.at("small"), torch.no_grad():
        assert torch.equal(torch.export.load(output).module()(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smal", "-o", "x.onnx"), "no level 'smal'; .* did you mean 'small'"),
        (
            ("small", "-o", "x.exe"),
            r"x\.exe: expected an ending of \['\.onnx', '\.ort', '\.pt2', '\.pte', '\.tflite'\]",
        ),
    ],
    ids=["level", "ending"],
)
def test_a_wrong_export_is_one_line_and_exit_2(
    path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main, ["export", str(path), *arguments])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert re.search(message, result.stderr), result.stderr


def test_build_writes_what_is_asked_for_and_then_nothing(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    asked = ("-t", "onnx", "-l", "small", "-l", "sparse", "-p", "fp32", "-j", "1")
    result = run("build", str(path), "-o", str(folder), *asked)
    assert result.exit_code == 0, result.output
    assert [a.cell for a in find_artifacts(folder)] == ["small/onnx-fp32", "sparse/onnx-fp32"]
    assert "small/onnx-fp32" in result.stdout
    verified = run("verify", str(folder))
    assert verified.exit_code == 0, verified.output
    again = run("build", str(path), "-o", str(folder), *asked, "--json")
    assert {row["cell"]: row["state"] for row in json.loads(again.stdout)} == {
        "small/onnx-fp32": "up to date",
        "sparse/onnx-fp32": "up to date",
    }


def test_build_lists_int8_without_calibration_data_as_skipped(path: Path, tmp_path: Path) -> None:
    asked = ("build", str(path), "-o", str(tmp_path / "dist"), "-t", "onnx", "-l", "small")
    result = run(*asked)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("small/onnx-int8")]
    assert "skipped" in line
    assert "give --calibration DIR" in line
    result = run(*asked, "-p", "int8")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: small/onnx-int8: int8 needs calibration data: give ")


def test_build_takes_int8_ranges_from_a_folder(path: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        image = rng.standard_normal((3, 8, 8)).astype(np.float32)
        np.save(data / f"{index}.npy", image)
    folder = tmp_path / "dist"
    asked = ("build", str(path), "-o", str(folder), "-t", "onnx", "-l", "small", "-p", "int8")
    result = run(*asked, "--calibration", str(data))
    assert result.exit_code == 0, result.output
    assert run("verify", str(folder)).exit_code == 0
    np.save(data / "5.npy", np.zeros((3, 8, 9), np.float32))
    result = run(*asked, "--calibration", str(data))
    assert result.exit_code == 2
    assert re.match(r"error: .*5\.npy: .*expected shape \(1, 3, 8, 8\)", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-l", "smal"), "no level 'smal'; known are ['small', "),
        (("-d", "pixel-9"), "did you mean 'pixel-8'?"),
        (("-p", "int4"), "no precision 'int4' on ['local']; "),
        (("--calibration", "nowhere"), "nowhere: no such folder"),
    ],
    ids=["level", "device", "precision", "calibration"],
)
def test_build_of_what_does_not_exist_writes_no_artifact(
    arguments: tuple[str, str], message: str, path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dist"
    result = run("build", str(path), "-o", str(folder), *arguments, "--json")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(folder.glob("*/*"))
