from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nestedge.artifact import reference_bytes
from nestedge.errors import IntegrityError, MissingDependencyError, UsageError
from nestedge.plugins import Array, TensorInfo
from nestedge.verify import relative_error, verify_artifact, verify_folder
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


X = np.zeros((2, 1, 1, 2, 2), np.float32)
Y = np.array([[[1, 2, -4]], [[1, 2, -4]]], np.float32)
REFERENCE = reference_bytes({"input": X}, {"logits": Y})


def test_an_artifact_of_its_level_passes(tmp_path: Path) -> None:
    result = verify_artifact(fake_artifact(tmp_path), FakeRuntime())
    assert result.passed
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
