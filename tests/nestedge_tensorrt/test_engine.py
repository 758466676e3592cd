from __future__ import annotations

import copy
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.documents import json_bytes, parse_json
from nestedge.errors import FormatError, UsageError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.engine import EngineSpec, trtexec_arguments
from nestedge_tensorrt.options import EngineOptions
from tests.json_changes import Json, places, put
from tests.nestedge_tensorrt.trtexec_grammar import VERSIONS, parse

SPEC = EngineSpec(
    precision="int8",
    model_sha256="0123456789abcdef" * 4,
    opset=17,
    minimum_tensorrt="8.6",
    batch=2,
    inputs=(
        TensorInfo("image", (2, 3, 8, 8), "float32"),
        TensorInfo("tokens", (2, 5), "int32"),
    ),
    outputs=(TensorInfo("logits", (2, 4), "float32"),),
    calibration_cases=16,
    options=EngineOptions(sparsity=True),
)
SPECS = {
    "fp32": replace(SPEC, precision="fp32", calibration_cases=None),
    "fp16": replace(SPEC, precision="fp16", calibration_cases=None),
    "int8": SPEC,
}
GOLDEN = Path(__file__).with_name("engine2.json")
GOLDEN1 = Path(__file__).with_name("engine1.json")


def _read(data: Json) -> EngineSpec:
    return EngineSpec.from_json(parse_json(json_bytes(data), document="engine.json"))


def test_the_file_is_the_golden_one() -> None:
    assert json_bytes(SPEC.to_json()) == GOLDEN.read_bytes()


def test_the_golden_file_is_read() -> None:
    assert EngineSpec.from_json(parse_json(GOLDEN.read_bytes(), document="engine.json")) == SPEC


def test_the_golden_file_of_format_1_is_read() -> None:
    # It says nothing of options.
    plain = replace(SPEC, options=EngineOptions())
    assert EngineSpec.from_json(parse_json(GOLDEN1.read_bytes(), document="engine.json")) == plain


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_file_gives_back_what_was_written(spec: EngineSpec) -> None:
    assert _read(spec.to_json()) == spec


def test_the_file_says_that_nobody_has_built_or_run_an_engine() -> None:
    document = SPEC.to_json()
    assert document["engine"] == "unbuilt"
    assert document["verified"] is False


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "11.1"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_trtexec_takes_the_line(spec: EngineSpec, version: str) -> None:
    options = parse(trtexec_arguments(replace(spec, minimum_tensorrt="8.2"), version), version)
    assert options["--onnx"] == "model.onnx"
    assert options["--saveEngine"] == "model.engine"


def test_a_version_that_does_not_parse_the_model_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the model needs TensorRT 8\.6, found 8\.5\.2"):
        trtexec_arguments(SPEC, "8.5.2")


def test_the_lines_are_the_arguments_as_a_shell_reads_them() -> None:
    trtexec = SPEC.to_json()["trtexec"]
    assert isinstance(trtexec, dict)
    assert trtexec["writes"] == "model.engine"
    # One line does for every version from 8.6 to 10; TensorRT 11 has no --int8.
    assert trtexec["lines"].keys() == {"8.6", "11.0"}
    assert shlex.split(trtexec["lines"]["8.6"]) == ["trtexec", *trtexec_arguments(SPEC, "10.3.0")]
    assert trtexec["lines"]["11.0"] is None


def test_a_line_stands_where_it_is_another_one_than_before() -> None:
    def versions(spec: EngineSpec) -> dict[str, bool]:
        trtexec = spec.to_json()["trtexec"]
        assert isinstance(trtexec, dict)
        return {version: line is not None for version, line in trtexec["lines"].items()}

    older = replace(SPECS["fp32"], minimum_tensorrt="8.5")
    assert versions(older) == {"8.5": True, "8.6": True}
    stripped = replace(older, options=EngineOptions(strip_weights=True))
    assert versions(stripped) == {"8.5": False, "10.0": True}


WRONG_LINES = {
    "misspelt": (["--onnx=m", "--saveengine=e"], "unknown option: --saveengine"),
    "value behind a space": (["--onnx=m", "--saveEngine", "e"], "--saveEngine: needs a value"),
    "left over": (["--onnx=m", "e"], "unknown option: e"),
    "no path": (["--onnx="], "--onnx: not a value: ''"),
    "no model": (["--fp16"], "model missing"),
    "a flag that is denied": (["--onnx=m", "--fp16=false"], "--fp16: takes no value"),
    "twice": (["--onnx=m", "--fp16", "--fp16"], "twice: --fp16"),
    "load and save": (["--onnx=m", "--saveEngine=e", "--loadEngine=e"], "incompatible"),
    "static shapes": (["--onnx=m", "--shapes=x:1x3"], "takes no shapes"),
    "shapes with commas": (["--onnx=m", "--optShapes=x:1,3"], "--optShapes: not a value"),
    "an unknown pool": (["--onnx=m", "--memPoolSize=gpu:1"], "--memPoolSize: not a value"),
    "not a number": (["--onnx=m", "--iterations=many"], "--iterations: not a value"),
}


@pytest.mark.parametrize(("line", "message"), WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_line_that_trtexec_refuses_is_no_line_here(line: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(line, "8.5")


@pytest.mark.parametrize(
    ("option", "versions"),
    [
        ("--buildOnly", ["8.2", "8.4", "8.5", "8.6", "9.2"]),
        ("--skipInference", ["8.6", "9.2", "10.0", "10.3", "10.16", "11.1"]),
        ("--builderOptimizationLevel=3", ["8.6", "9.2", "10.0", "10.3", "10.16", "11.1"]),
        ("--timingCacheFile=c", list(VERSIONS)),
        ("--memPoolSize=workspace:512", list(VERSIONS[1:])),
        ("--workspace=512", ["8.2", "8.4", "8.5", "8.6", "9.2"]),
        ("--exportTimes=t.json", list(VERSIONS)),
        ("--stronglyTyped", ["9.2", "10.0", "10.3", "10.16", "11.1"]),
        ("--stripWeights", ["10.0", "10.3", "10.16", "11.1"]),
        ("--fp16", [version for version in VERSIONS if version != "11.1"]),
    ],
)
def test_an_option_is_known_where_it_exists(option: str, versions: list[str]) -> None:
    def is_known(version: str) -> bool:
        try:
            parse(["--onnx=m", option], version)
        except ValueError:
            return False
        return True

    assert [version for version in VERSIONS if is_known(version)] == versions


WRONG_FILES: dict[str, tuple[Callable[[Json], None], str]] = {
    "another version": (put("format", to=3), "format: expected 2: another version"),
    "a built engine": (put("engine", to="built"), 'engine: expected "unbuilt"'),
    "a verified engine": (put("verified", to=True), "verified: expected false, found true"),
    "a number for false": (put("verified", to=0), "verified: expected false, found 0"),
    "an unknown precision": (put("precision", to="fp8"), 'precision: expected "fp32" or "fp16"'),
    "another precision": (put("precision", to="fp16"), "calibration: expected an object for int8"),
    "int8 uncalibrated": (put("calibration", to=None), "calibration: expected an object for int8"),
    "no cases": (put("calibration", "cases", to=0), "calibration.cases: expected an integer"),
    "other scales": (put("calibration", "scales", to="elsewhere"), "calibration: expected"),
    "an unknown version": (
        put("tensorrt", "minimum", to="8.x"),
        'tensorrt.minimum: expected "8.5"',
    ),
    "an unknown option": (put("options", "fast", to=True), "options.fast: unknown"),
    "a number for a flag": (
        put("options", "strip_weights", to=1),
        "options.strip_weights: expected true or false, found 1",
    ),
    "another option": (put("options", "strongly_typed", to=True), "trtexec: expected"),
    "a negative core": (put("options", "dla_core", to=-1), "options.dla_core: expected an integer"),
    "no memory": (put("options", "workspace_mib", to=0), "options.workspace_mib: expected an int"),
    "two batches": (put("options", "batches", to=[1, 2]), "options.batches: expected three batch"),
    "falling batches": (put("options", "batches", to=[3, 2, 4]), "options.batches: expected three"),
    "another model": (put("model", "file", to="../x.onnx"), "model: expected"),
    "no hash": (put("model", "sha256", to="abc"), "model.sha256: expected 64 hex digits"),
    "another command": (
        put("trtexec", "lines", "8.6", to="trtexec; rm -r ~"),
        'trtexec: expected {"lines": ',
    ),
    "no commands": (put("trtexec", "lines", to={}), 'trtexec: expected {"lines": '),
    "another version's command": (
        put("trtexec", "lines", "11.0", to="trtexec --plugins=x.so"),
        'trtexec: expected {"lines": ',
    ),
    "another fingerprint": (put("fingerprint", 0, "read", to="true"), "fingerprint: expected"),
    "a dynamic shape": (put("inputs", 0, "shape", 0, to=-1), r"inputs\[0\]\.shape\[0\]: expected"),
    "an unknown dtype": (put("inputs", 0, "dtype", to="float64"), r"inputs\[0\]\.dtype: expected"),
    "the same name twice": (put("inputs", 1, "name", to="image"), "inputs: expected at least one"),
    "no output": (put("outputs", to=[]), "outputs: expected at least one tensor"),
    "an unknown field": (put("note", to=""), "note: unknown; expected format, engine"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_says_something_else_is_refused(
    change: Callable[[Json], None], message: str
) -> None:
    document = json.loads(GOLDEN.read_bytes())
    change(document)
    with pytest.raises(FormatError, match=f"engine.json: {message}"):
        _read(document)


def test_a_file_that_lacks_anything_is_refused() -> None:
    document = json.loads(GOLDEN.read_bytes())
    for index in range(len(places(document))):
        broken = copy.deepcopy(document)
        holder, key = places(broken)[index]
        if isinstance(holder, list):
            continue  # fewer inputs or dimensions are those of another engine
        del holder[key]
        with pytest.raises(FormatError):
            _read(broken)


WRONG_FILES1: dict[str, tuple[Callable[[Json], None], str]] = {
    "another limit": (put("tensorrt", "below", to="12.0"), "tensorrt: expected"),
    "another command": (put("trtexec", "line", to="rm -r ~"), 'trtexec: expected {"arguments": '),
    "another fingerprint": (put("fingerprint", 0, "read", to="true"), "fingerprint: expected"),
    "a field of format 2": (put("options", to={}), "options: unknown"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_FILES1.values(), ids=WRONG_FILES1)
def test_a_file_of_format_1_that_says_something_else_is_refused(
    change: Callable[[Json], None], message: str
) -> None:
    document = json.loads(GOLDEN1.read_bytes())
    change(document)
    with pytest.raises(FormatError, match=f"engine.json: {message}"):
        _read(document)


def test_a_device_reads_it_without_torch_and_onnx() -> None:
    program = """
import sys
import nestedge_tensorrt.engine
assert not {"torch", "onnx", "onnxruntime"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, check=True
    )
