from __future__ import annotations

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from nestedge.convert import BuildSpec, LevelProgram
from nestedge.errors import MissingDependencyError, NestedgeError, UsageError
from nestedge.explanation import check_constants
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.plugins import TensorInfo
from nestedge_onnx.exporter import export_model
from nestedge_tflite.onnx2tf import Onnx2tfConverter
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import CASES, errors_of, unexplained
from tests.nestedge_tflite.handmade import WEIGHT, write_model

PROGRAM = """#!{python}
import json, os, pathlib, shutil, sys
if "--version" in sys.argv:
    print({version!r})
    sys.exit()
here = pathlib.Path(__file__).parent
seen = dict(arguments=sys.argv[1:], environment=dict(os.environ), folder=os.getcwd())
(here / "seen.json").write_text(json.dumps(seen))
source = pathlib.Path(sys.argv[sys.argv.index("-i") + 1])
shutil.copy(source, here / "given.onnx")
source.write_bytes(b"overwritten")
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
out.mkdir()
if (here / "model.tflite").exists():
    shutil.copy(here / "model.tflite", out / "model_float32.tflite")
sys.stderr.write({says!r})
sys.exit({status})
"""


class Layer(nn.Module):
    """What `write_model` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


@cache
def _level() -> LevelProgram:
    return level_program(nest(Layer(), torch.zeros(1, 2), {"full": 1.0}), "full")


@cache
def _onnx() -> onnx.ModelProto:
    return export_model(_level())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ONNX file of the level, made once."""
    monkeypatch.setattr("nestedge_tflite.onnx2tf.export_model", lambda level, batch: _onnx())


def _install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "2.6.9",
    says: str = "",
    status: int = 0,
) -> Path:
    """Puts a program on PATH that gives the file model.tflite beside it, whatever it is given."""
    program = folder / "onnx2tf"
    text = PROGRAM.format(python=sys.executable, version=version, says=says, status=status)
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder / "model.tflite"


def test_what_the_program_writes_is_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(_install(tmp_path, monkeypatch), output="output")
    converter = Onnx2tfConverter()
    assert converter.version() == f"onnx2tf 2.6.9 at {tmp_path / 'onnx2tf'}"
    made = converter.export(_level()).convert(BuildSpec())
    assert made.inputs == (TensorInfo("x", (1, 2), "float32"),)
    assert made.outputs == (TensorInfo("output", (1, 3), "float32"),)
    assert made.model == (tmp_path / "model.tflite").read_bytes()
    assert made.producer["onnx2tf"] == "2.6.9"
    assert unexplained(made) == []
    assert check_constants(made.constants, made.model, _level().stored) == []


@pytest.mark.usefixtures("quick")
def test_the_program_sees_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(_install(tmp_path, monkeypatch), output="output")
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "HTTPS_PROXY", "MORE"):
        monkeypatch.setenv(name, "ours")
    Onnx2tfConverter().export(_level())
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "HTTPS_PROXY"} & seen["environment"].keys()
    assert seen["environment"]["MORE"] == "ours"
    assert seen["environment"]["https_proxy"] == "http://127.0.0.1:9"
    assert not Path(seen["folder"]).exists()
    # Images keep their channels in front.
    keep = seen["arguments"].index("--keep_shape_absolutely_input_names")
    assert seen["arguments"][keep + 1] == "x"
    given = onnx.load(tmp_path / "given.onnx")
    assert given.SerializeToString() == _onnx().SerializeToString()


@pytest.mark.usefixtures("quick")
def test_leave_to_compute_in_half_precision_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(_install(tmp_path, monkeypatch), output="output")
    content = path.read_bytes()
    path.write_bytes(content + b"\0reduced_precision_support\0")
    made = Onnx2tfConverter().export(_level()).convert(BuildSpec())
    assert b"reduced_precision_support" not in made.model
    assert len(made.model) == len(path.read_bytes())
    assert made.model.startswith(content)


def test_a_missing_program_is_told_with_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingDependencyError,
        match=r"needs the program onnx2tf on PATH: pipx install --python 3\.12 'onnx2tf==2\.6\.9'",
    ):
        Onnx2tfConverter().export(_level())


@pytest.mark.parametrize("version", ["1.29.24", "", "no version"])
def test_a_version_of_another_kind_is_refused(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, version=version)
    with pytest.raises(
        NestedgeError, match=f"expected onnx2tf 2 or later, found '{version}': pipx install"
    ):
        Onnx2tfConverter().export(_level())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("Traceback:\n  at x\nValueError: no Gelu\n\n", "ValueError: no Gelu"),
        (
            "\x1b[31mERROR: no Gelu\x1b[0m\nwrite: 10%|# | 1/9 [0:01<0:09, 3.0it/s]\r",
            "ERROR: no Gelu",
        ),
        ("", "it printed nothing"),
    ],
    ids=["a traceback", "colours and a bar", "nothing"],
)
def test_a_failure_is_told_by_its_last_line(
    says: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, says=says, status=3)
    with pytest.raises(NestedgeError, match=f"^onnx2tf failed: {reason}; take another route"):
        Onnx2tfConverter().export(_level())


@pytest.mark.usefixtures("quick")
def test_a_program_that_writes_nothing_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch)
    with pytest.raises(NestedgeError, match=r"wrote no model_float32\.tflite"):
        Onnx2tfConverter().export(_level())


@pytest.mark.usefixtures("quick")
def test_a_file_with_operators_that_no_runtime_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _install(tmp_path, monkeypatch)
    write_model(path, output="output", operator=schema.BuiltinOperator.CUSTOM)
    with pytest.raises(NestedgeError, match="it made up operators of its own"):
        Onnx2tfConverter().export(_level())


@pytest.mark.usefixtures("quick")
def test_an_output_of_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(_install(tmp_path, monkeypatch), output="y")
    with pytest.raises(NestedgeError, match=r"'output' is missing, found \['x', 'y'\]"):
        Onnx2tfConverter().export(_level())


def test_an_output_of_another_shape_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnx2tf gives an output that is an image its channels last.
    write_model(_install(tmp_path, monkeypatch), output="output")
    with pytest.raises(NestedgeError, match=r"expected 'x' of shape \(4, 2\), found \(1, 2\)"):
        Onnx2tfConverter().export(_level(), batch=4)


@pytest.mark.usefixtures("quick")
def test_there_is_single_precision_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(_install(tmp_path, monkeypatch), output="output")
    exported = Onnx2tfConverter().export(_level())
    with pytest.raises(UsageError, match="tflite-onnx2tf: no precision 'int8'"):
        exported.convert(BuildSpec("int8", {"x": np.zeros((1, 1, 2), np.float32)}))


@pytest.mark.skipif(shutil.which("onnx2tf") is None, reason="needs onnx2tf on PATH")
@pytest.mark.parametrize("name", list(CASES))
def test_the_real_program_computes_what_the_level_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    made = Onnx2tfConverter().export(case.level).convert(BuildSpec())
    errors = errors_of(case, made, LiteRtRuntime(), tmp_path / "model.tflite")
    assert max(errors.values()) <= 1e-5
    assert check_constants(made.constants, made.model, case.level.stored) == []
    assert b"reduced_precision_support" not in made.model
    assert Onnx2tfConverter().export(case.level).convert(BuildSpec()).model == made.model
