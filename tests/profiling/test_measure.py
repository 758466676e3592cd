from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import numpy as safetensors

from nestedge.artifact import Artifact, reference_bytes
from nestedge.errors import FormatError, IntegrityError, UsageError
from nestedge.plugins import Array, TensorInfo
from nestedge.profiling.measure import (
    load_measurements,
    measure_accuracies,
    measure_accuracy,
    profile_folder,
    save_measurements,
)
from nestedge.profiling.measurement import describe_device
from tests.fakes import (
    DESCRIPTION,
    OUTPUT,
    FakeRuntime,
    fake_artifact,
    fake_build,
    linear,
    measurement,
)


def test_every_artifact_is_measured_with_all_that_a_number_needs(
    tmp_path: Path, fake_runtime: Path
) -> None:
    artifacts = {artifact.cell: artifact for artifact in fake_build(tmp_path)}
    rounds: list[int] = []
    found = profile_folder(
        tmp_path, rounds=4, seed=0, threads=2, after_round=lambda: rounds.append(1)
    )
    assert [(entry.cell, entry.quantity) for entry in found] == [
        ("full/fake-fp32", "latency_ms"),
        ("full/fake-fp32", "load_ms"),
        ("small/fake-fp32", "latency_ms"),
        ("small/fake-fp32", "load_ms"),
    ]
    assert len(rounds) == 4
    for entry in found:
        assert entry.p90 is not None
        assert 0 < entry.low <= entry.value <= entry.high
        assert entry.value <= entry.p90
        assert entry.model_sha256 == artifacts[entry.cell].files["model.fake"].sha256
        assert (entry.origin, entry.threads) == ("measured", 2)
        assert (entry.runtime_version, entry.device) == ("fake 1.0", describe_device())
        assert entry.samples == (4 if entry.quantity == "latency_ms" else 5)


def test_a_measurement_says_the_provider_that_was_asked_for(
    tmp_path: Path, provider_runtime: Path
) -> None:
    fake_build(tmp_path)
    inputs, labels = np.zeros((2, 1, 1, 2, 2), np.float32), np.zeros(2, np.int64)
    found = [
        *profile_folder(tmp_path, rounds=1, seed=0, provider="npu"),
        *measure_accuracies(tmp_path, inputs=inputs, labels=labels, provider="npu"),
    ]
    assert {item.quantity for item in found} == {"latency_ms", "load_ms", "accuracy_percent"}
    assert {item.runtime_version for item in found} == {"fake 1.0 (npu)"}
    save_measurements(tmp_path, found)
    assert len(load_measurements(tmp_path)) == len(found)


def test_only_what_the_runtime_opens_is_measured(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="other", checked_by="other"))
    found = profile_folder(tmp_path, rounds=1, seed=0, runtime="fake")
    assert {item.cell for item in found} == {"small/fake-fp32"}
    with pytest.raises(UsageError, match="'fake' opens artifacts of 'fake'; these are of"):
        profile_folder(tmp_path / "small/other-fp32", rounds=1, seed=0, runtime="fake")


def test_a_changed_model_is_not_measured(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)[0].model_path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="small/fake-fp32"):
        profile_folder(tmp_path, rounds=1, seed=0)
    inputs = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(IntegrityError, match="small/fake-fp32"):
        measure_accuracies(tmp_path, inputs=inputs, labels=np.array([0]))


def test_an_engine_that_is_not_built_has_an_accuracy_and_no_latency(
    tmp_path: Path, fake_runtime: Path
) -> None:
    engine = fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    # No runtime "engine" is declared: nothing may ask for it.
    assert profile_folder(tmp_path, rounds=1, seed=0) == []
    fake_artifact(tmp_path)
    timed = profile_folder(tmp_path, rounds=1, seed=0)
    assert {found.cell for found in timed} == {"small/fake-fp32"}
    inputs = np.random.default_rng(0).standard_normal((9, 1, 2, 2)).astype(np.float32)
    labels = _answers(engine, inputs)
    found = measure_accuracies(tmp_path, inputs=inputs, labels=labels)
    assert [(entry.cell, entry.value, entry.runtime_version) for entry in found] == [
        ("small/engine-fp32", 100.0, "fake 1.0"),
        ("small/fake-fp32", 100.0, "fake 1.0"),
    ]


def test_saving_replaces_the_same_quantity_and_keeps_the_rest(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    old = measurement(small, "latency_ms", 1.0, width=0.5)
    other = measurement(full, "latency_ms", 2.0, width=0.5)
    accuracy = measurement(small, "accuracy_percent", 90.0, width=1.0)
    new = measurement(small, "latency_ms", 3.0, width=0.5)
    assert load_measurements(tmp_path) == []
    save_measurements(tmp_path, [old, other, accuracy])
    path = save_measurements(tmp_path, [new])
    assert path == tmp_path / "measurements.json"
    assert load_measurements(tmp_path) == [other, accuracy, new]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format=2), r"measurements\.json: format: expected 1"),
        (lambda d: d["measurements"][0].pop("device"), r"measurements\[0\]\.device: missing"),
        (lambda d: d["measurements"][0].update(value="1"), r"\[0\]\.value: expected a number"),
        (lambda d: d["measurements"][0].update(value=9), r"expected a number within 0\.5\.\.1\.5"),
        (lambda d: d["measurements"][0].update(quantity="speed"), r"quantity: expected"),
        (lambda d: d["measurements"][0].update(origin="guessed"), r'origin: expected "measured"'),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    small, _ = fake_build(tmp_path)
    path = save_measurements(tmp_path, [measurement(small, "latency_ms", 1.0, width=0.5)])
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        load_measurements(tmp_path)


def _answers(artifact: Artifact, inputs: Array) -> npt.NDArray[np.int64]:
    tensors = safetensors.load(artifact.model_path.read_bytes())
    scores = linear(inputs, tensors["weight"], tensors["bias"])
    return np.asarray(scores.argmax(-1), np.int64)


def test_the_accuracy_is_the_share_of_right_answers(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    inputs = np.random.default_rng(0).standard_normal((40, 1, 2, 2)).astype(np.float32)
    labels = _answers(artifact, inputs)
    labels[:10] = (labels[:10] + 1) % 3
    found = measure_accuracy(artifact, FakeRuntime(), inputs=inputs, labels=labels)
    assert (found.quantity, found.value, found.samples) == ("accuracy_percent", 75.0, 40)
    assert found.low == pytest.approx(59.8, abs=0.05)
    assert found.high == pytest.approx(85.8, abs=0.05)
    assert found.p90 is None
    labels[0] = (labels[0] + 1) % 3
    other = measure_accuracy(artifact, FakeRuntime(), inputs=inputs, labels=labels)
    assert found.data_sha256 is not None
    assert other.data_sha256 != found.data_sha256
    save_measurements(tmp_path, [found])
    assert load_measurements(tmp_path) == [found]


def test_images_are_preprocessed_as_the_artifact_says(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (30, 2, 2), dtype=np.uint8)
    labels = _answers(artifact, ((images / 255 - 0.5) / 0.5)[:, None])
    for given in (images, images[..., None]):
        found = measure_accuracy(artifact, FakeRuntime(), inputs=given, labels=labels)
        assert found.value == 100.0
    assert len(set(labels)) > 1


def test_not_a_number_is_never_the_right_answer(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    inputs = np.full((1, 1, 2, 2), np.nan, np.float32)
    found = measure_accuracy(artifact, FakeRuntime(), inputs=inputs, labels=np.array([0]))
    assert found.value == 0.0


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (
            np.zeros((2, 1, 2, 2), np.float32),
            np.array([0]),
            r"labels of shape \(cases,\), got \(2, 1, 2, 2\) and \(1,\)",
        ),
        (
            np.zeros((0, 1, 2, 2), np.float32),
            np.zeros(0, np.int64),
            r"got \(0, 1, 2, 2\) and \(0,\)",
        ),
        (
            np.zeros((1, 1, 2, 2), np.float32),
            np.array([3]),
            r"must be 0\.\.2, .* got 3\.\.3",
        ),
        (np.zeros((1, 1, 2, 2), np.float32), np.array([0.0]), "labels must be integers"),
        (np.zeros((1, 3), np.float32), np.array([0]), "expected shape"),
        (np.array(3), np.array([0]), r"got \(\) and \(1,\)"),
    ],
    ids=["count", "empty", "range", "dtype", "shape", "scalar"],
)
def test_data_that_does_not_fit_is_refused(
    tmp_path: Path, inputs: Array, labels: Array, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure_accuracy(fake_artifact(tmp_path), FakeRuntime(), inputs=inputs, labels=labels)


def test_what_is_no_classifier_has_no_accuracy(tmp_path: Path) -> None:
    x, y = np.zeros((1, 1, 1, 2, 2), np.float32), np.zeros((1, 1, 3), np.float32)
    two = replace(DESCRIPTION, outputs=(OUTPUT, TensorInfo("z", (1, 3), "float32")))
    reference = reference_bytes({"input": x}, {"logits": y, "z": y})
    with pytest.raises(UsageError, match="accuracy needs one input and one output of shape"):
        measure_accuracy(
            fake_artifact(tmp_path, two, reference=reference),
            FakeRuntime(),
            inputs=x[0],
            labels=np.array([0]),
        )


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor : 0\nmodel name\t: Some  CPU @ 2 GHz\n", "Some CPU @ 2 GHz, "),
        ("processor : 0\nCPU part : 0xd0b\n\nModel : Raspberry Pi 5\n", "Raspberry Pi 5, "),
        ("Hardware : Qualcomm SM8550\n", "Qualcomm SM8550, "),
    ],
)
def test_the_device_is_called_by_its_cpu(tmp_path: Path, text: str, model: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert describe_device(tmp_path / "cpuinfo").startswith(model)
    assert "core" in describe_device(tmp_path / "none")
