from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestedge.artifact import Artifact, read_reference
from nestedge.errors import (
    IntegrityError,
    MissingDependencyError,
    NestedgeError,
    UsageError,
    VerificationError,
)
from nestedge_tensorrt.building import build_engine
from nestedge_tensorrt.options import Batches, EngineOptions
from nestedge_tensorrt.places import Place, place
from nestedge_tensorrt.store import built_engines
from nestedge_tensorrt.verifying import verify_engine
from tests.nestedge_tensorrt.devices import FakeDevice, make_cell, real_model

URL = "ssh://me@jetson"


@pytest.fixture(params=[None, URL], ids=["here", "ssh"])
def somewhere(request: pytest.FixtureRequest, device: FakeDevice) -> Place:
    return place(request.param)


def _build(artifact: Artifact, options: EngineOptions | None = None) -> Path:
    asked = EngineOptions() if options is None else options
    folder, _ = build_engine(
        artifact.folder, place(None), by="python", options=asked, timing_cache=None
    )
    return folder


def test_an_engine_that_is_its_level_is_verified_where_it_was_built(
    artifact: Artifact, somewhere: Place
) -> None:
    _build(artifact)
    found = verify_engine(artifact.folder, somewhere)
    assert found.state == "verified"
    assert found.max_error is not None
    assert found.max_error <= 1e-6
    assert found.runtime_version == "TensorRT 10.3.0.0"
    assert built_engines(artifact.folder) == [found]


@pytest.mark.parametrize("batches", [Batches(1, 2, 4), Batches(3, 3, 5)])
def test_an_engine_for_several_batches_is_verified_at_each(
    tmp_path: Path, somewhere: Place, batches: Batches
) -> None:
    artifact = make_cell(tmp_path / "any", model=real_model())
    _build(artifact, EngineOptions(batches=batches))
    found = verify_engine(artifact.folder, somewhere)
    assert found.state == "verified"
    assert found.max_error is not None
    assert found.max_error <= 1e-6


def test_a_tensorrt_that_is_too_old_for_python_is_refused(
    artifact: Artifact, device: FakeDevice
) -> None:
    device.install_tensorrt("8.4")
    with pytest.raises(UsageError, match=r"Python builds and runs engines from TensorRT 8\.5 on"):
        verify_engine(artifact.folder, place(None))


def test_an_engine_that_is_not_its_level_stays_unverified(
    artifact: Artifact, device: FakeDevice
) -> None:
    _build(artifact)
    verify_engine(artifact.folder, place(None))
    device.install_tensorrt("10.3", factor=1.01)
    _build(artifact)
    with pytest.raises(
        VerificationError,
        match=r"^small/tensorrt-fp32 on this machine: the engine is not its level: output '\w+': "
        r"error 0\.01\d* is above 1e-05$",
    ):
        verify_engine(artifact.folder, place(None))
    (built,) = built_engines(artifact.folder)
    assert built.state == "built, unverified"
    assert built.max_error == pytest.approx(0.01, rel=0.2)


def test_an_engine_that_gives_nan_is_not_its_level(artifact: Artifact, device: FakeDevice) -> None:
    device.install_tensorrt("10.3", factor=float("inf"))
    reference = read_reference(artifact)
    assert all(np.isfinite(array).all() for array in reference.outputs.values())
    _build(artifact)
    with pytest.raises(VerificationError, match="error inf is above"):
        verify_engine(artifact.folder, place(None))
    assert built_engines(artifact.folder)[0].max_error is None


@pytest.mark.parametrize(
    "options",
    [EngineOptions(strip_weights=True), EngineOptions(version_compatible=True)],
    ids=["stripped", "compatible"],
)
def test_an_engine_that_needs_more_than_loading_is_verified(
    artifact: Artifact, device: FakeDevice, options: EngineOptions
) -> None:
    _build(artifact, options)
    assert verify_engine(artifact.folder, place(None)).state == "verified"


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        (
            "Fake GPU, 8.9, 535.1",
            "compute_capability: built for '8.6', here it is '8.9': TensorRT does not load the",
        ),
        ("Fake GPU, 8.6, 550.2", "driver: built for '535.1', here it is '550.2': NVIDIA does not"),
    ],
)
def test_an_engine_of_another_device_is_refused_with_the_reason(
    artifact: Artifact, device: FakeDevice, gpu: str, message: str
) -> None:
    _build(artifact)
    device.say("gpu", f"{gpu}\n")
    with pytest.raises(NestedgeError) as caught:
        verify_engine(artifact.folder, place(URL))
    assert message in str(caught.value)
    assert f"build one here: nestedge engine build {artifact.folder}" in str(caught.value)


def test_an_engine_of_another_tensorrt_is_refused(artifact: Artifact, device: FakeDevice) -> None:
    _build(artifact)
    device.install_tensorrt("10.8")
    with pytest.raises(NestedgeError, match=r"tensorrt: built for '10\.3.*', here it is '10\.8"):
        verify_engine(artifact.folder, place(None))


def test_the_engine_of_this_device_is_found_among_others(
    artifact: Artifact, device: FakeDevice
) -> None:
    _build(artifact)
    device.say("gpu", "Other GPU, 8.6, 535.1\n")
    mine = _build(artifact)
    found = verify_engine(artifact.folder, place(None))
    assert mine.name == found.fingerprint.key
    assert sorted(built.state for built in built_engines(artifact.folder)) == [
        "built, unverified",
        "verified",
    ]


def test_an_engine_that_was_not_built_is_asked_for(artifact: Artifact, device: FakeDevice) -> None:
    with pytest.raises(UsageError, match=r"no engine was built: nestedge engine build /"):
        verify_engine(artifact.folder, place(None))


def test_a_changed_engine_is_refused(artifact: Artifact, device: FakeDevice) -> None:
    (_build(artifact) / "model.engine").write_bytes(b"another plan")
    with pytest.raises(IntegrityError, match=r"model\.engine: expected sha256 \w+, found \w+"):
        verify_engine(artifact.folder, place(None))


def test_a_device_without_the_module_cannot_verify(artifact: Artifact, device: FakeDevice) -> None:
    _build(artifact)
    (device.folder / "site" / "tensorrt" / "__init__.py").write_text("raise ModuleNotFoundError")
    with pytest.raises(MissingDependencyError, match="no Python's module tensorrt on the device"):
        verify_engine(artifact.folder, place(None))


def test_an_engine_that_does_not_run_is_told_with_the_reason(
    artifact: Artifact, device: FakeDevice
) -> None:
    _build(artifact)
    module = device.folder / "site" / "tensorrt" / "__init__.py"
    module.write_text(f"{module.read_text()}ctypes.CDLL = lambda name: 1 / 0\n")
    with pytest.raises(NestedgeError, match=r"could not be run: python3: ZeroDivisionError: div"):
        verify_engine(artifact.folder, place(URL))
