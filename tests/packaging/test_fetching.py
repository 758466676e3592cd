from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nestedge.artifact import check_integrity
from nestedge.documents import json_bytes
from nestedge.errors import FormatError, IntegrityError, NestedgeError, UsageError
from nestedge.packaging.fetching import fetch
from nestedge.packaging.filtering import CellFilter
from nestedge.packaging.shipment import Shipment, read_shipment, read_shipped
from tests.packaging.builds import CELLS, change, tree


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return tmp_path / "net"


def _fetch(repo: Path, net: Path, only: CellFilter | None = None) -> Shipment:
    return fetch(str(repo), device="phone", destination=net, only=only or CellFilter())


def _shipped(repo: Path, device: str = "phone") -> Path:
    document = json.loads((repo / "index.json").read_text())
    return repo / str(document["devices"][device]["folder"])


def test_what_was_shipped_is_fetched_byte_for_byte(repo: Path, net: Path) -> None:
    shipment = _fetch(repo, net)
    assert tree(net) == tree(_shipped(repo))
    assert read_shipment(net) == shipment
    for artifact in read_shipped(net):
        check_integrity(artifact)
    assert [path.name for path in net.parent.iterdir() if path.name.startswith(".")] == []


def test_a_file_url_is_a_folder(repo: Path, net: Path) -> None:
    fetch(repo.as_uri(), device="board", destination=net)
    assert tree(net) == tree(_shipped(repo, "board"))


def test_every_cell_is_told_with_their_number(repo: Path, net: Path) -> None:
    told: list[tuple[str, int]] = []
    fetch(
        str(repo),
        device="phone",
        destination=net,
        after_each=lambda cell, count: told.append((cell.name, count)),
    )
    assert told == [(cell, 4) for cell in CELLS]


@pytest.mark.parametrize(
    ("only", "cells", "levels", "default"),
    [
        (CellFilter(levels=["small"]), CELLS[:2], ("small",), "small/fake-int8"),
        (CellFilter(precisions=["fp32"]), CELLS[1::2], ("small", "full"), "full/fake-fp32"),
        (CellFilter(["full"], precisions=["int8"]), CELLS[2:3], ("full",), "full/fake-int8"),
    ],
    ids=["level", "precision", "both"],
)
def test_a_part_is_a_shipment_of_its_own(
    repo: Path,
    net: Path,
    only: CellFilter,
    cells: tuple[str, ...],
    levels: tuple[str, ...],
    default: str,
) -> None:
    shipment = _fetch(repo, net, only)
    assert read_shipment(net) == shipment
    assert tuple(cell.name for cell in shipment.cells) == cells
    assert (shipment.levels, shipment.default) == (levels, default)
    assert {str(path.parent) for path in map(Path, tree(net))} == {".", *cells}
    assert [artifact.cell for artifact in read_shipped(net)] == list(cells)


def test_to_fetch_again_replaces_what_was_there(repo: Path, net: Path) -> None:
    _fetch(repo, net, CellFilter(levels=["small"]))
    (net / "small" / "stale.txt").write_text("of the old shipment")
    _fetch(repo, net)
    assert tree(net) == tree(_shipped(repo))


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_what_is_not_a_shipment_is_not_replaced(repo: Path, net: Path, content: str) -> None:
    if content == "a file":
        net.write_text("mine")
    else:
        net.mkdir()
        (net / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=rf"^{net}: .*; give a new folder$"):
        _fetch(repo, net)
    assert net.is_file() or tree(net) == {"mine.txt": b"mine"}


def test_an_empty_folder_is_filled(repo: Path, net: Path) -> None:
    net.mkdir()
    _fetch(repo, net)
    assert tree(net) == tree(_shipped(repo))


def test_the_folder_that_one_stands_in_is_not_replaced(
    repo: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fetch(repo, net)
    for folder in (net, net / "small"):
        monkeypatch.chdir(folder)
        with pytest.raises(UsageError, match="you are in it"):
            _fetch(repo, net)


def test_a_link_to_a_folder_stays_a_link(repo: Path, net: Path) -> None:
    net.symlink_to(net.with_name("real"))
    _fetch(repo, net)
    assert net.is_symlink()
    assert tree(net.with_name("real")) == tree(_shipped(repo))


LINKS = ("shipment.json", f"{CELLS[0]}/artifact.json", f"{CELLS[3]}/model.fake")


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("damage", ["changed", "cut short", "longer", "missing", "folder"])
def test_every_link_of_the_chain_is_checked(repo: Path, net: Path, path: str, damage: str) -> None:
    _fetch(repo, net, CellFilter(levels=["small"]))
    before = tree(net)
    place = _shipped(repo) / path
    content = place.read_bytes()
    expected = hashlib.sha256(content).hexdigest()
    if damage == "changed":
        change(place)
    elif damage == "cut short":
        place.write_bytes(content[:-9])
    elif damage == "longer":
        place.write_bytes(content + bytes(100_000))
    else:
        place.unlink()
    if damage == "folder":
        place.mkdir()
    end = {
        "changed": rf"expected sha256 {expected}, found [0-9a-f]{{64}} after {len(content)} bytes",
        "cut short": rf"expected sha256 {expected}, found .* after {len(content) - 9} bytes",
        "longer": rf"expected sha256 {expected} within \d+ bytes, found more",
        "missing": rf"missing in {repo}; expected sha256 {expected}",
        "folder": rf"missing in {repo}; expected sha256 {expected}",
    }[damage]
    owner = str(Path(path).parent) if "/" in path else _shipped(repo).name
    with pytest.raises(IntegrityError, match=rf"^{owner}: {Path(path).name}: {end}$"):
        _fetch(repo, net)
    assert tree(net) == before
    assert [found.name for found in net.parent.iterdir() if found.name.startswith(".")] == []


def test_no_more_than_the_recorded_bytes_are_read(repo: Path, net: Path) -> None:
    place = _shipped(repo) / CELLS[0] / "model.fake"
    with place.open("ab") as file:
        # Sparse: reading it all would take long, and need memory for it.
        file.truncate(1 << 40)
    with pytest.raises(IntegrityError, match="found more"):
        _fetch(repo, net)


def _edit(path: Path, edit: Callable[[dict[str, Any]], object]) -> str:
    """Edits a document, and gives its new hash."""
    document = json.loads(path.read_text())
    edit(document)
    path.write_bytes(json_bytes(document))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _forge_shipment(repo: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """A shipment that the hashes vouch for."""
    sha256 = _edit(_shipped(repo) / "shipment.json", edit)
    _edit(repo / "index.json", lambda index: index["devices"]["phone"].update(sha256=sha256))


def _forge_artifact(repo: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """An artifact.json that the hashes vouch for."""
    sha256 = _edit(_shipped(repo) / CELLS[0] / "artifact.json", edit)
    _forge_shipment(repo, lambda shipment: shipment["cells"][0].update(sha256=sha256))


def _rename_model(document: dict[str, Any]) -> None:
    document["files"]["../../../evil"] = document["files"].pop("model.fake")
    document["model"] = "../../../evil"


def _call_a_level_like_the_document(document: dict[str, Any]) -> None:
    document["levels"].append("shipment.json")
    document["cells"][0]["level"] = "shipment.json"


@pytest.mark.parametrize(
    ("forge", "edit", "message"),
    [
        (_forge_artifact, _rename_model, "model: expected a plain name"),
        (
            _forge_artifact,
            lambda d: d["files"].update({"../evil": d["files"]["constants.json"]}),
            r"files\.\.\./evil \(its name\): expected a plain name",
        ),
        (_forge_artifact, lambda d: d.update(level="full"), "is that of 'full/fake-int8'"),
        (
            _forge_artifact,
            lambda d: d["files"]["model.fake"].update(bytes=1 << 40),
            r"expected files of \d+ bytes in all, as shipment.json says, found",
        ),
        (
            _forge_shipment,
            lambda d: d["cells"][0].update(level=".."),
            r"cells\[0\]\.level: expected a plain name",
        ),
        (
            _forge_shipment,
            lambda d: d["cells"][0].update(runtime="/tmp/x"),
            r"cells\[0\]\.runtime: expected a plain name",
        ),
        (
            _forge_shipment,
            lambda d: d["cells"][0].update(bytes=1 << 40),
            r"expected files of \d+ bytes in all, as index\.json says, found",
        ),
        (_forge_shipment, lambda d: d["device"].update(id="tablet"), "expected device 'phone'"),
        (_forge_shipment, lambda d: d.update(default="x"), r"default: expected one of the cells"),
        (_forge_shipment, lambda d: d.update(cells=[]), "cells: expected at least one cell"),
        (
            _forge_shipment,
            lambda d: d["cells"].append(d["cells"][0]),
            "each of them once",
        ),
        (_forge_shipment, lambda d: d["levels"].pop(), "levels: expected the levels of the cells"),
        (_forge_shipment, lambda d: d.update(format=2), "format: expected 1: another version"),
        (_forge_shipment, lambda d: d.update(extra=1), "extra: unknown"),
        (
            _forge_shipment,
            _call_a_level_like_the_document,
            "levels: expected levels of other names than shipment.json",
        ),
    ],
    ids=[
        *("model name", "file name", "other cell", "file bytes", "level", "runtime", "cell bytes"),
        *("device", "default", "no cells", "twice", "levels", "format", "unknown", "clash"),
    ],
)
def test_a_document_that_hashes_vouch_for_is_still_read_strictly(
    repo: Path,
    net: Path,
    forge: Callable[[Path, Callable[[dict[str, Any]], object]], None],
    edit: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    forge(repo, edit)
    with pytest.raises((FormatError, IntegrityError), match=message):
        _fetch(repo, net)
    assert not net.exists()
    assert [path.name for path in net.parent.iterdir()] == ["repo"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda d: d["devices"]["phone"].update(folder="../x"),
            r"index\.json: devices\.phone\.folder: expected a plain name",
        ),
        (lambda d: d["devices"]["phone"].update(sha256="x"), "sha256: expected 64 hex digits"),
        (lambda d: d["devices"]["phone"].pop("bytes"), r"devices\.phone\.bytes: missing"),
        (lambda d: d.update(format=3), "format: expected 1: another version"),
    ],
    ids=["folder", "hash", "bytes", "format"],
)
def test_a_wrong_index_is_refused_by_its_place(
    repo: Path, net: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    _edit(repo / "index.json", edit)
    with pytest.raises(FormatError, match=message):
        _fetch(repo, net)


def test_an_index_without_end_is_refused(repo: Path, net: Path) -> None:
    with (repo / "index.json").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match=r"index\.json: expected at most \d+ bytes, found more"):
        _fetch(repo, net)


def test_an_unknown_device_is_refused_with_those_that_are_there(repo: Path, net: Path) -> None:
    expected = r"nothing for device 'fone'; the repository has \['board', 'phone'\]; did you mean"
    with pytest.raises(UsageError, match=expected):
        fetch(str(repo), device="fone", destination=net)


@pytest.mark.parametrize("name", ["board", None, "tablet"])
def test_auto_is_the_device_that_this_machine_is(
    repo: Path, net: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr("nestedge.packaging.fetching.matching_profile", lambda: name)
    if name == "board":
        assert fetch(str(repo), device="auto", destination=net).device.id == "board"
        return
    found = "no known device" if name is None else "'tablet'"
    with pytest.raises(UsageError, match=rf"this machine is {found}; the repository has \['board'"):
        fetch(str(repo), device="auto", destination=net)


def test_an_unknown_machine_takes_what_was_built_for_the_local_one(
    repo: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestedge.packaging.fetching.matching_profile", lambda: None)
    _edit(_shipped(repo, "board") / "shipment.json", lambda d: d["device"].update(id="local"))
    content = (_shipped(repo, "board") / "shipment.json").read_bytes()
    sizes = sum(cell["bytes"] for cell in json.loads(content)["cells"])
    entry = {
        "folder": _shipped(repo, "board").name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": sizes + len(content),
    }
    _edit(repo / "index.json", lambda index: index["devices"].update(local=entry))
    assert fetch(str(repo), device="auto", destination=net).device.id == "local"


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path, net: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        expected = rf"^{folder}: no index\.json, so no repository: make one with 'nestedge ship'$"
        with pytest.raises(UsageError, match=expected):
            _fetch(folder, net)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("writes", [0, 5, 16])
@pytest.mark.parametrize("fetched", [True, False])
def test_an_interrupted_fetch_leaves_the_old_content(
    repo: Path,
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    writes: int,
    fetched: bool,
) -> None:
    if fetched:
        _fetch(repo, net, CellFilter(levels=["small"]))
    before = tree(net.parent)
    sync, done = os.fsync, list[int]()

    def full(file: int) -> None:
        if len(done) == writes:
            raise error
        done.append(file)
        sync(file)

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(type(error)):
            _fetch(repo, net)
    assert len(done) == writes
    assert tree(net.parent) == before
    assert net.exists() == fetched


def test_an_interrupt_between_the_two_renames_puts_the_old_content_back(
    repo: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fetch(repo, net, CellFilter(levels=["small"]))
    before = tree(net.parent)
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _fetch(repo, net)
    assert tree(net.parent) == before


def test_what_a_killed_process_left_is_removed(repo: Path, net: Path) -> None:
    _fetch(repo, net, CellFilter(levels=["small"]))
    for name in (".net.1.tmp", ".net.2.old"):
        shutil.copytree(net, net.with_name(name))
    foreign = net.with_name(".network.1.tmp")
    foreign.mkdir()
    _fetch(repo, net)
    assert {path.name for path in net.parent.iterdir()} == {"repo", "net", foreign.name}
    assert tree(net) == tree(_shipped(repo))


def test_what_a_process_killed_between_the_renames_had_is_put_back(repo: Path, net: Path) -> None:
    _fetch(repo, net, CellFilter(levels=["small"]))
    before = tree(net)
    net.replace(net.with_name(".net.1.old"))
    (_shipped(repo) / CELLS[0] / "model.fake").unlink()
    with pytest.raises(NestedgeError, match="missing"):
        _fetch(repo, net)
    assert tree(net) == before


def test_a_full_disk_leaves_the_old_content(repo: Path, net: Path) -> None:
    # A limit on the size of files is the part of a full disk that needs no privileges.
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    _fetch(repo, net, CellFilter(levels=["small"]))
    before = tree(net.parent)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
        with pytest.raises(OSError, match="too large"):
            _fetch(repo, net)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert tree(net.parent) == before
