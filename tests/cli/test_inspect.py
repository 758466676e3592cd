"""`nestedge inspect`: widths that gain nothing over the next multiple, of a device or as told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from nestedge.cli import main
from nestedge.levels import Level
from nestedge.nested import Card, nest


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *arguments])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perceptron with levels of 12 and 16 hidden units."""
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10))
    levels = {"narrow": Level({"0": 12}), "full": Level()}
    found = tmp_path_factory.mktemp("model") / "net.nest"
    nest(model, torch.zeros(2, 4), levels, card=Card(divisor=1)).save(found)
    return found


class TwoHeads(nn.Module):
    """A layer with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.coarse, self.fine = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        return {"coarse": self.coarse(x), "fine": self.fine(x)}


def test_a_level_of_some_outputs_says_which(tmp_path: Path) -> None:
    levels = {"core": Level(outputs=("coarse",)), "full": Level()}
    nest(TwoHeads(), torch.zeros(2, 4), levels).save(tmp_path / "net.nest")
    lines = run(str(tmp_path / "net.nest")).stdout.splitlines()
    assert [line for line in lines if "gives" in line] == ["core: gives coarse of coarse, fine"]


def test_every_wasted_width_is_a_line_with_layer_axis_and_share(path: Path) -> None:
    result = run(str(path), "--multiple", "8")
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()[-2:]
    expected = ["level", "layer", "axis", "width", "takes", "as", "long", "as", "wasted"]
    assert header.split() == expected
    assert row.split() == ["narrow", "0", "0", "12", "16", "25.0", "%"]


def test_the_multiple_decides_what_is_wasted(path: Path) -> None:
    assert run(str(path), "--multiple", "4").stdout.endswith("every width is a multiple of 4\n")
    lines = run(str(path), "--multiple", "32").stdout.splitlines()
    wasted = {line.split()[0]: line.split()[-2] for line in lines[-2:]}
    assert wasted == {"full": "50.0", "narrow": "62.5"}
    assert "full: no multiple of 32 outputs in 0 (16)" in lines


def test_without_a_multiple_there_is_no_list(path: Path) -> None:
    assert "takes as long as" not in run(str(path)).stdout
    assert "narrow: no multiple of 8 outputs in 0 (12)" in run(str(path)).stdout


def test_wasted_widths_are_in_the_json(path: Path) -> None:
    found = json.loads(run(str(path), "--multiple", "16", "--json").stdout)
    assert found["multiple"] == 16
    entry = {"layer": "0", "axis": "0", "width": 12, "padded": 16, "wasted": 0.25}
    assert found["levels"]["narrow"]["wasted"] == [entry]
    assert found["levels"]["full"]["wasted"] == []


def test_a_multiple_of_one_is_refused(path: Path) -> None:
    assert run(str(path), "--multiple", "1").exit_code == 2


def test_smaller_kernels_and_rings_that_stay_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=1), nn.ReLU(), _Plus())
    centre = np.zeros((8, 3, 5, 5), dtype=bool)
    centre[:, :, 2, 2] = True
    masks = {"0.weight": centre, "2.silent.weight": np.zeros((8, 8, 1, 1), dtype=bool)}
    nested = nest(model.eval(), torch.zeros(2, 3, 8, 8), {"sparse": Level(masks=masks)})
    nested.save(tmp_path / "net.nest")
    lines = run(str(tmp_path / "net.nest")).stdout.splitlines()
    assert "sparse: smaller kernels: 0.weight (3x3)" in lines
    assert "sparse: always zero and removed: the branch of 2" in lines
    stayed = "sparse: 2 of 0.weight's rings constant, kept: 0 has less padding than they reach"
    assert any(line.startswith(stayed) for line in lines)


class _Plus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.silent = nn.Conv2d(8, 8, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.silent(x)
        return y


BOARD = """\
id = "board"
name = "A board"
kind = "linux"

[[runtime]]
name = "tflite"
versions = ["2.3.0"]
precisions = ["fp32", "int8"]
source = "tried"
confidence = "high"

[runtime.multiple]
fp32 = { value = 4, source = "its registers", confidence = "low" }
int8 = { value = 32, source = "its kernels", confidence = "medium" }
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A device that works on 4 outputs at once in fp32, and on 32 in int8."""
    path = tmp_path_factory.mktemp("profile") / "board.toml"
    path.write_text(BOARD)
    return str(path)


def test_a_device_says_the_multiple_and_where_it_is_from(path: Path, board: str) -> None:
    lines = run(str(path), "--device", board).stdout.splitlines()
    at = lines.index("board, tflite in int8: 32 outputs at once")
    assert lines[at + 1] == "(medium: its kernels)"
    wasted = {line.split()[0]: line.split()[-2] for line in lines[-2:]}
    assert wasted == {"full": "50.0", "narrow": "62.5"}


def test_the_precision_decides_which_multiple_of_a_device(path: Path, board: str) -> None:
    stdout = run(str(path), "-d", board, "-r", "tflite", "-p", "fp32").stdout
    assert "board, tflite in fp32: 4 outputs at once\n(low: its registers)\n" in stdout
    assert stdout.endswith("\nevery width is a multiple of 4\n")


def test_a_known_device_names_the_layers_that_gain_nothing(path: Path) -> None:
    device = ("--device", "jetson-orin-nano-8gb", "--runtime", "tensorrt", "--precision", "fp16")
    lines = run(str(path), *device).stdout.splitlines()
    assert "jetson-orin-nano-8gb, tensorrt in fp16: 8 outputs at once" in lines
    assert lines[-1].split() == ["narrow", "0", "0", "12", "16", "25.0", "%"]


def test_where_the_multiple_is_from_is_in_the_json(path: Path, board: str) -> None:
    found = json.loads(run(str(path), "-d", board, "--json").stdout)
    assert found["multiple"] == 32
    assert found["multiple_of"] == {
        "device": "board",
        "runtime": "tflite",
        "precision": "int8",
        "multiple": {"value": 32, "source": "its kernels", "confidence": "medium"},
    }
    assert json.loads(run(str(path), "--json").stdout)["multiple_of"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["-d", "pixel-8", "--multiple", "8"],
            "--device says its own multiple; give no --multiple",
            id="two multiples",
        ),
        pytest.param(
            ["-r", "tflite"],
            "--runtime and --precision say which multiple of a --device; give one",
            id="runtime of no device",
        ),
        pytest.param(
            ["--multiple", "8", "-p", "int8"],
            "--runtime and --precision say which multiple of a --device; give one",
            id="precision of no device",
        ),
        pytest.param(
            ["-d", "pixel-9"],
            "no device 'pixel-9'; known are",
            id="unknown device",
        ),
        pytest.param(
            ["-d", "pixel-8", "-r", "onnx"],
            "pixel-8: no runtime 'onnx'; it has ['tflite']",
            id="runtime that the device has not",
        ),
        pytest.param(
            ["-d", "jetson-orin-nano-8gb", "-p", "fp32"],
            "jetson-orin-nano-8gb: not known how many outputs 'tensorrt' computes at once in fp32; "
            "known for tensorrt in fp16, tensorrt in int8, onnx in fp32, onnx in int8",
            id="unknown multiple",
        ),
    ],
)
def test_what_no_multiple_follows_from_exits_2(
    path: Path, arguments: list[str], message: str
) -> None:
    result = run(str(path), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
