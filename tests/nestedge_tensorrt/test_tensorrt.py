"""TensorRT itself, where there is one: `pytest -m tensorrt` on a machine with an NVIDIA GPU."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nestedge.artifact import Artifact, reference_bytes, write_artifact
from nestedge.precisions import PRECISIONS
from nestedge.verify import verify_artifact
from nestedge_tensorrt.building import build_engine
from nestedge_tensorrt.converter import TensorrtConverter
from nestedge_tensorrt.options import EngineOptions
from nestedge_tensorrt.places import Here
from nestedge_tensorrt.probe import PROBE, PROBE_TOOLS, read_device
from nestedge_tensorrt.verifying import verify_engine
from tests.conversions import CASES, spec_of
from tests.fakes import DESCRIPTION

pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(find_spec("tensorrt") is None, reason="needs TensorRT for Python"),
]


@pytest.fixture(autouse=True)
def python3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Python is the one that programs find, as TensorRT may be installed nowhere else."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def _artifact(folder: Path, name: str, precision: str) -> Artifact:
    case = CASES[name]()
    made = TensorrtConverter().export(case.level).convert(spec_of(case, precision))
    description = replace(
        DESCRIPTION,
        runtime="tensorrt",
        checked_by="onnx",
        model="model.onnx",
        precision=precision,
        inputs=made.inputs,
        outputs=made.outputs,
        tolerance=PRECISIONS[precision].tolerance,
        preprocessing=None,
        labels=None,
    )
    reference = reference_bytes(
        {info.name: np.asarray(case.inputs[info.name])[None] for info in made.inputs},
        {info.name: np.asarray(case.outputs[info.name])[None] for info in made.outputs},
    )
    files = {"model.onnx": made.model, "reference.safetensors": reference, **made.files}
    return write_artifact(folder, description, files=files)


@pytest.mark.parametrize("by", ["trtexec", "python"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", list(CASES))
def test_an_engine_is_its_level(tmp_path: Path, name: str, precision: str, by: str) -> None:
    device = read_device(Here().run(PROBE + PROBE_TOOLS).output)
    if by == "trtexec" and not device.trtexec:
        pytest.skip("needs trtexec")
    artifact = _artifact(tmp_path / "cell", name, precision)
    # TensorRT 11 has no other.
    typed = precision == "int8" and int(device.tool(by).partition(".")[0]) > 10
    build_engine(
        artifact.folder,
        Here(),
        by=by,
        options=EngineOptions(strongly_typed=typed),
        timing_cache=tmp_path / "timing.cache",
    )
    found = verify_engine(artifact.folder, Here())
    assert found.state == "verified"
    assert found.max_error is not None
    assert math.isfinite(found.max_error)


@pytest.mark.parametrize(
    "options",
    [EngineOptions(strip_weights=True), EngineOptions(version_compatible=True)],
    ids=["stripped", "compatible"],
)
def test_the_runtime_plug_in_runs_what_was_built(tmp_path: Path, options: EngineOptions) -> None:
    artifact = _artifact(tmp_path / "cell", "resnet", "fp32")
    build_engine(artifact.folder, Here(), by="python", options=options, timing_cache=None)
    runtime = import_module("nestedge_tensorrt.runtime").TensorrtRuntime()
    result = verify_artifact(artifact, runtime)
    assert result.passed, result.reason
