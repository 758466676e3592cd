from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from nestedge.artifact import find_artifacts, read_artifact
from nestedge.profiling.measurement import save_measurements
from tests.fakes import measurement
from tests.report.builds import CALIBRATION, machine, page
from tests.report.markup import Element


def test_the_header_names_the_model_its_hash_and_what_measured(
    document: Element, root: Path
) -> None:
    (header,) = document.find("header")
    for text in ("d1" * 32, "small full", "nestedge 0.1.0", f"{machine(root)}: fake 1.0"):
        assert text in header.text
    assert f"64 cases, sha256 {CALIBRATION.sha256}" in header.text
    assert "3: zero, one, two" in header.text


def test_cells_are_counted_once_however_many_devices_run_them(document: Element) -> None:
    (tally,) = document.find("ul", class_="tally")
    counts = [item.text for item in tally.find("li")]
    assert counts == ["6 verified", "2 engine unbuilt", "0 unverified", "3 skipped", "1 failed"]


def test_accuracies_stand_by_level_and_precision_with_the_whole_hash(document: Element) -> None:
    (table,) = [found for found in document.find("table") if "data set sha256" in found.text]
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" in table.text
    rows = [
        [cell.text for cell in found.walk() if cell.tag in ("th", "td")]
        for found in table.find("tr")
    ]
    assert rows[0] == ["Level", "onnx fp32", "onnx fp16", "tensorrt fp16", "tflite fp32"]
    assert rows[1] == ["small", *["90.00 88.75 to 91.25"] * 4]
    assert rows[2] == ["full", *["97.50 96.25 to 98.75"] * 4]


def test_each_data_set_has_a_table_of_its_own(dist: Path, root: Path) -> None:
    artifact = read_artifact(dist / "small/onnx-fp32")
    other = measurement(artifact, "accuracy_percent", 55.0, width=1.0)
    save_measurements(dist, [replace(other, data_sha256="ee" * 32, samples=77)])
    tables = [found.text for found in page(dist, root).find("table") if "data set" in found.text]
    assert len(tables) == 2
    assert "on 77 samples; data set sha256 " + "ee" * 32 in tables[1]
    assert "small unmeasured 90.00" in tables[0]


def test_levels_versions_hashes_and_commands_make_it_again(
    document: Element, original: Path
) -> None:
    (levels,) = [
        found
        for found in document.find("section")
        if "title-levels" in found.attributes["aria-labelledby"]
    ]
    assert "small 1,500 12 " + "aa" * 32 in levels.text
    assert "full 27,000 12 " + "bb" * 32 in levels.text
    (again,) = [
        found
        for found in document.find("section")
        if "title-again" in found.attributes["aria-labelledby"]
    ]
    for artifact in find_artifacts(original):
        record = artifact.files[artifact.model]
        assert f"{artifact.cell}/{artifact.model} {record.size_bytes} {record.sha256}" in again.text
    assert re.search(r"nestedge 0\.1\.0 all", again.text)
    assert "tflite-writer 3.2 tflite-fp32" in again.text
