from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hostile.command import HEADER, table
from benchmarks.hostile.networks import NETWORKS, Hostile
from benchmarks.hostile.outcomes import Outcome, outcomes, wrong
from nestedge.reasons import REASONS

_BY_NAME = {hostile.name: hostile for hostile in NETWORKS}
_REFUSED = [hostile for hostile in NETWORKS if "nest" in hostile.expected]


def test_names_are_unique_and_only_known_codes_are_expected() -> None:
    assert len(_BY_NAME) == len(NETWORKS) >= 20
    for hostile in NETWORKS:
        assert set(hostile.expected.values()) <= {*REASONS, "verified", "not verified"}


@pytest.mark.parametrize("hostile", _REFUSED, ids=[hostile.name for hostile in _REFUSED])
def test_what_cannot_be_nested_is_told_with_its_line(hostile: Hostile, tmp_path: Path) -> None:
    (found,) = outcomes(hostile, tmp_path / "run")
    assert wrong(hostile, found) == ""
    assert "modules.py:" in found.source


def test_what_cannot_be_built_leaves_what_can(tmp_path: Path) -> None:
    hostile = _BY_NAME["weight beyond fp16"]
    found = list(outcomes(hostile, tmp_path / "run", runtimes=("onnx",)))
    assert [(row.cell, row.code or row.state) for row in found] == [
        ("onnx-fp32", "verified"),
        ("onnx-fp16", "out-of-range-for-fp16"),
        ("onnx-int8", "verified"),
    ]
    assert [wrong(hostile, row) for row in found] == ["", "", ""]


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome("x", "onnx-fp32", "verified"), "expected out-of-memory, found verified"),
        (Outcome("x", "onnx-fp32", "failed", "unknown"), "the code is unknown"),
        (Outcome("x", "onnx-fp32", "failed", "autocast"), "expected out-of-memory, found autocast"),
        (Outcome("x", "onnx-fp16", "not verified"), "expected verified, found not verified"),
    ],
    ids=["no code", "a silent code", "another code", "a wrong artifact"],
)
def test_an_outcome_that_is_not_the_expected_one_is_an_error(
    outcome: Outcome, message: str
) -> None:
    hostile = Hostile("x", lambda: None, expected={"onnx-fp32": "out-of-memory"})  # type: ignore[arg-type, return-value]
    assert wrong(hostile, outcome).startswith(message)


def test_cells_of_one_outcome_are_one_row() -> None:
    rows = [
        Outcome("x", "onnx-fp32", "verified"),
        Outcome("x", "onnx-fp16", "failed", "autocast", "aten.sin", "a (B), net.py:1"),
        Outcome("x", "tflite-fp32", "verified"),
    ]
    assert list(table(rows))[2:] == [
        "| x | onnx fp32, tflite fp32 | verified |  |  |  |",
        f"| x | onnx fp16 | autocast | aten.sin | a (B), net.py:1 | {REASONS['autocast'].remedy} |",
    ]


def test_the_page_has_every_network() -> None:
    page = Path(__file__).parents[2] / "docs" / "hostile.md"
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.read_text().splitlines()]
    names = [row for row in dict.fromkeys(rows) if row in _BY_NAME]
    assert page.read_text().startswith(HEADER)
    assert names == list(_BY_NAME)
