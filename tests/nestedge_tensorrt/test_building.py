from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from nestedge.artifact import Artifact
from nestedge.errors import IntegrityError, MissingDependencyError, NestedgeError, UsageError
from nestedge_tensorrt.building import build_engine
from nestedge_tensorrt.options import Batches, EngineOptions
from nestedge_tensorrt.places import Place, place
from nestedge_tensorrt.store import BuiltEngine, built_engines
from tests.fakes import fake_artifact
from tests.nestedge_tensorrt.devices import FakeDevice, make_cell, real_model

URL = "ssh://me@jetson"


@pytest.fixture(params=[None, URL], ids=["here", "ssh"])
def somewhere(request: pytest.FixtureRequest, device: FakeDevice) -> Place:
    return place(request.param)


def _build(
    artifact: Artifact,
    where: Place,
    *,
    by: str = "trtexec",
    options: EngineOptions | None = None,
    timing_cache: Path | None = None,
) -> tuple[Path, BuiltEngine]:
    asked = EngineOptions() if options is None else options
    return build_engine(artifact.folder, where, by=by, options=asked, timing_cache=timing_cache)


def test_trtexec_builds_an_engine(artifact: Artifact, somewhere: Place, device: FakeDevice) -> None:
    folder, built = _build(artifact, somewhere)
    assert folder == artifact.folder / "engines" / built.fingerprint.key
    assert (folder / "model.engine").read_bytes() == b"a plan"
    assert "Engine built in 1.5 sec." in (folder / "build.log").read_text()
    assert built_engines(artifact.folder) == [built]
    assert built.state == "built, unverified"
    assert built.build_seconds == 1.5
    assert device.calls("trtexec")[-1] == (
        "--onnx=model.onnx --saveEngine=model.engine --noTF32 --sparsity=enable --skipInference"
    )
    # Nothing else stays, there or here.
    assert [path.name for path in (artifact.folder / "engines").iterdir()] == [folder.name]


def test_the_engine_says_what_it_belongs_to(artifact: Artifact, somewhere: Place) -> None:
    _, built = _build(artifact, somewhere)
    values = built.fingerprint.to_json()
    assert values["model_sha256"] == artifact.files["model.onnx"].sha256
    assert values["tensorrt"].startswith("10.3.0")
    assert values["compute_capability"] == "8.6"
    assert values["device"] == "Fake GPU"
    assert values["driver"] == "535.1"
    assert values["precision"] == "fp32"
    assert values["options"] == "sparsity"


def test_python_builds_an_engine(artifact: Artifact, somewhere: Place) -> None:
    folder, built = _build(artifact, somewhere, by="python")
    plan = json.loads((folder / "model.engine").read_bytes())
    assert plan["flags"] == ["BuilderFlag.SPARSE_WEIGHTS"]
    assert built.built_by == "python3 device_build.py job.json"
    assert built.build_seconds is not None


@pytest.mark.parametrize("by", ["trtexec", "python"])
def test_options_reach_the_builder(
    artifact: Artifact, somewhere: Place, device: FakeDevice, by: str
) -> None:
    options = EngineOptions(strip_weights=True, workspace_mib=64)
    folder, built = _build(artifact, somewhere, by=by, options=options)
    assert built.fingerprint.values["options"] == "sparsity strip_weights workspace_mib=64"
    if by == "trtexec":
        assert {"--stripWeights", "--memPoolSize=workspace:64"} <= set(
            device.calls("trtexec")[-1].split()
        )
    else:
        plan = json.loads((folder / "model.engine").read_bytes())
        assert "BuilderFlag.STRIP_PLAN" in plan["flags"]
        assert plan["pools"] == {"MemoryPoolType.WORKSPACE": 64 << 20}


@pytest.mark.parametrize("by", ["trtexec", "python"])
def test_timings_go_there_and_come_back(
    artifact: Artifact, somewhere: Place, by: str, tmp_path: Path
) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"old")
    _build(artifact, somewhere, by=by, timing_cache=cache)
    assert cache.read_bytes().startswith(b"old+")


def test_engines_of_other_options_lie_side_by_side(artifact: Artifact, device: FakeDevice) -> None:
    here = place(None)
    _build(artifact, here)
    _build(artifact, here)
    assert len(built_engines(artifact.folder)) == 1
    _build(artifact, here, options=EngineOptions(workspace_mib=64))
    device.say("gpu", "Other GPU, 8.6, 535.1\n")
    _build(artifact, here)
    assert len(built_engines(artifact.folder)) == 3


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("failed", "Could not find any implementation for node {x}.: no kernel fits: give it more"),
        ("full", "Saving engine to file failed.: is its disk full"),
        ("killed", "trtexec was killed, as the kernel does where memory is short"),
        ("nothing", "it ended with status 0"),
    ],
)
def test_a_build_that_fails_leaves_the_log_and_no_engine(
    artifact: Artifact, somewhere: Place, device: FakeDevice, mode: str, message: str
) -> None:
    device.say("mode", mode)
    with pytest.raises(NestedgeError) as caught:
        _build(artifact, somewhere)
    assert message in str(caught.value)
    assert f"small/tensorrt-fp32 on {somewhere.name}: the engine could not" in str(caught.value)
    log = artifact.folder / "engines" / "build.log"
    assert str(log) in str(caught.value)
    assert "RUNNING TensorRT.trtexec" in log.read_text()
    assert built_engines(artifact.folder) == []


def test_an_engine_stays_when_the_next_build_fails(artifact: Artifact, device: FakeDevice) -> None:
    folder, built = _build(artifact, place(None))
    device.say("mode", "failed")
    with pytest.raises(NestedgeError, match="could not be built"):
        _build(artifact, place(None))
    assert built_engines(artifact.folder) == [built]
    assert (folder / "model.engine").read_bytes() == b"a plan"


@pytest.mark.parametrize("mode", ["lost", "lost-late"])
def test_a_connection_that_breaks_leaves_nothing(
    artifact: Artifact, device: FakeDevice, mode: str
) -> None:
    device.say("ssh.mode", mode)
    with pytest.raises(NestedgeError, match="the connection was lost after it had begun to run"):
        _build(artifact, place(URL))
    assert built_engines(artifact.folder) == []


def test_a_missing_trtexec_is_named(artifact: Artifact, device: FakeDevice) -> None:
    device.remove("trtexec")
    with pytest.raises(MissingDependencyError, match="no trtexec on the device: sudo apt-get"):
        _build(artifact, place(URL))


def test_a_missing_module_is_named(artifact: Artifact, device: FakeDevice) -> None:
    (device.folder / "site" / "tensorrt" / "__init__.py").write_text("raise ModuleNotFoundError")
    with pytest.raises(MissingDependencyError, match="no Python's module tensorrt on the device"):
        _build(artifact, place(None), by="python")


def test_what_the_tensorrt_there_lacks_is_refused_before_anything_is_built(
    artifact: Artifact, device: FakeDevice
) -> None:
    device.say("version", "8602")
    for by, found in (("trtexec", r"8\.6\.2"), ("python", r"8\.6\.0\.0")):
        device.install_tensorrt("8.6")
        with pytest.raises(UsageError, match=rf"needs TensorRT 10\.0, found {found}"):
            _build(artifact, place(None), by=by, options=EngineOptions(strip_weights=True))
    assert all(call == "--help" for call in device.calls("trtexec"))


def test_a_model_that_the_tensorrt_there_does_not_parse_is_refused(
    tmp_path: Path, device: FakeDevice
) -> None:
    artifact = make_cell(tmp_path / "newer", minimum="10.0")
    device.say("version", "8502")
    with pytest.raises(UsageError, match=r"the model needs TensorRT 10\.0, found 8\.5\.2"):
        _build(artifact, place(None))


def test_the_oldest_tensorrt_is_given_the_model_in_its_opset(
    tmp_path: Path, somewhere: Place, device: FakeDevice
) -> None:
    artifact = make_cell(tmp_path / "older", model=real_model())
    device.say("version", "8201")
    folder, built = _build(artifact, somewhere)
    sent = onnx.load_from_string((device.folder / "model.sent").read_bytes())
    assert sent.opset_import[0].version == 13
    assert device.calls("trtexec")[-1].endswith("--noTF32 --sparsity=enable --buildOnly")
    assert built.fingerprint.values["model_sha256"] == artifact.files["model.onnx"].sha256
    assert sorted(path.name for path in folder.iterdir()) == [
        "build.log",
        "engine.fingerprint.json",
        "model.engine",
    ]
    device.install_tensorrt("8.4")
    with pytest.raises(UsageError, match=r"from TensorRT 8\.5 on, found 8\.4\.0\.0: build by trt"):
        _build(artifact, somewhere, by="python")


def test_a_typed_engine_of_fp16_is_built_of_a_model_in_half_precision(
    tmp_path: Path, device: FakeDevice
) -> None:
    artifact = make_cell(tmp_path / "half", precision="fp16", model=real_model())
    device.say("version", "110000")
    with pytest.raises(UsageError, match=r"TensorRT 11\.0\.0 has no --fp16 any more"):
        _build(artifact, place(None))
    _build(artifact, place(None), options=EngineOptions(strongly_typed=True))
    sent = onnx.load_from_string((device.folder / "model.sent").read_bytes())
    kinds = {item.name: item.data_type for item in sent.graph.initializer}
    assert kinds["w"] == TensorProto.FLOAT16
    line = "--stronglyTyped --sparsity=enable --skipInference"
    assert device.calls("trtexec")[-1].endswith(line)


@pytest.mark.parametrize("by", ["trtexec", "python"])
def test_an_engine_for_several_batches_is_built_of_a_model_for_any(
    tmp_path: Path, somewhere: Place, device: FakeDevice, by: str
) -> None:
    artifact = make_cell(tmp_path / "any", model=real_model())
    options = EngineOptions(batches=Batches(1, 2, 4))
    folder, built = _build(artifact, somewhere, by=by, options=options)
    assert built.fingerprint.values["options"] == "sparsity batches=[1, 2, 4]"
    if by == "trtexec":
        sent = onnx.load_from_string((device.folder / "model.sent").read_bytes())
        assert sent.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert (
            "--minShapes=x:1x2,bias:1x3 --optShapes=x:2x2,bias:2x3 --maxShapes=x:4x2,bias:4x3"
        ) in device.calls("trtexec")[-1]
    else:
        plan = json.loads((folder / "model.engine").read_bytes())
        assert plan["profiles"] == [
            {"x": [[1, 2], [2, 2], [4, 2]], "bias": [[1, 3], [2, 3], [4, 3]]}
        ]


def test_what_cannot_be_rewritten_is_refused_before_anything_is_built(
    tmp_path: Path, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_cell(tmp_path / "any", model=real_model())
    options = EngineOptions(batches=Batches(1, 2, 4))
    monkeypatch.setitem(sys.modules, "nestedge_tensorrt.adapting", None)
    with pytest.raises(
        MissingDependencyError, match=r"the model is needed for batches of any size, and .* missing"
    ):
        _build(artifact, place(None), options=options)
    with pytest.raises(UsageError, match="build an engine for several with its weights"):
        _build(artifact, place(None), options=replace(options, strip_weights=True))
    assert all(call == "--help" for call in device.calls("trtexec"))


def test_an_engine_of_another_gpu_than_the_device_says_is_refused(
    artifact: Artifact, device: FakeDevice
) -> None:
    device.say("mode", "other")
    with pytest.raises(NestedgeError, match=r"compute capability 8\.9, the device says 8\.6"):
        _build(artifact, place(None))
    assert built_engines(artifact.folder) == []


def test_an_artifact_of_another_runtime_is_refused(tmp_path: Path, device: FakeDevice) -> None:
    artifact = fake_artifact(tmp_path)
    with pytest.raises(UsageError, match=r"which has engine\.json; this one is of 'fake'"):
        _build(artifact, place(None))


def test_a_changed_model_is_refused(artifact: Artifact, device: FakeDevice) -> None:
    artifact.model_path.write_bytes(b"onny")
    with pytest.raises(IntegrityError, match=r"model\.onnx: expected sha256"):
        _build(artifact, place(None))
