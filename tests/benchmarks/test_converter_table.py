from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.converters.cell import Cell
from benchmarks.converters.table import RESULTS, Key, page, read_records
from benchmarks.records import Record

CELL = Cell(
    "resnet18",
    "half",
    "onnx",
    "int8",
    error=0.0123,
    cosine=0.99987,
    stock_error=0.02,
    bytes=3_210_000,
    stock_bytes=3_300_000,
    ms=4.321,
    to_fp32=0.42,
    to_stock=0.98,
)


def _page(*cells: Cell) -> list[str]:
    records: dict[Key, Record] = {
        (cell.network, cell.level, cell.target, cell.precision): cell.to_json() for cell in cells
    }
    return list(page(records))


def test_a_cell_is_a_line_of_errors_sizes_and_ratios() -> None:
    expected = "| resnet18 | half | onnx-int8 | 1.2e-02 | 0.99987 | 2.0e-02 | 3.21 | 3.30 | 4.32 "
    assert _page(CELL)[-1] == f"{expected}| 0.42 | 0.98 |"


def test_slower_files_are_counted_and_failures_named() -> None:
    slow = replace(CELL, level="full", to_stock=1.06)
    failed = Cell("resnet18", "full", "tflite", "int8", failure="no words for it")
    text = "\n".join(_page(CELL, slow, failed))
    assert "3 cells: 2 files of nestedge's, 3 of the stock tools" in text
    assert "Of 2 with both, 1 take more than 1.05 times" in text
    assert "- resnet18 full/tflite-int8, nestedge: no words for it" in text
    assert "| resnet18 | full | tflite-int8 | - | - | - | - | - | - | - | - |" in text


def test_the_page_is_that_of_the_results() -> None:
    written = Path(__file__).parents[2] / "docs" / "converters.md"
    assert written.read_text().splitlines() == list(page(read_records(RESULTS)))
