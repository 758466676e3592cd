from __future__ import annotations

import ctypes
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nestedge_tensorrt
from nestedge.artifact import Artifact, read_reference
from nestedge.errors import FormatError, MissingDependencyError, NestedgeError, UsageError
from nestedge.verify import verify_artifact
from nestedge_tensorrt.building import build_engine
from nestedge_tensorrt.options import Batches, EngineOptions
from nestedge_tensorrt.places import place
from tests.nestedge_tensorrt import fake_tensorrt
from tests.nestedge_tensorrt.devices import FakeDevice, make_cell, real_model

FILE = Path(str(nestedge_tensorrt.__file__)).with_name("runtime.py")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, device: FakeDevice) -> ModuleType:
    """The module, with a TensorRT 10.3."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module("10.3"))
    monkeypatch.setattr(ctypes, "CDLL", fake_tensorrt.Cuda)
    monkeypatch.delitem(sys.modules, "nestedge_tensorrt.device_run", raising=False)
    return _imported()


def _imported() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensorrt_runtime", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(artifact: Artifact, options: EngineOptions | None = None) -> Path:
    asked = EngineOptions() if options is None else options
    folder, _ = build_engine(
        artifact.folder, place(None), by="python", options=asked, timing_cache=None
    )
    return folder


def test_an_engine_runs_and_gives_what_the_level_gives(
    artifact: Artifact, runtime: ModuleType
) -> None:
    _build(artifact)
    session = runtime.TensorrtRuntime().open(artifact.model_path)
    assert session.inputs == artifact.inputs
    assert session.outputs == artifact.outputs
    reference = read_reference(artifact)
    found = session.run(reference.case(2))
    for name, expected in reference.outputs.items():
        np.testing.assert_allclose(found[name], expected[2], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [EngineOptions(strip_weights=True), EngineOptions(version_compatible=True)],
    ids=["stripped", "compatible"],
)
def test_an_engine_is_loaded_as_it_was_built(
    artifact: Artifact, runtime: ModuleType, options: EngineOptions
) -> None:
    _build(artifact, options)
    result = verify_artifact(artifact, runtime.TensorrtRuntime())
    assert result.passed
    assert result.runtime == "tensorrt"
    assert result.runtime_version == "TensorRT 10.3.0.0"


def test_an_engine_for_several_batches_runs_one_sample_where_it_takes_one(
    tmp_path: Path, runtime: ModuleType
) -> None:
    artifact = make_cell(tmp_path / "any", model=real_model())
    folder = _build(artifact, EngineOptions(batches=Batches(1, 2, 4)))
    assert verify_artifact(artifact, runtime.TensorrtRuntime()).passed
    shutil.rmtree(folder)
    _build(artifact, EngineOptions(batches=Batches(2, 2, 4)))
    with pytest.raises(
        FormatError, match=r"does not take x of \(1, 2\): build one for a batch of 1"
    ):
        runtime.TensorrtRuntime().open(artifact.model_path)


def test_an_input_of_another_shape_is_refused(artifact: Artifact, runtime: ModuleType) -> None:
    _build(artifact)
    session = runtime.TensorrtRuntime().open(artifact.model_path)
    with pytest.raises(ValueError, match="input 'bias' is missing"):
        session.run({"x": np.zeros((1, 2), np.float32)})


def test_a_missing_engine_is_told(artifact: Artifact, runtime: ModuleType) -> None:
    with pytest.raises(UsageError, match="no engine was built: nestedge engine build"):
        runtime.TensorrtRuntime().open(artifact.model_path)
    with pytest.raises(UsageError, match="no such file"):
        runtime.TensorrtRuntime().open(artifact.folder / "other.onnx")


def test_an_engine_of_another_device_is_refused(
    artifact: Artifact, runtime: ModuleType, device: FakeDevice
) -> None:
    _build(artifact)
    device.say("gpu", "Fake GPU, 8.9, 535.1\n")
    with pytest.raises(NestedgeError, match=r"compute_capability: built for '8\.6', here it is"):
        runtime.TensorrtRuntime().open(artifact.model_path)


def test_what_tensorrt_refuses_is_told(
    artifact: Artifact, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(artifact)
    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", lambda self, plan: None)
    with pytest.raises(FormatError, match=r"model\.engine: TensorRT refuses the engine"):
        runtime.TensorrtRuntime().open(artifact.model_path)


def test_an_engine_of_other_tensors_is_refused(
    artifact: Artifact, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(artifact)
    monkeypatch.setitem(fake_tensorrt.SHAPES, "sum", (1, 4))
    with pytest.raises(FormatError, match=r"'sum': expected shape \(1, 3\), found \(1, 4\)"):
        runtime.TensorrtRuntime().open(artifact.model_path)


def test_a_failing_run_is_told(
    artifact: Artifact, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(artifact)
    session = runtime.TensorrtRuntime().open(artifact.model_path)
    monkeypatch.setattr(
        fake_tensorrt.IExecutionContext, "execute_async_v3", lambda self, stream: False
    )
    with pytest.raises(NestedgeError, match="running failed: TensorRT failed to run the engine"):
        session.run(read_reference(artifact).case(0))


def test_memory_is_given_back_with_the_session(artifact: Artifact, runtime: ModuleType) -> None:
    _build(artifact)
    session = runtime.TensorrtRuntime().open(artifact.model_path)
    session.run(read_reference(artifact).case(0))
    memory = session._engine._cuda._library.memory
    assert memory
    del session
    assert not memory


def test_a_missing_tensorrt_is_named_with_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="apt-get install python3-libnvinfer"):
        _imported()
