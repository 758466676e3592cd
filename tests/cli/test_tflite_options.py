"""`nestedge build --nhwc` and `nestedge export` of several levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from torch import nn

from nestedge.artifact import read_artifact
from nestedge.cli import main
from nestedge.levels import Level
from nestedge.nested import Card, nest
from nestedge.preprocessing import Preprocessing
from nestedge_tflite.runtime import LiteRtRuntime

STEPS = Preprocessing("input", scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A network of two levels that takes images."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    card = Card(preprocessing=STEPS, divisor=4)
    levels = {"small": Level(0.5), "full": Level()}
    nested = nest(network.eval(), torch.randn(1, 3, 8, 6), levels, card=card)
    nested.save(tmp_path / "net.nest")
    return tmp_path / "net.nest"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_an_artifact_may_have_its_channels_last(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    asked = ("-t", "tflite", "-l", "small", "-p", "fp32", "-j", "1", "--nhwc")
    result = run("build", str(path), "-o", str(folder), *asked)
    assert result.exit_code == 0, result.output
    artifact = read_artifact(folder / "small/tflite-fp32")
    assert artifact.inputs[0].shape == (1, 8, 6, 3)
    assert artifact.preprocessing is not None
    assert artifact.preprocessing.layout == "NHWC"
    reference = load_file(folder / "small/tflite-fp32/reference.safetensors")
    assert reference["inputs/input"].shape[1:] == (1, 8, 6, 3)
    verified = run("verify", str(folder))
    assert verified.exit_code == 0, verified.output


def test_several_levels_become_one_file(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "family.tflite"
    result = run("export", str(path), "small", "full", "-o", str(output), "--nhwc")
    assert result.exit_code == 0, result.output
    assert "levels 'small' and 'full'" in result.stdout
    x = np.ones((1, 8, 6, 3), np.float32)
    found = [
        LiteRtRuntime().open(output, signature=level).run({"input": x})["output"]
        for level in ("small", "full")
    ]
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "small", "full", "-o", "x.onnx"), "a file of 'onnx' has one level"),
        (("export", "small", "full", "-o", "x.pt2"), ".pt2 has one level"),
        (("export", "small", "small", "-o", "x.tflite"), "give each once"),
        (("export", "small", "-o", "x.onnx", "--nhwc"), "--nhwc is for a .tflite"),
        (
            ("build", "--nhwc", "--tflite-route", "onnx2tf"),
            "--nhwc goes with --tflite-route litert-torch, found onnx2tf",
        ),
    ],
    ids=["onnx", "pt2", "twice", "layout of onnx", "route"],
)
def test_what_does_not_go_together_is_told_and_exit_2(
    path: Path, arguments: tuple[str, ...], message: str
) -> None:
    verb, *others = arguments
    result = run(verb, str(path), *others)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
