from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import Artifact
from nestedge.profiling.measurement import Measurement
from nestedge.selection import Candidate, candidates
from nestedge.verify import Verification, verify_artifact
from tests.fakes import FakeRuntime, fake_artifact, fake_build, measurement


def _known(
    artifact: Artifact,
    *,
    measurements: list[Measurement] | None = None,
    verifications: list[Verification] | None = None,
    machine: str | None = "a test",
) -> Candidate:
    (found,) = candidates(
        [artifact],
        measurements or [],
        verifications=verifications or [],
        machine=machine,
    )
    return found


def _verified(artifact: Artifact, runtime: str = "fake", *, passed: bool = True) -> Verification:
    found = replace(verify_artifact(artifact, FakeRuntime()), runtime=runtime)
    if passed:
        return found
    return replace(found, passed=False, reason=f"no {runtime}", runtime_version=f"{runtime} 1.0")


def test_measurements_of_an_older_build_do_not_count(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    latency = measurement(small, "latency_ms", 2.0, width=0.5)
    stale = replace(measurement(full, "latency_ms", 3.0, width=0.5), model_sha256="0" * 64)
    assert _known(small, measurements=[latency, stale]).latency == latency
    assert _known(full, measurements=[latency, stale]).latency is None


def test_bytes_are_those_of_the_artifact(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    known = _known(artifact)
    assert known.size_bytes == artifact.model_path.stat().st_size
    assert (known.peak_memory_bytes, known.parameters) == (92, 15)


@pytest.mark.parametrize(("machine", "counts"), [("a test", True), ("b", False), (None, False)])
def test_only_latencies_of_the_machine_count_and_accuracies_of_any(
    tmp_path: Path, machine: str | None, counts: bool
) -> None:
    artifact = fake_artifact(tmp_path)
    measurements = [
        measurement(artifact, "latency_ms", 2.0, width=0.5),
        measurement(artifact, "accuracy_percent", 90.0, width=0.5),
    ]
    known = _known(artifact, measurements=measurements, machine=machine)
    assert (known.latency is not None) is counts
    assert known.accuracy is not None


def test_a_verified_artifact_may_be_used(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    known = _known(artifact, verifications=[_verified(artifact)])
    assert (known.refusal, known.note) == ("", "")


def test_an_artifact_that_nobody_verified_in_this_build_is_refused(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    stale = replace(_verified(small), model_sha256="0" * 64)
    known = _known(small, verifications=[stale, _verified(full)])
    assert known.refusal == "not verified: run 'nestedge verify'"


def test_an_artifact_that_failed_is_refused_by_what_failed(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    known = _known(artifact, verifications=[_verified(artifact, passed=False)])
    assert known.refusal == "failed its verification in fake 1.0: no fake"


def test_a_failure_in_a_runtime_beside_its_own_is_told_and_no_refusal(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    records = [_verified(artifact), _verified(artifact, "elder", passed=False)]
    known = _known(artifact, verifications=records)
    assert known.refusal == ""
    assert known.note == "failed its verification in elder 1.0: no elder"
    records = [_verified(artifact, passed=False), _verified(artifact, "elder")]
    assert _known(artifact, verifications=records).refusal.endswith("fake 1.0: no fake")


def test_where_only_another_runtime_ran_it_that_one_decides(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    known = _known(artifact, verifications=[_verified(artifact, "elder")])
    assert known.refusal == ""
    known = _known(artifact, verifications=[_verified(artifact, "elder", passed=False)])
    assert known.refusal == "failed its verification in elder 1.0: no elder"
