from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch

from nestedge.artifact import find_artifacts, read_artifact
from nestedge.building import Built, Request, build, with_precisions
from nestedge.building.planning import find_source, make_plan
from nestedge.building.pool import (
    Job,
    Message,
    Pool,
    Worker,
    WorkerCrash,
    _error,
    run_job,
    run_jobs,
)
from nestedge.building.run import _jobs
from nestedge.building.worker import _as_answer
from nestedge.errors import FormatError, IntegrityError, NestedgeError, UsageError
from nestedge.levels import Level
from nestedge.matrix import Cell, read_matrix
from nestedge.nested import Card, nest
from nestedge.nestfile import load
from tests.fake_converters import NAMES, device
from tests.fakes import declare_plugins
from tests.networks import Perceptron

LEVELS = {"small": 0.5, "full": 1.0}


@pytest.fixture(autouse=True)
def fake_converters(site: Path) -> None:
    """The fake converters are installed."""
    declare_plugins(site, group="nestedge.converters", entries=NAMES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .nest of two levels."""
    path = tmp_path_factory.mktemp("saved") / "net.nest"
    torch.manual_seed(0)
    nest(Perceptron(dropout=0.0), torch.zeros(2, 6), LEVELS, card=Card(divisor=4)).save(path)
    return path


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copy(saved, tmp_path / "net.nest"))


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    return tmp_path / "dist"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def states(built: Built) -> dict[str, str]:
    return {name: cell.state for name, cell in built.asked.items()}


def test_every_cell_of_a_device_is_built(model: Path, dist: Path) -> None:
    told: list[tuple[str, int]] = []
    built = build(
        model,
        dist,
        Request([device("fake")]),
        after_each=lambda cell, count: told.append((cell.name, count)),
    )
    names = ["small/fake-fp32", "small/fake-fp16", "full/fake-fp32", "full/fake-fp16"]
    assert list(states(built).items()) == [(name, "built") for name in names]
    assert built.made == set(names)
    assert sorted(told) == sorted((name, 4) for name in names)
    assert [artifact.cell for artifact in find_artifacts(dist)] == sorted(names)
    assert (dist / "small" / "fake-fp32" / "note.txt").is_file()
    matrix = read_matrix(dist)
    assert matrix == built.matrix
    assert [cell.name for cell in matrix.of_device("bench")] == names


def test_a_second_build_makes_nothing_and_starts_no_worker(
    model: Path, dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(model, dist, Request([device("fake")]))
    before = contents(dist)

    def refuse() -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("nestedge.building.pool.Worker", refuse)
    second = build(model, dist, Request([device("fake")]))
    assert second.made == set()
    assert second.matrix == first.matrix
    assert contents(dist) == before


def test_only_what_is_missing_or_damaged_is_made_again(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")]))
    before = contents(dist)
    shutil.rmtree(dist / "small" / "fake-fp32")
    (dist / "full" / "fake-fp16" / "model.fake").write_bytes(b"damaged")
    (dist / "full" / "fake-fp32" / "artifact.json").write_text("{")
    built = build(model, dist, Request([device("fake")]))
    assert built.made == {"small/fake-fp32", "full/fake-fp16", "full/fake-fp32"}
    assert contents(dist) == before


def test_what_a_killed_build_left_is_removed(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")]))
    before = contents(dist)
    for name in (".fake-fp32.17.tmp", ".fake-fp32.17.old"):
        (dist / "small" / name).mkdir()
        (dist / "small" / name / "model.fake").write_bytes(b"half")
    (dist / ".build.json.17.tmp").write_bytes(b"half")
    (dist / "build.logs").mkdir()
    (dist / "build.logs" / "small.fake.log").write_bytes(b"tracing")
    (dist / "build.json").unlink()
    built = build(model, dist, Request([device("fake")]))
    assert built.made == set()
    assert contents(dist) == before


def test_the_number_of_processes_does_not_show(model: Path, tmp_path: Path) -> None:
    request = Request([device("fake", "printing")])
    build(model, tmp_path / "one", request, processes=1)
    build(model, tmp_path / "two", request, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_converter_that_fails_or_crashes_leaves_the_other_cells(model: Path, dist: Path) -> None:
    precisions = ("fp32", "fp16", "int8")
    nested = load(model)
    nested.calibrate_with(torch.randn(4, 6))
    nested.save(model)
    request = Request([device("failing", "crashing", precisions=precisions)], levels=("small",))
    built = build(model, dist, request, processes=2)
    found = {name: (cell.code, cell.reason.split("; ")[0]) for name, cell in built.asked.items()}
    assert found == {
        "small/failing-fp32": ("", ""),
        "small/failing-fp16": ("converter-refused", "the fake framework has no half precision"),
        "small/failing-int8": ("unknown", "the conversion failed: KeyError: 'scale'"),
        "small/crashing-fp32": ("", ""),
        "small/crashing-fp16": ("converter-crashed", "the converter crashed: signal SIGSEGV"),
        "small/crashing-int8": ("", ""),
    }
    for cell in built.asked.values():
        assert cell.reason.endswith(cell.remedy)
        assert bool(cell.remedy) == (cell.state == "failed")
    log = dist / built.asked["small/failing-int8"].log
    assert "about to convert int8" in log.read_text()
    assert "KeyError" in log.read_text()
    assert "about to crash" in (dist / built.asked["small/crashing-fp16"].log).read_text()
    assert read_matrix(dist).cells["small/crashing-fp16"].state == "failed"
    # What failed is tried again, and nothing else.
    again = build(model, dist, request)
    assert again.made == {"small/failing-fp16", "small/failing-int8", "small/crashing-fp16"}


def test_where_nothing_failed_no_log_is_kept(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")], levels=("small",)))
    assert not (dist / "build.logs").exists()


def test_int8_without_calibration_data_is_skipped_with_the_remedy(model: Path, dist: Path) -> None:
    everything = device("fake", precisions=("fp32", "int8"))
    built = build(model, dist, Request([everything], levels=("small",)))
    cell = built.asked["small/fake-int8"]
    assert cell.state == "skipped"
    assert built.made == {"small/fake-fp32"}
    assert "give --calibration DIR" in cell.reason
    assert (cell.code, cell.remedy) == (
        *("no-calibration-data", "give --calibration DIR, or nest with calibration inputs"),
    )
    with pytest.raises(UsageError, match="small/fake-int8: int8 needs calibration data: give"):
        build(model, dist, Request([everything], levels=("small",), precisions=("int8",)))


def test_a_precision_that_no_profile_speaks_of_is_built_when_asked_for_by_name(
    model: Path, dist: Path
) -> None:
    wanted = ("int8-dynamic",)
    both = with_precisions(device("fake", "failing"), wanted)
    built = build(model, dist, Request([both], levels=("small",), precisions=wanted))
    assert built.made == {"small/fake-int8-dynamic"}
    assert built.asked["small/failing-int8-dynamic"].state == "skipped"
    assert built.asked["small/failing-int8-dynamic"].code == "no-such-precision"
    assert [cell.name for cell in read_matrix(dist).of_device("bench")] == list(built.asked)
    neither = with_precisions(device("failing"), wanted)
    with pytest.raises(UsageError, match="'failing' does not have int8-dynamic"):
        build(model, dist, Request([neither], levels=("small",), precisions=wanted))


def test_calibration_data_of_a_folder_is_enough_and_is_remembered(
    model: Path, dist: Path, tmp_path: Path
) -> None:
    everything = device("fake", precisions=("fp32", "int8"))
    data = tmp_path / "calibration"
    data.mkdir()
    for index in range(3):
        np.save(data / f"{index}.npy", np.full(6, index, np.float32))
    build(model, dist, Request([everything], levels=("small",)))
    given = Request([everything], levels=("small",), calibration=data)
    assert build(model, dist, given).made == {"small/fake-int8"}
    artifact = read_artifact(dist / "small" / "fake-int8")
    assert artifact.calibration is not None
    assert artifact.calibration.cases == 3
    assert read_matrix(dist).calibration == artifact.calibration
    # The artifact is there, and says what it was calibrated with.
    without = build(model, dist, Request([everything], levels=("small",)))
    assert without.made == set()
    assert without.asked["small/fake-int8"].state == "built"
    np.save(data / "3.npy", np.full(6, 3, np.float32))
    assert build(model, dist, given).made == {"small/fake-int8"}


def test_a_level_added_later_leaves_the_others_as_they_are(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")]))
    before = contents(dist)
    nested = load(model)
    nested.add_level("tiny", Level(0.25))
    nested.save(model)
    built = build(model, dist, Request([device("fake")]))
    assert built.made == {"tiny/fake-fp32", "tiny/fake-fp16"}
    assert {n: c for n, c in contents(dist).items() if n in before and n != "build.json"} == {
        n: c for n, c in before.items() if n != "build.json"
    }


def test_another_weight_makes_all_levels_anew(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")]))
    nested = load(model)
    with torch.no_grad():
        next(nested.shared.parameters()).add_(1)
    nested.save(model)
    assert len(build(model, dist, Request([device("fake")])).made) == 4


def test_cells_of_other_devices_stay_in_the_matrix(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake", name="first")], levels=("small",)))
    build(model, dist, Request([device("printing", name="second")], levels=("small",)))
    matrix = read_matrix(dist)
    assert sorted(matrix.devices) == ["first", "second"]
    assert [cell.name for cell in matrix.of_device("first")] == [
        "small/fake-fp32",
        "small/fake-fp16",
    ]
    with pytest.raises(UsageError, match=r"not built for device 'frist'; .*mean 'first'\?"):
        matrix.of_device("frist")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([device("fake")], levels=("smal",)), r"no level 'smal'.* did you mean 'small'\?"),
        (Request([device("fake")], runtimes=("fak",)), r"no runtime 'fak' on \['bench'\].*'fake'"),
        (Request([device("fake")], precisions=("fp8",)), "no precision 'fp8' on"),
        (Request([device("fakes")]), r"no converter 'fakes'.* did you mean 'fake'\?"),
        (Request([device("fake")], calibration=Path("nowhere")), "nowhere: no such folder"),
    ],
    ids=["level", "runtime", "precision", "converter", "calibration"],
)
def test_what_does_not_exist_is_refused(
    model: Path, dist: Path, request_: Request, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(model, dist, request_)


def test_a_file_that_is_no_network_is_refused_as_by_load(tmp_path: Path, dist: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.nest: no such file"):
        build(tmp_path / "gone.nest", dist, Request([device("fake")]))
    (tmp_path / "net.nest").write_bytes(b"not a zip")
    with pytest.raises(FormatError, match=r"net\.nest: not a \.nest"):
        build(tmp_path / "net.nest", dist, Request([device("fake")]))


def test_two_builds_do_not_write_to_one_folder(model: Path, dist: Path) -> None:
    def build_again(cell: Cell, count: int) -> None:
        build(model, dist, Request([device("fake")]))

    with pytest.raises(UsageError, match="another build is writing to it"):
        build(model, dist, Request([device("fake")]), after_each=build_again)


def test_an_error_of_the_disk_ends_the_build_and_keeps_what_is_there(
    model: Path, dist: Path
) -> None:
    build(model, dist, Request([device("fake")], levels=("small",)))
    # A file where the folder of a level should be.
    (dist / "full").write_text("in the way")
    with pytest.raises(OSError, match="full"):
        build(model, dist, Request([device("fake")]))
    assert [artifact.level for artifact in find_artifacts(dist)] == ["small", "small"]


def _is_refused(jobs: Sequence[Job], *, message: str) -> None:
    """The jobs end on a file that is not the planned one."""
    pool = Pool()
    try:
        with pytest.raises(IntegrityError, match=message):
            run_jobs(jobs, pool, processes=1, after_each=lambda job, answer: None)
    finally:
        pool.stop()


def test_a_network_that_is_replaced_during_the_build_is_refused(model: Path, dist: Path) -> None:
    build(model, dist, Request([device("fake")], levels=("small",)))
    nested = load(model)
    with torch.no_grad():
        next(nested.shared.parameters()).add_(1)
    nested.save(model.with_name("new.nest"))
    request = Request([device("fake")])
    source = find_source(model, request, read_matrix(dist), Pool())
    plan = make_plan(dist, request, source)
    model.with_name("new.nest").replace(model)
    _is_refused(
        _jobs(model, dist, request, plan, sha256=source.sha256),
        message=r"net\.nest: changed during the build: .* build again",
    )
    assert {artifact.level for artifact in find_artifacts(dist)} == {"small"}


def test_calibration_data_that_is_replaced_during_the_build_is_refused(
    model: Path, dist: Path, tmp_path: Path
) -> None:
    data = tmp_path / "calibration"
    data.mkdir()
    np.save(data / "0.npy", np.zeros(6, np.float32))
    request = Request([device("fake", precisions=("fp32", "int8"))], calibration=data)

    source = build(model, dist, Request([device("fake")], levels=("small",))).matrix.source
    plan = make_plan(dist, request, source)
    np.save(data / "0.npy", np.ones(6, np.float32))
    _is_refused(
        _jobs(model, dist, request, plan, sha256=source.sha256),
        message=r"calibration: .*: changed during the build",
    )


def test_a_worker_that_dies_while_it_reads_the_network_is_one_line(
    model: Path, dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(worker: Worker, request: Message) -> Iterator[Message]:
        worker.stop()
        return ask(worker, request)

    ask = Worker.ask
    monkeypatch.setattr(Worker, "ask", die)
    with pytest.raises(NestedgeError, match=r"net\.nest: the process that reads it ended with sig"):
        build(model, dist, Request([device("fake")]))


def test_what_is_ended_on_purpose_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()

    def stop(worker: Worker, request: Message) -> Iterator[Message]:
        pool.stop()
        raise WorkerCrash(-9)

    monkeypatch.setattr(Worker, "ask", stop)
    with pytest.raises(CancelledError):
        list(run_job(Job({}, [{"cell": "small/fake-fp32"}]), pool))


def test_a_file_in_the_place_of_the_folder_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match=r"net\.nest: is a file; give a folder"):
        build(model, model, Request([device("fake")]))


def test_a_level_may_be_called_like_a_folder_of_the_build(tmp_path: Path, dist: Path) -> None:
    path = tmp_path / "logs.nest"
    levels = {"logs": 0.5, "full": 1.0}
    nest(Perceptron(dropout=0.0), torch.zeros(2, 6), levels, card=Card(divisor=4)).save(path)
    build(path, dist, Request([device("fake", "failing")]))
    assert build(path, dist, Request([device("fake")])).made == set()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "x"), r"\[Errno 28\] No space left on device: 'x'"),
        (OSError("libx.so: cannot open shared object file"), r"^libx\.so: cannot open shared"),
    ],
    ids=["of the disk", "of a library"],
)
def test_an_error_of_the_system_in_a_worker_is_raised_again(error: OSError, line: str) -> None:
    with pytest.raises(OSError, match=line):
        raise _error(_as_answer(error))


def _crashes(status: int, *, begun: str | None) -> Callable[[Worker, Message], Iterator[Message]]:
    """A worker that ends before, or in the middle of, a cell."""

    def ask(worker: Worker, request: Message) -> Iterator[Message]:
        if begun is not None:
            yield {"begun": begun}
        raise WorkerCrash(status)

    return ask


@pytest.mark.parametrize(
    ("status", "code"),
    [(-9, "out-of-memory"), (-11, "converter-crashed"), (3, "converter-crashed")],
    ids=["killed", "segmentation fault", "exit"],
)
def test_a_crash_before_the_first_cell_is_one_of_all_cells_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    monkeypatch.setattr(Worker, "ask", _crashes(status, begun=None))
    pool = Pool()
    try:
        answers = list(run_job(Job({}, [{"cell": "a"}, {"cell": "b"}]), pool))
    finally:
        pool.stop()
    assert [(answer["failed"], answer["code"]) for answer in answers] == [("a", code), ("b", code)]
    assert all(answer["remedy"] for answer in answers)


def test_a_build_json_without_codes_is_read(model: Path, dist: Path) -> None:
    request = Request([device("failing", precisions=("fp32", "fp16"))], levels=("small",))
    built = build(model, dist, request)
    document = json.loads((dist / "build.json").read_text())
    document["format"] = 1
    for cell in document["cells"]:
        for name in ("code", "operator", "source", "remedy"):
            del cell[name]
    (dist / "build.json").write_text(json.dumps(document))
    found = read_matrix(dist).cells["small/failing-fp16"]
    assert found.reason == built.asked["small/failing-fp16"].reason
    assert (found.state, found.code) == ("failed", "")
