from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import Artifact
from nestedge.errors import FormatError, IntegrityError, UsageError, VerificationError
from nestedge.matrix import read_matrix, write_matrix
from nestedge.packaging.filtering import CellFilter, default_cell
from nestedge.packaging.shipment import Shipment, read_shipment, read_shipped
from nestedge.packaging.shipping import ship
from tests.fakes import DESCRIPTION, fake_artifact
from tests.packaging.builds import CELLS, change, tree, verified_build, verify


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "new"


def _ship(dist: Path, repo: Path, only: CellFilter | None = None) -> Shipment:
    (shipment,) = ship(dist, repo, devices=["phone"], only=only or CellFilter())
    return shipment


def test_every_hash_in_the_repository_is_that_of_the_next_document(dist: Path, repo: Path) -> None:
    phone, board = ship(dist, repo, devices=["phone", "board"])
    index = json.loads((repo / "index.json").read_text())
    assert index["format"] == 1
    entry = index["devices"]["phone"]
    assert entry["folder"] == phone.folder == f"phone-{entry['sha256'][:16]}"
    folder = repo / phone.folder
    assert entry["bytes"] == sum(map(len, tree(folder).values()))
    assert read_shipment(folder) == phone
    assert [cell.name for cell in phone.cells] == list(CELLS)
    assert [artifact.cell for artifact in read_shipped(folder)] == list(CELLS)
    for cell in CELLS:
        assert tree(folder / cell) == tree(dist / cell)
    assert [cell.name for cell in board.cells] == ["small/fake-int8", "full/fake-int8"]
    names = sorted(path.name for path in repo.iterdir())
    assert names == sorted(["index.json", phone.folder, board.folder])


def test_a_shipment_says_what_it_was_made_from(dist: Path, repo: Path) -> None:
    shipment = _ship(dist, repo)
    assert (shipment.nestedge, shipment.model, shipment.model_sha256) == (
        "0.1.0",
        "net.nest",
        "a" * 64,
    )
    assert shipment.levels == ("small", "full")
    assert shipment.device == read_matrix(dist).devices["phone"]


def test_to_ship_the_same_again_changes_nothing(dist: Path, repo: Path) -> None:
    first = _ship(dist, repo)
    times = {path: path.stat().st_mtime_ns for path in repo.rglob("*")}
    assert _ship(dist, repo) == first
    assert {path: path.stat().st_mtime_ns for path in repo.rglob("*")} == times


def test_another_build_is_another_folder_and_the_old_one_stays(dist: Path, repo: Path) -> None:
    first = _ship(dist, repo)
    old = tree(repo / first.folder)
    verify(dist, {CELLS[0]: fake_artifact(dist, _description(dist, CELLS[0]), seed=7)})
    second = _ship(dist, repo)
    assert second.folder != first.folder
    assert tree(repo / first.folder) == old
    index = json.loads((repo / "index.json").read_text())
    assert index["devices"]["phone"]["folder"] == second.folder


def test_devices_are_added_to_those_of_the_repository(dist: Path, repo: Path) -> None:
    ship(dist, repo, devices=["board"])
    _ship(dist, repo)
    assert set(json.loads((repo / "index.json").read_text())["devices"]) == {"board", "phone"}


def test_a_damaged_folder_is_written_again(dist: Path, repo: Path) -> None:
    shipment = _ship(dist, repo)
    before = tree(repo)
    for path in ("shipment.json", f"{CELLS[0]}/artifact.json", f"{CELLS[1]}/model.fake"):
        change(repo / shipment.folder / path)
        _ship(dist, repo)
        assert tree(repo) == before
    shutil.rmtree(repo / shipment.folder / "small")
    _ship(dist, repo)
    assert tree(repo) == before


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        (CellFilter(levels=["small"]), CELLS[:2]),
        (CellFilter(precisions=["fp32"]), CELLS[1::2]),
        (CellFilter(levels=["full"], precisions=["int8"], runtimes=["fake"]), CELLS[2:3]),
    ],
    ids=["level", "precision", "all"],
)
def test_only_what_is_asked_for_is_shipped(
    dist: Path, repo: Path, only: CellFilter, cells: tuple[str, ...]
) -> None:
    shipment = _ship(dist, repo, only)
    assert tuple(cell.name for cell in shipment.cells) == cells
    assert {str(path.parent) for path in map(Path, tree(repo / shipment.folder))} == {".", *cells}


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (CellFilter(levels=["smal"]), r"device 'phone': no level 'smal'.*did you mean 'small'\?"),
        (CellFilter(runtimes=["onnx"]), r"no runtime 'onnx'; there are \['fake'\]"),
        (CellFilter(precisions=["int4"]), r"no precision 'int4'.*did you mean 'int8'\?"),
    ],
    ids=["level", "runtime", "precision"],
)
def test_a_cell_that_is_not_there_is_refused(
    dist: Path, repo: Path, only: CellFilter, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _ship(dist, repo, only)
    assert not repo.exists()


def test_a_combination_that_is_not_there_is_refused(dist: Path, repo: Path) -> None:
    matrix = read_matrix(dist)
    cells = {name: cell for name, cell in matrix.cells.items() if name != CELLS[1]}
    write_matrix(dist, replace(matrix, cells=cells))
    only = CellFilter(levels=["small"], precisions=["fp32"])
    with pytest.raises(UsageError, match="'phone': small with fp32 is no cell; there are"):
        _ship(dist, repo, only)


def test_cells_that_were_not_built_are_left_out(dist: Path, repo: Path) -> None:
    matrix = read_matrix(dist)
    failed = replace(matrix.cells[CELLS[0]], state="failed", reason="no memory")
    write_matrix(dist, replace(matrix, cells={**matrix.cells, CELLS[0]: failed}))
    assert tuple(cell.name for cell in _ship(dist, repo).cells) == CELLS[1:]
    skipped = {name: replace(cell, state="skipped") for name, cell in matrix.cells.items()}
    write_matrix(dist, replace(matrix, cells=skipped))
    with pytest.raises(UsageError, match=r"device 'phone': .* has no cell for it that was built"):
        _ship(dist, repo)


def test_an_unknown_device_is_refused_with_a_suggestion(dist: Path, repo: Path) -> None:
    with pytest.raises(UsageError, match=r"'fone'; built for .*did you mean 'phone'\?"):
        ship(dist, repo, devices=["fone"])


def test_a_cell_that_never_ran_is_refused(dist: Path, repo: Path) -> None:
    (dist / "verifications.json").unlink()
    expected = rf"4 of 4 cells are not verified: full/fake-fp32: never ran; .*verify {dist}'"
    with pytest.raises(VerificationError, match=expected):
        _ship(dist, repo)
    assert not repo.exists()


def test_a_cell_that_was_built_since_is_refused(dist: Path, repo: Path) -> None:
    fake_artifact(dist, _description(dist, CELLS[0]), seed=7)
    with pytest.raises(VerificationError, match=f"1 of 4 .*: {CELLS[0]}: was built again since"):
        _ship(dist, repo)


def test_a_cell_that_failed_is_refused_and_the_others_can_be_shipped(
    dist: Path, repo: Path
) -> None:
    document = json.loads((dist / "verifications.json").read_text())
    (record,) = (item for item in document["verifications"] if item["cell"] == CELLS[3])
    record.update(passed=False, max_error=0.5, reason="error 0.5 is above 1e-05")
    (dist / "verifications.json").write_text(json.dumps(document))
    with pytest.raises(VerificationError, match=f"{CELLS[3]}: failed, error 0.5 is above 1e-05"):
        _ship(dist, repo)
    assert len(_ship(dist, repo, CellFilter(precisions=["int8"])).cells) == 2


def test_a_record_of_another_runtime_does_not_count(dist: Path, repo: Path) -> None:
    text = (dist / "verifications.json").read_text()
    (dist / "verifications.json").write_text(text.replace('"fake"', '"other"'))
    with pytest.raises(VerificationError, match="never ran"):
        _ship(dist, repo)


def test_a_changed_file_is_refused_before_its_verification(dist: Path, repo: Path) -> None:
    (dist / "verifications.json").unlink()
    change(dist / CELLS[0] / "model.fake")
    with pytest.raises(IntegrityError, match=rf"^{CELLS[0]}: model\.fake: expected sha256"):
        _ship(dist, repo)
    assert not repo.exists()


def test_a_file_that_changes_while_it_is_copied_is_refused(
    dist: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _ship(dist, repo, CellFilter(levels=["full"]))
    before = tree(repo)

    def changed(artifact: Artifact) -> None:
        change(artifact.folder / "model.fake")

    monkeypatch.setattr("nestedge.packaging.shipping.check_integrity", changed)
    with pytest.raises(IntegrityError, match=rf"^{CELLS[0]}: model\.fake: expected .* found "):
        _ship(dist, repo)
    assert tree(repo) == before
    assert first.folder in {path.name for path in repo.iterdir()}


def test_the_first_cell_of_the_largest_level_runs_where_nobody_says(dist: Path, repo: Path) -> None:
    assert _ship(dist, repo).default == "full/fake-int8"
    assert _ship(dist, repo, CellFilter(levels=["small"])).default == "small/fake-int8"
    (chosen,) = ship(dist, repo, devices=["phone"], default={"phone": "small/fake-fp32"})
    assert chosen.default == "small/fake-fp32"


def test_an_engine_to_be_built_is_the_default_only_where_there_is_no_other(tmp_path: Path) -> None:
    ready = fake_artifact(tmp_path)
    unbuilt = replace(ready, level="full", checked_by="other", parameters=99)
    assert default_cell([unbuilt, ready]) == ready.cell
    assert default_cell([unbuilt]) == unbuilt.cell
    with pytest.raises(ValueError, match="at least one artifact"):
        default_cell([])


def test_a_default_that_is_not_shipped_is_refused(dist: Path, repo: Path) -> None:
    with pytest.raises(UsageError, match=r"no cell 'small/fake-fp16'.*did you mean 'small/fake-"):
        ship(dist, repo, devices=["phone"], default={"phone": "small/fake-fp16"})
    with pytest.raises(ValueError, match=r"default cells for \['board'\], which are not among"):
        ship(dist, repo, devices=["phone"], default={"board": "small/fake-int8"})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("writes", [0, 3, 16])
def test_an_interrupted_shipment_leaves_the_old_ones(
    dist: Path, repo: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, writes: int
) -> None:
    ship(dist, repo, devices=["board"])
    before = tree(repo)
    sync, done = os.fsync, list[int]()

    def full(file: int) -> None:
        if len(done) == writes:
            raise error
        done.append(file)
        sync(file)

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(type(error)):
            _ship(dist, repo)
    assert len(done) == writes
    assert tree(repo) == before
    assert len(list(repo.iterdir())) == 2
    _ship(dist, repo)


def test_a_crash_before_the_index_is_made_good_by_the_next_run(
    dist: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("nestedge.packaging.shipping.write_whole", crash)
        with pytest.raises(KeyboardInterrupt):
            _ship(dist, repo)
    assert not (repo / "index.json").exists()
    shipment = _ship(dist, repo)
    assert shipment.folder in (repo / "index.json").read_text()


def test_an_index_of_another_version_is_not_overwritten(dist: Path, repo: Path) -> None:
    repo.mkdir()
    (repo / "index.json").write_text('{"format": 2, "devices": {}}')
    with pytest.raises(FormatError, match=r"index\.json: format: expected 1: another version"):
        _ship(dist, repo)
    assert [path.name for path in repo.iterdir()] == ["index.json"]


def test_a_cell_whose_engine_is_unbuilt_is_verified_by_what_checks_it(
    dist: Path, repo: Path
) -> None:
    matrix = read_matrix(dist)
    target = replace(matrix.devices["phone"].targets[0], runtime="engine")
    device = replace(matrix.devices["phone"], targets=(target,))
    artifact = fake_artifact(dist, replace(DESCRIPTION, runtime="engine", checked_by="fake"))
    cell = replace(matrix.cells[CELLS[1]], runtime="engine")
    write_matrix(dist, replace(matrix, devices={"phone": device}, cells={cell.name: cell}))
    with pytest.raises(VerificationError, match="small/engine-fp32: never ran"):
        _ship(dist, repo)
    verify(dist, {artifact.cell: artifact})
    assert _ship(dist, repo).default == "small/engine-fp32"


def _description(dist: Path, cell: str) -> Artifact:
    (found,) = (a for a in verified_build(dist.parent / "again").values() if a.cell == cell)
    return found


def test_an_artifact_that_is_gone_is_refused(dist: Path, repo: Path) -> None:
    shutil.rmtree(dist / CELLS[0])
    with pytest.raises(IntegrityError, match="no artifact, though it was built; build again"):
        _ship(dist, repo)
    assert not repo.exists()


def test_a_repository_that_is_a_file_is_refused(dist: Path, repo: Path) -> None:
    repo.write_text("")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        _ship(dist, repo)
