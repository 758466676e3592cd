from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from safetensors import numpy as safetensors

from nestedge.artifact import write_artifact
from nestedge.cli import main
from nestedge.matrix import Cell
from nestedge.placement import Operator, Placed, Placement
from nestedge.precisions import PRECISIONS
from nestedge.verify import ENGINE_UNBUILT, load_verifications
from tests.fakes import DESCRIPTION, FakeRuntime, declare_plugins, fake_artifact, fake_build
from tests.matrices import fake_matrix
from tests.nestedge_onnx.graphs import linear_artifact


@pytest.fixture
def tracing_runtime(site: Path) -> Path:
    """The fake runtime, telling the values in between."""
    entries = {"fake": "tests.verify.test_localisation:TracingFake"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    return site


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, args)])


def test_good_artifacts_are_listed(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path / "dist")
    result = _run(tmp_path / "dist")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    header = "cell max error tolerance cosine PSNR dB top-1 output cases runtime note"
    assert " ".join(lines[0].split()) == header
    assert [line.split()[:2] for line in lines[1:]] == [
        ["full/fake-fp32", "ok"],
        ["small/fake-fp32", "ok"],
    ]
    assert all(line.endswith("  fake 1.0") for line in lines[1:])


def test_results_are_kept_even_of_what_failed(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, level="bad", model="constants.json"))
    assert _run(tmp_path).exit_code == 3
    assert [(found.cell, found.passed) for found in load_verifications(tmp_path)] == [
        ("bad/fake-fp32", False),
        ("full/fake-fp32", True),
        ("small/fake-fp32", True),
    ]


def test_what_a_verification_leaves_open_is_told(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    result = _run(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].endswith(f"fake 1.0  {ENGINE_UNBUILT}")


def test_cells_without_an_artifact_are_listed_and_are_no_failure(
    tmp_path: Path, fake_runtime: Path
) -> None:
    unbuilt = [
        Cell("small", "fake", "int8", state="skipped", reason="int8 needs calibration data: x"),
        Cell("full", "fake", "fp16", state="failed", reason="unsupported", log="logs/x.log"),
    ]
    fake_matrix(tmp_path, [fake_artifact(tmp_path)], devices=[], unbuilt=unbuilt)
    result = _run(tmp_path)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2] == ["full/fake-fp16", "failed", *"------", "unsupported"]
    assert lines[3][:2] == ["small/fake-int8", "skipped"]
    assert result.stdout.endswith("int8 needs calibration data: x\n")
    document = json.loads(_run(tmp_path, "--json").stdout)
    assert [(cell["cell"], cell["state"]) for cell in document["unbuilt"]] == [
        ("full/fake-fp16", "failed"),
        ("small/fake-int8", "skipped"),
    ]


def test_another_runtime_may_be_asked_for(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="other", checked_by="other"))
    result = _run(tmp_path, "--runtime", "fake")
    assert result.exit_code == 0
    assert "other" not in result.stdout
    result = _run(tmp_path, "--runtime", "fakke")
    assert result.exit_code == 2
    assert "no runtime 'fakke'" in result.stderr


def test_an_artifact_that_is_not_its_level_exits_3_by_name(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_build(tmp_path / "dist")
    # A model that the runtime refuses has no error as a number.
    fake_artifact(tmp_path / "dist", replace(DESCRIPTION, level="bad", model="constants.json"))
    result = _run(tmp_path / "dist", "--json")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: 1 of 3 failed: bad/fake-fp32: ")
    assert result.stderr.count("\n") == 1
    found = {entry["cell"]: entry for entry in json.loads(result.stdout)["verifications"]}
    assert [entry["passed"] for entry in found.values()] == [False, True, True]
    assert found["bad/fake-fp32"]["max_error"] is None
    text = _run(tmp_path / "dist")
    assert text.exit_code == 3
    assert "bad/fake-fp32    FAILED" in text.stdout


def test_a_changed_file_exits_6_and_nothing_runs(tmp_path: Path, fake_runtime: Path) -> None:
    artifact = fake_build(tmp_path / "dist")[0]
    artifact.model_path.write_bytes(artifact.model_path.read_bytes() + b"\0")
    result = _run(tmp_path / "dist")
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.startswith("error: small/fake-fp32: model.fake: expected sha256 ")


def test_a_truncated_description_exits_2(tmp_path: Path) -> None:
    path = fake_build(tmp_path / "dist")[0].folder / "artifact.json"
    path.write_text(path.read_text()[:100])
    result = _run(tmp_path / "dist")
    assert result.exit_code == 2
    assert "artifact.json: not JSON: " in result.stderr


def test_a_folder_without_artifacts_exits_2(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert result.exit_code == 2
    assert "holds no artifact: make some with 'nestedge build'" in result.stderr


def _int8(dist: Path, scale: float) -> None:
    """A cell in 8 bits whose weight is multiplied, next to that in single precision."""
    fake_artifact(dist)
    artifact = fake_artifact(dist, replace(DESCRIPTION, precision="int8", tolerance=0.1))
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    tensors = safetensors.load(files["model.fake"])
    weight = (tensors["weight"] * scale).astype(np.float32)
    files["model.fake"] = safetensors.save({**tensors, "weight": weight})
    write_artifact(artifact.folder, artifact, files=files)


def test_the_operator_of_a_failure_is_named_and_kept(tmp_path: Path, tracing_runtime: Path) -> None:
    _int8(tmp_path, -1)
    result = _run(tmp_path)
    assert result.exit_code == 3
    (line,) = result.stdout.splitlines()[3:]
    assert line.startswith("small/fake-int8: worst operator Product 'node 1': error 0 before it, ")
    assert line.endswith("at 'product'; beside small/fake-fp32, 3 of 3 values compared")
    (found,) = (item.localisation for item in load_verifications(tmp_path) if not item.passed)
    assert found is not None
    assert found.operator is not None
    assert found.operator.kind == "Product"


def test_what_passed_is_looked_into_on_request(tmp_path: Path, tracing_runtime: Path) -> None:
    _int8(tmp_path, 1.001)
    assert _run(tmp_path).stdout.count("worst operator") == 0
    result = _run(tmp_path, "--trace")
    assert result.exit_code == 0
    exact, coarse = result.stdout.splitlines()[3:]
    assert exact == (
        "small/fake-fp32: worst operator unknown: single precision is compared with the network "
        "itself: give --model"
    )
    assert "; no operator stands out: the error grows from one to the next" in coarse


def test_the_reason_of_the_tolerance_is_in_the_document(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    for entry in json.loads(_run(tmp_path, "--json").stdout)["verifications"]:
        assert entry["tolerance_reason"] == PRECISIONS["fp32"].reason
        assert entry["closeness"]["top1_agreement"] == 1


def test_accuracy_and_agreement_are_listed(tmp_path: Path, fake_runtime: Path) -> None:
    _int8(tmp_path, 1.001)
    inputs = np.random.default_rng(0).standard_normal((4, 1, 2, 2)).astype(np.float32)
    labels = np.zeros(4, np.int64)
    np.savez(tmp_path / "test.npz", inputs=inputs, labels=labels)
    result = _run(tmp_path, "--data", tmp_path / "test.npz")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    at = lines[0].index("accuracy") - len(lines[0])
    assert lines[0][at : at + 3] == ["accuracy", "fp32", "agree"]
    accuracies = [line[7:10] for line in lines[1:]]
    assert accuracies[0][0] == accuracies[0][1] == accuracies[1][1]
    assert [line[2] for line in accuracies] == ["100.00", "100.00"]
    kept = {item.cell: item.data for item in load_verifications(tmp_path)}
    assert all(item is not None and item.samples == 4 for item in kept.values())


def test_data_that_does_not_fit_exits_2(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    np.savez(tmp_path / "test.npz", inputs=np.zeros((1, 1, 2, 2), np.float32), labels=[7])
    result = _run(tmp_path, "--data", tmp_path / "test.npz")
    assert result.exit_code == 2
    assert "test.npz: labels must be 0..2, one of 3 classes, got 7..7" in result.stderr


def test_a_network_that_is_none_exits_2(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--model", tmp_path / "none.nest")
    assert result.exit_code == 2
    assert "none.nest" in result.stderr


class PlacedFake(FakeRuntime):
    """The fake runtime, with three quarters of the work on an accelerator."""

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        """A product there, a sum here."""
        there = Placed("Product", "node 1", "NPU", 3)
        return Placement("NPU", (there, Placed("Sum", "node 2", "CPU", 1)), 1, "a test")

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The two."""
        return (Operator("Product", "node 1", 3), Operator("Sum", "node 2", 1))


@pytest.fixture
def placed_runtime(site: Path) -> Path:
    """The fake runtime, telling where it runs what."""
    entries = {"fake": "tests.cli.test_verify:PlacedFake"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    return site


@pytest.mark.parametrize(("share", "code"), [("0.75", 0), ("0.76", 4), ("1.5", 2)])
def test_too_little_on_the_accelerator_exits_4(
    tmp_path: Path, placed_runtime: Path, share: str, code: int
) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--require-placement", share)
    assert result.exit_code == code
    if code == 4:
        assert "small/fake-fp32: 75.0% of MACs on NPU, elsewhere " in result.stderr
        # What was verified is listed and kept all the same.
        assert "small/fake-fp32  ok" in result.stdout
        assert len(load_verifications(tmp_path)) == 2


def test_an_artifact_that_is_not_its_level_is_told_before_where_it_runs(
    tmp_path: Path, placed_runtime: Path
) -> None:
    _int8(tmp_path, -1)
    result = _run(tmp_path, "--require-placement", "1")
    assert result.exit_code == 3
    assert "NPU" not in result.stderr


def test_a_runtime_that_does_not_tell_where_it_runs_exits_4(
    tmp_path: Path, fake_runtime: Path
) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--require-placement", "0")
    assert result.exit_code == 4
    assert "runtime 'fake' does not say where its operators run" in result.stderr


def test_a_provider_is_told_and_kept(tmp_path: Path) -> None:
    linear_artifact(tmp_path)
    result = _run(tmp_path, "--provider", "cpu", "--require-placement", "1")
    assert result.exit_code == 0, result.stderr
    said = f"onnxruntime {onnxruntime.__version__} (CPUExecutionProvider)"
    assert said in result.stdout
    assert [found.runtime_version for found in load_verifications(tmp_path)] == [said]
    # Without one, the record is as it always was.
    assert _run(tmp_path).exit_code == 0
    kept = json.loads((tmp_path / "verifications.json").read_bytes())
    assert kept["format"] == 2
    assert [found["runtime_version"] for found in kept["verifications"]] == [
        f"onnxruntime {onnxruntime.__version__}"
    ]


@pytest.mark.parametrize("share", [(), ("--require-placement", "1")], ids=["run", "placed"])
def test_a_provider_that_onnxruntime_lacks_is_refused_with_those_that_it_has(
    tmp_path: Path, share: tuple[str, ...]
) -> None:
    linear_artifact(tmp_path)
    result = _run(tmp_path, "--provider", "hexagon", *share)
    assert result.exit_code == 2
    assert "has no provider 'hexagon' here; it has " in result.stderr
    assert "'cpu'" in result.stderr
    assert load_verifications(tmp_path) == []


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="onnxruntime was built without it",
)
def test_a_share_is_that_of_the_provider_that_was_asked_for(tmp_path: Path) -> None:
    linear_artifact(tmp_path)
    result = _run(tmp_path, "--provider", "azure", "--require-placement", "0.5")
    assert result.exit_code == 4
    assert "small/onnx-fp32: 0.0% of MACs on AzureExecutionProvider" in result.stderr


def test_a_runtime_without_providers_is_refused_before_anything_runs(
    tmp_path: Path, fake_runtime: Path
) -> None:
    linear_artifact(tmp_path)
    fake_artifact(tmp_path)
    result = _run(tmp_path, "--provider", "cpu")
    assert result.exit_code == 2
    assert "runtime 'fake' takes no provider, and 'cpu' was asked for" in result.stderr
    assert result.stdout == ""
    assert _run(tmp_path, "--provider", "cpu", "--runtime", "onnx").exit_code == 0
