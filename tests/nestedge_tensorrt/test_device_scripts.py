"""The two programs that stand alone on a device, against the names that each TensorRT has."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nestedge_tensorrt
from nestedge.errors import UsageError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.building import python_job
from nestedge_tensorrt.engine import EngineSpec
from nestedge_tensorrt.options import Batches, EngineOptions
from tests.nestedge_tensorrt import fake_tensorrt
from tests.nestedge_tensorrt.fake_tensorrt import NAMES, UNPARSABLE, VERSIONS, Cuda, has
from tests.nestedge_tensorrt.test_options import ALL

FOLDER = Path(str(nestedge_tensorrt.__file__)).parent
SCRIPTS = ("device_build.py", "device_run.py")
CLAIMED = VERSIONS[VERSIONS.index("8.5") :]
SPEC = EngineSpec(
    precision="fp16",
    model_sha256="0" * 64,
    opset=17,
    minimum_tensorrt="8.5",
    batch=1,
    inputs=(TensorInfo("x", (1, 2), "float32"), TensorInfo("bias", (1, 3), "float32")),
    outputs=(TensorInfo("product", (1, 3), "float32"), TensorInfo("sum", (1, 3), "float32")),
    calibration_cases=None,
)
Script = Callable[..., ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Imports a script with the TensorRT of a version."""

    def imported(name: str, version: str, **changes: Any) -> ModuleType:
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version, **changes))
        monkeypatch.setattr(ctypes, "CDLL", Cuda)
        spec = importlib.util.spec_from_file_location("device_script", FOLDER / name)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return imported


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    return tmp_path


def _parsed(name: str) -> ast.Module:
    # Python 3.8 is that of JetPack 5.
    return ast.parse((FOLDER / name).read_text(), feature_version=(3, 8))


def _chains(tree: ast.Module) -> Iterator[str]:
    """What follows `trt.`, as in "BuilderFlag.FP16"."""
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == "trt" and parts:
            yield ".".join(reversed(parts))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_name_is_one_that_nvidia_publishes(name: str) -> None:
    found = set(_chains(_parsed(name)))
    assert len(found) > 5
    assert {chain for chain in found if chain not in NAMES} == set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_needs_nothing_but_tensorrt(name: str) -> None:
    imported = set()
    for node in ast.walk(_parsed(name)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert "tensorrt" in imported
    assert imported - {"tensorrt"} <= sys.stdlib_module_names


def test_the_table_tells_versions_apart() -> None:
    assert has("BuilderFlag.FP16", "10.16")
    assert not has("BuilderFlag.FP16", "11.0")
    assert not has("BuilderFlag.STRIP_PLAN", "9.2")
    assert has("IBuilderConfig.max_workspace_size", "9.2")
    assert not has("IBuilderConfig.max_workspace_size", "10.0")
    trt = fake_tensorrt.module("8.5")
    with pytest.raises(AttributeError, match=r"8\.5 has no BuilderFlag\.VERSION_COMPATIBLE"):
        _ = trt.BuilderFlag.VERSION_COMPATIBLE
    with pytest.raises(AttributeError, match=r"8\.5 has no IBuilderConfig\.dla_core"):
        trt.Builder(trt.Logger("INFO")).create_builder_config().dla_core = 1


def _build(script: Script, version: str, options: EngineOptions, spec: EngineSpec = SPEC) -> Any:
    Path("job.json").write_text(json.dumps(python_job(spec, version, options)))
    script("device_build.py", version).main("job.json")
    return json.loads(Path("model.engine").read_bytes())


@pytest.mark.parametrize("version", CLAIMED)
@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_each_version_has_what_it_is_asked_for(
    script: Script, version: str, options: EngineOptions
) -> None:
    for precision in ("fp32", "fp16", "int8"):
        spec = replace(SPEC, precision=precision)
        try:
            plan = _build(script, version, options, spec)
        except UsageError:
            continue
        assert plan["version"] == version


def test_some_version_builds_every_option(script: Script) -> None:
    for name, options in ALL.items():
        spec = replace(SPEC, precision="int8") if options.strongly_typed else SPEC
        assert _build(script, "10.3", options, spec), name


PLANS: dict[str, tuple[str, str, EngineOptions, dict[str, object]]] = {
    "fp32": ("fp32", "10.3", EngineOptions(), {"flags": []}),
    "fp16": ("fp16", "10.3", EngineOptions(), {"flags": ["FP16", "TF32"]}),
    "int8": ("int8", "8.5", EngineOptions(), {"flags": ["FP16", "INT8", "TF32"]}),
    "typed": ("int8", "11.1", EngineOptions(strongly_typed=True), {"flags": ["TF32"]}),
    "sparse": (
        "fp16",
        "8.5",
        EngineOptions(sparsity=True),
        {"flags": ["FP16", "SPARSE_WEIGHTS", "TF32"]},
    ),
    "DLA": (
        "fp16",
        "8.5",
        EngineOptions(dla_core=0),
        {"flags": ["FP16", "GPU_FALLBACK", "TF32"], "core": 0, "device": "DeviceType.DLA"},
    ),
    "compatible": (
        "fp32",
        "8.6",
        EngineOptions(version_compatible=True),
        {"flags": ["VERSION_COMPATIBLE"]},
    ),
    "stripped": (
        "fp32",
        "10.0",
        EngineOptions(strip_weights=True),
        {"flags": ["REFIT_IDENTICAL", "STRIP_PLAN"]},
    ),
    "workspace": (
        "fp32",
        "8.5",
        EngineOptions(workspace_mib=2),
        {"flags": [], "pools": {"MemoryPoolType.WORKSPACE": 2 << 20}},
    ),
    "batches": (
        "fp32",
        "10.3",
        EngineOptions(batches=Batches(1, 2, 4)),
        {
            "flags": [],
            "profiles": [
                {"x": [[1, 2], [2, 2], [4, 2]], "bias": [[1, 3], [2, 3], [4, 3]]},
            ],
        },
    ),
}


@pytest.mark.parametrize(("precision", "version", "options", "said"), PLANS.values(), ids=PLANS)
def test_the_builder_is_asked_for_what_the_options_say(
    script: Script,
    precision: str,
    version: str,
    options: EngineOptions,
    said: dict[str, object],
) -> None:
    plan = _build(script, version, options, replace(SPEC, precision=precision))
    nothing: dict[str, object] = {
        "flags": [],
        "pools": {},
        "device": None,
        "core": -1,
        "profiles": [],
    }
    found = {name: plan[name] for name in nothing}
    found["flags"] = [flag.removeprefix("BuilderFlag.") for flag in plan["flags"]]
    assert found == {**nothing, **said}


def test_the_network_is_explicit_before_tensorrt_10_and_typed_where_asked(script: Script) -> None:
    def sort(version: str, options: EngineOptions) -> int:
        spec = replace(SPEC, precision="fp32")
        return int(_build(script, version, options, spec)["network"])

    assert sort("8.5", EngineOptions()) != 0
    assert sort("10.0", EngineOptions()) == 0
    assert sort("10.0", EngineOptions(strongly_typed=True)) != 0


def test_timings_are_read_and_written(script: Script) -> None:
    _build(script, "10.3", EngineOptions(timing_cache=True))
    assert Path("timing.cache").read_bytes() == b"+timings"
    _build(script, "10.3", EngineOptions(timing_cache=True))
    assert Path("timing.cache").read_bytes() == b"+timings+timings"


@pytest.mark.parametrize(
    ("model", "timings", "options", "message"),
    [
        (UNPARSABLE, b"", EngineOptions(), "error: Unsupported operator: Mish"),
        (b"onnx", b"", EngineOptions(dla_core=3), "error: no DLA core 3: this device has 2"),
        (
            b"onnx",
            b"other device",
            EngineOptions(timing_cache=True),
            "error: the timing cache is of another device or TensorRT",
        ),
    ],
    ids=["parser", "DLA", "timings"],
)
def test_what_cannot_be_built_is_said(
    script: Script,
    capsys: pytest.CaptureFixture[str],
    model: bytes,
    timings: bytes,
    options: EngineOptions,
    message: str,
) -> None:
    Path("model.onnx").write_bytes(model)
    Path("timing.cache").write_bytes(timings)
    with pytest.raises(SystemExit):
        _build(script, "10.3", options)
    output = capsys.readouterr().out
    assert message in output
    assert output.endswith("&&&& FAILED device_build.py\n")
    assert not Path("model.engine").exists()


X = np.array([[1, 2], [3, 5]], np.float32)
WEIGHT = np.array(fake_tensorrt.WEIGHT)
BIAS = np.array([[1, 1, 1], [2, 0, 2]], np.float32)


def _run(script: Script, version: str, options: EngineOptions) -> dict[str, Any]:
    """The outputs of two cases."""
    _build(script, version, options, replace(SPEC, precision="fp32"))
    job = {
        "engine": "model.engine",
        "model": "model.onnx" if options.strip_weights else None,
        "has_code": options.version_compatible,
        "inputs": [
            {"name": "x", "shape": [1, 2], "bytes": 8},
            {"name": "bias", "shape": [1, 3], "bytes": 12},
        ],
        "outputs": [
            {"name": "sum", "shape": [1, 3], "bytes": 12},
            {"name": "product", "shape": [1, 3], "bytes": 12},
        ],
        "cases": 2,
        "given": "given.bin",
        "computed": "computed.bin",
    }
    Path("job.json").write_text(json.dumps(job))
    Path("given.bin").write_bytes(
        b"".join(X[case].tobytes() + BIAS[case].tobytes() for case in (0, 1))
    )
    script("device_run.py", version).main("job.json")
    computed = np.frombuffer(Path("computed.bin").read_bytes(), np.float32).reshape(2, 2, 3)
    return {"sum": computed[:, 0], "product": computed[:, 1]}


@pytest.mark.parametrize("version", CLAIMED)
def test_an_engine_runs_on_each_version(script: Script, version: str) -> None:
    found = _run(script, version, EngineOptions())
    np.testing.assert_array_equal(found["product"], X @ WEIGHT)
    np.testing.assert_array_equal(found["sum"], X @ WEIGHT + BIAS)


@pytest.mark.parametrize(
    "options",
    [EngineOptions(strip_weights=True), EngineOptions(version_compatible=True)],
    ids=["stripped", "compatible"],
)
def test_an_engine_that_needs_more_than_loading_runs(
    script: Script, options: EngineOptions
) -> None:
    found = _run(script, "10.3", options)
    np.testing.assert_array_equal(found["product"], X @ WEIGHT)


def test_memory_is_given_back(script: Script) -> None:
    _build(script, "10.3", EngineOptions(), replace(SPEC, precision="fp32"))
    found = script("device_run.py", "10.3")
    engine = found.LoadedEngine(Path("model.engine").read_bytes(), model=None, has_code=False)
    inputs = {"x": X[0].tobytes(), "bias": BIAS[0].tobytes()}
    for _ in range(3):
        engine.run(inputs, {"sum": 12, "product": 12})
    memory = engine._cuda._library.memory
    assert len(memory) == 4
    engine.close()
    assert not memory


def test_an_engine_of_another_version_is_refused(script: Script) -> None:
    _build(script, "8.6", EngineOptions(), replace(SPEC, precision="fp32"))
    found = script("device_run.py", "10.3")
    with pytest.raises(RuntimeError, match="was not built by this TensorRT"):
        found.LoadedEngine(Path("model.engine").read_bytes(), model=None, has_code=False)


def test_a_missing_cuda_is_named(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    _build(script, "10.3", EngineOptions(), replace(SPEC, precision="fp32"))
    found = script("device_run.py", "10.3")

    def missing(name: str) -> Cuda:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match="runtime library is missing: looked for libcudart"):
        found.LoadedEngine(Path("model.engine").read_bytes(), model=None, has_code=False)
