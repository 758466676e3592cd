from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.errors import BudgetError, IntegrityError, UsageError
from nestedge.matrix import Cell, read_matrix, write_matrix
from nestedge.profiling.measurement import describe_device, save_measurements
from nestedge.selection import Budget, select_for_device
from nestedge.verify import ENGINE_UNBUILT, save_verifications, verify_artifact
from tests.fakes import DESCRIPTION, FakeRuntime, fake_artifact, measurement
from tests.matrices import device, fake_matrix

ROOMY = Budget(size_bytes=10**9)
SKIPPED = Cell("small", "fake", "int8", state="skipped", reason="no calibration data")


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A build for this machine and a Jetson: two runtimes, one of them for engines."""
    folder = tmp_path / "dist"
    fp32 = replace(DESCRIPTION, parameters=30)
    fp16 = replace(DESCRIPTION, precision="fp16", peak_memory_bytes=46)
    engine = replace(fp16, runtime="engine")
    artifacts = [fake_artifact(folder, description) for description in (fp32, fp16, engine)]
    devices = [
        device("local", {"fake": ["fp32", "fp16"]}),
        device("jetson", {"engine": ["fp16"], "fake": ["fp16", "int8"]}),
        device("board", {"fake": ["int8"]}),
    ]
    fake_matrix(folder, artifacts, devices=devices, unbuilt=[SKIPPED])
    save_verifications(folder, [verify_artifact(found, FakeRuntime()) for found in artifacts])
    return folder


def test_only_the_built_cells_of_the_device_are_candidates(dist: Path) -> None:
    here = select_for_device(dist, "local", ROOMY)
    assert [known.cell for known in here.candidates] == ["small/fake-fp16", "small/fake-fp32"]
    there = select_for_device(dist, "jetson", ROOMY)
    assert [known.cell for known in there.candidates] == ["small/engine-fp16", "small/fake-fp16"]
    assert "small/fake-int8 is not built: skipped: no calibration data" in there.selection.notes
    assert here.selection.notes == ()


def test_the_chosen_artifact_is_given(dist: Path) -> None:
    found = select_for_device(dist, "local", ROOMY)
    assert found.artifact.cell == found.selection.chosen == "small/fake-fp32"
    assert found.artifact.folder == dist / "small" / "fake-fp32"
    found = select_for_device(dist, "local", Budget(memory_bytes=50))
    assert found.selection.chosen == "small/fake-fp16"


def test_an_unbuilt_engine_is_told_with_its_cell(dist: Path) -> None:
    notes = select_for_device(dist, "jetson", ROOMY).selection.notes
    assert f"small/engine-fp16: {ENGINE_UNBUILT}" in notes


def _measure(dist: Path, machine: str) -> None:
    found = [
        replace(measurement(artifact, quantity, value, width=0.1), device=machine)
        for artifact in (select_for_device(dist, "local", ROOMY).artifact,)
        for quantity, value in (("latency_ms", 2.0), ("accuracy_percent", 90.0))
    ]
    save_measurements(dist, found)


def test_latencies_of_this_machine_count_here(dist: Path) -> None:
    _measure(dist, describe_device())
    found = select_for_device(dist, "local", Budget(latency_ms=2.0))
    assert found.selection.chosen == "small/fake-fp32"
    assert found.selection.notes == ()
    with pytest.raises(BudgetError, match="latency 2 ms is 100 % over"):
        select_for_device(dist, "local", Budget(latency_ms=1.0))


def test_latencies_of_another_machine_do_not_count_here_and_that_is_said(dist: Path) -> None:
    _measure(dist, "a board")
    with pytest.raises(BudgetError, match="latency unmeasured; measure with 'nestedge profile'"):
        select_for_device(dist, "local", Budget(latency_ms=10.0))
    notes = select_for_device(dist, "local", ROOMY).selection.notes
    assert notes == (
        "latencies measured on a board do not count for local",
        "accuracies are of the same files on a board, by fake 1.0, not on local",
    )


def test_on_another_device_accuracies_count_and_latencies_do_not(tmp_path: Path) -> None:
    small = fake_artifact(tmp_path)
    full = fake_artifact(tmp_path, replace(DESCRIPTION, level="full"), seed=1)
    fake_matrix(tmp_path, [small, full], devices=[device("pixel-8", {"fake": ["fp32"]})])
    save_verifications(tmp_path, [verify_artifact(found, FakeRuntime()) for found in (small, full)])
    here = describe_device()
    measurements = [
        replace(measurement(artifact, quantity, value, width=0.1), device=here)
        for artifact, ms, percent in ((small, 1.0, 90.0), (full, 9.0, 95.0))
        for quantity, value in (("latency_ms", ms), ("accuracy_percent", percent))
    ]
    save_measurements(tmp_path, measurements)
    found = select_for_device(tmp_path, "pixel-8", Budget(latency_ms=2))
    assert found.selection.chosen == "full/fake-fp32"
    assert found.selection.notes[0].startswith("latency limit of 2 ms not applied: unmeasured on p")
    assert found.selection.notes[1:] == (
        f"latencies measured on {here} do not count for pixel-8",
        f"accuracies are of the same files on {here}, by fake 1.0, not on pixel-8",
    )


def test_latencies_of_this_machine_count_for_the_known_device_that_it_is(
    dist: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "root" / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_text("raspberrypi,5-model-b\0brcm,bcm2712\0")
    (tmp_path / "root" / "proc" / "cpuinfo").write_text("Model : A Board\n")
    root = tmp_path / "root"
    matrix = read_matrix(dist)
    board = device("raspberry-pi-5", {"fake": ["fp32"]})
    write_matrix(dist, replace(matrix, devices={**matrix.devices, board.id: board}))
    _measure(dist, describe_device(root / "proc" / "cpuinfo"))
    found = select_for_device(dist, board.id, Budget(latency_ms=2.0), root=root)
    assert (found.selection.chosen, found.selection.notes) == ("small/fake-fp32", ())
    with pytest.raises(BudgetError, match="latency 2 ms is 100 % over"):
        select_for_device(dist, board.id, Budget(latency_ms=1.0), root=root)
    notes = select_for_device(dist, board.id, Budget(latency_ms=1.0)).selection.notes
    assert "latency limit of 1 ms not applied: unmeasured on raspberry-pi-5" in notes[0]


def test_a_device_that_nothing_was_built_for_is_refused(dist: Path) -> None:
    with pytest.raises(UsageError, match=r"not built for device 'jetsen'; .* mean 'jetson'\?"):
        select_for_device(dist, "jetsen", ROOMY)
    reason = "nothing is built for board: small/fake-int8 is not built: skipped: no calibration"
    with pytest.raises(UsageError, match=reason):
        select_for_device(dist, "board", ROOMY)


def test_where_no_cell_at_all_was_built_the_reasons_are_told(tmp_path: Path) -> None:
    fake_matrix(tmp_path, [], devices=[device("local", {"fake": ["int8"]})], unbuilt=[SKIPPED])
    with pytest.raises(UsageError, match="nothing is built for local: small/fake-int8 is not bui"):
        select_for_device(tmp_path, "local", ROOMY)


def test_a_built_artifact_that_is_gone_is_told(dist: Path) -> None:
    shutil.rmtree(dist / "small" / "fake-fp16")
    with pytest.raises(IntegrityError, match="fake-fp16: no artifact, though it was built; build"):
        select_for_device(dist, "jetson", ROOMY)


def test_without_a_build_document_all_artifacts_are_for_this_machine_alone(dist: Path) -> None:
    (dist / "build.json").unlink()
    assert len(select_for_device(dist, "local", ROOMY).candidates) == 3
    with pytest.raises(UsageError, match=r"no build\.json: make one with 'nestedge build'"):
        select_for_device(dist, "jetson", ROOMY)


def test_nothing_is_chosen_before_it_is_verified(dist: Path) -> None:
    (dist / "verifications.json").unlink()
    with pytest.raises(UsageError, match="not verified: run 'nestedge verify'"):
        select_for_device(dist, "local", ROOMY)


def test_a_chosen_artifact_whose_file_was_changed_is_refused(dist: Path) -> None:
    (dist / "small" / "fake-fp32" / "model.fake").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"small/fake-fp32: model\.fake: expected sha256"):
        select_for_device(dist, "local", ROOMY)
    found = select_for_device(dist, "local", Budget(memory_bytes=50))
    assert found.selection.chosen == "small/fake-fp16"


def test_an_artifact_in_the_place_of_another_is_refused(dist: Path) -> None:
    shutil.rmtree(dist / "small" / "fake-fp32")
    shutil.copytree(dist / "small" / "fake-fp16", dist / "small" / "fake-fp32")
    message = "expected the artifact 'small/fake-fp32', found 'small/fake-fp16'; build again"
    with pytest.raises(IntegrityError, match=message):
        select_for_device(dist, "local", ROOMY)
