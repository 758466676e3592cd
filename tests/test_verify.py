from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nestedge.artifact import reference_bytes
from nestedge.errors import (
    FormatError,
    IntegrityError,
    MissingDependencyError,
    PlacementError,
    UsageError,
)
from nestedge.plugins import Array, TensorInfo
from nestedge.precisions import PRECISIONS
from nestedge.profiling.measurement import describe_device
from nestedge.verify import (
    ENGINE_UNBUILT,
    DataCheck,
    Localisation,
    load_verifications,
    relative_error,
    save_verifications,
    tolerance_reason,
    verify_artifact,
    verify_folder,
)
from tests.fakes import (
    DESCRIPTION,
    INPUT,
    OUTPUT,
    FakeRuntime,
    declare_plugins,
    fake_artifact,
    fake_build,
)


@dataclass(frozen=True)
class FixedRuntime:
    """A runtime and a session at once that gives the same outputs for whatever it is asked."""

    gives: Mapping[str, Array]
    name: str = "fake"
    inputs: tuple[TensorInfo, ...] = (INPUT,)
    outputs: tuple[TensorInfo, ...] = (OUTPUT,)

    def version(self) -> str:
        return "fixed 1.0"

    def open(self, path: Path, *, threads: int = 1) -> FixedRuntime:
        return self

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(self.gives)


class ElderRuntime(FakeRuntime):
    """A runtime plug-in that opens the fake runtime's models."""

    name = "elder"
    reads = "fake"

    def version(self) -> str:
        return "elder 0.5"


X = np.zeros((2, 1, 1, 2, 2), np.float32)
Y = np.array([[[1, 2, -4]], [[1, 2, -4]]], np.float32)
REFERENCE = reference_bytes({"input": X}, {"logits": Y})


def test_an_artifact_of_its_level_passes(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    result = verify_artifact(artifact, FakeRuntime())
    assert result.passed
    assert result.model_sha256 == artifact.files["model.fake"].sha256
    assert (result.runtime, result.device, result.note) == ("fake", describe_device(), "")
    assert result.max_error <= 1e-6
    assert (result.cell, result.output, result.reason) == ("small/fake-fp32", "logits", "")
    assert (result.cases, result.runtime_version) == (3, "fake 1.0")


def test_an_artifact_of_another_level_fails(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    other = fake_artifact(tmp_path / "other", seed=1)
    reference = (other.folder / "reference.safetensors").read_bytes()
    result = verify_artifact(fake_artifact(tmp_path, reference=reference), FakeRuntime())
    assert artifact.cell == result.cell
    assert not result.passed
    assert "is above 1e-05" in result.reason


@pytest.mark.parametrize(("offset", "passed"), [(0.0, True), (0.0390625, True), (0.0625, False)])
def test_the_error_is_relative_to_the_largest_reference(
    tmp_path: Path, offset: float, passed: bool
) -> None:
    description = replace(DESCRIPTION, tolerance=0.01)
    artifact = fake_artifact(tmp_path, description, reference=REFERENCE)
    found = Y[0] + np.array([[0, offset, 0]], np.float32)
    result = verify_artifact(artifact, FixedRuntime({"logits": found}))
    assert result.max_error == pytest.approx(offset / 4)
    assert result.passed is passed


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        ({}, "output 'logits' is missing; found []"),
        ({"logit": Y[0]}, "output 'logits' is missing; found ['logit']"),
        ({"logits": Y[0, 0]}, "output 'logits': expected shape (1, 3)"),
        ({"logits": Y[0].astype(np.float64)}, "found (1, 3) and float64"),
        ({"logits": Y[0] * np.nan}, "output 'logits' is not a number"),
    ],
    ids=["none", "name", "shape", "dtype", "nan"],
)
def test_an_output_that_is_none_fails(tmp_path: Path, gives: dict[str, Array], reason: str) -> None:
    artifact = fake_artifact(tmp_path, reference=REFERENCE)
    result = verify_artifact(artifact, FixedRuntime(gives))
    assert not result.passed
    assert result.max_error == math.inf
    assert reason in result.reason


def test_the_worst_output_is_named(tmp_path: Path) -> None:
    outputs = (OUTPUT, TensorInfo("aux", (1,), "float32"), TensorInfo("last", (1,), "float32"))
    ones = np.ones((2, 1), np.float32)
    reference = reference_bytes({"input": X}, {"logits": Y, "aux": ones, "last": ones})
    description = replace(DESCRIPTION, outputs=outputs)
    artifact = fake_artifact(tmp_path, description, reference=reference)
    gives = {"logits": Y[0], "aux": ones[0] * np.float32(1.5), "last": ones[0]}
    result = verify_artifact(artifact, FixedRuntime(gives))
    assert (result.output, result.max_error, result.passed) == ("aux", 0.5, False)


def test_a_model_that_the_runtime_refuses_fails_and_the_others_are_verified(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_build(tmp_path / "dist")
    # What is hashed is no model: a converter wrote it so.
    broken = replace(DESCRIPTION, level="broken", model="constants.json")
    fake_artifact(tmp_path / "dist", broken)
    seen: list[str] = []
    results = verify_folder(tmp_path / "dist", after_each=lambda result: seen.append(result.cell))
    assert {result.cell: result.passed for result in results} == {
        "broken/fake-fp32": False,
        "full/fake-fp32": True,
        "small/fake-fp32": True,
    }
    assert "fake refuses it" in results[0].reason
    assert seen == [result.cell for result in results]


def test_no_artifact_is_run_before_all_hashes_are_checked(
    tmp_path: Path, fake_runtime: Path
) -> None:
    artifacts = fake_build(tmp_path)
    artifacts[0].model_path.write_bytes(b"")
    seen: list[str] = []
    with pytest.raises(IntegrityError, match=r"small/fake-fp32: model\.fake: expected sha256"):
        verify_folder(tmp_path, after_each=lambda result: seen.append(result.cell))
    assert seen == []


def test_a_runtime_that_is_not_installed_is_no_failed_verification(
    tmp_path: Path, site: Path
) -> None:
    fake_build(tmp_path / "dist")
    with pytest.raises(UsageError, match="no runtime 'fake'"):
        verify_folder(tmp_path / "dist")
    (site / "lacking.py").write_text("import no_such_framework\n")
    declare_plugins(site, group="nestedge.runtimes", entries={"fake": "lacking:Plugin"})
    with pytest.raises(MissingDependencyError, match="needs no_such_framework"):
        verify_folder(tmp_path / "dist")


def test_a_model_for_an_engine_is_run_by_what_checks_it_and_says_so(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    (result,) = verify_folder(tmp_path)
    assert (result.cell, result.runtime, result.passed) == ("small/engine-fp32", "fake", True)
    assert result.note == ENGINE_UNBUILT


def test_another_runtime_verifies_only_the_artifacts_that_it_reads(
    tmp_path: Path, site: Path
) -> None:
    # Of the runtimes, only the one that was asked for is installed.
    entries = {"elder": "tests.test_verify:ElderRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    fake_artifact(tmp_path / "dist")
    fake_artifact(tmp_path / "dist", replace(DESCRIPTION, runtime="other", checked_by="other"))
    (result,) = verify_folder(tmp_path / "dist", runtime="elder")
    assert (result.cell, result.runtime) == ("small/fake-fp32", "elder")
    assert (result.runtime_version, result.passed) == ("elder 0.5", True)


def test_a_runtime_that_reads_no_artifact_is_refused(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="other", checked_by="other"))
    message = r"runtime 'fake' opens artifacts of 'fake'; these are of \['other'\]"
    with pytest.raises(UsageError, match=message):
        verify_folder(tmp_path, runtime="fake")


def test_records_are_kept_by_cell_and_runtime_and_newer_ones_replace_older(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    of_small, of_full = (verify_artifact(artifact, FakeRuntime()) for artifact in (small, full))
    by_elder = verify_artifact(small, ElderRuntime())
    failed = verify_artifact(small, FixedRuntime({}))
    assert load_verifications(tmp_path) == []
    save_verifications(tmp_path, [of_small, of_full, by_elder])
    path = save_verifications(tmp_path, [failed])
    assert path == tmp_path / "verifications.json"
    assert failed.max_error == math.inf
    assert load_verifications(tmp_path) == [of_full, by_elder, failed]


def test_records_of_the_format_before_are_read_and_kept(tmp_path: Path) -> None:
    small, full = fake_build(tmp_path)
    result = verify_artifact(small, FakeRuntime())
    path = save_verifications(tmp_path, [result])
    document = json.loads(path.read_text())
    for name in ("closeness", "data", "localisation"):
        del document["verifications"][0][name]
    path.write_text(json.dumps({**document, "format": 1}))
    old = replace(result, closeness=None)
    assert load_verifications(tmp_path) == [old]
    newer = verify_artifact(full, FakeRuntime())
    save_verifications(tmp_path, [newer])
    assert load_verifications(tmp_path) == [newer, old]
    assert json.loads(path.read_text())["format"] == 2


def test_all_that_was_found_is_kept(tmp_path: Path) -> None:
    place = Localisation(reference="", compared=0, values=0, operator=None, note="untraced")
    data = DataCheck(
        data_sha256="0" * 64,
        samples=4,
        accuracy_percent=75.0,
        low=30.0,
        high=95.0,
        exact="",
        exact_accuracy_percent=None,
        agreement_percent=None,
    )
    result = verify_artifact(fake_artifact(tmp_path), FakeRuntime())
    result = replace(result, data=data, localisation=place)
    save_verifications(tmp_path, [result])
    assert result.closeness is not None
    assert load_verifications(tmp_path) == [result]


def test_further_figures_are_those_of_the_worst_output(tmp_path: Path) -> None:
    outputs = (OUTPUT, TensorInfo("aux", (2,), "float32"))
    one = np.array([[3.0, 4.0], [3.0, 4.0]], np.float32)
    reference = reference_bytes({"input": X}, {"logits": Y, "aux": one})
    artifact = fake_artifact(tmp_path, replace(DESCRIPTION, outputs=outputs), reference=reference)
    gives = {"logits": Y[0] * np.float32(1.5), "aux": one[0, ::-1].copy()}
    closeness = verify_artifact(artifact, FixedRuntime(gives)).closeness
    assert closeness is not None
    assert closeness.max_absolute_error == 2
    assert closeness.cosine == pytest.approx(24 / 25)
    assert closeness.top1_agreement == 1


@pytest.mark.parametrize("gives", [{}, {"logits": Y[0] * np.nan}], ids=["missing", "nan"])
def test_what_is_no_output_has_no_further_figures(tmp_path: Path, gives: dict[str, Array]) -> None:
    artifact = fake_artifact(tmp_path, reference=REFERENCE)
    assert verify_artifact(artifact, FixedRuntime(gives)).closeness is None


@pytest.mark.parametrize(
    ("precision", "tolerance", "reason"),
    [
        ("fp16", PRECISIONS["fp16"].tolerance, PRECISIONS["fp16"].reason),
        ("fp16", 0.5, ""),
        ("fp11", 0.5, ""),
    ],
    ids=["as now", "of another version", "unknown"],
)
def test_a_failure_says_why_no_more_is_allowed(
    tmp_path: Path, precision: str, tolerance: float, reason: str
) -> None:
    description = replace(DESCRIPTION, precision=precision, tolerance=tolerance)
    artifact = fake_artifact(tmp_path, description, reference=REFERENCE)
    result = verify_artifact(artifact, FixedRuntime({"logits": Y[0] * np.float32(2)}))
    assert tolerance_reason(artifact) == reason
    assert result.reason.startswith(f"error 1 is above {tolerance:.3g}")
    assert result.reason.endswith(f"(fp16: {reason})") is bool(reason)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format=3), r"verifications\.json: format: expected 2"),
        (lambda d: d["verifications"][0].pop("device"), r"verifications\[0\]\.device: missing"),
        (lambda d: d["verifications"][0].update(when=1), r"\[0\]\.when: unknown; expected cell"),
        (lambda d: d["verifications"][0].update(model_sha256="0"), "expected 64 hex digits"),
        (lambda d: d["verifications"][0].update(max_error=1), r"passed: expected false, by max_e"),
        (lambda d: d["verifications"][0].update(passed=1), r"passed: expected true, .* found 1"),
        (lambda d: d["verifications"][0].update(cases=0), r"cases: expected an integer of at lea"),
    ],
    ids=["format", "missing", "unknown", "hash", "error", "passed", "cases"],
)
def test_a_wrong_field_of_a_record_is_named(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    result = verify_artifact(fake_artifact(tmp_path), FakeRuntime())
    path = save_verifications(tmp_path, [result])
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        load_verifications(tmp_path)


FINITE = arrays.arrays(np.float64, (4,), elements=st.floats(-1e6, 1e6, width=32))


@given(FINITE, FINITE)
def test_the_error_is_zero_only_for_equal_arrays(a: Array, b: Array) -> None:
    assert relative_error(a, a) == 0
    assert (relative_error(a, b) == 0) == bool((a == b).all())


@given(FINITE.filter(lambda b: bool(np.abs(b).max() > 1e-3)), st.floats(0.001, 1000))
def test_the_error_does_not_depend_on_the_scale(b: npt.NDArray[np.float64], scale: float) -> None:
    a = b + np.array([0.0, 1.0, 0.0, -0.5])
    assert relative_error(a * scale, b * scale) == pytest.approx(relative_error(a, b), rel=1e-6)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([-math.inf, 1.5], [-math.inf, 1.0], 0.5),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([1e9, 1.0], [math.inf, 1.0], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([0.25], [0.0], 0.25),
        ([2], [1], 1.0),
        ([True, False], [True, True], 1.0),
        ([255], [0], 255.0),
    ],
)
def test_the_error_of_odd_values(found: list[float], expected: list[float], error: float) -> None:
    assert relative_error(np.array(found), np.array(expected)) == error


def test_a_record_says_the_provider_that_was_asked_for(
    tmp_path: Path, provider_runtime: Path
) -> None:
    fake_build(tmp_path)
    found = verify_folder(tmp_path, provider="npu")
    assert [(result.passed, result.runtime_version) for result in found] == [
        (True, "fake 1.0 (npu)"),
        (True, "fake 1.0 (npu)"),
    ]
    save_verifications(tmp_path, found)
    assert load_verifications(tmp_path) == found
    assert {result.runtime_version for result in verify_folder(tmp_path)} == {"fake 1.0"}


def test_a_provider_that_cannot_be_started_says_nothing_about_an_artifact(
    tmp_path: Path, provider_runtime: Path
) -> None:
    fake_build(tmp_path)
    with pytest.raises(PlacementError, match="fake could not start dead"):
        verify_folder(tmp_path, provider="dead")
