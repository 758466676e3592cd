from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import read_artifact
from nestedge.devices.profile import Figure
from nestedge.errors import IntegrityError, UsageError
from nestedge.matrix import Cell, read_matrix, write_matrix
from nestedge.profiling.measurement import save_measurements
from nestedge.report import write_report
from nestedge.selection import Budget
from nestedge.verify import save_verifications
from tests.fakes import DESCRIPTION, fake_artifact, measurement
from tests.matrices import device, fake_matrix
from tests.report.builds import DEVICES, REMEDY, known_of, page, row, section, verification
from tests.report.markup import Element


def test_the_page_is_a_document_with_a_language_a_title_and_one_heading(document: Element) -> None:
    (html,) = document.find("html")
    assert html.attributes["lang"] == "en"
    (head,) = document.find("head")
    assert [found.text for found in head.find("title")] == ["digits.nest: nestedge report"]
    assert [found.text for found in document.find("h1")] == ["digits.nest"]


def test_no_two_elements_have_one_id_and_every_reference_finds_one(document: Element) -> None:
    ids = [found.attributes["id"] for found in document.walk() if "id" in found.attributes]
    assert len(set(ids)) == len(ids)
    links = [found.attributes["href"] for found in document.find("a")]
    labels = [
        found.attributes["aria-labelledby"]
        for found in document.walk()
        if "aria-labelledby" in found.attributes
    ]
    assert len(links) == len(DEVICES)
    assert {link.removeprefix("#") for link in links} | set(labels) <= set(ids)


def test_tables_have_captions_and_every_heading_of_theirs_a_scope(document: Element) -> None:
    tables = document.find("table")
    assert len(tables) >= 2 * len(DEVICES) + 4
    for table in tables:
        assert [caption.text for caption in table.find("caption")] != [""]
        assert len(table.find("caption")) == 1
    scopes = {"col", "row", "rowgroup", "colgroup"}
    assert {found.attributes.get("scope") for found in document.find("th")} <= scopes


def test_every_drawing_is_described_or_hidden(document: Element) -> None:
    drawings = document.find("svg")
    described = [found for found in drawings if found.attributes.get("role") == "img"]
    hidden = [found for found in drawings if found.attributes.get("aria-hidden") == "true"]
    assert len(described) + len(hidden) == len(drawings)
    assert len(described) == 4
    assert all(found.attributes["aria-label"] for found in described)


def test_the_page_loads_nothing_and_runs_nothing(original: Path, document: Element) -> None:
    tags = {found.tag for found in document.walk()}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form"})
    for element in document.walk():
        assert "src" not in element.attributes
        assert not any(name.startswith("on") for name in element.attributes)
        assert element.attributes.get("href", "#").startswith("#")
    styles = " ".join(found.text for found in document.find("style"))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "://" not in (original.parent / "report.html").read_text()


def test_the_page_knows_dark_and_narrow_screens(document: Element) -> None:
    (style,) = document.find("style")
    assert "prefers-color-scheme: dark" in style.text
    boxes = document.find("div", class_="scroll")
    assert len([table for box in boxes for table in box.find("table")]) == len(
        document.find("table")
    )


def test_the_same_folder_gives_the_same_bytes(dist: Path, root: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for output in pages:
        write_report(dist, output, root=root)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_page_of_many_cells_is_under_300_kb(tmp_path: Path, root: Path) -> None:
    levels = [f"level{index}" for index in range(6)]
    kinds = [(runtime, p) for runtime in ("onnx", "tflite") for p in ("fp32", "fp16", "int8")]
    artifacts = [
        fake_artifact(
            tmp_path / "dist",
            replace(DESCRIPTION, level=level, runtime=runtime, precision=p, checked_by=runtime),
        )
        for level in levels
        for runtime, p in kinds
    ]
    targets = {runtime: ["fp32", "fp16", "int8"] for runtime in ("onnx", "tflite")}
    names = ("local", "pixel-8", "raspberry-pi-5", "jetson-orin-nano-8gb")
    devices = [device(name, targets) for name in names]
    fake_matrix(tmp_path / "dist", artifacts, devices=devices)
    save_measurements(tmp_path / "dist", known_of(artifacts, root))
    save_verifications(tmp_path / "dist", [verification(artifact) for artifact in artifacts])
    document = page(tmp_path / "dist", root)
    assert len([found for found in document.find("tr") if "data-cell" in found.attributes]) == 144
    assert (tmp_path / "report.html").stat().st_size < 300_000


_HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def test_no_text_from_a_file_becomes_markup(dist: Path, root: Path) -> None:
    matrix = read_matrix(dist)
    artifact = read_artifact(dist / "small/onnx-fp32")
    artifact = fake_artifact(
        dist, replace(artifact, labels=(_HOSTILE,), producer={_HOSTILE: _HOSTILE})
    )
    save_verifications(dist, [replace(verification(artifact), runtime_version=_HOSTILE)])
    measured = measurement(artifact, "accuracy_percent", 90.0, width=1.0)
    save_measurements(dist, [replace(measured, device=_HOSTILE, runtime_version=_HOSTILE)])
    profile = replace(
        DEVICES[0], name=_HOSTILE, figures={"gpu.model": Figure(_HOSTILE, _HOSTILE, "low")}
    )
    skipped = Cell("small", "onnx", "int8", "skipped", _HOSTILE)
    failed = Cell("full", "onnx", "int8", "failed", _HOSTILE, _HOSTILE)
    changed = replace(
        matrix,
        nestedge=_HOSTILE,
        source=replace(matrix.source, model=_HOSTILE),
        devices={**matrix.devices, "local": profile},
        cells={**matrix.cells, skipped.name: skipped, failed.name: failed},
    )
    write_matrix(dist, changed)
    document = page(dist, root)
    tags = {found.tag for found in document.walk()}
    assert tags.isdisjoint({"script", "img"})
    shown = " ".join(_HOSTILE.split())
    assert document.find("h1")[0].text == shown
    assert shown in row(document, "local", "small/onnx-int8").text
    assert shown in section(document, "local").find("details")[0].text
    assert document.text.count(shown) >= 12


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda dist: (dist / "small/onnx-fp32/model.fake").write_bytes(b"other"),
            IntegrityError,
            r"small/onnx-fp32: model\.fake: expected sha256 ",
        ),
        (
            lambda dist: (dist / "small/onnx-fp32/artifact.json").unlink(),
            IntegrityError,
            r"small/onnx-fp32: no artifact, though it was built; build again",
        ),
        (
            lambda dist: (dist / "build.json").unlink(),
            UsageError,
            r"no build\.json: make one with 'nestedge build'",
        ),
    ],
    ids=["changed", "gone", "no matrix"],
)
def test_a_damaged_folder_is_refused_and_an_older_page_stays(
    dist: Path, root: Path, damage: object, error: type[Exception], message: str
) -> None:
    output = dist.parent / "report.html"
    output.write_text("older")
    assert callable(damage)
    damage(dist)
    with pytest.raises(error, match=message):
        write_report(dist, output, root=root)
    assert output.read_text() == "older"


def test_a_folder_in_which_nothing_could_be_built_has_a_page(tmp_path: Path, root: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    skipped = [Cell("small", "onnx", "int8", "skipped", REMEDY)]
    fake_matrix(dist, [], devices=[device("local", {"onnx": ["int8"]})], unbuilt=skipped)
    document = page(dist, root, budget=Budget(size_bytes=10))
    assert row(document, "local", "small/onnx-int8").find("td")[0].text == f"skipped {REMEDY}"
    assert section(document, "local").find("div", class_="pick none")
