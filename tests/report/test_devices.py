from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import read_artifact
from nestedge.matrix import read_matrix
from nestedge.selection import Budget
from nestedge.verify import (
    Closeness,
    DataCheck,
    Localisation,
    WorstOperator,
    save_verifications,
)
from tests.fakes import fake_artifact
from tests.report.builds import (
    CRASH,
    DEVICES,
    REMEDY,
    build_folder,
    page,
    row,
    section,
    verification,
)
from tests.report.markup import Element


@pytest.mark.parametrize("identity", [found.id for found in DEVICES])
def test_every_cell_of_a_device_stands_in_its_matrix_once(
    original: Path, document: Element, identity: str
) -> None:
    rows = section(document, identity).find("tr")
    names = [found.attributes["data-cell"] for found in rows if "data-cell" in found.attributes]
    assert names == [cell.name for cell in read_matrix(original).of_device(identity)]
    assert (
        len(set(names))
        == len(names)
        == 2
        * sum(
            len(target.precisions)
            for found in DEVICES
            if found.id == identity
            for target in found.targets
        )
    )


def test_this_machine_stands_first(document: Element) -> None:
    sections = [found.attributes.get("id", "") for found in document.find("section")]
    assert sections[:3] == ["device-local", "device-jetson-orin-nano-8gb", "device-pixel-8"]


def test_a_latency_carries_its_interval_its_p90_and_its_origin(document: Element) -> None:
    cells = [found.text for found in row(document, "local", "full/onnx-fp32").find("td")]
    assert cells[4] == "9.00 8.88 to 9.12 measured, 10 runs"
    assert cells[5] == "10.00"
    assert cells[6] == "270 269 to 271 measured, 10 runs"


def test_on_other_devices_no_latency_is_shown(document: Element) -> None:
    for identity in ("jetson-orin-nano-8gb", "pixel-8"):
        for found in section(document, identity).find("tr"):
            cells = [cell.text for cell in found.find("td")]
            if "data-cell" in found.attributes and len(cells) > 1:
                assert cells[4:] == ["unmeasured", "unmeasured"]
        assert "say nothing of" in section(document, identity).text
    assert "say nothing of" not in section(document, "local").text


def test_a_machine_that_a_profile_knows_has_the_latencies_of_both(dist: Path, root: Path) -> None:
    folder = root / "proc/device-tree"
    folder.mkdir(parents=True)
    (folder / "compatible").write_bytes(b"nvidia,p3767-0003\0nvidia,tegra234\0")
    document = page(dist, root)
    cells = [
        found.text for found in row(document, "jetson-orin-nano-8gb", "full/onnx-fp32").find("td")
    ]
    assert cells[4].startswith("9.00 ")


def test_an_accuracy_carries_its_interval_and_its_data(document: Element) -> None:
    for identity, cell in (("local", "full/onnx-fp32"), ("pixel-8", "full/tflite-fp32")):
        cells = [found.text for found in row(document, identity, cell).find("td")]
        assert cells[3] == "97.50 96.25 to 98.75 data e3b0c442"


def test_the_accuracy_of_an_engine_says_that_it_is_that_of_its_onnx(document: Element) -> None:
    cells = row(document, "jetson-orin-nano-8gb", "full/tensorrt-fp16").find("td")
    assert cells[3].text.endswith("of its ONNX")


@pytest.mark.parametrize(
    ("identity", "cell", "state"),
    [
        ("local", "small/onnx-fp32", "verified max error 2.0e-06 ≤ 1e-05 onnx 7.8, 3 cases"),
        (
            "jetson-orin-nano-8gb",
            "small/tensorrt-fp16",
            "engine unbuilt, unverified its ONNX: max error 2.0e-06 ≤ 1e-05 onnx 7.8, 3 cases",
        ),
        ("local", "small/onnx-int8", f"skipped {REMEDY}"),
        ("pixel-8", "full/onnx-int8", f"skipped {REMEDY}"),
        (
            "jetson-orin-nano-8gb",
            "small/tensorrt-int8",
            f"failed to build {CRASH} log: logs/small-tensorrt-int8.log",
        ),
    ],
)
def test_a_cell_says_its_state_and_why(
    document: Element, identity: str, cell: str, state: str
) -> None:
    assert row(document, identity, cell).find("td")[0].text == state


def test_what_an_engine_leaves_open_is_a_note(document: Element) -> None:
    text = section(document, "jetson-orin-nano-8gb").text
    assert "only its ONNX ran: small/tensorrt-fp16, full/tensorrt-fp16." in text
    assert "only its ONNX ran" not in section(document, "local").text


def test_size_and_memory_stand_beside_each_artifact(document: Element, original: Path) -> None:
    size_bytes = (original / "full/onnx-fp32/model.fake").stat().st_size
    cells = [found.text for found in row(document, "local", "full/onnx-fp32").find("td")]
    assert cells[1:3] == [f"{size_bytes} B", "92 B"]


def test_what_was_never_verified_or_measured_says_so(tmp_path: Path, root: Path) -> None:
    build_folder(tmp_path / "dist")
    document = page(tmp_path / "dist", root)
    cells = [found.text for found in row(document, "local", "small/onnx-fp32").find("td")]
    assert cells[0] == "unverified run 'nestedge verify'"
    assert cells[3:] == ["unmeasured"] * 3
    assert document.find("svg") == []
    assert "No chart: no accuracy was measured" in section(document, "local").text


def test_an_artifact_that_is_not_its_level_says_why(dist: Path, root: Path) -> None:
    artifact = read_artifact(dist / "small/onnx-fp32")
    save_verifications(dist, [verification(artifact, max_error=0.5)])
    state = row(page(dist, root), "local", artifact.cell).find("td")[0].text
    assert state == (
        "is not its level max error 5.0e-01 > 1e-05 onnx 7.8, 3 cases its outputs are others"
    )


def test_further_figures_of_a_verification_are_shown(dist: Path, root: Path) -> None:
    artifact = read_artifact(dist / "small/onnx-fp32")
    closeness = Closeness(
        max_absolute_error=0.5, cosine=0.9987654, psnr_db=31.25, top1_agreement=0.75
    )
    data = DataCheck(
        data_sha256="ab" * 32,
        samples=100,
        accuracy_percent=90.0,
        low=82.0,
        high=95.0,
        exact="small/onnx-fp32",
        exact_accuracy_percent=90.5,
        agreement_percent=98.0,
    )
    found = replace(verification(artifact), closeness=closeness, data=data)
    save_verifications(dist, [found])
    state = row(page(dist, root), "local", artifact.cell).find("td")[0].text
    # Beside itself a cell has nothing to lose.
    assert state == (
        "verified max error 2.0e-06 ≤ 1e-05 cosine 0.99877, 31.2 dB, top-1 75% onnx 7.8, 3 cases"
    )
    save_verifications(dist, [replace(found, data=replace(data, exact="small/onnx-fp64"))])
    state = row(page(dist, root), "local", artifact.cell).find("td")[0].text
    assert "accuracy -0.50 beside small/onnx-fp64, same answer for 98.00 %, data abab" in state


def test_the_worst_operator_of_a_failure_is_named(dist: Path, root: Path) -> None:
    artifact = read_artifact(dist / "small/onnx-fp32")
    operator = WorstOperator(
        kind="Conv",
        name="node_conv",
        module="layer1.0.conv1",
        value="a",
        input_error=1e-7,
        output_error=math.inf,
    )
    place = Localisation(reference="x", compared=1, values=1, operator=operator, note="")
    for max_error, is_told in ((0.5, True), (2e-6, False)):
        found = replace(verification(artifact, max_error=max_error), localisation=place)
        save_verifications(dist, [found])
        state = row(page(dist, root), "local", artifact.cell).find("td")[0].text
        line = (
            "worst operator: Conv node_conv, layer1.0.conv1: error 1.0e-07 before it, "
            "not a number behind it"
        )
        assert (line in state) is is_told


def test_what_is_known_of_older_files_is_not_shown(dist: Path, root: Path) -> None:
    fake_artifact(dist, replace(read_artifact(dist / "small/onnx-fp32"), key="1" * 64), seed=99)
    document = page(dist, root)
    cells = [found.text for found in row(document, "local", "small/onnx-fp32").find("td")]
    assert cells[0].startswith("unverified")
    assert cells[3:] == ["unmeasured"] * 4


def test_facts_about_a_device_have_their_sources_and_are_folded_away(document: Element) -> None:
    (details,) = section(document, "pixel-8").find("details")
    assert "open" not in details.attributes
    assert "memory.total_mb 8,192 high the maker's data sheet" in details.text
    assert section(document, "pixel-8").find("h2")[0].text == "Google Pixel 8"


def test_the_pick_and_every_reason_are_shown_for_a_budget(dist: Path, root: Path) -> None:
    document = page(dist, root, budget=Budget(latency_ms=5.0, min_accuracy=80.0))
    (pick,) = section(document, "local").find("div", class_="pick")
    assert pick.text.startswith("Pick: small/onnx-fp16 for latency 5 ms and accuracy 80 % chosen: ")
    assert row(document, "local", "small/onnx-fp16").attributes["class"] == "picked"
    assert "latency 9 ms is 80 % over" in row(document, "local", "full/onnx-fp32").text
    (elsewhere,) = section(document, "pixel-8").find("div", class_="pick")
    assert "Pick: full/tflite-fp32 " in elsewhere.text
    assert "latency limit of 5 ms not applied: unmeasured on pixel-8" in elsewhere.text
    rings = section(document, "pixel-8").find("circle", class_="ring", r="9")
    assert len(rings) == 1


def test_a_budget_that_nothing_fits_says_what_is_nearest(dist: Path, root: Path) -> None:
    document = page(dist, root, budget=Budget(latency_ms=0.5))
    (pick,) = section(document, "local").find("div", class_="pick none")
    assert "none of 4 fits latency 0.5 ms; the nearest is small/onnx-fp16" in pick.text


def test_without_a_budget_nothing_is_picked(document: Element) -> None:
    assert document.find("div", class_="pick") == []
    assert "picked" not in {found.attributes.get("class") for found in document.find("tr")}
